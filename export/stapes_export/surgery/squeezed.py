"""SEW and SEW-D: the encoder works on frames squeezed by a factor s, and spreads its output again.

A row of L frames has floor(L / s) squeezed ones. Its output covers s floor(L / s) frames; the rest up to L is zero and counts in the mean.
"""

from typing import Any

from torch import Tensor, nn

from stapes_export.surgery.channels_last import receptive_field
from stapes_export.surgery.masking import attention_bias, zeroed
from stapes_export.surgery.speech import SpeechClassifier, plain_attention, speech_classifier


class Squeezed(nn.Module):
    """What SEW and SEW-D share: (batch, frames, channels), real frames -> states and which of their frames are real."""

    def __init__(self, encoder: Any, config: Any) -> None:
        super().__init__()
        self.position, self.pool, self.upsample = encoder.pos_conv_embed, encoder.pool, encoder.upsample
        self.factor, self.summed = config.squeeze_factor, config.use_weighted_layer_sum

    def forward(self, hidden: Tensor, real: Tensor) -> tuple[list[Tensor], Tensor]:
        frames = hidden.shape[1]
        hidden = zeroed(hidden, real).transpose(1, 2)
        pooled = self.pool(hidden)
        hidden = (pooled + self.position(hidden)[..., : pooled.shape[2]]).transpose(1, 2)
        squeezed_real = real[:, self.factor - 1 :: self.factor]  # a squeezed frame is real when the last of its frames is
        states = self.run_layers(hidden, squeezed_real)
        if self.summed:
            return states, squeezed_real
        spread = self.upsample(zeroed(states[-1], squeezed_real))
        spread = zeroed(spread, squeezed_real.repeat_interleave(self.factor, 1))
        return [nn.functional.pad(spread, (0, 0, 0, frames - spread.shape[1]))], real

    def run_layers(self, hidden: Tensor, real: Tensor) -> list[Tensor]:
        """Every state of the layers on squeezed frames."""
        raise AssertionError("each encoder has its own layers")


class SqueezedTransformer(Squeezed):
    """SEW."""

    def __init__(self, encoder: Any, config: Any) -> None:
        super().__init__(encoder, config)
        self.norm, self.layers = encoder.layer_norm, plain_attention(encoder.layers)

    def run_layers(self, hidden: Tensor, real: Tensor) -> list[Tensor]:
        states, bias = [self.norm(hidden)], attention_bias(real, hidden.dtype)
        for layer in self.layers:
            states.append(layer(states[-1], attention_mask=bias))
        return states


class SqueezedDisentangled(Squeezed):
    """SEW-D: disentangled attention over content and relative positions, as in DeBERTa."""

    def __init__(self, encoder: Any, config: Any) -> None:
        super().__init__(encoder, config)
        self.encoder = encoder.encoder

    def run_layers(self, hidden: Tensor, real: Tensor) -> list[Tensor]:
        mask = real[:, None, None]
        positions, embeddings = self.encoder.get_rel_pos(hidden), self.encoder.get_rel_embedding()
        states = [hidden]
        for layer in self.encoder.layer:
            states.append(layer(states[-1], mask, relative_pos=positions, rel_embeddings=embeddings))
        return states


def squeezed_classifier(model: Any, encoder: Squeezed) -> SpeechClassifier:
    """The classifier; its projection is a norm and, where the widths differ, a linear layer."""
    base = model.base_model
    linear = [base.feature_projection] if base.project_features else []
    return speech_classifier(model, encoder, nn.Sequential(base.layer_norm, *linear))


def shortest_clip(config: Any) -> int:
    """Samples that give one squeezed frame."""
    kernels, strides = [*config.conv_kernel, config.squeeze_factor], [*config.conv_stride, config.squeeze_factor]
    return receptive_field(kernels, strides)
