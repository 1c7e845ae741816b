"""models.lock pins both ends: a changed byte is an error that names the file, and an export from it can be repeated to the byte."""

import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from hub_server import Hub, serve
from int8_here import INT8

from stapes.errors import CheckpointError
from stapes_export import lock, pinning
from stapes_export.build import export
from stapes_export.fetch import sha256
from stapes_export.lock import LockedArtifact, Pin


@pytest.fixture
def pinned(made, tmp_path: Path) -> Path:
    """A lock file that pins a checkpoint beside it and names an artifact."""
    shutil.copytree(made("wav2vec2"), tmp_path / "checkpoint")
    pinning.add(tmp_path / "models.lock", str(tmp_path / "checkpoint"), None, "small", [LockedArtifact("small.onnx", INT8)])
    return tmp_path / "models.lock"


def flip_a_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def test_a_lock_is_sorted_and_survives_reading_and_writing(pinned: Path):
    entries = lock.read(pinned)
    text = pinned.read_text()
    lock.write(pinned, dict(reversed(entries.items())))
    assert pinned.read_text() == text
    assert lock.read(pinned) == entries
    (entry,) = entries.values()
    assert entry.source == "checkpoint"
    assert list(tomllib.loads(text)["small"]["files"]) == ["config.json", "model.safetensors", "preprocessor_config.json"]
    config = pinned.parent / "checkpoint" / "config.json"
    assert entry.files["config.json"] == Pin(sha256(config), config.stat().st_size)


def test_sync_makes_what_is_missing_and_then_nothing(pinned: Path):
    assert [problem for _, problem in pinning.verify(pinned, []) if problem] == ["not made yet; run stapes lock sync"]
    assert pinning.sync(pinned, []) == ["small.onnx"]
    assert [problem for _, problem in pinning.verify(pinned, []) if problem] == []
    before = pinned.read_text()
    assert pinning.sync(pinned, []) == []
    assert pinned.read_text() == before
    (artifact,) = lock.read(pinned)["small"].artifacts
    assert artifact.pin == Pin(sha256(pinned.parent / "small.onnx"), (pinned.parent / "small.onnx").stat().st_size)
    assert {"torch", "transformers", "onnx"} <= set(artifact.tools)


def test_a_changed_byte_at_either_end_is_named(pinned: Path):
    pinning.sync(pinned, [])
    flip_a_byte(pinned.parent / "small.onnx")
    assert [name for name, problem in pinning.verify(pinned, []) if problem] == ["small: small.onnx"]
    flip_a_byte(pinned.parent / "checkpoint" / "model.safetensors")
    problems = [problem for _, problem in pinning.verify(pinned, []) if problem]
    assert "model.safetensors of checkpoint is not the file" in problems[0]
    with pytest.raises(CheckpointError, match=r"model\.safetensors"):
        export("small", pinned.parent / "again.onnx", lock_file=pinned)
    assert not (pinned.parent / "again.onnx").exists()


def test_a_locked_name_takes_exactly_the_pinned_files(pinned: Path):
    (pinned.parent / "checkpoint" / "pytorch_model.bin").write_bytes(b"never read")
    export("small", pinned.parent / "m.onnx", lock_file=pinned)
    with pytest.raises(CheckpointError, match="pinned"):
        export("small", pinned.parent / "m.onnx", revision="main", lock_file=pinned)


@pytest.mark.parametrize("precision", ["fp32", INT8])
def test_a_second_export_in_another_process_gives_the_same_bytes(precision: str, pinned: Path):
    command = [sys.executable, "-m", "stapes.cli", "export", "small", "--precision", precision, "-o"]
    for name in ("first.onnx", "second.onnx"):
        subprocess.run([*command, name], cwd=pinned.parent, check=True, capture_output=True)
    assert (pinned.parent / "first.onnx").read_bytes() == (pinned.parent / "second.onnx").read_bytes()


def test_a_damaged_lock_is_refused(tmp_path: Path):
    (tmp_path / "models.lock").write_text("[small]\nsource = 5\n")
    with pytest.raises(CheckpointError, match="no lock file of stapes"):
        lock.read(tmp_path / "models.lock")
    (tmp_path / "models.lock").write_text('[small]\nsource = "owner/name"\nrevision = "main"\nfiles = {}\n')
    with pytest.raises(CheckpointError, match="40 hexadecimal digits"):
        lock.read(tmp_path / "models.lock")


def test_an_unknown_name_is_refused_with_the_known(pinned: Path):
    with pytest.raises(CheckpointError, match="has no large; it has small"):
        pinning.sync(pinned, ["large"])


def test_a_folder_elsewhere_cannot_be_pinned(made, tmp_path: Path):
    with pytest.raises(CheckpointError, match="outside"):
        pinning.add(tmp_path / "models.lock", str(made("wav2vec2")), None, None, [])


def test_a_hub_checkpoint_is_pinned_to_its_commit_and_a_wrong_hash_is_named(made, tmp_path: Path):
    files = tmp_path / "files"
    shutil.copytree(made("wav2vec2"), files)

    def stapes(*arguments: str, home: str) -> subprocess.CompletedProcess[str]:
        environment = {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / home), "HF_HUB_DISABLE_XET": "1", "PATH": "/usr/bin:/bin"}
        command = [sys.executable, "-m", "stapes.cli", *arguments]
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)

    with serve(Hub(files)) as hub:
        done = stapes("lock", "add", "owner/model@v1", "-o", "m.onnx", home="one")
        assert done.returncode == 0, done.stderr
        entry = lock.read(tmp_path / "models.lock")["model"]
        assert (entry.source, entry.revision) == ("owner/model", hub.commit)
        assert stapes("lock", "sync", home="one").stdout == "m.onnx\n"
        assert stapes("lock", "verify", home="two").returncode == 0
        assert "owner/model@" in stapes("lock", "list", home="two").stdout
        flip_a_byte(files / "model.safetensors")
        done = stapes("lock", "verify", home="three")
        assert done.returncode == 1
        assert "model.safetensors of owner/model is not the file" in done.stderr
        done = stapes("export", "model", "-o", "again.onnx", home="three")
        assert done.returncode == 2
        assert "model.safetensors" in done.stderr.splitlines()[-1]
    assert not (tmp_path / "again.onnx").exists()
