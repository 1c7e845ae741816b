"""Data2VecAudioForSequenceClassification."""

from typing import Any

from torch import nn

from stapes_export.families.family import Family
from stapes_export.layer_sum import LayerSum
from stapes_export.surgery.speech import StackedPositions, Transformer, sample_grid, shortest_clip, speech_classifier


def adapt(model: Any, layer_sum: LayerSum) -> nn.Module:
    encoder = model.base_model.encoder
    return speech_classifier(model, Transformer(encoder, model.config, layer_sum, StackedPositions(encoder.pos_conv_embed.layers)))


DATA2VEC_AUDIO = Family("data2vec-audio", adapt, shortest_clip, sample_grid)
