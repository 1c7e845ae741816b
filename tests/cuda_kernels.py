"""Which ops ONNX Runtime's CUDA provider computes, by opset and type, and whether it takes a node of a graph.

KERNELS holds the part that audio classifiers meet of docs/OperatorKernels.md of microsoft/onnxruntime at commit
001d12d2623fd411ce0f83d05abb5e82304a3389 (opsets up to 24; generated there from the registered kernels), standard ops from opset 13 on.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import onnx

HALVES = "float16 float double"
FLOATS = f"bfloat16 {HALVES}"
WIDE = "int32 int64 uint32 uint64"
INTEGERS = f"int8 int16 uint8 uint16 {WIDE}"
ANY = f"bool {FLOATS} {INTEGERS}"

KERNELS = f"""
Abs 13+ T: {FLOATS} {INTEGERS}
Add 14+ T: {FLOATS} {INTEGERS}
And 7+ T: bool
ArgMax 13+ T: {HALVES}
AveragePool 19-21 T: {HALVES}
Cast 13-18 T1: {ANY}
Cast 19-20 T1: {ANY}
Cast 21-22 T1: {ANY}
Cast 23+ T1: {ANY}
Ceil 13+ T: {HALVES}
Clip 13+ T: {HALVES} int64 int8 uint64 uint8
Concat 13+ T: {ANY}
ConstantOfShape 9+ T2: {ANY}
Conv 11-21 T: {HALVES}
Conv 22+ T: {FLOATS}
Cos 7+ T: {HALVES}
CumSum 14+ T: {HALVES} {WIDE}; T2: int32 int64
DequantizeLinear 19-20 T1: int8 uint8; T2: float float16
DequantizeLinear 21+ T1: int4 int8 uint4 uint8; T2: float float16
Div 14+ T: {FLOATS} {INTEGERS}
Einsum 12+ T: {HALVES}
Elu 6+ T: {HALVES}
Equal 13+ T: bool {HALVES} {WIDE}
Erf 13+ T: {FLOATS}
Exp 13+ T: {FLOATS}
Expand 13+ T: {ANY}
Flatten 13+ T: {ANY}
Floor 13+ T: {HALVES}
Gather 13+ T: {ANY}; Tind: int32 int64
GatherElements 13+ T: {ANY}; Tind: int32 int64
GatherND 13+ T: bool {FLOATS} int64
Gelu 20+ T: {FLOATS}
Gemm 13+ T: {FLOATS}
Greater 13+ T: {HALVES} {WIDE}
GreaterOrEqual 16+ T: {HALVES} {WIDE}
HardSigmoid 6-21 T: {HALVES}
Identity 14-18 V: {ANY}
Identity 19+ V: {ANY}
InstanceNormalization 6+ T: {HALVES}
IsNaN 20+ T1: {FLOATS}
LayerNormalization 17+ T: {FLOATS}; U: float
Less 13+ T: {HALVES} {WIDE}
LessOrEqual 16+ T: {HALVES} {WIDE}
Log 13+ T: {HALVES}
LogSoftmax 13+ T: {HALVES}
MatMul 13+ T: {FLOATS}
MatMulInteger 10+ T1: int8; T2: int8
Max 13+ T: {FLOATS} {WIDE}
Min 13+ T: {FLOATS} {WIDE}
Mod 13+ T: {FLOATS} {WIDE}
Mul 14+ T: {FLOATS} {INTEGERS}
Neg 13+ T: {FLOATS} int8 int16 int32 int64
NonZero 13+ T: bool float float16 int32 int64 uint8
Not 1+ T: bool
Or 7+ T: bool
Pad 13-17 T: bool {HALVES}
Pad 18+ T: bool {HALVES}
Pow 15+ T: {FLOATS} int32 int64; T1: {FLOATS} int32 int64
QuantizeLinear 19-20 T1: float float16; T2: int8 uint8
QuantizeLinear 21+ T1: float float16; T2: int4 int8 uint4 uint8
Range 11+ T: float double int16 int32 int64
Reciprocal 13+ T: {HALVES}
ReduceL2 18+ T: {HALVES} int32
ReduceLogSumExp 18+ T: {HALVES}
ReduceMax 18+ T: {HALVES} int32 int64
ReduceMean 18+ T: {HALVES} int32
ReduceMin 18+ T: {HALVES} int32 int64 int8 uint8
ReduceProd 18+ T: {HALVES} int32
ReduceSum 13+ T: {FLOATS} int32 int64
ReduceSumSquare 18+ T: {HALVES}
Relu 14+ T: {FLOATS}
Reshape 14-18 T: {ANY}
Reshape 19-20 T: {ANY}
Reshape 21-22 T: {ANY}
Reshape 23+ T: {ANY}
Round 11+ T: {HALVES}
ScatterElements 18+ T: {ANY}; Tind: int32 int64
ScatterND 18+ T: {ANY}
Shape 15-18 T: {ANY}
Shape 19-20 T: {ANY}
Shape 21-22 T: {ANY}
Shape 23+ T: {ANY}
Sigmoid 13+ T: {FLOATS}
Sign 13+ T: {FLOATS} {INTEGERS}
Sin 7+ T: {HALVES}
Size 13+ T: {ANY}
Slice 13+ T: {ANY}; Tind: int32 int64
Softmax 13+ T: {FLOATS}
Softplus 1+ T: {HALVES}
Split 18+ T: {ANY}
Sqrt 13+ T: {FLOATS}
Squeeze 13-20 T: {ANY}
Squeeze 21-22 T: {ANY}
Squeeze 23+ T: {ANY}
Sub 14+ T: {FLOATS} {INTEGERS}
Sum 13+ T: {FLOATS}
Tanh 13+ T: {FLOATS}
Tile 13+ T: {FLOATS} int32 int64
TopK 11+ T: {HALVES} int32 int64
Transpose 13-20 T: {ANY}
Transpose 21-22 T: {ANY}
Transpose 23+ T: {ANY}
Trilu 14+ T: {ANY}
Unsqueeze 13-20 T: {ANY}
Unsqueeze 21-22 T: {ANY}
Unsqueeze 23+ T: {ANY}
Where 16+ T: {FLOATS} int32 int64 uint8
"""


@dataclass(frozen=True)
class Kernel:
    """One row of the table."""

    first: int
    last: int | None
    """None: for the version of the op that began with `first`, and for no later one. ONNX Runtime cannot know what a later one means."""
    types: Mapping[str, frozenset[str]]

    def takes(self, version: int, types: Mapping[str, str]) -> bool:
        """Whether it computes the op as it is since opset `version`, on these types."""
        fits = version == self.first if self.last is None else self.first <= version <= self.last
        return fits and all(types[name] in allowed for name, allowed in self.types.items() if name in types)


def _table() -> dict[str, list[Kernel]]:
    table: dict[str, list[Kernel]] = {}
    for line in KERNELS.split("\n")[1:-1]:
        op, opsets, rest = line.split(" ", 2)
        first, _, last = opsets.rstrip("+").partition("-")
        types = {name: frozenset(words.split()) for name, words in (part.strip().split(": ") for part in rest.split(";"))}
        table.setdefault(op, []).append(Kernel(int(first), int(last) if last else None, types))
    return table


TABLE = _table()


@dataclass(frozen=True, order=True)
class Op:
    """A node, apart from what it is fed with."""

    name: str
    version: int
    """The opset since which the op is as it is."""
    types: tuple[tuple[str, str], ...]
    """The op's type parameters and what they are here."""
    domain: str = ""

    @property
    def on_cuda(self) -> bool:
        return not self.domain and any(kernel.takes(self.version, dict(self.types)) for kernel in TABLE.get(self.name, ()))

    def __str__(self) -> str:
        where = f"{self.domain}." if self.domain else ""
        return f"{where}{self.name}-{self.version} ({', '.join(kind for _, kind in self.types)})"


