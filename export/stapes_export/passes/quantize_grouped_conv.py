"""A long grouped convolution over time becomes integer products of windows.   y = x * W  ~  s_x s_W (q_x * q_W)

    s_x = max|x| / 127 over all frames of one clip and group,   q_x = round(x / s_x) + 128 in uint8
    s_W = max|W| / limit for each output channel,               q_W = round(W / s_W) in int8

This is the positional convolution of the speech models: 128 taps, 16 groups of 48 channels. ONNX Runtime's ConvInteger takes three times
as long as its float Conv; these products take a third. A convolution mixes frames, so one scale a frame would be wrong; one a clip is not,
and its zeros behind a row's end change no maximum, so rows stay apart.

Frames go in blocks of OUTPUTS outputs. A window is all the blocks that those outputs read, laid side by side in two steps, since a
hundred small copies cost more than two times ten. Sums of integers are exact, so nothing is lost over Conv in the same integers.
"""

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from stapes_export.artifact import Artifact, part
from stapes_export.emitter import Emitter
from stapes_export.passes.quantize_rows import FULL_RANGE, SEVEN_BITS, SMALLEST, TINY, ZERO, rounded

OUTPUTS = 2
"""Frames that come out of one window: more copy less, but each repeats the weights, and at one second that is what counts."""

LEAST_TAPS = 8
"""Shorter ones are left to Conv."""


def quantize_grouped_conv(artifact: Artifact) -> Artifact:
    return _quantize(artifact, FULL_RANGE)


def quantize_grouped_conv_portable(artifact: Artifact) -> Artifact:
    return _quantize(artifact, SEVEN_BITS)


