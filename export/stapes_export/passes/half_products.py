"""Products in float16, everything that sums or normalizes in float32.   x W  ~  float32(float16(x) float16(W))

MatMul, Gemm and Conv run in half precision; what only moves or bends their results (transpose, bias, GELU) stays in it; softmax, layer
norm, statistics, residuals, frontend, head and the graph's inputs and outputs are float32. For CUDA, whose tensor cores do the products.
"""

import numpy as np
import onnx_ir as ir

from stapes_export.artifact import Artifact, part
from stapes_export.emitter import Emitter

PRODUCTS = {"MatMul", "Gemm", "Conv"}

FOLLOWERS = {"Add", "Mul", "Gelu", "Transpose", "Reshape", "Unsqueeze", "Squeeze", "Slice", "Split", "Concat", "Expand"}
"""Stay in half precision where every float that goes in is."""

HALF, FLOAT = ir.DataType.FLOAT16, ir.DataType.FLOAT


def half_products(artifact: Artifact) -> Artifact:
    graph = artifact.model.graph
    half: set[ir.Value] = set()
    casts: dict[tuple[ir.Value, ir.DataType], ir.Value] = {}
    emit = Emitter("half")

    def as_type(value: ir.Value, dtype: ir.DataType, user: ir.Node) -> ir.Value:
        """The value in another float type; constants are converted here, once."""
        if (value, dtype) not in casts:
            if value.const_value is not None:
                limits = np.finfo(np.float16)
                array = value.const_value.numpy()
                finite = np.clip(array, limits.min, limits.max).astype(np.float16)  # the mask's lowest float32 would become -inf
                casts[value, dtype] = emit.constant(finite)
            else:
                done = len(emit.nodes)
                casts[value, dtype] = emit.op("Cast", value, to=dtype)
                graph.insert_before(user, emit.nodes[done:])
        return casts[value, dtype]

    for node in list(graph):
        floats = [(i, x) for i, x in enumerate(node.inputs) if x is not None and (x in half or x.dtype == FLOAT)]
        moving = [x for _, x in floats if x.const_value is None]
        # without a float32 among its inputs it computes in float64, for a reason
        halved = (
            bool(floats)
            and part(node) is None
            and (node.op_type in PRODUCTS or (node.op_type in FOLLOWERS and bool(moving) and all(x in half for x in moving)))
        )
        for i, x in floats:
            if halved and x not in half:
                node.replace_input_with(i, as_type(x, HALF, node))
            elif not halved and x in half:
                node.replace_input_with(i, as_type(x, FLOAT, node))
        if halved:
            half.update(node.outputs)
            for output in node.outputs:
                output.dtype = HALF
    if not half:
        raise ValueError("no MatMul, Gemm or Conv outside frontend and head: nothing to lower")
    emit.register(graph)
    return artifact
