"""SEWForSequenceClassification."""

from typing import Any

from torch import nn

from stapes_export.families.family import Family
from stapes_export.layer_sum import LayerSum
from stapes_export.surgery.speech import sample_grid
from stapes_export.surgery.squeezed import SqueezedTransformer, shortest_clip, squeezed_classifier


def adapt(model: Any, layer_sum: LayerSum) -> nn.Module:
    return squeezed_classifier(model, SqueezedTransformer(model.base_model.encoder, model.config))


SEW = Family("sew", adapt, shortest_clip, sample_grid)
