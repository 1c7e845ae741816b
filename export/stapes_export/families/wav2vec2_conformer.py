"""Wav2Vec2ConformerForSequenceClassification, with relative, rotary or no positions."""

from typing import Any

from torch import nn

from stapes_export.families.family import Family
from stapes_export.layer_sum import LayerSum
from stapes_export.surgery.conformer import Conformer
from stapes_export.surgery.speech import sample_grid, shortest_clip, speech_classifier


def adapt(model: Any, layer_sum: LayerSum) -> nn.Module:
    return speech_classifier(model, Conformer(model.base_model.encoder, model.config))


WAV2VEC2_CONFORMER = Family("wav2vec2-conformer", adapt, shortest_clip, sample_grid)
