"""ASTForAudioClassification."""

from typing import Any

from torch import Tensor, nn

from stapes_export.families.family import Family, example_features


class Spectrogram(nn.Module):
    """The model as it is: its input has one size, so no row can be longer than another."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.encoder, self.head = model.audio_spectrogram_transformer, model.classifier

    def forward(self, features: Tensor, lengths: Tensor) -> Tensor:
        logits: Tensor = self.head(self.encoder(features).pooler_output)
        return logits


AUDIO_SPECTROGRAM_TRANSFORMER = Family(
    model_type="audio-spectrogram-transformer",
    adapt=lambda model, layer_sum: Spectrogram(model),
    min_samples=lambda config: 400,  # one frame; with fewer samples the extractor returns padding alone
    dynamic_time=False,
    example=lambda config: example_features(config, config.max_length, config.num_mel_bins),
)
