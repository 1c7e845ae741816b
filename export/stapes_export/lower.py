"""Step -> ONNX nodes: one function a step, each the step's NumPy meaning for a batch of rows of different lengths.

A function gets the value (batch, time, ...) and the lengths (batch,) before the step and gives the value behind it; what the
lengths become is the step's own law, so `lower` emits it once for all of them. Entries at or behind a row's length may hold
anything finite: whoever mixes along time masks first. Constants are the float64 arrays of the step, cast here and last.
"""

from collections.abc import Callable, Sequence

import onnx_ir as ir

from stapes.frontend.steps import (
    Frames,
    Log,
    Matrix,
    PadOrTrim,
    Power,
    RemoveMean,
    Standardize,
    Step,
    ZeroMeanUnitVariance,
)
from stapes_export.emitter import Emitter

SUM_BLOCK = 256
"""ONNX Runtime adds a long row nearly one by one in float32 (1e-3 off on ten seconds); sums of blocks are exact enough."""


def lower(steps: Sequence[Step], emit: Emitter, x: ir.Value, lengths: ir.Value) -> tuple[ir.Value, ir.Value]:
    """The steps in order: value and lengths behind the last."""
    for step in steps:
        function = LOWER.get(type(step)) or (_matrix if step.linear else None)
        if function is None:
            raise KeyError(f"step {type(step).__name__} has no function in lower.py")
        x, lengths = function(step, emit, x, lengths)
    return x, lengths


def _zero_mean_unit_variance(step: ZeroMeanUnitVariance, emit: Emitter, x: ir.Value, lengths: ir.Value) -> tuple[ir.Value, ir.Value]:
    real, zero = emit.real(x, lengths), emit.number(0)
    count = emit.op("Unsqueeze", emit.op("Cast", lengths, to=emit.dtype), emit.ints(1))
    mean = emit.op("Div", _row_sum(emit, emit.op("Where", real, x, zero)), count)
    centred = emit.op("Where", real, emit.op("Sub", x, mean), zero)
    variance = emit.op("Div", _row_sum(emit, emit.op("Mul", centred, centred)), count)
    deviation = emit.op("Sqrt", emit.op("Add", variance, emit.number(step.epsilon)))
    return emit.op("Div", centred, deviation), lengths


def _row_sum(emit: Emitter, x: ir.Value) -> ir.Value:
    """(batch, time) -> (batch, 1)."""
    size, block = emit.size(x, 1), emit.ints(SUM_BLOCK)
    gap = emit.op("Mod", emit.op("Neg", size), block)  # takes the divisor's sign: 0 to SUM_BLOCK - 1
    padded = emit.op("Pad", x, emit.op("Concat", emit.ints(0, 0, 0), gap, axis=0))
    blocks = emit.op("Reshape", padded, emit.ints(0, -1, SUM_BLOCK))
    partial = emit.op("ReduceSum", blocks, emit.ints(2), keepdims=0)
    return emit.op("ReduceSum", partial, emit.ints(1), keepdims=1)


def _frames(step: Frames, emit: Emitter, x: ir.Value, lengths: ir.Value) -> tuple[ir.Value, ir.Value]:
    # Blocks of `hop` samples side by side make a frame: a reshape and a concatenation, without a gather.
    blocks = -(-step.size // step.hop)

    def count(samples: ir.Value) -> ir.Value:
        # 1 + (n - size) // hop. ONNX divides towards zero, which is the same for n >= size - hop and at most 0 below.
        whole = emit.op("Div", emit.op("Add", samples, emit.ints(step.hop - step.size)), emit.ints(step.hop))
        return emit.op("Max", whole, emit.ints(0))

    frames = count(emit.size(x, 1))
    needed = emit.op("Add", frames, emit.ints(blocks - 1))
    padded = emit.op("Pad", x, emit.ints(0, 0, 0, blocks * step.hop - step.size))
    used = emit.slice(padded, emit.ints(0), emit.op("Mul", needed, emit.ints(step.hop)), 1)
    block = emit.op("Reshape", used, emit.op("Concat", emit.ints(0), needed, emit.ints(step.hop), axis=0), allowzero=0)
    parts = []
    for i in range(blocks):
        part = emit.slice(block, emit.ints(i), emit.op("Add", frames, emit.ints(i)), 1)
        width = min(step.hop, step.size - i * step.hop)
        parts.append(part if width == step.hop else emit.slice(part, emit.ints(0), emit.ints(width), 2))
    return emit.op("Concat", *parts, axis=2), count(lengths)


def _remove_mean(step: RemoveMean, emit: Emitter, x: ir.Value, lengths: ir.Value) -> tuple[ir.Value, ir.Value]:
    return emit.op("Sub", x, emit.op("ReduceMean", x, emit.ints(-1), keepdims=1)), lengths


def _matrix(step: Step, emit: Emitter, x: ir.Value, lengths: ir.Value) -> tuple[ir.Value, ir.Value]:
    if not isinstance(step, Matrix):
        raise KeyError(f"{type(step).__name__} is a matrix: fold the steps before lowering them")
    return emit.op("MatMul", x, emit.matrix(step.matrix)), lengths


def _power(step: Power, emit: Emitter, x: ir.Value, lengths: ir.Value) -> tuple[ir.Value, ir.Value]:
    real, imaginary = emit.halves(emit.op("Mul", x, x))
    return emit.op("Add", real, imaginary), lengths


def _log(step: Log, emit: Emitter, x: ir.Value, lengths: ir.Value) -> tuple[ir.Value, ir.Value]:
    return emit.op("Log", emit.op("Max", x, emit.number(step.floor))), lengths


def _pad_or_trim(step: PadOrTrim, emit: Emitter, x: ir.Value, lengths: ir.Value) -> tuple[ir.Value, ir.Value]:
    value, size = emit.number(step.value), emit.ints(step.size)
    real = emit.op("Unsqueeze", emit.real(x, lengths), emit.ints(2))
    masked = emit.slice(emit.op("Where", real, x, value), emit.ints(0), size, 1)
    gap = emit.op("Sub", size, emit.size(masked, 1))
    padded = emit.op("Pad", masked, emit.op("Concat", emit.ints(0, 0, 0, 0), gap, emit.ints(0), axis=0), value)
    return padded, emit.op("Expand", size, emit.op("Shape", lengths))


def _standardize(step: Standardize, emit: Emitter, x: ir.Value, lengths: ir.Value) -> tuple[ir.Value, ir.Value]:
    return emit.op("Div", emit.op("Sub", x, emit.number(step.mean)), emit.number(step.deviation)), lengths


LOWER: dict[type[Step], Callable[..., tuple[ir.Value, ir.Value]]] = {
    Frames: _frames,
    Log: _log,
    Matrix: _matrix,
    PadOrTrim: _pad_or_trim,
    Power: _power,
    RemoveMean: _remove_mean,
    Standardize: _standardize,
    ZeroMeanUnitVariance: _zero_mean_unit_variance,
}
"""Linear steps have no entry: they reach the graph folded into a Matrix."""
