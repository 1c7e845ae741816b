"""MatMul with a constant weight becomes an integer product.   x W  ~  s_x ((q_x - z) (q_W s_W))

    s_x = max|x| / 127 over each row's last axis,   z = 128,   q_x = round(x / s_x) + z in uint8
    s_W = max|W| / limit for each output channel,   q_W = round(W / s_W) in int8

One scale a row keeps a clip's answer apart from its neighbours and needs no calibration. uint8 x int8 is the one kernel that is fast;
on an x86 CPU without VNNI it adds pairs in 16 bits, which saturates unless the weights stay within 7 bits.

The form is QuantizeLinear, and MatMul between DequantizeLinear: standard operators of which ONNX Runtime makes one, bit for bit. The scale
of a row cannot go into DequantizeLinear, or that fusion is lost; it is multiplied on behind the product.
What slices (the blocks of channels_last.BlockConv) is quantized once and cut afterwards, at a quarter of the bytes.
The frontend and the head keep their floats: rounding there costs accuracy and saves nothing. So do products too small to gain.
"""

from dataclasses import replace
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from stapes_export.artifact import Artifact, part
from stapes_export.emitter import Emitter

Array = NDArray[Any]

FULL_RANGE, SEVEN_BITS = 127, 63
"""Largest quantized weight. 255 * 63 * 2 fits 16 bits; 255 * 127 * 2 does not."""

TINY = 1e-30
"""A row or a channel of zeros must not divide by zero."""

ZERO = 128
"""The zero point of every row."""

SMALLEST = 16
"""Rows and columns that a weight must have: below, quantizing costs more than the product."""

NEEDS = ("vnni", "amx", "dotprod")
"""CPU abilities of which full-range weights need one."""


def quantize_rows(artifact: Artifact) -> Artifact:
    return _quantize(artifact, FULL_RANGE, NEEDS)


def quantize_rows_portable(artifact: Artifact) -> Artifact:
    return _quantize(artifact, SEVEN_BITS, ())


def _quantize(artifact: Artifact, limit: int, needs: tuple[str, ...]) -> Artifact:
    graph = artifact.model.graph
    rows = _Rows(Emitter("quantized"))
    emit = rows.emit
    found = False
    for node in list(graph):
        product = _product(node)
        if product is None:
            continue
        found = True
        x, weight, bias = product
        done = len(emit.nodes)
        quantized, scale = rows.of(x)
        weight_scale = np.maximum(np.abs(weight).max(axis=0), TINY) / limit
        integers = emit.constant(np.round(weight / weight_scale).astype(np.int8))
        left = emit.op("DequantizeLinear", quantized, emit.number(1), emit.constant(np.uint8(ZERO)))
        right = emit.op("DequantizeLinear", integers, emit.matrix(weight_scale), axis=1)
        result = emit.op("Mul", emit.op("MatMul", left, right), scale)
        if bias is not None:
            result = emit.op("Add", result, bias)
        graph.insert_before(node, emit.nodes[done:])
        ir.convenience.replace_all_uses_with(node.outputs[0], result)
        graph.remove(node, safe=True)
    if not found:
        raise ValueError("no MatMul or Gemm with a constant weight outside frontend and head: nothing to quantize")
    emit.register(graph)
    return replace(artifact, manifest=replace(artifact.manifest, needs=needs))


class _Rows:
    """Values quantized by row, each once: q, k and v share one, and so do the two products of a convolution."""

    def __init__(self, emit: Emitter) -> None:
        self.emit = emit
        self._whole: dict[ir.Value, tuple[ir.Value, ir.Value]] = {}

    def of(self, x: ir.Value) -> tuple[ir.Value, ir.Value]:
        """x in uint8, and the scale of each row (its last axis 1)."""
        cut = x.producer()
        if cut is not None and cut.op_type == "Slice" and (axis := _sliced_axis(cut)) is not None:
            source, *where = cut.inputs
            assert source is not None
            quantized, scale = self.of(source)
            sliced = self.emit.op("Slice", quantized, *where)
            return sliced, scale if axis == -1 else self.emit.op("Slice", scale, *where)
        if x not in self._whole:
            self._whole[x] = rounded(self.emit, x, -1)
        return self._whole[x]


def rounded(emit: Emitter, x: ir.Value, *axes: int) -> tuple[ir.Value, ir.Value]:
    """x in uint8 around ZERO, and its scale, one for all that lies along `axes`, which are the last ones."""
    peak = emit.op("ReduceMax", emit.op("Abs", x), emit.ints(*axes), keepdims=1)
    scale = emit.op("Mul", emit.op("Max", peak, emit.number(TINY)), emit.number(1 / 127))
    flat = emit.op("Reshape", scale, emit.ints(-1))
    zeros = emit.op("Expand", emit.constant(np.uint8(ZERO)), emit.op("Shape", flat))
    quantized = emit.op("QuantizeLinear", emit.op("Flatten", x, axis=axes[0]), flat, zeros, axis=0)
    return emit.op("Reshape", quantized, emit.op("Shape", x)), scale


def _sliced_axis(node: ir.Node) -> int | None:
    """-1 where a Slice cuts within the rows of a (batch, frames, channels) value, 1 where it cuts the frames, else None."""
    axes = node.inputs[3] if len(node.inputs) > 3 else None
    if axes is None or axes.const_value is None or (node.inputs[0] and node.inputs[0].shape is None):
        return None
    (axis,) = axes.const_value.numpy().reshape(-1)[:1]
    rank = len(node.inputs[0].shape)  # type: ignore[union-attr, arg-type]
    return {rank - 1: -1, -1: -1}.get(int(axis), 1 if int(axis) == 1 and rank == 3 else None)


def _product(node: ir.Node) -> tuple[ir.Value, Array, ir.Value | None] | None:
    """What goes in, the (k, n) weight and the bias, where the node is a product that can be quantized."""
    if part(node) is not None or node.op_type not in ("MatMul", "Gemm"):
        return None
    x, weight = node.inputs[:2]
    if x is None or weight is None or weight.const_value is None or len(weight.const_value.shape) != 2:
        return None
    array = weight.const_value.numpy()
    bias = None
    if node.op_type == "Gemm":
        attributes = {name: attribute.value for name, attribute in node.attributes.items()}
        if attributes.get("alpha", 1.0) != 1.0 or attributes.get("beta", 1.0) != 1.0 or attributes.get("transA", 0):
            return None
        bias = node.inputs[2] if len(node.inputs) > 2 else None
        array = array.T if attributes.get("transB", 0) else array
    return (x, array, bias) if min(array.shape) >= SMALLEST else None
