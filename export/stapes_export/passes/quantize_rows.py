"""MatMul with a constant weight becomes an integer product.   x W  ~  s_x (q_x q_W) s_W

    s_x = max|x| / 127 over each row's last axis,   q_x = round(x / s_x) + 128 in uint8
    s_W = max|W| / limit for each output channel,   q_W = round(W / s_W) in int8

One scale a row keeps a clip's answer apart from its neighbours and needs no calibration. uint8 x int8 is the one kernel that is fast;
on an x86 CPU without VNNI it adds pairs in 16 bits, which saturates unless the weights stay within 7 bits.
The frontend and the head keep their floats: rounding there costs accuracy and saves nothing.
"""

from dataclasses import replace
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from stapes_export.artifact import FRONTEND, HEAD, KEPT, Artifact, part
from stapes_export.emitter import Emitter

Array = NDArray[Any]

FULL_RANGE, SEVEN_BITS = 127, 63
"""Largest quantized weight. 255 * 63 * 2 fits 16 bits; 255 * 127 * 2 does not."""

TINY = 1e-30
"""A row or a channel of zeros must not divide by zero."""

NEEDS = ("vnni", "amx", "dotprod")
"""CPU abilities of which full-range weights need one."""


def quantize_rows(artifact: Artifact) -> Artifact:
    return _quantize(artifact, FULL_RANGE, NEEDS)


def quantize_rows_portable(artifact: Artifact) -> Artifact:
    return _quantize(artifact, SEVEN_BITS, ())


def _quantize(artifact: Artifact, limit: int, needs: tuple[str, ...]) -> Artifact:
    graph = artifact.model.graph
    emit = Emitter("quantized")
    zero_point = emit.constant(np.uint8(128))
    rows: dict[ir.Value, tuple[ir.Value, ir.Value]] = {}
    for node in list(graph):
        found = _product(node)
        if found is None:
            continue
        x, weight, bias = found
        done = len(emit.nodes)
        if x not in rows:  # q, k and v share one
            rows[x] = _quantize_rows(emit, x, zero_point)
        q, scale = rows[x]
        weight_scale = np.maximum(np.abs(weight).max(axis=0), TINY) / limit
        product = emit.op("MatMulInteger", q, emit.constant(np.round(weight / weight_scale).astype(np.int8)), zero_point)
        result = emit.op("Mul", emit.op("Mul", emit.op("Cast", product, to=emit.dtype), emit.matrix(weight_scale)), scale)
        if bias is not None:
            result = emit.op("Add", result, bias)
        graph.insert_before(node, emit.nodes[done:])
        ir.convenience.replace_all_uses_with(node.outputs[0], result)
        graph.remove(node, safe=True)
    if not rows:
        raise ValueError("no MatMul or Gemm with a constant weight outside frontend and head: nothing to quantize")
    emit.register(graph)
    return replace(artifact, manifest=replace(artifact.manifest, needs=needs))


def _quantize_rows(emit: Emitter, x: ir.Value, zero_point: ir.Value) -> tuple[ir.Value, ir.Value]:
    peak = emit.op("ReduceMax", emit.op("Abs", x), emit.ints(-1), keepdims=1)
    scale = emit.op("Div", emit.op("Max", peak, emit.number(TINY)), emit.number(127))
    return emit.op("QuantizeLinear", emit.op("Div", x, scale), emit.number(1), zero_point), scale


def _product(node: ir.Node) -> tuple[ir.Value, Array, ir.Value | None] | None:
    """What goes in, the (k, n) weight and the bias, where the node is a product that can be quantized."""
    if part(node) in (FRONTEND, HEAD, KEPT) or node.op_type not in ("MatMul", "Gemm"):
        return None
    x, weight = node.inputs[:2]
    if x is None or weight is None or weight.const_value is None or len(weight.const_value.shape) != 2:
        return None
    array = weight.const_value.numpy()
    if node.op_type == "MatMul":
        return x, array, None
    attributes = {name: attribute.value for name, attribute in node.attributes.items()}
    if attributes.get("alpha", 1.0) != 1.0 or attributes.get("beta", 1.0) != 1.0 or attributes.get("transA", 0):
        return None
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    return x, array.T if attributes.get("transB", 0) else array, bias
