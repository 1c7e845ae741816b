"""What each graph rewrite claims, on graphs of a few nodes and on whole artifacts."""

from dataclasses import replace
from pathlib import Path

import int8_here
import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx_ir.passes.common import RemoveUnusedNodesPass

import stapes
from stapes.bundle import Manifest, read_manifest
from stapes.cli import main
from stapes_export.artifact import Artifact
from stapes_export.build import export
from stapes_export.passes import Pass
from stapes_export.passes.chunk_convolutions import CHUNK, chunk_convolutions
from stapes_export.passes.constant_shapes import constant_shapes
from stapes_export.passes.fuse_attention import fuse_attention
from stapes_export.passes.plain_sums import plain_sums
from stapes_export.passes.quantize_grouped_conv import quantize_grouped_conv_portable
from stapes_export.passes.quantize_rows import quantize_rows_portable
from stapes_export.recipes import RECIPES

RNG = np.random.default_rng(0)


@pytest.fixture(scope="module")
def manifest(exported) -> Manifest:
    return read_manifest(exported("fp32", "wav2vec2"))


def graph_of(nodes: list[onnx.NodeProto], rank: int, constants: dict[str, np.ndarray]) -> onnx.ModelProto:
    """A model from x to y, float32, each of `rank` free axes."""
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [f"{name}{axis}" for axis in range(rank)]) for name in "xy"]
    graph = helper.make_graph(nodes, "few", ends[:1], ends[1:], [numpy_helper.from_array(value, name) for name, value in constants.items()])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def run(model: onnx.ModelProto, x: np.ndarray) -> np.ndarray:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(model.SerializeToString(), options).run(["y"], {"x": x})[0]


def rewritten(model: onnx.ModelProto, rewrite: Pass, manifest: Manifest) -> onnx.ModelProto:
    onnx.checker.check_model(model)
    changed = ir.to_proto(rewrite(Artifact(ir.from_proto(onnx.shape_inference.infer_shapes(model)), manifest)).model)
    onnx.checker.check_model(changed)
    return changed


