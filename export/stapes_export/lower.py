"""Step -> ONNX nodes: one function a step, each the step's NumPy meaning for a batch of rows of different lengths.

A function gets the batch before the step and gives the one behind it. Entries at or behind a row's length may hold anything finite:
whoever mixes along time masks first. Constants are the float64 arrays of the step, cast here and last.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir

from stapes.frontend.steps import (
    Frames,
    Log,
    Matrix,
    NormalizeBins,
    PadOrTrim,
    Power,
    RangeBelowMax,
    ReflectPad,
    RemoveMean,
    Resample,
    Scale,
    Stack,
    Standardize,
    Step,
    Transpose,
    ZeroMeanUnitVariance,
)
from stapes_export.emitter import Emitter


@dataclass(frozen=True)
class Rows:
    """A batch between two steps."""

    values: ir.Value
    """(batch, time) or (batch, time, bins)."""
    lengths: ir.Value
    """(batch,) int64: the real entries of each row."""
    rank: int = 2


def lower(steps: Sequence[Step], emit: Emitter, rows: Rows) -> Rows:
    """The steps in order: the batch behind the last."""
    for step in steps:
        function = LOWER.get(type(step))
        if function is None:
            why = "is a matrix: fold the steps before lowering them" if step.linear else "has no function in lower.py"
            raise KeyError(f"step {type(step).__name__} {why}")
        rows = function(step, emit, rows)
    return rows


def _frames(step: Frames, emit: Emitter, rows: Rows) -> Rows:
    blocks = -(-step.size // step.hop)

    def count(samples: ir.Value) -> ir.Value:
        # 1 + (n - size) // hop. ONNX divides towards zero, which is the same for n >= size - hop and at most 0 below.
        whole = emit.op("Div", emit.op("Add", samples, emit.ints(step.hop - step.size)), emit.ints(step.hop))
        return emit.op("Max", whole, emit.ints(0))

    frames = count(emit.size(rows.values, 1))
    padded = _pad_end(emit, rows.values, emit.ints(blocks * step.hop - step.size), rows.rank)
    return Rows(_windows(emit, padded, frames, step.size, step.hop), count(rows.lengths), rank=3)


def _windows(emit: Emitter, x: ir.Value, count: ir.Value, size: int, hop: int) -> ir.Value:
    """The first `count` windows of `size` every `hop` entries, (batch, count, size), of x (batch, time).

    Blocks of `hop` entries side by side make a window: a reshape and a concatenation, without a gather. x has to hold every block.
    """
    blocks = -(-size // hop)
    needed = emit.op("Add", count, emit.ints(blocks - 1))
    used = emit.slice(x, emit.ints(0), emit.op("Mul", needed, emit.ints(hop)), 1)
    block = emit.op("Reshape", used, emit.op("Concat", emit.ints(0), needed, emit.ints(hop), axis=0))
    parts = []
    for i in range(blocks):
        part = emit.slice(block, emit.ints(i), emit.op("Add", count, emit.ints(i)), 1)
        width = min(hop, size - i * hop)
        parts.append(part if width == hop else emit.slice(part, emit.ints(0), emit.ints(width), 2))
    return emit.op("Concat", *parts, axis=2)


def _log(step: Log, emit: Emitter, rows: Rows) -> Rows:
    natural = emit.op("Log", emit.op("Max", rows.values, emit.number(step.floor)))
    return replace(rows, values=natural if step.base == "e" else emit.op("Mul", natural, emit.number(1 / math.log(10))))


def _matrix(step: Matrix, emit: Emitter, rows: Rows) -> Rows:
    return replace(rows, values=emit.op("MatMul", rows.values, emit.matrix(step.matrix)))


def _normalize_bins(step: NormalizeBins, emit: Emitter, rows: Rows) -> Rows:
    return _normalized(emit, rows, step.epsilon, ddof=1)


def _pad_or_trim(step: PadOrTrim, emit: Emitter, rows: Rows) -> Rows:
    value, size = emit.number(step.value), emit.ints(step.size)
    trimmed = emit.slice(_masked(emit, rows, value), emit.ints(0), size, 1)
    padded = _pad_end(emit, trimmed, emit.op("Sub", size, emit.size(trimmed, 1)), rows.rank, value)
    return replace(rows, values=padded, lengths=emit.op("Expand", size, emit.op("Shape", rows.lengths)))


def _power(step: Power, emit: Emitter, rows: Rows) -> Rows:
    return replace(rows, values=emit.op("Add", *emit.split(emit.op("Mul", rows.values, rows.values), 2, axis=-1)))


def _range_below_max(step: RangeBelowMax, emit: Emitter, rows: Rows) -> Rows:
    largest = emit.op("ReduceMax", _masked(emit, rows, emit.number(-math.inf)), emit.ints(1, 2), keepdims=1)
    return replace(rows, values=emit.op("Max", rows.values, emit.op("Sub", largest, emit.number(step.range))))


def _reflect_pad(step: ReflectPad, emit: Emitter, rows: Rows) -> Rows:
    # mirrors at the end of the array: a PadOrTrim before it gives all rows one length
    padded = emit.op("Pad", rows.values, emit.ints(0, step.size, 0, step.size), mode="reflect")
    return replace(rows, values=padded, lengths=emit.op("Add", rows.lengths, emit.ints(2 * step.size)))


def _remove_mean(step: RemoveMean, emit: Emitter, rows: Rows) -> Rows:
    return replace(rows, values=emit.op("Sub", rows.values, emit.op("ReduceMean", rows.values, emit.ints(-1), keepdims=1)))


def _resample(step: Resample, emit: Emitter, rows: Rows) -> Rows:
    def count(samples: ir.Value) -> ir.Value:
        # (2 n new + old) // (2 old), of numbers that are not negative
        twice = emit.op("Add", emit.op("Mul", samples, emit.ints(2 * step.new)), emit.ints(step.old))
        return emit.op("Div", twice, emit.ints(2 * step.old))

    size = len(step.kernel)
    samples = emit.size(rows.values, 1)
    outputs = count(samples)
    windows = emit.op("Div", emit.op("Add", outputs, emit.ints(step.block - 1)), emit.ints(step.block))
    windows = emit.op("Max", windows, emit.ints(1))
    # silence in front, and behind up to whole blocks of the last window
    whole = emit.op("Mul", emit.op("Add", windows, emit.ints(-(-size // step.stride) - 1)), emit.ints(step.stride))
    behind = emit.op("Sub", whole, emit.op("Add", samples, emit.ints(step.width)))
    silent = _masked(emit, rows, emit.number(0))  # what stands behind a row's end would be heard in its last outputs
    padded = emit.op("Pad", silent, emit.op("Concat", emit.ints(0, step.width, 0), behind, axis=0))
    blocks = emit.op("MatMul", _windows(emit, padded, windows, size, step.stride), emit.matrix(step.kernel))
    flat = emit.op("Concat", emit.ints(0), emit.op("Mul", windows, emit.ints(step.block)), axis=0)
    return Rows(emit.slice(emit.op("Reshape", blocks, flat), emit.ints(0), outputs, 1), count(rows.lengths))


def _scale(step: Scale, emit: Emitter, rows: Rows) -> Rows:
    return replace(rows, values=emit.op("Mul", rows.values, emit.number(step.factor)))


def _stack(step: Stack, emit: Emitter, rows: Rows) -> Rows:
    value, count = emit.number(step.value), emit.ints(step.count)
    gap = emit.op("Mod", emit.op("Neg", emit.size(rows.values, 1)), count)
    padded = _pad_end(emit, _masked(emit, rows, value), gap, rows.rank, value)
    width = emit.op("Mul", emit.size(rows.values, 2), count)
    stacked = emit.op("Reshape", padded, emit.op("Concat", emit.ints(0, -1), width, axis=0))
    return replace(rows, values=stacked, lengths=emit.op("Div", rows.lengths, count))


def _standardize(step: Standardize, emit: Emitter, rows: Rows) -> Rows:
    difference = emit.op("Sub", rows.values, emit.number(step.mean))
    return replace(rows, values=emit.op("Div", difference, emit.number(step.deviation)))


def _transpose(step: Transpose, emit: Emitter, rows: Rows) -> Rows:
    return replace(rows, values=emit.op("Transpose", rows.values, perm=[0, 2, 1]))


def _zero_mean_unit_variance(step: ZeroMeanUnitVariance, emit: Emitter, rows: Rows) -> Rows:
    return _normalized(emit, rows, step.epsilon, ddof=0)


def _normalized(emit: Emitter, rows: Rows, epsilon: float, ddof: int) -> Rows:
    """(x - mean) / sqrt(variance + epsilon) over the real entries of each row; zero behind them.

    In float64 whatever the graph's type: ONNX Runtime adds a long row nearly one by one, and in another order for another batch. In
    float32 that costs 1e-3 on ten seconds of samples and makes a row depend on its neighbours by 2e-5.
    """
    exact = ir.DataType.DOUBLE

    def constant(value: float) -> ir.Value:
        return emit.constant(np.float64(value))

    def time_sum(x: ir.Value) -> ir.Value:
        return emit.op("ReduceSum", x, emit.ints(1), keepdims=1)

    count = emit.op("Unsqueeze", emit.op("Cast", rows.lengths, to=exact), emit.ints(*range(1, rows.rank)))
    values = _masked(emit, replace(rows, values=emit.op("Cast", rows.values, to=exact)), constant(0))
    mean = emit.op("Div", time_sum(values), count)
    centred = _masked(emit, replace(rows, values=emit.op("Sub", values, mean)), constant(0))
    variance = emit.op("Div", time_sum(emit.op("Mul", centred, centred)), emit.op("Sub", count, constant(ddof)))
    deviation = emit.op("Sqrt", emit.op("Add", variance, constant(epsilon)))
    return replace(rows, values=emit.op("Cast", emit.op("Div", centred, deviation), to=emit.dtype))


def _pad_end(emit: Emitter, x: ir.Value, count: ir.Value, rank: int, value: ir.Value | None = None) -> ir.Value:
    """x with `count` (1,) more entries at the end of axis 1."""
    widths = [emit.ints(*[0] * (rank + 1)), count] + [emit.ints(0)] * (rank == 3)
    return emit.op("Pad", x, emit.op("Concat", *widths, axis=0), value)


def _masked(emit: Emitter, rows: Rows, value: ir.Value) -> ir.Value:
    """The values, with `value` at and behind each row's length."""
    real = emit.real(rows.values, rows.lengths)
    if rows.rank == 3:
        real = emit.op("Unsqueeze", real, emit.ints(2))
    return emit.op("Where", real, rows.values, value)


LOWER: dict[type[Step], Callable[..., Rows]] = {
    Frames: _frames,
    Log: _log,
    Matrix: _matrix,
    NormalizeBins: _normalize_bins,
    PadOrTrim: _pad_or_trim,
    Power: _power,
    RangeBelowMax: _range_below_max,
    ReflectPad: _reflect_pad,
    RemoveMean: _remove_mean,
    Resample: _resample,
    Scale: _scale,
    Stack: _stack,
    Standardize: _standardize,
    Transpose: _transpose,
    ZeroMeanUnitVariance: _zero_mean_unit_variance,
}
"""Linear steps have no entry: they reach the graph folded into a Matrix."""
