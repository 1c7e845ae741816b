"""The shop window, and what importing it costs."""

import json
import subprocess
import sys
from pathlib import Path

import stapes
from stapes_bench.footprint import closure, installed_bytes

HEAVY = ("torch", "transformers", "optimum", "onnx", "onnx_ir", "onnxscript", "torchaudio")


def modules_after(code: str) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport json, sys; print(json.dumps(sorted(sys.modules)))"],
        capture_output=True,
        text=True,
        check=True,
    )
    return set(json.loads(done.stdout.splitlines()[-1]))


def test_every_public_name_is_there_once():
    assert len(set(stapes.__all__)) == len(stapes.__all__)
    assert all(hasattr(stapes, name) for name in stapes.__all__)
    public = {name for name in vars(stapes) if not name.startswith("_")}
    modules = {name for name in public if type(getattr(stapes, name)).__name__ == "module"}
    assert public - modules == set(stapes.__all__)


def test_importing_stapes_imports_no_onnxruntime():
    assert "onnxruntime" not in modules_after("import stapes")


def test_classifying_imports_nothing_heavy(root: Path):
    loaded = modules_after(f"import stapes; print(stapes.load()({str(root / 'examples' / 'yes.flac')!r}))")
    assert "onnxruntime" in loaded
    assert not loaded & set(HEAVY)


def test_classifying_works_where_nothing_heavy_can_be_imported(root: Path, stapes_command):
    done = stapes_command("classify", "examples/yes.flac", without=HEAVY)
    assert done.returncode == 0, done.stderr
    assert "yes" in done.stdout


def test_each_error_is_also_the_builtin_that_its_tree_names():
    tree = {
        "InvalidInput": TypeError,
        "AudioError": ValueError,
        "InvalidOption": ValueError,
        "AudioNotFound": FileNotFoundError,
        "AudioIsFolder": IsADirectoryError,
        "DownloadError": ConnectionError,
        "ClipTooShort": RuntimeError,
        "ModelError": ValueError,
        "ModelNotFound": FileNotFoundError,
        "DeviceError": RuntimeError,
        "MissingExtra": ImportError,
        "ExportError": RuntimeError,
        "CheckpointError": ValueError,
    }
    drawn = (stapes.errors.__doc__ or "").splitlines()
    for name, builtin in tree.items():
        assert issubclass(getattr(stapes, name), builtin)
        assert any(name in line.split() and builtin.__name__ in line.split() for line in drawn)
    for name in stapes.__all__:
        thing = getattr(stapes, name)
        if isinstance(thing, type) and issubclass(thing, Exception) and not issubclass(thing, Warning):
            assert issubclass(thing, stapes.StapesError)


def test_what_the_cpu_extra_installs_stays_under_160_mb():
    brought = closure(["stapes"], ["cpu"])
    assert {"numpy", "soxr", "soundfile", "onnxruntime"} <= brought
    assert not brought & set(HEAVY)
    assert installed_bytes(brought) < 160e6


def test_a_command_loads_nothing_that_only_another_needs(root: Path):
    loaded = modules_after(f"from stapes.cli import main; main(['classify', {str(root / 'examples' / 'yes.flac')!r}])")
    assert "stapes.classifier" in loaded
    brought = modules_after("import numpy, onnxruntime, soundfile, soxr")  # older ones load more of the standard library
    assert "stapes.doctor" not in loaded
    assert not (loaded - brought) & {"importlib.metadata", "email", "concurrent.futures", "hashlib", "http"}
