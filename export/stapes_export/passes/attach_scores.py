"""Scores beside logits.   scores = activation(logits) over the labels"""

from typing import Any

import onnx_ir as ir

from stapes_export.artifact import HEAD, Artifact
from stapes_export.emitter import Emitter

OPERATORS: dict[str, tuple[str, dict[str, Any]]] = {
    "softmax": ("Softmax", {"axis": -1}),
    "sigmoid": ("Sigmoid", {}),
    "none": ("Identity", {}),
}


def attach_scores(artifact: Artifact) -> Artifact:
    graph = artifact.model.graph
    (logits,) = graph.outputs
    operator, attributes = OPERATORS[artifact.manifest.activation]
    emit = Emitter("scores", HEAD)
    scores = emit.op(operator, logits, **attributes)
    scores.name, scores.shape, scores.type = "scores", logits.shape, ir.TensorType(ir.DataType.FLOAT)
    graph.extend(emit.nodes)
    graph.outputs.append(scores)
    return artifact
