"""What costs too much accuracy stays in float, and nothing is written beyond the budget."""

import contextlib
import io
import json
import warnings
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import made_checkpoints
import numpy as np
import onnx
import pytest
import safetensors.torch
import soundfile
from int8_here import INT8
from transformers import AutoFeatureExtractor, AutoModelForAudioClassification

import stapes
from stapes.bundle import read_manifest
from stapes.cli import main
from stapes.errors import AccuracyError, CheckpointError, ExportError
from stapes_export import sensitivity
from stapes_export.build import export
from stapes_export.calibrate import recordings
from stapes_export.recipes import RECIPES
from stapes_export.sensitivity import groups
from stapes_export.verify import answers, verify

LABELS = tuple("abcdefgh")
CLIPS = 24
RUINED = "layers.0.mlp.fc2"


def plant(folder: Path) -> None:
    """Give one product of the first layer an input that is always 0 and weights of a million for it: nothing to floats, but a weight's
    scale in int8 is then so coarse that every other weight of the product becomes 0."""
    layer = "audio_spectrogram_transformer.encoder.layer.0"
    weights = safetensors.torch.load_file(folder / "model.safetensors")
    weights[f"{layer}.intermediate.dense.weight"][0] = 0
    weights[f"{layer}.intermediate.dense.bias"][0] = 0
    weights[f"{layer}.output.dense.weight"][:, 0] = 2.0**20
    safetensors.torch.save_file(weights, folder / "model.safetensors", {"format": "pt"})


