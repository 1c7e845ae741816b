"""A large model's optimized graph is kept and used again: the same answers, no broken load, and bounds to what lies on the disk."""

import json
import os
import pickle
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from onnx_wire import field

import stapes
from stapes import optimized, session
from stapes.classifier import DEFAULT_MODEL
from stapes.errors import ModelError

pytestmark = pytest.mark.skipif(not session.keeps_graphs(), reason="this ONNX Runtime or system keeps no graph (see session.keeps_graphs)")

BUILD, OTHER = "1.0 one", "1.0 other"


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the entries, for models of any size."""
    monkeypatch.setenv("STAPES_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(optimized, "SMALLEST", 1)
    return tmp_path / "cache" / "optimized"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A model's file that was not changed a moment ago."""
    path = tmp_path / "model.onnx"
    shutil.copyfile(DEFAULT_MODEL, path)
    return path


@pytest.fixture(scope="module")
def plain() -> np.ndarray:
    return answer(stapes.load(device="cpu", cache=False))


def answer(classifier: stapes.Classifier) -> np.ndarray:
    noise = np.random.default_rng(0).standard_normal((3, 20000)).astype(np.float32)
    return classifier.logits([0.1 * row[: 20000 - 5000 * i] for i, row in enumerate(noise)])


def entries(folder: Path) -> list[Path]:
    return [path for path in folder.glob("*") if path.name != "seen"]


