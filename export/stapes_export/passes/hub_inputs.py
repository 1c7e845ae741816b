"""Lengths in becomes a mask in, or nothing.   logits(x, mask) = model(x, sum_t mask[:, t]),   logits(x) = model(x, T) with x (batch, T, …)

The features take the name that the checkpoint's extractor gives them. A mask is 1 on a row's real steps and 0 on the padding behind them;
without one every step counts. Nothing else changes: the frontend stays outside.
"""

import onnx_ir as ir

from stapes_export.artifact import Artifact
from stapes_export.emitter import Emitter
from stapes_export.passes import Pass

MASK = "attention_mask"


def hub_inputs(features_name: str, masked: bool) -> Pass:
    """The pass for an extractor that returns `features_name`, and a mask beside it where `masked`."""

    def rewrite(artifact: Artifact) -> Artifact:
        graph = artifact.model.graph
        features, lengths = graph.inputs
        emit = Emitter("hub")
        inputs = [features]
        if masked:
            if features.shape is None:
                raise ValueError("the features of a traced graph have a shape")
            mask = ir.Value(name=MASK, shape=ir.Shape(features.shape[:2]), type=ir.TensorType(ir.DataType.INT64))
            found = emit.op("ReduceSum", mask, emit.ints(1), keepdims=0)
            inputs.append(mask)
        else:
            found = emit.op("Expand", emit.size(features, 1), emit.size(features, 0))
        ir.convenience.replace_all_uses_with(lengths, found)
        graph.insert_before(graph[0], emit.nodes)
        emit.register(graph)
        features.name = features_name
        graph.inputs[:] = inputs
        return artifact

    rewrite.__name__ = hub_inputs.__name__
    return rewrite
