"""An export ends in a verified file, or in one sentence and no file."""

import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import int8_here
import made_checkpoints
import numpy as np
import pytest
import safetensors.torch
import soundfile
import torch
from int8_here import INT8

import stapes
from stapes.errors import AudioError, CheckpointError, ExportError, ParityError
from stapes_export import cli, verify
from stapes_export.artifact import Artifact
from stapes_export.build import export
from stapes_export.families import FAMILIES
from stapes_export.heads import HEADS
from stapes_export.passes import run
from stapes_export.recipes import RECIPES


def altered(folder: Path, copy: Path, **changes: object) -> Path:
    """A copy of a checkpoint whose config.json has other entries."""
    shutil.copytree(folder, copy)
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(config | changes))
    return copy


def test_recordings_are_verified_on_and_counted(made, tmp_path: Path):
    rng = np.random.default_rng(0)
    for label in ("one", "two"):
        (tmp_path / "clips" / label).mkdir(parents=True)
        soundfile.write(tmp_path / "clips" / label / "a.wav", 0.1 * rng.standard_normal(22050), 22050)
    report = export(str(made("wav2vec2")), tmp_path / "m.onnx", "fp32", calibration=tmp_path / "clips")
    assert report.parity.clips == 2
    assert report.parity.signal == "recorded"
    assert report.verdict is not None
    assert report.verdict.accuracy_before == report.verdict.accuracy_after
    assert report.verdict.accuracy_before in (0.0, 0.5, 1.0)
    manifest = stapes.load(tmp_path / "m.onnx").manifest
    assert (manifest.parity, manifest.verdict) == (report.parity, report.verdict)


def test_a_folder_without_audio_is_refused(made, tmp_path: Path):
    with pytest.raises(AudioError, match="no audio below"):
        export(str(made("wav2vec2")), tmp_path / "m.onnx", calibration=tmp_path)


def test_an_answer_beyond_the_budget_writes_nothing_and_names_the_worst_clip(made, tmp_path: Path, monkeypatch):
    real = verify.Reference.__call__
    monkeypatch.setattr(verify.Reference, "__call__", lambda self, x: real(self, x) + (1e-3 if len(x) < 16000 else 0) * 100)
    with pytest.raises(ParityError, match=r"golden signal, first part.*nothing was written"):
        export(str(made("wav2vec2")), tmp_path / "m.onnx")
    assert list(tmp_path.iterdir()) == []


