"""Many files at once: order, folders, jobs, the journal, and the line that sums it up."""

import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile

WORDS = ["left.flac", "no.flac", "stop.flac", "yes.flac"]


@pytest.fixture
def folder(root: Path, tmp_path: Path) -> Path:
    """Words in two subfolders, one file that is no audio but called so, and files that are passed over."""
    base = tmp_path / "clips"
    for index, name in enumerate(WORDS):
        target = base / "ab"[index % 2] / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(root / "examples" / name, target)
    (base / "a" / "broken.wav").write_bytes(b"not audio at all" * 20)
    (base / "notes.txt").write_text("no clip")
    (base / "a" / "._left.flac").write_bytes(b"a resource fork")
    return base


def labels(done: subprocess.CompletedProcess[str]) -> list[tuple[str, str]]:
    return [
        (Path(line["path"]).name, line["predictions"][0]["label"] if "predictions" in line else line["error"]["type"])
        for line in map(json.loads, done.stdout.splitlines())
    ]


EXPECTED = [("broken.wav", "MalformedAudio"), ("left.flac", "left"), ("stop.flac", "stop"), ("no.flac", "no"), ("yes.flac", "yes")]


@pytest.mark.parametrize("options", [[], ["--jobs", "3"], ["-b", "2"], ["-b", "4", "--jobs", "2"]], ids=" ".join)
def test_a_folder_is_gone_through_in_the_order_of_its_paths(options: list[str], folder: Path, stapes_command):
    done = stapes_command("classify", folder, "--format", "jsonl", "--top-k", "1", *options)
    assert done.returncode == 1
    assert labels(done) == EXPECTED


def test_one_line_sums_up_and_one_names_each_failure(folder: Path, stapes_command):
    done = stapes_command("classify", folder, "--format", "csv")
    lines = done.stderr.splitlines()
    assert [line for line in lines if "broken.wav" in line] == [line for line in lines if "cannot decode" in line]
    found = re.fullmatch(r"stapes: 5 files, 1 failed, 3\.0 s of sound in [\d.]+ s, [\d.]+ times real time", lines[-1])
    assert found, lines[-1]
    assert "Traceback" not in done.stderr


def test_quiet_leaves_errors_and_nothing_else(folder: Path, stapes_command):
    (line,) = stapes_command("classify", folder, "-q").stderr.splitlines()
    assert "broken.wav" in line


def test_each_clip_gets_a_file_of_its_own_below_an_output_folder(folder: Path, stapes_command, tmp_path: Path):
    out = tmp_path / "found"
    done = stapes_command("classify", folder, "--format", "audacity", "-o", f"{out}/", "--top-k", "1")
    assert done.returncode == 1
    written = sorted(str(path.relative_to(out)) for path in out.rglob("*") if path.is_file())
    assert written == ["a/left.flac.txt", "a/stop.flac.txt", "b/no.flac.txt", "b/yes.flac.txt"]
    assert (out / "a/left.flac.txt").read_text().split("\t")[2] == "left\n"


@pytest.fixture
def many(root: Path, tmp_path: Path) -> Path:
    """Thirty clips of a word among noise, that all differ."""
    base = tmp_path / "many"
    base.mkdir()
    word, rate = soundfile.read(root / "examples" / "stop.flac", dtype="float32")
    for index in range(30):
        noise = 0.002 * np.random.default_rng(index).standard_normal(len(word) * 8).astype(np.float32)
        soundfile.write(base / f"{index:02}.flac", np.tile(word, 8) + noise, rate)
    return base


ARGUMENTS = ["--format", "csv", "--window", "0.5", "--hop", "0.02", "-b", "1"]


def rows(text: str) -> list[list[str]]:
    return list(csv.reader(text.splitlines()))


