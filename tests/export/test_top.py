"""The labels that the graph itself ranks: for hosts that see no metadata."""

from pathlib import Path

import int8_here
import made_checkpoints
import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator

import stapes
from stapes.bundle import Manifest, read_manifest
from stapes.cli import main
from stapes.errors import ExportError
from stapes_export.artifact import Artifact
from stapes_export.build import export
from stapes_export.passes.attach_top import attach_top
from stapes_export.recipes import RECIPES

RNG = np.random.default_rng(0)
LABELS = ("one", "zwei", "三", "", "five")
TOP = ["top_scores", "top_indices", "top_labels"]


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of five labels."""
    return made_checkpoints.make(tmp_path_factory.mktemp("labelled"), "wav2vec2", LABELS)


@pytest.fixture(scope="module")
def manifest(exported) -> Manifest:
    return read_manifest(exported("fp32", "wav2vec2"))


def ranking(manifest: Manifest, labels: int, k: int) -> onnx.ModelProto:
    """The pass on a graph of nothing but scores."""
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", labels]) for name in ("logits", "scores")]
    graph = helper.make_graph([helper.make_node("Identity", ["logits"], ["scores"])], "few", ends[:1], ends[1:])
    model = ir.from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10))
    named = Manifest(**{**vars(manifest), "labels": tuple(f"label {index}" for index in range(labels))})
    proto = ir.to_proto(attach_top(k)(Artifact(model, named)).model)
    onnx.checker.check_model(proto, full_check=True)
    return proto


def ranked(model: onnx.ModelProto, scores: np.ndarray) -> list[np.ndarray]:
    session = onnxruntime.InferenceSession(model.SerializeToString())
    assert [(entry.name, entry.type, entry.shape[0]) for entry in session.get_outputs()[1:]] == [
        ("top_scores", "tensor(float)", "batch"),
        ("top_indices", "tensor(int64)", "batch"),
        ("top_labels", "tensor(string)", "batch"),
    ]
    return session.run(TOP, {"logits": scores})


@pytest.mark.parametrize(("labels", "k"), [(1, 1), (5, 1), (5, 3), (5, 5), (527, 10), (4000, 4000)])
def test_the_k_best_are_numpys(labels: int, k: int, manifest: Manifest):
    scores = RNG.standard_normal((4, labels)).astype(np.float32)
    scores[1] = np.round(scores[1])  # ties
    scores[2] = 0.25
    want = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    found, indices, names = ranked(ranking(manifest, labels, k), scores)
    np.testing.assert_array_equal(indices, want)  # of equal ones the lower index first, as ONNX has it and the runtime too
    np.testing.assert_array_equal(found, np.take_along_axis(scores, want, axis=1))
    assert names.tolist() == [[f"label {index}" for index in row] for row in want]


def test_onnxs_own_evaluator_ranks_the_same(manifest: Manifest):
    scores = RNG.standard_normal((3, 12)).astype(np.float32)
    model = ranking(manifest, 12, 4)
    want = ReferenceEvaluator(model).run(TOP, {"logits": scores})
    for name, a, b in zip(TOP, want, ranked(model, scores), strict=True):
        assert a.tolist() == b.tolist(), name


def test_a_row_without_an_answer_says_so_and_moves_no_other(manifest: Manifest):
    scores = RNG.standard_normal((3, 600)).astype(np.float32)
    model = ranking(manifest, 600, 7)
    alone = ranked(model, scores[[0, 2]])
    scores[1] = np.nan
    found, indices, names = ranked(model, scores)
    assert np.isnan(found[1]).all()
    assert indices[1].tolist() == list(range(7))
    assert names[1].tolist() == [f"label {index}" for index in range(7)]
    for got, want in zip((found, indices, names), alone, strict=True):
        assert got[[0, 2]].tolist() == want.tolist()


def test_minus_infinity_is_a_score_like_any_other(manifest: Manifest):
    found, indices, _ = ranked(ranking(manifest, 3, 3), np.float32([[-np.inf, 1, -np.inf]]))
    assert found.tolist() == [[1, -np.inf, -np.inf]]
    assert indices.tolist() == [[1, 0, 2]]


@pytest.mark.parametrize("precision", RECIPES)
def test_every_precision_ranks_its_own_scores(precision: str, labelled: Path, tmp_path: Path):
    if precision == "int8" and int8_here.LACKING:
        pytest.skip(int8_here.REASON)
    path = tmp_path / "m.onnx"
    export(str(labelled), path, precision, top_k=3)
    made = read_manifest(path).provenance
    assert made.options["top_k"] == "3"
    assert made.passes.index("attach_top") == made.passes.index("attach_scores") + 1
    onnx.checker.check_model(onnx.load(path), full_check=True)
    session = onnxruntime.InferenceSession(path)
    waveform = (0.1 * RNG.standard_normal((3, 9000))).astype(np.float32)
    logits, scores, found, indices, names = session.run(None, {"waveform": waveform, "lengths": np.array([9000, 8000, 3])})
    assert logits.shape == scores.shape == (3, 5)
    want = np.argsort(-scores[:2], axis=1, kind="stable")[:, :3]
    np.testing.assert_array_equal(indices[:2], want)
    np.testing.assert_array_equal(found[:2], np.take_along_axis(scores[:2], want, axis=1))
    assert names[:2].tolist() == [[LABELS[index] for index in row] for row in want]
    assert np.isnan(found[2]).all()  # too short
    predictions = stapes.load(path, device="cpu")(waveform[0, :9000], top_k=3)
    assert [prediction.label for prediction in predictions] == names[0].tolist()
    np.testing.assert_allclose([prediction.score for prediction in predictions], found[0], atol=1e-6)


def test_the_labels_stay_in_the_file_where_the_weights_do_not(labelled: Path, tmp_path: Path):
    """Strings cannot lie beside the model, however many there are."""
    many = made_checkpoints.make(tmp_path / "many", "wav2vec2", tuple(f"label number {index}" for index in range(900)))
    path = tmp_path / "m.onnx"
    export(str(many), path, "fp32", top_k=900, external_data=True)
    assert (tmp_path / "m.onnx.data").stat().st_size > 10_000
    clip = (0.1 * RNG.standard_normal(9000)).astype(np.float32)
    session = onnxruntime.InferenceSession(path)
    _, indices, names = session.run(TOP, {"waveform": clip[None], "lengths": np.array([9000])})
    assert names[0].tolist() == [f"label number {index}" for index in indices[0]]


@pytest.mark.parametrize("k", [0, -1, 6])
def test_k_is_bounded_by_the_labels(k: int, labelled: Path, tmp_path: Path):
    with pytest.raises(ExportError, match=f"from 1 to the 5 of .*, not {k}"):
        export(str(labelled), tmp_path / "m.onnx", top_k=k)
    assert not list(tmp_path.iterdir())


def test_top_k_is_a_choice_of_the_command_line(labelled: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["export", str(labelled), "-o", str(tmp_path / "m.onnx"), "--top-k", "2"]) == 0
    assert main(["info", str(tmp_path / "m.onnx")]) == 0
    assert "top_k=2" in capsys.readouterr().out
    assert main(["verify", str(tmp_path / "m.onnx")]) == 0
    capsys.readouterr()
    assert main(["export", str(labelled), "-o", str(tmp_path / "n.onnx"), "--top-k", "6"]) == 2
    assert "from 1 to the 5" in capsys.readouterr().err
    assert main(["export", str(labelled), "-o", str(tmp_path / "hub"), "--layout", "hub", "--top-k", "2"]) == 2
    assert "leave --top-k out" in capsys.readouterr().err
