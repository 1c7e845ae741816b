"""Writes ONNX nodes: what `lower` and the passes make graphs with."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray
from onnx_ir.tape import Tape

from stapes_export.artifact import PART

Array = NDArray[Any]


class Emitter:
    """Nodes of one float type and one part of the model, and the constants they share.

    Nothing reaches a graph before `nodes` are inserted into it and `register` is called.
    """

    def __init__(self, prefix: str, part: str | None = None, dtype: ir.DataType = ir.DataType.FLOAT) -> None:
        """`prefix` starts the name of every constant; `part` is the nodes' tag (see artifact.PART)."""
        self.dtype = dtype
        self._prefix = prefix
        self._tags = {PART: part} if part else {}
        self._tape = Tape()
        self._constants: dict[tuple[str, tuple[int, ...], bytes], ir.Value] = {}

    @property
    def nodes(self) -> list[ir.Node]:
        """All nodes so far, in order."""
        return list(self._tape.nodes)

    def register(self, graph: ir.Graph) -> None:
        """Give the constants to the graph."""
        for constant in self._tape.initializers:
            graph.register_initializer(constant)

    def op(self, kind: str, *inputs: ir.Value | None, domain: str = "", **attributes: Any) -> ir.Value:
        """One node; its only output."""
        return self._tape.op(kind, inputs, attributes, domain=domain, metadata_props=self._tags)

    def op_with(self, outputs: int, kind: str, *inputs: ir.Value | None, **attributes: Any) -> list[ir.Value]:
        """One node of several outputs."""
        return list(self._tape.op_multi_out(kind, inputs, attributes, num_outputs=outputs, metadata_props=self._tags))

    def split(self, x: ir.Value, pieces: int, axis: int) -> list[ir.Value]:
        """x cut into equal pieces along one axis."""
        return self.op_with(pieces, "Split", x, axis=axis, num_outputs=pieces)

    def texts(self, values: Sequence[str]) -> ir.Value:
        """A 1-D constant of strings, as a node: an initializer could be sent to a file beside the model, where ONNX allows no strings."""
        return self.op("Constant", value=ir.StringTensor([value.encode() for value in values], shape=ir.Shape([len(values)])))

    def constant(self, value: Array | np.generic) -> ir.Value:
        """A constant of the value's own type; equal ones are one."""
        value = np.asarray(value)
        key = (value.dtype.str, value.shape, value.tobytes())
        if key not in self._constants:
            name = f"{self._prefix}_{len(self._constants)}"
            self._constants[key] = self._tape.initializer(ir.tensor(value, name=name), name=name)
        return self._constants[key]

    def ints(self, *values: int) -> ir.Value:
        """A 1-D int64 constant."""
        return self.constant(np.array(values, np.int64))

    def number(self, value: float) -> ir.Value:
        """A scalar constant of the float type."""
        return self.matrix(np.asarray(value))

    def matrix(self, value: Array) -> ir.Value:
        """A constant of the float type."""
        return self.constant(np.asarray(value, self.dtype.numpy()))

    def size(self, x: ir.Value, axis: int) -> ir.Value:
        """The size of one axis, (1,) int64."""
        return self.op("Shape", x, start=axis, end=axis + 1)

    def slice(self, x: ir.Value, start: ir.Value, end: ir.Value, axis: int) -> ir.Value:
        """x[start:end] along one axis."""
        return self.op("Slice", x, start, end, self.ints(axis))

    def real(self, x: ir.Value, lengths: ir.Value) -> ir.Value:
        """(batch, time) bool: which entries along axis 1 lie before the row's length."""
        zero, one = (self.constant(np.int64(n)) for n in (0, 1))
        positions = self.op("Range", zero, self.op("Squeeze", self.size(x, 1)), one)
        return self.op("Less", self.op("Unsqueeze", positions, self.ints(0)), self.op("Unsqueeze", lengths, self.ints(1)))