@pytest.mark.parametrize(
    ("channels", "groups", "taps", "stride", "pad", "bias", "frames"),
    [
        (768, 16, 128, 1, 64, True, 49),  # wav2vec2's own
        (64, 2, 128, 2, 64, True, 25),  # SEW's
        (64, 2, 19, 1, 9, False, 7),  # data2vec's
        (64, 2, 16, 1, 8, True, 1),
        (64, 4, 31, 3, 15, True, 2),
        (64, 4, 9, 1, 0, False, 11),
    ],
)
def test_integer_windows_are_the_grouped_convolution(
    channels: int, groups: int, taps: int, stride: int, pad: int, bias: bool, frames: int, manifest: Manifest
):
    constants = {"w": RNG.standard_normal((channels, channels // groups, taps)).astype(np.float32)}
    constants |= {"b": RNG.standard_normal(channels).astype(np.float32)} if bias else {}
    attributes = {"group": groups, "pads": [pad, pad], "strides": [stride], "kernel_shape": [taps]}
    model = graph_of(
        [helper.make_node("Conv", ["x", *constants], ["c"], **attributes), helper.make_node("Identity", ["c"], ["y"])], 3, constants
    )
    x = RNG.standard_normal((2, channels, frames)).astype(np.float32) * np.float32([1, 30])[:, None, None]
    changed = rewritten(model, quantize_grouped_conv_portable, manifest)
    assert "Conv" not in {node.op_type for node in changed.graph.node}
    want, got = run(model, x), run(changed, x)
    assert got.shape == want.shape
    # seven bits of weight and eight of signal: two uniform roundings of 1/127 and 1/254 of a range of three deviations
    for row in range(2):
        assert np.sqrt(np.mean((got - want)[row] ** 2)) < 0.03 * want[row].std()
    alone = np.concatenate([run(changed, x[row : row + 1]) for row in range(2)])
    np.testing.assert_array_equal(got, alone)  # a neighbour thirty times as loud changes nothing


def test_convolutions_of_few_taps_or_channels_stay(manifest: Manifest):
    for channels, groups, taps in ((64, 64, 31), (64, 2, 3), (64, 1, 16)):
        weight = RNG.standard_normal((channels, channels // groups, taps)).astype(np.float32)
        model = graph_of([helper.make_node("Conv", ["x", "w"], ["y"], group=groups, kernel_shape=[taps])], 3, {"w": weight})
        assert [node.op_type for node in rewritten(model, quantize_grouped_conv_portable, manifest).graph.node] == ["Conv"]


def test_both_products_of_a_block_are_of_one_quantization(manifest: Manifest):
    """As in channels_last.BlockConv: the cut stands behind the rounding, where it costs a quarter."""
    whole, half = (RNG.standard_normal((n, 24)).astype(np.float32) for n in (64, 32))
    indices = {"zero": 0, "one": 1, "end": 9, "far": 2**62, "width": 32, "frames": 1, "channels": 2}
    constants = {"w": whole, "v": half, **{name: np.array([value]) for name, value in indices.items()}}
    nodes = [
        helper.make_node("Slice", ["x", "zero", "end", "frames"], ["first"]),
        helper.make_node("Slice", ["x", "one", "far", "frames"], ["later"]),
        helper.make_node("Slice", ["later", "zero", "width", "channels"], ["cut"]),
        helper.make_node("MatMul", ["first", "w"], ["a"]),
        helper.make_node("MatMul", ["cut", "v"], ["b"]),
        helper.make_node("Add", ["a", "b"], ["y"]),
    ]
    model = graph_of(nodes, 3, constants)
    changed = rewritten(model, quantize_rows_portable, manifest)
    assert [node.op_type for node in changed.graph.node].count("QuantizeLinear") == 1
    x = RNG.standard_normal((2, 10, 64)).astype(np.float32)
    want, got = run(model, x), run(changed, x)
    assert np.sqrt(np.mean((got - want) ** 2)) < 0.02 * want.std()


@pytest.mark.parametrize("loud", [0.01, 1.0, 100.0])
def test_each_row_is_rounded_in_its_own_range(loud: float, manifest: Manifest):
    weight = RNG.standard_normal((64, 24)).astype(np.float32)
    nodes = [
        helper.make_node("Gelu", ["x"], ["g"]),
        helper.make_node("MatMul", ["g", "w"], ["m"]),
        helper.make_node("Identity", ["m"], ["y"]),
    ]
    model = graph_of(nodes, 3, {"w": weight})
    changed = rewritten(model, quantize_rows_portable, manifest)
    x = RNG.standard_normal((1, 50, 64)).astype(np.float32)
    x[:, ::2] *= loud  # loud and quiet frames beside each other, as speech has them
    want, got = run(model, x), run(changed, x)
    error = np.sqrt(np.mean((got - want) ** 2, axis=2) / np.mean(want**2, axis=2))
    assert error.max() < 0.06  # of each frame; 127 steps either way and weights in 63 give 0.01 to 0.04 at 64 terms


def test_only_sums_before_a_norm_or_a_gelu_are_renamed(manifest: Manifest):
    nodes = [
        helper.make_node("Add", ["x", "x"], ["a"]),
        helper.make_node("Gelu", ["a"], ["g"]),
        helper.make_node("Add", ["g", "x"], ["b"]),
        helper.make_node("LayerNormalization", ["b", "w"], ["n"]),
        helper.make_node("Add", ["n", "x"], ["y"]),
    ]
    model = graph_of(nodes, 2, {"w": np.ones(8, np.float32)})
    changed = rewritten(model, plain_sums, manifest)
    assert [node.op_type for node in changed.graph.node] == ["Sum", "Gelu", "Sum", "LayerNormalization", "Add"]
    x = RNG.standard_normal((3, 8)).astype(np.float32)
    np.testing.assert_allclose(run(changed, x), run(model, x), atol=1e-6)


FLOAT32 = 1e-5  # the operator sums the keys in another order


@pytest.mark.parametrize("model_type", ["wav2vec2", "wavlm", "sew", "audio-spectrogram-transformer", "whisper"])
def test_fused_attention_answers_the_same(model_type: str, exported, tmp_path: Path):
    source = exported("fp32", model_type)
    artifact = fuse_attention(Artifact(ir.load(source), read_manifest(source)))
    assert artifact.manifest.provenance.options["attention"] == "fused"
    fused = tmp_path / "fused.onnx"
    ir.save(artifact.model, fused)
    kinds = [node.op_type for node in artifact.model.graph]
    assert "MultiHeadAttention" in kinds
    plain, other = (stapes.load(path, device="cpu") for path in (source, fused))
    clips = [(0.1 * RNG.standard_normal(n)).astype(np.float32) for n in (9000, 6000, 2000)]  # ragged: the mask must hold
    want, got = plain.logits(clips), other.logits(clips)
    assert want.std(0).max() > 0.01, "the logits must differ between the clips, or equality proves nothing"
    assert np.abs(got - want).max() <= FLOAT32 * max(1, np.abs(want).max())


def test_where_there_is_no_plain_attention_the_pass_says_so(exported):
    source = exported("fp32", "wav2vec2-conformer")
    with pytest.raises(ValueError, match="no plain attention"):
        fuse_attention(Artifact(ir.load(source), read_manifest(source)))


def test_int8_artifacts_hold_what_onnx_runtime_fuses(exported, tmp_path: Path):
    """The forms were chosen so that one kernel does each: if a version stops to fuse them, all speed is gone and no answer shows it."""
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    options.log_severity_level = 3
    onnxruntime.InferenceSession(exported(int8_here.INT8, "wav2vec2"), options, providers=["CPUExecutionProvider"])
    kinds = [node.op_type for node in ir.load(tmp_path / "optimized.onnx").graph.all_nodes()]
    assert kinds.count("MatMulIntegerToFloat") >= 6 * 2 + 6  # the layers' products and the convolutions
    assert not {"SkipLayerNormalization", "BiasGelu", "DequantizeLinear"} & set(kinds)


def test_sizes_that_the_shapes_tell_become_constants(manifest: Manifest):
    nodes = [
        helper.make_node("Shape", ["x"], ["sizes"]),
        helper.make_node("Slice", ["sizes", "one", "two", "zero"], ["time"]),
        helper.make_node("Div", ["time", "two"], ["half"]),
        helper.make_node("Concat", ["two", "half", "eight"], ["target"], axis=0),
        helper.make_node("Reshape", ["x", "target"], ["blocks"]),
        helper.make_node("Sub", ["half", "one"], ["last"]),
        helper.make_node("Slice", ["blocks", "zero", "last", "one"], ["a"]),
        helper.make_node("Slice", ["blocks", "one", "half", "one"], ["b"]),
        helper.make_node("Add", ["a", "b"], ["y"]),
    ]
    numbers = {"zero": 0, "one": 1, "two": 2, "eight": 8}
    model = graph_of(nodes, 3, {name: np.array([value]) for name, value in numbers.items()})
    shapes = {"x": (2, "2*t + 4", 4), "blocks": (2, "t + 2", 8), "a": (2, "t + 1", 8), "b": (2, "t + 1", 8), "y": (2, "t + 1", 8)}
    values = {name: helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes.items()}
    model.graph.input[0].CopyFrom(values.pop("x"))
    model.graph.output[0].CopyFrom(values.pop("y"))
    model.graph.value_info.extend(values.values())
    changed = ir.from_proto(model)
    constant_shapes(Artifact(changed, manifest))
    RemoveUnusedNodesPass()(changed)
    assert [node.op_type for node in changed.graph] == ["Reshape", "Slice", "Slice", "Add"]
    x = RNG.standard_normal((2, 10, 4)).astype(np.float32)
    np.testing.assert_array_equal(run(ir.to_proto(changed), x), run(model, x))


FRAME_LIMITS = (1, 2, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK, 2 * CHUNK + 1, 5 * CHUNK + 7)


@pytest.mark.parametrize(
    ("model_type", "options"),
    [("wav2vec2", {}), ("wav2vec2", {"feat_extract_norm": "layer"}), ("data2vec-audio", {}), ("sew", {}), ("wavlm", {})],
    ids=str,
)
def test_chunks_of_a_clip_give_what_the_whole_gives(
    model_type: str, options: dict, made, exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    chunked = exported(int8_here.INT8, model_type, **options)
    assert "Loop" in {node.op_type for node in ir.load(chunked).graph}
    recipe = RECIPES[int8_here.INT8]
    whole = tuple(rewrite for rewrite in recipe.passes if rewrite is not chunk_convolutions)
    monkeypatch.setitem(RECIPES, int8_here.INT8, replace(recipe, passes=whole))
    export(str(made(model_type, **options)), tmp_path / "whole.onnx", int8_here.INT8)
    assert "Loop" not in {node.op_type for node in ir.load(tmp_path / "whole.onnx").graph}
    one, other = (stapes.load(path, device="cpu") for path in (chunked, tmp_path / "whole.onnx"))
    fewest = one.manifest.frontend.min_samples
    clips = [(0.1 * RNG.standard_normal(max(fewest, 320 * frames + 80))).astype(np.float32) for frames in FRAME_LIMITS]
    want = np.concatenate([other.logits([clip]) for clip in clips])
    assert want.std(0).max() > 0.01, "the logits must differ between the clips, or equality proves nothing"
    np.testing.assert_array_equal(np.concatenate([one.logits([clip]) for clip in clips]), want)
    np.testing.assert_array_equal(one.logits(clips), other.logits(clips))  # ragged


def test_fused_attention_is_a_choice_of_the_export(made, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    folder = made("wav2vec2")
    assert main(["export", str(folder), "-o", str(tmp_path / "fused.onnx"), "--fused-attention"]) == 0
    assert dict(read_manifest(tmp_path / "fused.onnx").provenance.options)["attention"] == "fused"
    capsys.readouterr()
    assert main(["export", str(folder), "-o", str(tmp_path / "hub"), "--layout", "hub", "--fused-attention"]) == 2
    assert "leave --fused-attention out" in capsys.readouterr().err
