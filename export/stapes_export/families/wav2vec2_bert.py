"""Wav2Vec2BertForSequenceClassification: a conformer over stacked mel frames."""

from typing import Any

import torch
from torch import Tensor, nn

from stapes_export.families.family import Family, example_features
from stapes_export.layer_sum import LayerSum
from stapes_export.surgery.channels_last import Grid
from stapes_export.surgery.conformer import Conformer
from stapes_export.surgery.speech import Head, SpeechClassifier


class Frames(nn.Module):
    """The features are frames already; those before the length are real."""

    def forward(self, features: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        return features, torch.arange(features.shape[1])[None] < lengths[:, None]


def adapt(model: Any, layer_sum: LayerSum) -> nn.Module:
    base = model.base_model
    encoder = Conformer(base.encoder, model.config, after=base.intermediate_ffn)
    return SpeechClassifier(Frames(), base.feature_projection, encoder, Head(model))


WAV2VEC2_BERT = Family(
    "wav2vec2-bert",
    adapt,
    min_samples=lambda config: 560,  # two mel frames make the first real step; with one the extractor's variance is not a number
    grid=lambda config: Grid(1, 0),
    example=lambda config: example_features(config, 60, config.feature_projection_input_dim),
)
