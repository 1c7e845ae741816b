"""`stapes package --for c`: a directory that builds, runs and proves itself, and that replaces nothing of anyone's."""

import os
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import soundfile
import tiny_models
from c_build import need, run, wheel_library
from onnx import TensorProto
from tiny_models import MANIFEST, tiny, told

import stapes
from stapes.bundle import Golden
from stapes.classifier import DEFAULT_MODEL
from stapes.errors import ExportError, ModelError
from stapes_export.targets import c

HEAVY = ("torch", "transformers", "optimum", "onnx", "onnx_ir", "onnxscript")
WAVES = {"golden.wav", "noise.wav", "tones.wav", "shortest.wav"}


@pytest.fixture(scope="module")
def packaged(tmp_path_factory: pytest.TempPathFactory, stapes_command: Callable) -> Path:
    """The embedded model's package, by the command line, where neither torch nor onnx can be imported."""
    out = tmp_path_factory.mktemp("package") / "speech commands"
    done = stapes_command("package", DEFAULT_MODEL, "--for", "c", "-o", out, without=HEAVY)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    return out


def test_the_package_holds_all_that_an_embedder_needs(packaged: Path):
    vectors = {f"vectors/{name}{end}" for name in WAVES for end in ("", ".tsv")}
    found = {path.relative_to(packaged).as_posix() for path in packaged.rglob("*") if path.is_file()}
    assert found == {*c.FILES, "README.md", "wav2vec2-ks12.onnx", *vectors}
    assert (packaged / "wav2vec2-ks12.onnx").read_bytes() == DEFAULT_MODEL.read_bytes()
    assert "make ORT=DIR check" in (packaged / "README.md").read_text()


def test_the_vectors_are_pythons_scores_of_their_files(packaged: Path):
    model = stapes.load(DEFAULT_MODEL, device="cpu")
    kinds = set()
    for wave in (packaged / "vectors").glob("*.wav"):
        told = soundfile.info(wave)
        kinds.add((told.channels, told.subtype))
        scores = {one.index: one.score for one in model(wave, top_k=None)}
        for line in wave.with_name(f"{wave.name}.tsv").read_text().splitlines():
            index, score, label = line.split("\t")
            assert label == model.manifest.labels[int(index)]
            assert float(score) == pytest.approx(scores.pop(int(index)), abs=model.manifest.golden.tolerance)
        assert not scores
    assert kinds == {(1, "FLOAT"), (1, "PCM_16"), (2, "PCM_24"), (1, "PCM_32")}


def test_make_check_builds_runs_and_compares(packaged: Path, tmp_path: Path):
    need("cc", "make")
    done = run(["make", "-C", packaged, f"ORT={wheel_library()}", f"OUT={tmp_path}", "check"])
    assert done.returncode == 0, done.stdout + done.stderr
    lines = [line for line in done.stdout.splitlines() if line.startswith(("ok", "FAILED"))]
    assert len(lines) == 1 + len(WAVES)
    assert all(line.startswith("ok") for line in lines)
    clip = packaged / "vectors" / "golden.wav"
    assert run([tmp_path / "stapes-classify", packaged / "wav2vec2-ks12.onnx", clip, "1"]).stdout.count("\t") == 1


def test_cmake_builds_it_and_ctest_passes(packaged: Path, tmp_path: Path):
    need("cc", "cmake", "ctest")
    for command in (
        ["cmake", "-S", packaged, "-B", tmp_path, f"-DORT={wheel_library()}"],
        ["cmake", "--build", tmp_path],
        ["ctest", "--test-dir", tmp_path, "--output-on-failure"],
    ):
        done = run(command)
        assert done.returncode == 0, done.stdout + done.stderr
    assert "100% tests passed" in done.stdout


def test_the_check_fails_on_other_scores_and_says_where(tmp_path: Path):
    need("cc", "make")
    c.package(tiny_models.write(tmp_path / "m.onnx", tiny()), tmp_path / "out")
    vector = tmp_path / "out" / "vectors" / "noise.wav.tsv"
    first, *rest = vector.read_text().splitlines()
    index, score, label = first.split("\t")
    vector.write_text("\n".join([f"{index}\t{float(score) + 1e-3:.9g}\t{label}", *rest, ""]))
    (tmp_path / "out" / "vectors" / "tones.wav.tsv").write_text("0\t0.5\tmean\n")
    (tmp_path / "out" / "vectors" / "shortest.wav").write_bytes(b"RIFF")
    done = run(["make", "-C", tmp_path / "out", f"ORT={wheel_library()}", f"OUT={tmp_path}", "check"])
    assert done.returncode != 0
    failed = [line for line in done.stdout.splitlines() if line.startswith("FAILED")]
    assert len(failed) == 3
    assert any("noise.wav: scores within 0.001 of" in line for line in failed)
    assert any("tones.wav: the file of its expected scores" in line for line in failed)
    assert any("shortest.wav: it is no WAV file" in line for line in failed)


