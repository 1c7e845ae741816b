"""What of an exported graph CUDA would not compute, by name. No GPU is needed: the kernels are looked up in ONNX Runtime's own table."""

import cuda_kernels
import made_checkpoints
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper

from stapes.bundle import read_manifest
from stapes_export.artifact import Artifact
from stapes_export.passes import run
from stapes_export.passes.half_products import half_products

LACKING = {
    # The provider gained it, up to opset 25, with pull request 27774 of 2026; before, the padding before a convolution goes to the CPU and
    # back. The pad of the waveform costs nothing either way: it reads what still lies in the CPU's memory.
    "Pad-19 (float)",
    # Whisper's loudest bin of a clip: the table has the op as it was up to opset 19, without bool. One copy of the features to the CPU.
    "ReduceMax-20 (float)",
}
"""What the CUDA provider of the table has no kernel for, and what it costs that it is there all the same."""


def lacking(model: onnx.ModelProto) -> set[str]:
    return {str(op) for op in cuda_kernels.ops(model) if not op.on_cuda}


@pytest.mark.parametrize("model_type", made_checkpoints.CONFIGS)
def test_cuda_has_every_op_of_a_graph_but_those_named_here(model_type: str, exported):
    path = exported("fp32", model_type)
    assert lacking(onnx.load(path)) <= LACKING
    halved = run((half_products,), Artifact(ir.load(path), read_manifest(path)))
    found = ir.to_proto(halved.model)
    assert any(kind == "float16" for op in cuda_kernels.ops(found) for _, kind in op.types)
    assert lacking(found) <= LACKING


def graph_of(op: str, opset: int, inputs: list[int], output: int, **attributes: object) -> onnx.ModelProto:
    """A model of one node, its inputs and output of these types and of any shape."""
    names = [f"x{index}" for index in range(len(inputs))]
    values = [helper.make_tensor_value_info(name, kind, None) for name, kind in zip(names, inputs, strict=True)]
    node = helper.make_node(op, names, ["y"], **attributes)
    graph = helper.make_graph([node], "one", values, [helper.make_tensor_value_info("y", output, None)])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])


FLOAT, INT64, UINT8, INT8, INT32 = TensorProto.FLOAT, TensorProto.INT64, TensorProto.UINT8, TensorProto.INT8, TensorProto.INT32


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        (graph_of("STFT", 20, [FLOAT, INT64, FLOAT], FLOAT), {"STFT-17 (float, int64)"}),  # in no row of the table
        (graph_of("Pad", 18, [FLOAT, INT64], FLOAT), set()),
        (graph_of("Pad", 20, [FLOAT, INT64], FLOAT), {"Pad-19 (float)"}),  # issue 26393 of ONNX Runtime
        (graph_of("ReduceMax", 18, [FLOAT, INT64], FLOAT), set()),
        (graph_of("ReduceMax", 20, [FLOAT, INT64], FLOAT), {"ReduceMax-20 (float)"}),
        (graph_of("Reshape", 20, [FLOAT, INT64], FLOAT), set()),  # a row for this version alone
        (graph_of("ReduceProd", 20, [INT64, INT64], INT64), {"ReduceProd-18 (int64)"}),  # the op, not of this type
        (graph_of("MatMulInteger", 20, [INT8, INT8], INT32), set()),
        (graph_of("MatMulInteger", 20, [UINT8, INT8], INT32), {"MatMulInteger-10 (uint8, int8, int32)"}),
    ],
)
def test_an_op_without_a_kernel_is_named(model: onnx.ModelProto, expected: set[str]):
    assert lacking(model) == expected


def test_graphs_inside_a_graph_are_looked_through():
    then = graph_of("STFT", 20, [FLOAT, INT64, FLOAT], FLOAT).graph
    outer = list(then.input)
    del then.input[:]
    branch = helper.make_node("If", ["flag"], ["z"], then_branch=then, else_branch=then)
    flag = helper.make_tensor_value_info("flag", TensorProto.BOOL, [])
    graph = helper.make_graph([branch], "whole", [flag, *outer], [helper.make_tensor_value_info("z", FLOAT, None)])
    found = lacking(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)]))
    assert "STFT-17 (float, int64)" in found
