"""WhisperForAudioClassification: the encoder over thirty seconds of mel frames, silence included."""

from typing import Any

from torch import Tensor, nn

from stapes_export.families.family import Family, example_features
from stapes_export.layer_sum import LayerSum
from stapes_export.surgery.attention import SelfAttention
from stapes_export.surgery.channels_last import BlockConv
from stapes_export.surgery.speech import Head


class Encoder(nn.Module):
    """Features (batch, mels, 3000) -> the encoder's states, the last one normalised."""

    def __init__(self, encoder: Any) -> None:
        super().__init__()
        self.conv1, self.conv2 = BlockConv(encoder.conv1), BlockConv(encoder.conv2)
        self.layers, self.norm = encoder.layers, encoder.layer_norm
        self.positions = encoder.embed_positions.weight
        for layer in self.layers:
            layer.self_attn = SelfAttention(layer.self_attn)

    def forward(self, features: Tensor) -> list[Tensor]:
        # both read one frame before the first and one behind the last, as zeros
        hidden = nn.functional.gelu(self.conv1(nn.functional.pad(features.transpose(1, 2), (0, 0, 1, 1))))
        hidden = nn.functional.gelu(self.conv2(nn.functional.pad(hidden, (0, 0, 1, 1))))
        states = [hidden + self.positions]
        for layer in self.layers:
            states.append(layer(states[-1], None))
        states[-1] = self.norm(states[-1])
        return states


class WhisperClassifier(nn.Module):
    """Every frame counts, padding too: that is how the checkpoints were trained, so lengths are not needed."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.encoder, self.head = Encoder(model.encoder), Head(model)

    def forward(self, features: Tensor, lengths: Tensor) -> Tensor:
        logits: Tensor = self.head(self.encoder(features), None)
        return logits


def adapt(model: Any, layer_sum: LayerSum) -> nn.Module:
    return WhisperClassifier(model)


WHISPER = Family(
    "whisper",
    adapt,
    min_samples=lambda config: 1,
    example=lambda config: example_features(config, config.num_mel_bins, 2 * config.max_source_positions),
)