def test_a_killed_run_goes_on_where_it_was(many: Path, tmp_path: Path, stapes_command):
    journal, out = tmp_path / "journal", tmp_path / "out.csv"
    whole = stapes_command("classify", many, *ARGUMENTS)
    assert whole.returncode == 0
    command = [sys.executable, "-m", "stapes.cli", "classify", str(many), *ARGUMENTS, "--resume", str(journal), "-o", str(out)]
    for least in (2, 6):  # killed twice, at different moments
        child = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 120
        while not journal.exists() or journal.read_bytes().count(b"\n") <= least:
            assert child.poll() is None, "it was done before it could be killed"
            assert time.monotonic() < deadline
            time.sleep(0.002)
        child.send_signal(signal.SIGKILL)
        child.wait()
        assert not out.exists(), "the output appears whole or not at all"
    kept = journal.read_bytes().count(b"\n") - 1
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert f"30 files ({kept} from the journal)" in done.stderr
    assert rows(out.read_text()) == rows(whole.stdout)  # nothing lost, nothing twice
    entries = [json.loads(line)["result"]["path"] for line in journal.read_text().splitlines()[1:]]
    assert sorted(entries) == sorted(map(str, many.iterdir()))


def test_a_line_that_was_cut_off_is_not_believed(folder: Path, tmp_path: Path, stapes_command):
    journal = tmp_path / "journal"
    arguments = ("classify", folder, "--format", "jsonl", "--top-k", "1", "--resume", journal)
    stapes_command(*arguments)
    whole = journal.read_bytes()
    for cut in (len(whole) - 1, len(whole) - 40, 5, 0):
        journal.write_bytes(whole[:cut])
        assert labels(stapes_command(*arguments)) == EXPECTED
        assert sorted(journal.read_bytes().splitlines()) == sorted(whole.splitlines())


def test_a_file_that_changed_is_heard_again(folder: Path, tmp_path: Path, stapes_command):
    arguments = ("classify", folder, "--format", "jsonl", "--top-k", "1", "--resume", tmp_path / "journal")
    stapes_command(*arguments)
    shutil.copy(folder / "b" / "yes.flac", folder / "a" / "left.flac")
    shutil.copy(folder / "b" / "yes.flac", folder / "a" / "broken.wav")  # what failed is tried again
    done = stapes_command(*arguments)
    assert labels(done)[:3] == [("broken.wav", "yes"), ("left.flac", "yes"), ("stop.flac", "stop")]
    assert "(3 from the journal)" in done.stderr


def test_a_journal_of_other_settings_is_refused_with_what_differs(folder: Path, tmp_path: Path, stapes_command):
    journal = tmp_path / "journal"
    stapes_command("classify", folder, "--top-k", "1", "--resume", journal)
    kept = journal.read_bytes()
    done = stapes_command("classify", folder, "--top-k", "2", "--resume", journal)
    assert done.returncode == 2
    assert "options" in done.stderr
    assert "--resume" in done.stderr
    done = stapes_command("classify", folder, "--top-k", "1", "--downmix", "0", "--resume", journal)
    assert done.returncode == 2
    assert "reading" in done.stderr
    assert journal.read_bytes() == kept


@pytest.mark.parametrize("content", [b"precious", b"precious\n", b'{"a": 1}\n', b"[1]\n", b"\xff\n", b"{}"])
def test_a_file_that_is_no_journal_is_left_as_it_is(content: bytes, folder: Path, tmp_path: Path, stapes_command):
    other = tmp_path / "other"
    other.write_bytes(content)
    done = stapes_command("classify", folder, "--resume", other)
    assert done.returncode == 2
    assert "no journal" in done.stderr
    assert "Traceback" not in done.stderr
    assert other.read_bytes() == content


@pytest.mark.skipif(os.name == "nt", reason="no lock on Windows")
def test_two_runs_cannot_keep_one_journal(folder: Path, tmp_path: Path, stapes_command):
    import fcntl

    with (tmp_path / "journal").open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        done = stapes_command("classify", folder, "--resume", tmp_path / "journal")
    assert done.returncode == 2
    assert "another run" in done.stderr


def test_a_terminal_sees_a_bar_and_a_log_does_not(folder: Path, tmp_path: Path):
    import pty

    main, side = pty.openpty()
    command = [sys.executable, "-m", "stapes.cli", "classify", str(folder / "b"), "--window", "0.3", "--hop", "0.0005", "-b", "1"]
    subprocess.run(command, stdout=subprocess.DEVNULL, stderr=side, timeout=300, check=True)
    os.close(side)
    seen = b""
    while True:
        try:
            piece = os.read(main, 65536)
        except OSError:  # Linux's way to say that the other end is closed
            break
        if not piece:
            break
        seen += piece
    os.close(main)
    assert re.search(rb"\r\[[#.]{20}\] \d/2 files, [\d.]+ s of sound, [\d.]+x real time", seen)