def test_a_missing_head_is_refused_and_its_keys_are_listed(made, tmp_path: Path):
    folder = altered(made("wav2vec2"), tmp_path / "headless")
    weights = safetensors.torch.load_file(folder / "model.safetensors")
    weights["classifier.output.weight"] = weights.pop("classifier.weight")
    safetensors.torch.save_file(weights, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(CheckpointError, match=r"missing classifier\.weight.*without a place classifier\.output"):
        export(str(folder), tmp_path / "m.onnx")
    assert not (tmp_path / "m.onnx").exists()


def test_a_head_of_another_size_is_refused(made, tmp_path: Path):
    folder = altered(made("wav2vec2"), tmp_path / "resized", id2label={str(i): str(i) for i in range(5)}, label2id={})
    with pytest.raises(CheckpointError, match="classifier"):
        export(str(folder), tmp_path / "m.onnx")


def test_an_unknown_architecture_is_refused_with_the_known_ones(made, tmp_path: Path):
    with pytest.raises(CheckpointError, match=r"model_type 'clap'.*audio-spectrogram-transformer"):
        export(str(altered(made("wav2vec2"), tmp_path / "other", model_type="clap")), tmp_path / "m.onnx")


def test_a_folder_that_is_no_checkpoint_says_what_it_lacks(tmp_path: Path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(CheckpointError, match=r"no config\.json, no preprocessor_config\.json, no model\.safetensors"):
        export(str(tmp_path / "empty"), tmp_path / "m.onnx")
    (tmp_path / "empty" / "config.json").write_text("{")
    (tmp_path / "empty" / "preprocessor_config.json").write_text("{}")
    (tmp_path / "empty" / "model.safetensors").write_bytes(b"")
    with pytest.raises(CheckpointError, match="not JSON"):
        export(str(tmp_path / "empty"), tmp_path / "m.onnx")


def test_a_place_that_cannot_be_written_is_found_out_first(made, tmp_path: Path):
    with pytest.raises(ExportError, match="no folder"):
        export(str(made("wav2vec2")), tmp_path / "nowhere" / "m.onnx")


def test_a_killed_export_leaves_no_file(made, tmp_path: Path):
    command = [sys.executable, "-m", "stapes.cli", "export", str(made("wav2vec2")), "-o", str(tmp_path / "m.onnx")]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        seen = ""
        while "fp32" not in seen and process.poll() is None:
            seen += process.stderr.read(1)
        process.send_signal(signal.SIGKILL)
    assert "fp32" in seen
    assert list(tmp_path.iterdir()) == []


def test_an_existing_file_survives_a_failed_export_and_is_replaced_by_a_good_one(made, tmp_path: Path):
    out = tmp_path / "m.onnx"
    out.write_text("old")
    with pytest.raises(CheckpointError):
        export(str(tmp_path), out)
    assert out.read_text() == "old"
    export(str(made("wav2vec2")), out)
    assert stapes.load(out).manifest.provenance.model_type == "wav2vec2"
    assert [path.name for path in tmp_path.iterdir()] == ["m.onnx"]


def test_the_command_shows_every_stage_and_ends_in_a_line(made, tmp_path: Path, stapes_command):
    done = stapes_command("export", made("wav2vec2"), "-o", tmp_path / "m.onnx", "--precision", INT8)
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    for stage in ("fetch", "load", "trace", INT8, "verify", "save"):
        assert stage in done.stderr
    assert "same top label on 100.0% of 3 golden clips" in done.stderr
    assert "int8" in stapes_command("info", tmp_path / "m.onnx").stdout


def test_the_command_refuses_in_one_sentence(tmp_path: Path, stapes_command):
    done = stapes_command("export", tmp_path, "-o", tmp_path / "m.onnx")
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert done.stderr.splitlines()[-1].startswith("stapes: ")


def test_the_command_offers_every_recipe_and_head():
    assert set(cli.PRECISIONS) == set(RECIPES)
    assert set(cli.HEADS) == set(HEADS)


def test_every_family_file_is_listed(root: Path):
    files = {path.stem for path in (root / "export" / "stapes_export" / "families").glob("*.py")} - {"__init__", "family"}
    assert {family.model_type.replace("-", "_") for family in FAMILIES} == files
    assert len(FAMILIES) == len(files)


def test_a_pass_that_breaks_the_graph_is_named_with_those_before_it(made, tmp_path: Path):
    import onnx_ir as ir

    from stapes_export.passes.attach_scores import attach_scores

    x = ir.Value(name="x", shape=ir.Shape([1, 3]), type=ir.TensorType(ir.DataType.FLOAT))
    node = ir.Node("", "Identity", [x])
    node.outputs[0].name, node.outputs[0].shape, node.outputs[0].type = "logits", x.shape, x.type
    model = ir.Model(ir.Graph([x], node.outputs, nodes=[node], opset_imports={"": 20}, name="g"), ir_version=10)

    def breaks(artifact: Artifact) -> Artifact:
        artifact.model.graph.outputs[0].name = "x"
        return artifact

    manifest = stapes.load().manifest
    with pytest.raises(ExportError, match="pass breaks failed after attach_scores"):
        run([attach_scores, breaks], Artifact(model, manifest))


def test_weights_in_a_pickle_are_read_as_weights_only(made, tmp_path: Path):
    folder = altered(made("wav2vec2"), tmp_path / "pickled")
    weights = safetensors.torch.load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    torch.save(weights, folder / "pytorch_model.bin")
    export(str(folder), tmp_path / "m.onnx")
    assert set(stapes.load(tmp_path / "m.onnx").manifest.provenance.files) == {
        "config.json",
        "preprocessor_config.json",
        "pytorch_model.bin",
    }


def test_external_data_lies_beside_the_file_and_answers_the_same(made, tmp_path: Path):
    export(str(made("wav2vec2")), tmp_path / "inline.onnx")
    export(str(made("wav2vec2")), tmp_path / "outside.onnx", external_data=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["inline.onnx", "outside.onnx", "outside.onnx.data"]
    assert (tmp_path / "outside.onnx").stat().st_size < (tmp_path / "inline.onnx").stat().st_size
    clip = (0.1 * np.random.default_rng(0).standard_normal(16000)).astype(np.float32)
    answers = [stapes.load(tmp_path / name, device="cpu").logits([clip]) for name in ("inline.onnx", "outside.onnx")]
    assert np.array_equal(*answers)


@pytest.mark.slow
def test_a_checkpoint_over_two_gigabytes_exports_with_external_data(tmp_path: Path):
    large = {"hidden_size": 1024, "intermediate_size": 66000, "num_hidden_layers": 4, "num_attention_heads": 16}
    large["spread"] = 0.02  # sums of 66,000 products would show float32's rounding with the usual one
    folder = made_checkpoints.make(tmp_path / "large", "wav2vec2", **large)
    assert (folder / "model.safetensors").stat().st_size > 2**31
    export(str(folder), tmp_path / "large.onnx")
    assert (tmp_path / "large.onnx.data").stat().st_size > 2**31
    assert stapes.load(tmp_path / "large.onnx", device="cpu").manifest.parity.max_difference <= 1e-4


@pytest.mark.parametrize(("value", "rounded"), [(0, 0), (1.2e-7, 2e-7), (0.02, 0.02), (0.0999, 0.1), (3.0001, 4), (9.5, 10)])
def test_figures_are_rounded_up_to_one_digit(value: float, rounded: float):
    assert verify.round_up(value) == pytest.approx(rounded)


@pytest.mark.skipif(not int8_here.LACKING, reason="this CPU can compute int8")
def test_int8_is_refused_where_this_cpu_cannot_verify_it(made, tmp_path: Path):
    with pytest.raises(ExportError, match="int8-portable"):
        export(str(made("wav2vec2")), tmp_path / "m.onnx", "int8")
    assert list(tmp_path.iterdir()) == []