def test_weights_beside_the_model_come_along(tmp_path: Path):
    model = tiny()
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (("location", "weights.data"), ("offset", "0"), ("length", "4")):
        entry = tensor.external_data.add()
        entry.key, entry.value = key, value
    (tmp_path / "weights.data").write_bytes(bytes(4))
    c.package(tiny_models.write(tmp_path / "m.onnx", model), tmp_path / "out")
    assert (tmp_path / "out" / "weights.data").read_bytes() == bytes(4)
    assert stapes.load(tmp_path / "out" / "tiny.onnx")(tmp_path / "out" / "vectors" / "noise.wav")
    tensor.external_data[0].value = "Makefile"
    (tmp_path / "Makefile").write_bytes(bytes(4))
    with pytest.raises(ExportError, match=r"keeps its weights in 'Makefile', not in a file NAME\.data"):
        c.package(tiny_models.write(tmp_path / "m.onnx", model), tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_an_earlier_package_is_replaced_even_where_it_was_built(tmp_path: Path):
    out = tmp_path / "out"
    c.package(tiny_models.write(tmp_path / "m.onnx", tiny()), out)
    for name in c.BUILT:
        (out / name).write_bytes(b"built")
    c.package(tiny_models.write(tmp_path / "m.onnx", tiny(told(name="other"))), out)
    assert (out / "other.onnx").is_file()
    assert not (out / "tiny.onnx").exists()
    assert not (out / c.BUILT[0]).exists()
    assert sorted(os.listdir(tmp_path)) == ["m.onnx", "out"]


@pytest.mark.parametrize("foreign", ["notes.txt", "src/main.c", "vectors/song.mp3"])
def test_a_foreign_directory_is_left_alone(foreign: str, tmp_path: Path):
    out = tmp_path / "out"
    (out / foreign).parent.mkdir(parents=True)
    (out / foreign).write_text("mine")
    with pytest.raises(ExportError, match=f"holds {foreign.split('/')[0]}"):
        c.package(tiny_models.write(tmp_path / "m.onnx", tiny()), out)
    assert [path for path in out.rglob("*") if path.is_file()] == [out / foreign]


def test_a_directory_of_models_is_no_earlier_package(tmp_path: Path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.onnx").write_bytes(b"mine")
    with pytest.raises(ExportError, match=r"holds mine\.onnx and no stapes\.h"):
        c.package(tiny_models.write(tmp_path / "m.onnx", tiny()), tmp_path / "out")
    assert (tmp_path / "out" / "mine.onnx").read_bytes() == b"mine"


def test_what_cannot_be_written_is_told_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    model = tiny_models.write(tmp_path / "m.onnx", tiny())
    with pytest.raises(ExportError, match="no folder"):
        c.package(model, tmp_path / "nowhere" / "out")
    with pytest.raises(ExportError, match="is a file"):
        c.package(model, model)
    monkeypatch.setattr(c, "FILES", (*c.FILES, "gone.c"))
    with pytest.raises(ExportError, match="cannot write"):
        c.package(model, tmp_path / "out")
    assert os.listdir(tmp_path) == ["m.onnx"]


def test_a_model_that_no_c_host_could_use_is_refused(tmp_path: Path):
    golden = MANIFEST.golden
    assert golden is not None
    wrong = Golden(golden.seconds, (golden.logits[0] + 1, *golden.logits[1:]), golden.tolerance)
    for manifest, error, text in (
        (told(golden=None), ExportError, "no single file with a golden test"),
        (told(golden=wrong), ExportError, "this host cannot say what the scores are: tiny: logits off by 1"),
        (None, ModelError, "without a stapes manifest"),
    ):
        with pytest.raises(error, match=text):
            c.package(tiny_models.write(tmp_path / "m.onnx", tiny(manifest)), tmp_path / "out")
        assert not (tmp_path / "out").exists()


def test_a_name_of_a_stranger_is_a_plain_file_name(tmp_path: Path):
    c.package(tiny_models.write(tmp_path / "m.onnx", tiny(told(name="../../a b$(x)\n"))), tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").glob("*.onnx")] == ["------a-b--x--.onnx"]


def test_the_command_wants_a_target_and_a_model(stapes_command: Callable, tmp_path: Path):
    assert stapes_command("package", DEFAULT_MODEL, "-o", tmp_path / "out").returncode == 2
    done = stapes_command("package", tmp_path / "gone.onnx", "--for", "c", "-o", tmp_path / "out")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "no model at" in done.stderr


def test_the_wheel_carries_the_c_files(root: Path, tmp_path: Path):
    # as in test_structure, and installed beside nothing of the checkout
    import subprocess
    import sys

    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path), str(root)]
    subprocess.run(build, check=True, capture_output=True)
    (path,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(path) as wheel:
        wheel.extractall(tmp_path / "site")
    source = root / "examples" / "hosts" / "c"
    for name in c.FILES:
        assert (tmp_path / "site" / "stapes_export" / "targets" / "c_files" / name).read_bytes() == (source / name).read_bytes()
    code = "import sys; from stapes.cli import main; from stapes_export.targets import c; print(c.__file__); sys.exit(main())"
    arguments = ["package", str(DEFAULT_MODEL), "--for", "c", "-o", str(tmp_path / "out")]
    env = {**os.environ, "PYTHONPATH": str(tmp_path / "site")}
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, cwd=tmp_path, env=env)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(str(tmp_path / "site"))
    assert (tmp_path / "out" / "stapes.h").read_bytes() == (source / "stapes.h").read_bytes()
