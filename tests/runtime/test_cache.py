"""Where things are kept, and what is there after a write that failed or had company."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from stapes import cache
from stapes.errors import ModelError, ModelNotFound

HOME = Path("/home/someone")


@pytest.mark.parametrize(
    ("platform", "environment", "kept"),
    [
        ("linux", {}, "/home/someone/.cache/stapes"),
        ("linux", {"XDG_CACHE_HOME": "/fast"}, "/fast/stapes"),
        ("linux", {"XDG_CACHE_HOME": ""}, "/home/someone/.cache/stapes"),
        ("linux", {"XDG_CACHE_HOME": "here"}, "/home/someone/.cache/stapes"),  # the specification: a relative path is ignored
        ("darwin", {"XDG_CACHE_HOME": "/fast"}, "/home/someone/Library/Caches/stapes"),
        ("win32", {"LOCALAPPDATA": "/users/someone/local"}, "/users/someone/local/stapes"),
        ("win32", {}, "/home/someone/AppData/Local/stapes"),
    ],
)
def test_every_platform_has_its_own_place(platform: str, environment: dict[str, str], kept: str):
    assert cache.usual(platform, environment, HOME) == Path(kept)


def test_the_variable_wins_and_nothing_is_made(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("STAPES_CACHE", str(tmp_path / "kept"))
    assert cache.folder() == tmp_path / "kept"
    assert not (tmp_path / "kept").exists()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("STAPES_CACHE", "here")
    assert cache.folder() == tmp_path / "here"
    monkeypatch.setenv("STAPES_CACHE", "")
    monkeypatch.setenv("HOME", str(HOME))
    assert cache.folder() == cache.usual(sys.platform, os.environ, Path.home())


def test_a_file_appears_whole_with_what_it_names(tmp_path: Path):
    path = tmp_path / "deep" / "model.onnx"
    with cache.placing(path) as draft:
        assert (draft.name, draft.parent.parent) == (path.name, path.parent)
        draft.write_text("graph")
        draft.with_name("model.onnx.data").write_text("weights")
        assert not path.exists()
    assert {entry.name: entry.read_text() for entry in path.parent.iterdir()} == {"model.onnx": "graph", "model.onnx.data": "weights"}


def test_a_write_that_fails_leaves_what_was_there(tmp_path: Path):
    path = tmp_path / "model.onnx"
    path.write_text("old")

    def write(error: BaseException) -> None:
        with cache.placing(path) as draft:
            draft.write_text("half")
            raise error

    for error in (ValueError("no"), KeyboardInterrupt()):
        with pytest.raises(type(error)):
            write(error)
    with pytest.raises(ModelNotFound, match="gone"):  # an OSError too, and still itself
        write(ModelNotFound("gone"))
    with pytest.raises(ModelError, match=r"cannot keep .*model\.onnx: No space left.*STAPES_CACHE"):
        write(OSError(28, "No space left on device"))
    assert {entry.name: entry.read_text() for entry in tmp_path.iterdir()} == {"model.onnx": "old"}


def test_a_place_that_cannot_be_written_says_so(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(ModelError, match=r"cannot keep .*; set STAPES_CACHE to a folder that can be written"),
        cache.placing(tmp_path / "file" / "model.onnx"),
    ):
        pass


WRITER = """
import sys
from pathlib import Path
from stapes import cache
for _ in range(200):
    with cache.placing(Path(sys.argv[1])) as draft:
        draft.write_text(sys.argv[2] * 10000)
"""


def test_two_processes_leave_the_file_of_one_of_them(tmp_path: Path):
    path = tmp_path / "kept" / "file"
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, str(path), letter]) for letter in "ab"]
    seen = set()
    while any(writer.poll() is None for writer in writers):
        if path.exists():
            seen.add(path.read_text())
    assert [writer.returncode for writer in writers] == [0, 0]
    assert seen <= {"a" * 10000, "b" * 10000}
    assert [entry.name for entry in path.parent.iterdir()] == ["file"]


def test_a_link_is_the_same_file_where_it_can_be(tmp_path: Path):
    (tmp_path / "file").write_text("weights")
    (tmp_path / "pointer").symlink_to("file")
    cache.link(tmp_path / "pointer", tmp_path / "link")
    assert (tmp_path / "link").samefile(tmp_path / "file")
    assert not (tmp_path / "link").is_symlink()


def test_a_link_to_another_disk_is_a_copy(tmp_path: Path):
    other = Path("/dev/shm")
    if not other.is_dir() or other.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("no second disk at /dev/shm")
    (tmp_path / "file").write_text("weights")
    copy = other / f"stapes-{os.getpid()}"
    try:
        cache.link(tmp_path / "file", copy)
        assert copy.read_text() == "weights"
        assert copy.stat().st_nlink == 1
    finally:
        copy.unlink(missing_ok=True)
