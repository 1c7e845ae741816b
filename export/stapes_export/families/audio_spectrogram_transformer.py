"""ASTForAudioClassification."""

from typing import Any

from torch import Tensor, nn

from stapes_export.families.family import Family, example_features
from stapes_export.surgery.attention import SelfAttention

TOKENS = 2
"""The class token and the distillation token, in front of the patches."""


class Spectrogram(nn.Module):
    """Features of one size (batch, frames, mels) -> logits, by what the model's first two tokens find.

    The answer is read from those two alone, so the last layer asks for no other: a twelfth of the work, and no difference.
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        encoder = model.audio_spectrogram_transformer
        for layer in encoder.layers:
            layer.attention = SelfAttention(layer.attention)
        self.embeddings, self.layers, self.last = encoder.embeddings, encoder.layers[:-1], encoder.layers[-1]
        self.norm, self.head = encoder.layernorm, model.classifier

    def forward(self, features: Tensor, lengths: Tensor) -> Tensor:
        hidden = self.embeddings(features)
        for layer in self.layers:
            hidden = layer(hidden)
        read, last = hidden[:, :TOKENS], self.last
        normalized = last.layernorm_before(hidden)
        read = read + last.attention.attend(normalized[:, :TOKENS], normalized)
        read = read + last.mlp(last.layernorm_after(read))
        logits: Tensor = self.head(self.norm(read).mean(1))
        return logits


AUDIO_SPECTROGRAM_TRANSFORMER = Family(
    model_type="audio-spectrogram-transformer",
    adapt=lambda model, layer_sum: Spectrogram(model),
    min_samples=lambda config: 400,  # one frame; with fewer samples the extractor returns padding alone
    example=lambda config: example_features(config, config.max_length, config.num_mel_bins),
)
