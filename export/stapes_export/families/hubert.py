"""HubertForSequenceClassification."""

from typing import Any

from torch import nn

from stapes_export.families.family import Family
from stapes_export.layer_sum import LayerSum
from stapes_export.surgery.speech import NormalizedPositions, Transformer, sample_grid, shortest_clip, speech_classifier


def adapt(model: Any, layer_sum: LayerSum) -> nn.Module:
    encoder = model.base_model.encoder
    embedding = encoder.pos_conv_embed
    position = NormalizedPositions(embedding) if embedding.batch_norm is not None else None
    return speech_classifier(model, Transformer(encoder, model.config, layer_sum, position))


HUBERT = Family("hubert", adapt, shortest_clip, sample_grid)
