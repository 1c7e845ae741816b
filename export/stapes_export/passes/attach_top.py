"""The best labels beside the scores.   top_indices = the K indices of the largest scores,   top_labels = labels[top_indices]

For hosts that see no metadata, as JavaScript's do: the labels are a constant of strings inside the graph. Equal scores keep the model's
order (ONNX TopK takes the lower index first). A row without an answer, all NaN, gives NaN and the first K labels: NaN is ranked as the
lowest score, since comparing with it would leave the order to chance.
"""

import math

import onnx_ir as ir

from stapes_export.artifact import HEAD, Artifact
from stapes_export.emitter import Emitter
from stapes_export.passes import Pass

TOP_SCORES, TOP_INDICES, TOP_LABELS = "top_scores", "top_indices", "top_labels"


def attach_top(k: int) -> Pass:
    """The pass that adds the `k` best of each row, (batch, k)."""

    def rewrite(artifact: Artifact) -> Artifact:
        graph = artifact.model.graph
        scores = next(output for output in graph.outputs if output.name == "scores")
        emit = Emitter("top", HEAD)
        ranked = emit.op("Where", emit.op("IsNaN", scores), emit.number(-math.inf), scores)
        _, indices = emit.op_with(2, "TopK", ranked, emit.ints(k), axis=-1)
        found = emit.op("GatherElements", scores, indices, axis=1)
        labels = emit.op("Gather", emit.texts(artifact.manifest.labels), indices, axis=0)
        shape = ir.Shape([ir.SymbolicDim("batch"), k])
        for output, name, dtype in (
            (found, TOP_SCORES, ir.DataType.FLOAT),
            (indices, TOP_INDICES, ir.DataType.INT64),
            (labels, TOP_LABELS, ir.DataType.STRING),
        ):
            output.name, output.shape, output.type = name, shape, ir.TensorType(dtype)
            graph.outputs.append(output)
        graph.extend(emit.nodes)
        emit.register(graph)
        return artifact

    rewrite.__name__ = attach_top.__name__
    return rewrite