def ops(model: onnx.ModelProto) -> set[Op]:
    """Every op of the graph and of the graphs inside it, with the types that go in and come out."""
    model = onnx.shape_inference.infer_shapes(model)
    opsets = {entry.domain: entry.version for entry in model.opset_import}
    found: set[Op] = set()

    def visit(graph: onnx.GraphProto, outer: Mapping[str, int]) -> None:
        types = dict(outer) | {value.name: value.type.tensor_type.elem_type for value in (*graph.input, *graph.output, *graph.value_info)}
        types |= {tensor.name: tensor.data_type for tensor in graph.initializer}
        for node in graph.node:
            schema = onnx.defs.get_schema(node.op_type, opsets[node.domain], node.domain)
            kinds: dict[str, str] = {}
            for names, parameters in ((node.input, schema.inputs), (node.output, schema.outputs)):
                for index, name in enumerate(names):
                    parameter = parameters[min(index, len(parameters) - 1)].type_str  # the last one may repeat
                    if name and "(" not in parameter:  # tensor(int64) is no parameter
                        kinds.setdefault(parameter, onnx.TensorProto.DataType.Name(types[name]).lower())
            found.add(Op(node.op_type, schema.since_version, tuple(sorted(kinds.items())), node.domain))
            for attribute in node.attribute:
                for inner in (attribute.g, *attribute.graphs):
                    visit(inner, types)

    visit(model.graph, {})
    return found
