"""Reshape and Slice by constants instead of sizes computed beside them.

    reshape(x, [b, t / 2, 2 c]) = reshape(x, [0, -1, 2 c])          x[:, 0 : t - 1] = x[:, 0 : -1]

The tracer writes every size as arithmetic on the first input's; the shapes that it left at the values say what they come to.
"""

import re
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from stapes_export.artifact import FRONTEND, Artifact, part
from stapes_export.emitter import Emitter

END = np.iinfo(np.int64).max

_AFFINE = re.compile(r"(?:(\d+)\*)?([A-Za-z_]\w*)(?: ([+-]) (\d+))?")


@dataclass(frozen=True)
class Size:
    """slope * symbol + offset; a plain number has no symbol."""

    symbol: str
    slope: int
    offset: int

    @classmethod
    def of(cls, dimension: int | ir.SymbolicDim) -> "Size | None":
        """None where it is another expression."""
        if isinstance(dimension, int):
            return cls("", 0, dimension)
        found = _AFFINE.fullmatch(dimension.value or "")
        if found is None:
            return None
        slope, symbol, sign, offset = found.groups()
        return cls(symbol, int(slope or 1), int(f"{sign or ''}{offset or 0}"))


def constant_shapes(artifact: Artifact) -> Artifact:
    graph = artifact.model.graph
    emit = Emitter("shape")
    for node in graph:
        if part(node) == FRONTEND or node.op_type not in ("Reshape", "Slice"):
            continue
        if node.op_type == "Reshape" and (target := _target(node)) is not None:
            node.replace_input_with(1, emit.ints(*target))
            node.attributes.pop("allowzero", None)
        if node.op_type == "Slice" and (end := _end(node)) is not None:
            node.replace_input_with(2, emit.ints(end))
    emit.register(graph)
    return artifact


def _target(node: ir.Node) -> list[int] | None:
    """The target of a Reshape with -1 for one size and 0 for those that stay, where that says it all."""
    x, target = node.inputs[:2]
    before, after = x.shape if x is not None else None, node.outputs[0].shape
    if before is None or after is None or target is None or target.const_value is not None:
        return None
    found = []
    for axis, size in enumerate(after):
        if isinstance(size, int):
            found.append(size)
        else:
            found.append(0 if axis < len(before) and before[axis] == size and size.value is not None else -1)
    return found if found.count(-1) <= 1 else None


def _end(node: ir.Node) -> int | None:
    """Where a Slice of one axis by ones ends, counted from the back, where its start is constant."""
    x, start, end, axes, *steps = node.inputs
    constants = [value.const_value for value in (start, axes, *steps) if value is not None]
    after = node.outputs[0].shape
    if x is None or x.shape is None or after is None or end is None or end.const_value is not None or None in constants:
        return None
    numbers = [constant.numpy().reshape(-1).tolist() for constant in constants if constant is not None]
    if any(len(number) != 1 for number in numbers) or numbers[2:] not in ([], [[1]]):
        return None
    (first,), (axis,) = numbers[:2]
    whole, kept = Size.of(x.shape[axis]), Size.of(after[axis])
    if whole is None or kept is None or (whole.symbol, whole.slope) != (kept.symbol, kept.slope) or first < 0:
        return None
    behind = whole.offset - kept.offset - first
    return END if behind == 0 else -behind