@pytest.fixture(scope="module")
def ruined(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of which int8 ruins one product."""
    folder = made_checkpoints.make(tmp_path_factory.mktemp("ruined"), "audio-spectrogram-transformer", LABELS)
    plant(folder)
    return folder


@pytest.fixture(scope="module")
def heard(ruined: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """clips.csv: noises and tones, each labelled as transformers hears it in that checkpoint; beside it the clips."""
    folder = tmp_path_factory.mktemp("heard")
    extractor = AutoFeatureExtractor.from_pretrained(ruined)
    model = AutoModelForAudioClassification.from_pretrained(ruined).eval()
    rng = np.random.default_rng(0)
    t = np.arange(9600) / 16000
    rows = ["path,label,speaker"]
    for i in range(CLIPS):
        tones = sum(np.sin(2 * np.pi * rng.uniform(50, 7000) * t + rng.uniform(0, 6)) for _ in range(3))
        sound = (rng.uniform(0.001, 0.2) * (tones + rng.uniform(0, 3) * rng.standard_normal(len(t)))).clip(-1, 1).astype(np.float32)
        soundfile.write(folder / f"{i}.wav", sound, 16000, "FLOAT")
        logits = model(**extractor(sound, sampling_rate=16000, return_tensors="pt")).logits[0]
        rows.append(f"{i}.wav,{LABELS[logits.argmax()]},nobody")
    (folder / "clips.csv").write_text("\n".join(rows))
    return folder / "clips.csv"


@dataclass(frozen=True)
class Done:
    status: int
    out: str
    err: str


def stapes_here(*given: str | Path) -> Done:
    """Runs the command line in this process, which has torch loaded already."""
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()) as err, warnings.catch_warnings():
        return Done(main([str(each) for each in given]), out.getvalue(), err.getvalue())


@pytest.fixture(scope="module")
def kept(ruined: Path, heard: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """That checkpoint by the command, and what it said."""
    path = tmp_path_factory.mktemp("kept") / "m.onnx"
    done = stapes_here("export", ruined, "-o", path, "--precision", INT8, "--calibration", heard, "--max-drop", "0.5")
    assert (done.status, done.out) == (0, "")
    return path, done.err


def test_the_one_product_that_int8_ruins_stays_in_float(kept: tuple[Path, str], heard: Path):
    found = read_manifest(kept[0]).verdict
    assert found is not None
    assert found.kept == (RUINED,)
    assert (found.clips, found.labelled, found.max_drop) == (CLIPS, CLIPS, 0.5)
    assert found.accuracy_before == 1.0  # the labels are the checkpoint's own answers
    rows = [row.split(",") for row in heard.read_text().splitlines()[1:]]
    classify = stapes.load(kept[0], device="cpu")
    right = [classify(heard.parent / name, 1)[0].label == label for name, label, _ in rows]
    assert found.accuracy_after == np.mean(right)
    assert found.drop == round(100 - 100 * np.mean(right), 6) <= 0.5


def test_the_file_has_that_product_in_float_and_no_marks_of_the_search(kept: tuple[Path, str]):
    model = onnx.load(kept[0])
    tags = {(node.op_type, entry.key, entry.value) for node in model.graph.node for entry in node.metadata_props}
    assert {tag for tag in tags if tag[2] not in ("frontend", "head")} == {("MatMul", "stapes.part", "kept")}
    assert any(node.op_type == "QuantizeLinear" for node in model.graph.node)


def test_the_command_tells_the_verdict_and_info_repeats_it(kept: tuple[Path, str]):
    path, said = kept
    for bar in ("original", "drop", "sensitivity 1", "verify"):
        assert f"{bar}:" in said
    accuracy, module = said.splitlines()[-2:]
    assert accuracy.startswith(f"accuracy: 100.00% before, 100.00% after on {CLIPS} labelled clips; same top label on 100.0% of {CLIPS}, ")
    assert module == f"kept in float: {RUINED}"
    shown = stapes_here("info", path).out
    assert f"{accuracy.removeprefix('accuracy: ')}; 0.00 points lost of 0.5 allowed" in shown
    assert f"1: {RUINED}" in shown
    verdict = json.loads(stapes_here("info", path, "--json").out)["verdict"]
    assert verdict["kept"] == [RUINED]
    assert verdict["accuracy_before"] == verdict["accuracy_after"] == 1.0


def test_without_a_way_out_nothing_is_written_and_the_command_ends_in_1(ruined: Path, heard: Path, tmp_path: Path, monkeypatch):
    monkeypatch.setattr(sensitivity, "CANDIDATES", 1)  # then it is all or nothing
    given = ("--precision", INT8, "--calibration", heard, "--max-drop", "0.5")
    done = stapes_here("export", ruined, "-o", tmp_path / "m.onnx", *given)
    assert (done.status, done.out) == (1, "")
    said = done.err.splitlines()[-1]
    assert said.startswith(f"stapes: {INT8} loses ")
    assert "points of accuracy (100.00% before, " in said
    assert f"after on {CLIPS} labelled clips)" in said
    assert said.endswith("where --max-drop allows 0.5; allow more, or choose another --precision; nothing was written")
    assert list(tmp_path.iterdir()) == []


def test_clips_without_labels_count_agreement(ruined: Path, heard: Path, tmp_path: Path):
    found = export(str(ruined), tmp_path / "m.onnx", INT8, calibration=heard.parent, max_drop=1).verdict
    assert found is not None
    assert found.kept == (RUINED,)
    assert (found.labelled, found.accuracy_before, found.accuracy_after) == (0, None, None)
    assert found.agreement == 1.0
    assert found.divergence is not None
    assert 0 < found.divergence < 0.01


def test_agreement_beyond_the_budget_is_refused_with_its_figures(kept: tuple[Path, str], heard: Path):
    clips = recordings(heard.parent, 16000, LABELS)
    others = np.roll(answers(kept[0], clips), 1, axis=1)  # another checkpoint's answers: each clip has another top label
    with pytest.raises(AccuracyError, match=rf"loses 100\.00 points of agreement with fp32 \(0\.00% of {CLIPS} unlabelled clips keep"):
        verify(kept[0], others, RECIPES[INT8], clips, max_drop=99)


def test_the_hub_layout_keeps_the_same_in_float(ruined: Path, heard: Path, tmp_path: Path):
    found = export(str(ruined), tmp_path / "hub", INT8, calibration=heard, max_drop=0.5, layout="hub").verdict
    assert found is not None
    assert found.kept == (RUINED,)
    lowered, plain = (stapes.load(tmp_path / "hub", device="cpu", precision=name).manifest.verdict for name in ("int8", "fp32"))
    assert lowered == found
    assert plain is not None
    assert (plain.kept, plain.max_drop, plain.accuracy_after) == ((), None, 1.0)


def test_a_budget_that_holds_keeps_nothing(made, heard: Path, tmp_path: Path):
    sound = made("audio-spectrogram-transformer", labels=LABELS)
    found = export(str(sound), tmp_path / "m.onnx", INT8, calibration=heard.parent, max_drop=5).verdict
    assert found is not None
    assert found.kept == ()
    assert not any(entry.value == "kept" for node in onnx.load(tmp_path / "m.onnx").graph.node for entry in node.metadata_props)


@pytest.mark.parametrize(
    ("precision", "max_drop", "calibrated", "says"),
    [
        ("fp32", 1, True, "fp32 keeps every float"),
        (INT8, 1, False, "needs recordings"),
        (INT8, -0.1, True, "from 0 to 100, not -0.1"),
        (INT8, 101, True, "from 0 to 100, not 101"),
        (INT8, float("nan"), True, "from 0 to 100, not nan"),
    ],
)
def test_a_budget_that_makes_no_sense_is_refused(precision: str, max_drop: float, calibrated: bool, says: str, tmp_path: Path):
    with pytest.raises(ExportError, match=says):
        export("anything", tmp_path / "m.onnx", precision, calibration=tmp_path if calibrated else None, max_drop=max_drop)


def test_a_regression_has_no_accuracy_to_lose(made, heard: Path, tmp_path: Path):
    folder = made("audio-spectrogram-transformer", problem_type="regression")
    with pytest.raises(CheckpointError, match="is a regression"):
        export(str(folder), tmp_path / "m.onnx", INT8, calibration=heard.parent, max_drop=1)


LAYERS = [f"encoder.layers.{i}.{part}" for i in range(12) for part in ("attention.q", "attention.k", "attention.out", "mlp.up", "mlp.down")]


@pytest.mark.parametrize("most", [1, 2, 3, 12, 24, 32, 60, 1000])
@pytest.mark.parametrize("count", [0, 1, 5, 60])
def test_groups_are_few_and_hold_every_module_once_in_order(most: int, count: int):
    modules = LAYERS[:count]
    found = groups(modules, most)
    assert len(found) <= most
    flat = [path for group in found for path in group]
    holders = [next(i for i, path in enumerate(flat) if f"{name}.".startswith(f"{path}.")) for name in modules]
    assert all(before <= after for before, after in pairwise(holders))
    assert set(holders) == set(range(len(flat)))


def test_groups_follow_what_holds_the_modules():
    assert groups(LAYERS, 60) == [(name,) for name in LAYERS]
    assert groups(LAYERS, 32) == [(f"encoder.layers.{i}.{part}",) for i in range(12) for part in ("attention", "mlp")]
    assert groups(LAYERS, 12) == [(f"encoder.layers.{i}",) for i in range(12)]
    assert groups(LAYERS, 6) == [(f"encoder.layers.{i}", f"encoder.layers.{i + 1}") for i in range(0, 12, 2)]


def test_the_portable_int8_keeps_modules_too(ruined: Path, heard: Path, tmp_path: Path):
    found = export(str(ruined), tmp_path / "m.onnx", "int8-portable", calibration=heard, max_drop=0.5).verdict
    assert found is not None
    assert RUINED in found.kept
    assert found.drop <= 0.5
