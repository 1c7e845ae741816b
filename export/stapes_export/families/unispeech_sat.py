"""UniSpeechSatForSequenceClassification."""

from typing import Any

from torch import nn

from stapes_export.families.family import Family
from stapes_export.layer_sum import LayerSum
from stapes_export.surgery.speech import Transformer, sample_grid, shortest_clip, speech_classifier


def adapt(model: Any, layer_sum: LayerSum) -> nn.Module:
    return speech_classifier(model, Transformer(model.base_model.encoder, model.config, layer_sum))


UNISPEECH_SAT = Family("unispeech-sat", adapt, shortest_clip, sample_grid)