@dataclass(frozen=True)
class _Conv:
    """A Conv node that can be quantized."""

    groups: int
    stride: int
    pads: tuple[int, int]
    weight: np.ndarray[tuple[int, int, int], np.dtype[np.float32]]
    """(channels out, channels in of one group, taps)."""

    @property
    def block(self) -> int:
        """Frames of a block: those between the first inputs of two windows."""
        return OUTPUTS * self.stride

    @property
    def blocks(self) -> int:
        """Blocks of a window."""
        return -(-(self.weight.shape[2] + self.stride * (OUTPUTS - 1)) // self.block)


def _quantize(artifact: Artifact, limit: int) -> Artifact:
    graph = artifact.model.graph
    emit = Emitter("grouped_conv")
    for node in list(graph):
        conv = _found(node)
        if conv is None or node.inputs[0] is None:
            continue
        done = len(emit.nodes)
        bias = node.inputs[2] if len(node.inputs) > 2 else None
        result = _convolve(emit, node.inputs[0], conv, bias, limit)
        graph.insert_before(node, emit.nodes[done:])
        ir.convenience.replace_all_uses_with(node.outputs[0], result)
        graph.remove(node, safe=True)
    emit.register(graph)
    return artifact


def _found(node: ir.Node) -> _Conv | None:
    if node.op_type != "Conv" or part(node) is not None or node.inputs[1] is None or node.inputs[1].const_value is None:
        return None
    weight = node.inputs[1].const_value.numpy()
    attributes = {name: attribute.value for name, attribute in node.attributes.items()}
    groups, stride = int(attributes.get("group", 1)), int(attributes.get("strides", [1])[0])
    plain = weight.ndim == 3 and attributes.get("auto_pad", "NOTSET") == "NOTSET" and set(attributes.get("dilations", [1])) == {1}
    if not plain or groups == 1 or weight.shape[2] < LEAST_TAPS or min(weight.shape[1], weight.shape[0] // groups) < SMALLEST:
        return None
    first, last = attributes.get("pads", [0, 0])
    return _Conv(groups, stride, (int(first), int(last)), weight)


def _convolve(emit: Emitter, x: ir.Value, conv: _Conv, bias: ir.Value | None, limit: int) -> ir.Value:
    """(batch, channels, frames) -> (batch, channels out, frames out)."""
    out, width, taps = conv.weight.shape
    size, stride = conv.block, conv.stride
    grouped = emit.op("Transpose", emit.op("Reshape", x, emit.ints(0, conv.groups, width, -1)), perm=[0, 1, 3, 2])
    integers, scale = rounded(emit, grouped, 2, 3)

    # zeros in front as the convolution has them, and behind up to whole blocks
    frames = emit.size(x, 2)
    ends = emit.op("Add", frames, emit.ints(sum(conv.pads) - taps))
    results = emit.op("Add", emit.op("Div", ends, emit.ints(stride)), emit.ints(1))
    windows = emit.op("Div", emit.op("Add", results, emit.ints(OUTPUTS - 1)), emit.ints(OUTPUTS))
    needed = emit.op("Mul", emit.op("Add", windows, emit.ints(conv.blocks - 1)), emit.ints(size))
    behind = emit.op("Sub", emit.op("Sub", needed, frames), emit.ints(conv.pads[0]))
    pads = emit.op("Concat", emit.ints(0, 0, conv.pads[0], 0, 0, 0), behind, emit.ints(0), axis=0)
    padded = emit.op("Pad", integers, pads, emit.constant(np.uint8(ZERO)))
    blocks = emit.op("Reshape", padded, emit.ints(0, conv.groups, -1, size * width))

    rows = _windows(emit, blocks, conv.blocks, windows)
    weights, weight_scale = _weights(conv, limit)
    cut = emit.split(rows, conv.groups, axis=1)
    zero = emit.constant(np.uint8(ZERO))
    sums = [emit.op("MatMulInteger", each, emit.constant(weight), zero) for each, weight in zip(cut, weights, strict=True)]
    total = emit.op("Mul", emit.op("Cast", emit.op("Concat", *sums, axis=1), to=emit.dtype), scale)
    frame_major = emit.op("Reshape", total, emit.ints(0, conv.groups, -1, out // conv.groups))
    channels = emit.op("Reshape", emit.op("Transpose", frame_major, perm=[0, 1, 3, 2]), emit.ints(0, out, -1))
    whole = emit.slice(channels, emit.ints(0), results, axis=2)
    scaled = emit.op("Mul", whole, emit.matrix(weight_scale[:, None]))
    return scaled if bias is None else emit.op("Add", scaled, emit.op("Unsqueeze", bias, emit.ints(1)))


def _windows(emit: Emitter, blocks: ir.Value, count: int, windows: ir.Value) -> ir.Value:
    """Each `count` neighbours of (batch, groups, blocks, width) side by side: (batch, groups, windows, count * width)."""
    few = round(count**0.5)
    length = emit.size(blocks, 2)
    partial_end = emit.op("Sub", length, emit.ints(few - 1))

    def shifted(x: ir.Value, start: int, end: ir.Value) -> ir.Value:
        return emit.slice(x, emit.ints(start), emit.op("Add", end, emit.ints(start)), axis=2)

    partial = emit.op("Concat", *(shifted(blocks, start, partial_end) for start in range(few)), axis=3)
    whole = [shifted(partial, start, windows) for start in range(0, count - few + 1, few)]
    rest = [shifted(blocks, start, windows) for start in range(len(whole) * few, count)]
    return emit.op("Concat", *whole, *rest, axis=3)


def _weights(
    conv: _Conv, limit: int
) -> tuple[list[np.ndarray[tuple[int, int], np.dtype[np.int8]]], np.ndarray[tuple[int], np.dtype[np.float32]]]:
    """For each group the (window, OUTPUTS * channels out) matrix, and the scale of every channel out.

    The taps stand once for each output of a window, a stride further down for each.
    """
    out, width, taps = conv.weight.shape
    scale = np.maximum(np.abs(conv.weight).max(axis=(1, 2)), TINY) / limit
    integers = np.round(conv.weight / scale[:, None, None]).astype(np.int8)
    by_group = integers.reshape(conv.groups, out // conv.groups, width, taps).transpose(0, 3, 2, 1)  # (groups, taps, in, out)
    matrix = np.zeros((conv.groups, conv.blocks * conv.block, width, OUTPUTS, out // conv.groups), np.int8)
    for output in range(OUTPUTS):
        start = output * conv.stride
        matrix[:, start : start + taps, :, output] = by_group
    return list(matrix.reshape(conv.groups, -1, OUTPUTS * (out // conv.groups))), scale