def loaded(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The files that ONNX Runtime opens from now on."""
    import onnxruntime

    real, files = onnxruntime.InferenceSession, []

    def opened(path: Path, *options: object, **more: object) -> object:
        files.append(Path(path))
        return real(path, *options, **more)

    monkeypatch.setattr(onnxruntime, "InferenceSession", opened)
    return files


def test_the_second_start_uses_what_the_first_kept_and_answers_the_same(kept: Path, model: Path, plain, monkeypatch):
    files = loaded(monkeypatch)
    first, second = stapes.load(model, "cpu"), stapes.load(model, "cpu")
    (entry,) = entries(kept)
    assert files == [model, entry / optimized.GRAPH]
    assert np.array_equal(answer(first), plain)
    assert np.array_equal(answer(second), plain)
    assert second.manifest == first.manifest
    assert np.array_equal(answer(pickle.loads(pickle.dumps(second))), plain)


def test_threads_share_an_entry(kept: Path, model: Path):
    for threads in (1, 2, None):
        assert np.array_equal(answer(stapes.load(model, "cpu", threads)), answer(stapes.load(model, "cpu", threads, cache=False)))
    assert len(entries(kept)) == 1


def test_without_the_cache_nothing_is_written(kept: Path, model: Path):
    stapes.load(model, "cpu", cache=False)
    session.Session(model, "cpu")
    assert not kept.exists()


def test_a_small_model_is_not_worth_an_entry(tmp_path: Path, monkeypatch):
    monkeypatch.setenv("STAPES_CACHE", str(tmp_path / "cache"))
    assert DEFAULT_MODEL.stat().st_size < optimized.SMALLEST
    stapes.load(device="cpu")
    assert not (tmp_path / "cache").exists()


def test_the_command_line_leaves_the_cache_alone_when_told_to(root: Path, tmp_path: Path, stapes_command):
    code = "from stapes import optimized; optimized.SMALLEST = 1; from stapes.cli import main; sys.exit(main())"
    for options, expected in (["--no-cache"], 0), ([], 1):
        command = [sys.executable, "-c", f"import sys; {code}", "classify", "examples/yes.flac", "--device", "cpu", *options]
        done = subprocess.run(command, cwd=root, capture_output=True, text=True, env={**os.environ, "STAPES_CACHE": str(tmp_path)})
        assert (done.returncode, len(entries(tmp_path / "optimized"))) == (0, expected)
        assert "  yes   " in done.stdout


def damage_size(entry: Path) -> None:
    os.truncate(entry / optimized.WEIGHTS, 1000)


def damage_weights(entry: Path) -> None:
    with (entry / optimized.WEIGHTS).open("r+b") as file:
        file.seek(5000)
        file.write(b"\xff" * 100)


def damage_graph(entry: Path) -> None:
    stat = (entry / optimized.GRAPH).stat()
    (entry / optimized.GRAPH).write_bytes(b"\xff" * stat.st_size)
    os.utime(entry / optimized.GRAPH, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def damage_and_declare_whole(entry: Path) -> None:
    (entry / optimized.GRAPH).write_bytes(b"no graph")
    (entry / optimized.WHOLE).unlink()
    optimized._declare_whole(entry, "")


def remove_weights(entry: Path) -> None:
    (entry / optimized.WEIGHTS).unlink()


def remove_whole(entry: Path) -> None:
    (entry / optimized.WHOLE).unlink()


def garble_whole(entry: Path) -> None:
    (entry / optimized.WHOLE).write_text('["files"]')


def add_a_file(entry: Path) -> None:
    (entry / "more").write_text("")


DAMAGES = [damage_size, damage_weights, damage_graph, remove_weights, remove_whole, garble_whole, add_a_file]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_entry_is_noticed_and_made_anew(damage, kept: Path, model: Path, plain, monkeypatch):
    stapes.load(model, "cpu")
    (entry,) = entries(kept)
    damage(entry)
    files = loaded(monkeypatch)
    assert np.array_equal(answer(stapes.load(model, "cpu")), plain)
    assert np.array_equal(answer(stapes.load(model, "cpu")), plain)
    assert files == [model, entry / optimized.GRAPH]
    assert entries(kept) == [entry]


def test_an_entry_that_onnx_runtime_refuses_breaks_no_load_and_is_made_anew(kept: Path, model: Path, plain, monkeypatch, capfd):
    stapes.load(model, "cpu")
    (entry,) = entries(kept)
    damage_and_declare_whole(entry)
    files = loaded(monkeypatch)
    for _ in range(2):
        assert np.array_equal(answer(stapes.load(model, "cpu")), plain)
    assert files == [entry / optimized.GRAPH, model, entry / optimized.GRAPH]
    assert capfd.readouterr() == ("", "")


def test_another_file_at_the_same_path_has_its_own_entry(kept: Path, model: Path, monkeypatch):
    monkeypatch.setattr(optimized, "SETTLED_S", -1)
    stapes.load(model, "cpu")
    old = model.stat()
    # a label of the same length: the same size, and the times of before
    model.write_bytes(DEFAULT_MODEL.read_bytes().replace(b'"yes"', b'"yea"').replace(b'["yes', b'["yea'))
    os.utime(model, ns=(old.st_atime_ns, old.st_mtime_ns))
    assert model.stat().st_size == old.st_size
    stapes.load(model, "cpu")
    assert len(entries(kept)) == 2


def test_a_copy_shares_the_entry_and_a_link_too(kept: Path, model: Path, tmp_path: Path):
    (tmp_path / "elsewhere").mkdir()
    shutil.copyfile(model, tmp_path / "elsewhere" / "copy.onnx")
    (tmp_path / "link.onnx").symlink_to(model)
    for path in (model, tmp_path / "elsewhere" / "copy.onnx", tmp_path / "link.onnx"):
        stapes.load(path, "cpu")
    assert len(entries(kept)) == 1


def test_a_file_is_hashed_once_and_not_remembered_while_it_may_still_change(kept: Path, model: Path):
    assert optimized.find(model, BUILD, "cpu")
    assert not list((kept / "seen").glob("*"))
    time.sleep(optimized.SETTLED_S + 0.1)
    first = optimized.find(model, BUILD, "cpu")
    (seen,) = (kept / "seen").glob("*.json")
    content = json.loads(seen.read_text())
    seen.write_text(json.dumps(content | {"sha256": "0" * 64}))  # what is remembered is believed, so nothing was read
    assert first
    assert optimized.find(model, BUILD, "cpu") != first
    os.utime(model)
    assert optimized.find(model, BUILD, "cpu") == optimized.Entry(first.folder, model, optimized._stat(model), BUILD)


def test_an_entry_belongs_to_a_build_and_a_cpu(kept: Path, model: Path):
    places = {optimized.find(model, build, cpu).folder for build in (BUILD, OTHER) for cpu in ("avx2", "avx2 vnni")}
    assert len(places) == 4
    assert {place.parent for place in places} == {kept}


def test_weights_in_another_file_have_no_entry(kept: Path, tmp_path: Path):
    tensor = field(13, field(1, b"location") + field(2, b"weights.bin"))  # TensorProto.external_data
    (tmp_path / "weights.bin").write_bytes(b"x" * 1000)
    (tmp_path / "outside.onnx").write_bytes(field(7, field(5, tensor)))  # ModelProto.graph, GraphProto.initializer
    (tmp_path / "inside.onnx").write_bytes(field(7, field(5, b"")))
    assert optimized.find(tmp_path / "outside.onnx", BUILD, "cpu") is None
    assert optimized.find(tmp_path / "inside.onnx", BUILD, "cpu")


def test_a_model_that_changes_while_it_is_loaded_is_not_kept(kept: Path, model: Path):
    entry = optimized.find(model, BUILD, "cpu")
    with entry.filling() as draft:
        (draft / optimized.GRAPH).write_text("graph")
        os.utime(model)
    assert entries(kept) == []


def test_of_two_processes_the_first_ones_stays(kept: Path, model: Path):
    entry = optimized.find(model, BUILD, "cpu")
    with entry.filling() as late:
        (late / optimized.GRAPH).write_text("late")
        with entry.filling() as early:
            (early / optimized.GRAPH).write_text("early")
        assert entry.whole()
    assert entry.graph.read_text() == "early"
    assert [path.name for path in kept.iterdir()] == [entry.folder.name]


def test_no_second_process_writes_what_one_is_writing(kept: Path, model: Path):
    entry = optimized.find(model, BUILD, "cpu")
    with entry.filling() as draft:
        (draft / optimized.GRAPH).write_text("graph")
        assert optimized.find(model, BUILD, "cpu") is None
        assert optimized.find(model, OTHER, "cpu")
        long_ago = time.time() - optimized.FILLING_S - 1
        os.utime(draft.parent, (long_ago, long_ago))  # it died
        assert optimized.find(model, BUILD, "cpu")
    assert optimized.find(model, BUILD, "cpu") == entry


START = """
import sys, numpy as np, stapes
from stapes import optimized
optimized.SMALLEST = 1
print(stapes.load(sys.argv[1], "cpu").logits([np.ones(16000, np.float32)]).tobytes().hex())
"""


def test_many_processes_start_at_once(kept: Path, model: Path):
    command = [sys.executable, "-c", START, str(model)]
    started = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    answers = {process.communicate(timeout=120)[0] for process in started}
    assert [process.returncode for process in started] == [0] * 4
    assert len(answers) == 1
    assert len(entries(kept)) == 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_child_opens_the_entry(kept: Path, model: Path):
    program = START + "import os, warnings; warnings.simplefilter('ignore'); classifier = stapes.load(sys.argv[1], 'cpu')\n"
    program += "pid = os.fork()\nif not pid: os._exit(len(classifier.logits([np.ones(16000, np.float32)])[0]))\n"
    program += "sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) - 12)"
    for _ in range(2):
        assert subprocess.run([sys.executable, "-c", program, str(model)], capture_output=True, timeout=120).returncode == 0


@pytest.mark.parametrize("place", ["/dev/null", "/proc", "file"])
def test_a_place_that_cannot_be_written_breaks_no_load(place: str, kept: Path, model: Path, tmp_path: Path, plain, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("STAPES_CACHE", str(tmp_path / place))
    assert np.array_equal(answer(stapes.load(model, "cpu")), plain)


def test_a_user_without_a_home_breaks_no_load(kept: Path, model: Path, plain, monkeypatch):
    monkeypatch.delenv("STAPES_CACHE")
    monkeypatch.delenv("HOME")
    monkeypatch.setattr(Path, "home", lambda: (_ for _ in ()).throw(RuntimeError("Could not determine home directory.")))
    assert np.array_equal(answer(stapes.load(model, "cpu")), plain)


def test_a_disk_that_is_nearly_full_gets_no_entry(kept: Path, model: Path, monkeypatch):
    monkeypatch.setattr(optimized, "TIMES", 1e12)
    assert optimized.find(model, BUILD, "cpu") is None


def test_a_disk_that_fills_up_meanwhile_breaks_no_load(kept: Path, model: Path, plain, tmp_path: Path):
    limited = "import resource, signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"  # as a full disk: a write fails in its middle
    limited += "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))\n"
    done = subprocess.run([sys.executable, "-c", limited + START, str(model)], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
    ones = stapes.load(model, "cpu", cache=False).logits([np.ones(16000, np.float32)])
    assert done.stdout.strip() == ones.tobytes().hex()
    assert entries(kept) == []


def test_a_broken_model_is_the_same_error_with_the_cache(kept: Path, tmp_path: Path):
    (tmp_path / "bad.onnx").write_bytes(DEFAULT_MODEL.read_bytes()[:-1000])
    with pytest.raises(ModelError, match="cannot load"):
        session.Session(tmp_path / "bad.onnx", "cpu", cached=True)
    assert entries(kept) == []


@pytest.fixture
def made(kept: Path, model: Path) -> Iterator[object]:
    """made("name", build, days): an entry of 1000 bytes last used so many days ago."""

    def make(cpu: str, build: str, days: float) -> Path:
        entry = optimized.find(model, build, cpu)
        with entry.filling() as draft:
            (draft / optimized.GRAPH).write_bytes(b"x" * 1000)
        used = time.time() - days * optimized.DAY_S
        os.utime(entry.folder / optimized.WHOLE, (used, used))
        return entry.folder

    return make


def test_entries_that_nobody_uses_go_and_those_of_other_builds_sooner(kept: Path, made):
    others, fresh, old, older = made("a", OTHER, 2), made("b", OTHER, 0.5), made("c", BUILD, 29), made("d", BUILD, 31)
    (kept / ".dead.x").mkdir()
    (kept / ".alive.x").mkdir()
    os.utime(kept / ".dead.x", (0, 0))
    new = made("e", BUILD, 0)
    assert set(kept.iterdir()) == {old, fresh, new, kept / ".alive.x"}
    assert not older.exists()
    assert not others.exists()


def test_the_bytes_of_all_entries_are_bounded_and_the_last_used_stay(kept: Path, made, monkeypatch):
    entry = made("a", BUILD, 3)
    monkeypatch.setattr(optimized, "MOST", 2 * optimized._size(entry) + 100)
    monkeypatch.setattr(
        optimized, "find", lambda model, build, cpu: optimized.Entry(kept / (cpu * 64), model, optimized._stat(model), build)
    )
    second, third = made("b", BUILD, 2), made("c", BUILD, 1)
    assert set(entries(kept)) == {second, third}
    optimized.Entry(second, second, (), BUILD).used()
    fourth = made("d", BUILD, 0)
    assert set(entries(kept)) == {second, fourth}
    assert optimized.holdings()[0] == 2


def test_the_doctor_tells_of_the_entries(kept: Path, model: Path):
    from stapes import doctor

    stapes.load(model, "cpu")
    (finding,) = doctor._cache(doctor.Runtime(None, "", {}))
    assert f"{kept.parent}, 1 optimized graph of 0.0 GB" in finding.value
