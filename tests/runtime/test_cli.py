"""Results on stdout, everything else on stderr, and an exit status that scripts can trust."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

import stapes


def test_each_clip_is_printed_with_its_labels(stapes_command):
    done = stapes_command("classify", "examples/yes.flac", "examples/off-stereo.mp3", "--top-k", "2", "--threads", "1", "-q")
    assert done.returncode == 0
    assert done.stderr == ""
    lines = done.stdout.splitlines()
    assert lines[0] == "examples/yes.flac  (0.70 s)"
    assert lines[1].split()[0] == "yes"
    assert len(lines) == 6
    assert lines[4].split()[0] == "off"


def test_json_is_a_list_in_input_order_with_failures_in_place(stapes_command):
    done = stapes_command(
        "classify", "examples/no.flac", "gone.wav", "README.md", "examples/yes.flac", "--format", "json", "--top-k", "1", "-q"
    )
    assert done.returncode == 1
    first, gone, text, last = json.loads(done.stdout)
    assert first.keys() == {"path", "duration", "predictions"}
    assert first["predictions"][0].keys() == {"label", "score", "index"}
    assert first["predictions"][0]["label"] == "no"
    assert round(first["predictions"][0]["score"], 6) == first["predictions"][0]["score"]
    assert gone["error"]["type"] == "AudioNotFound"
    assert text == {"path": "README.md", "error": {"type": "MalformedAudio", "message": text["error"]["message"]}}
    assert last["predictions"][0]["label"] == "yes"
    assert done.stderr.count("\n") == 2
    assert "Traceback" not in done.stderr


def test_standard_input_is_a_clip(root: Path):
    with (root / "examples" / "left.flac").open("rb") as clip:
        done = subprocess.run([sys.executable, "-m", "stapes.cli", "classify", "-", "--top-k", "1"], stdin=clip, capture_output=True)
    assert b"left" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("classify", "examples/yes.flac", "-m", "gone.onnx"), "no model at gone.onnx"),
        (("classify", "examples/yes.flac", "-m", "README.md"), "not an ONNX file"),
        (("classify", "examples/yes.flac", "--device", "tpu"), "no device 'tpu'"),
        (("info", "gone.onnx"), "no model at gone.onnx"),
        (("classify", "examples/yes.flac", "--device", "cuda:7"), "cuda:7"),
        (("classify", "examples/yes.flac", "--hop", "1"), "--window"),
        (("classify", "examples/yes.flac", "--merge"), "--window"),
        (("classify", "examples/yes.flac", "--window", "0.01"), "needs 1040"),
        (("classify", "examples", "--format", "srt"), "-o FOLDER/"),
        (("classify", "examples", "--plot", "x.png"), "--plot"),
        (("classify", "examples/yes.flac", "--revision", "v1"), "hub id"),
        (("classify", "examples/yes.flac", "-o", "README.md/x.json"), "cannot write"),
    ],
)
def test_without_a_model_or_device_one_sentence_and_exit_2(arguments: tuple[str, ...], says: str, stapes_command):
    done = stapes_command(*arguments)
    assert done.returncode == 2
    assert says in done.stderr
    assert done.stderr.replace("stapes: device: cpu (auto)\n", "").count("\n") == 1
    assert done.stdout == ""


@pytest.mark.parametrize(
    "arguments", [(), ("classify",), ("sing",), ("classify", "x.wav", "--top-k", "0"), ("classify", "x.wav", "--threads", "many")]
)
def test_wrong_usage_is_exit_2_without_a_traceback(arguments: tuple[str, ...], stapes_command):
    done = stapes_command(*arguments)
    assert done.returncode == 2
    assert "usage: stapes" in done.stderr
    assert "Traceback" not in done.stderr


def test_info_says_what_the_file_is(stapes_command):
    done = stapes_command("info")
    assert done.returncode == 0
    said = dict(line.split("  ", 1) for line in done.stdout.splitlines())
    assert {"name", "labels", "rate", "frontend", "precision", "source", "size"} <= {key.strip() for key in said}
    assert "ZeroMeanUnitVariance" in done.stdout
    whole = json.loads(stapes_command("info", "--json").stdout)
    assert whole["labels"] == list(stapes.load().manifest.labels)


def test_version_and_help_name_every_command(stapes_command):
    assert stapes_command("--version").stdout == f"stapes {stapes.__version__}\n"
    shown = stapes_command("--help", without=("torch", "onnxruntime", "stapes_export")).stdout
    assert all(command in shown for command in ("classify", "info", "verify", "doctor", "export", "lock"))


def test_export_without_its_extra_is_one_sentence(stapes_command, tmp_path: Path):
    done = stapes_command("export", "somewhere", "-o", tmp_path / "x.onnx", without=("torch", "tqdm", "optimum"))
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "pip install 'stapes[cpu,export]'" in done.stderr


def test_a_reader_that_goes_away_is_no_error(root: Path):
    command = f"{sys.executable} -m stapes.cli classify {' '.join(['examples/yes.flac'] * 20)} --format json | head -c 5"
    done = subprocess.run(["bash", "-c", f"set -o pipefail; {command}"], cwd=root, capture_output=True, text=True)
    assert "Traceback" not in done.stderr
    assert done.returncode == 0


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full on this system")
def test_a_full_disk_is_one_sentence(root: Path):
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "stapes.cli", "classify", "examples/yes.flac", "--device", "cpu"],
            cwd=root,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
        )
    assert (done.returncode, done.stderr) == (2, "stapes: cannot write the output: No space left on device\n")


def test_auto_says_which_device_it_chose_and_a_named_one_does_not(stapes_command):
    assert "device: cpu (auto)" in stapes_command("classify", "examples/yes.flac").stderr
    assert stapes_command("classify", "examples/yes.flac", "--device", "cpu").stderr == ""


def test_debug_shows_where_an_error_came_from(stapes_command):
    assert "Traceback" in stapes_command("classify", "README.md", "--debug").stderr
    assert "Traceback" in stapes_command("info", "gone.onnx", "--debug").stderr


def test_a_threshold_leaves_out_labels_below_it(stapes_command):
    done = stapes_command("classify", "examples/no.flac", "--threshold", "0.5", "--format", "json")
    (clip,) = json.loads(done.stdout)
    assert [found["label"] for found in clip["predictions"]] == ["no"]


def test_an_output_file_appears_whole_and_leaves_nothing_beside_it(stapes_command, tmp_path: Path):
    out = tmp_path / "found.csv"
    done = stapes_command("classify", "examples/no.flac", "--format", "csv", "-o", out, "--top-k", "1")
    assert (done.returncode, done.stdout) == (0, "")
    assert out.read_text().splitlines()[1].startswith("examples/no.flac,0.000000,0.744500,no,")
    assert list(tmp_path.iterdir()) == [out]


def as_a_process(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "stapes.cli", *arguments], cwd=root, capture_output=True, text=True)


def test_all_of_a_long_answer_comes_though_the_process_ends_at_once(root: Path):
    done = as_a_process(root, "classify", *["examples/no.flac"] * 200, "--top-k", "12", "--format", "jsonl")
    assert done.returncode == 0
    assert len(done.stdout) > 2**16  # more than a pipe holds
    assert len([json.loads(line) for line in done.stdout.splitlines()]) == 200
    assert "200 files, 0 failed" in done.stderr.splitlines()[-1]


def test_a_process_ends_with_the_status(root: Path, tmp_path: Path):
    assert as_a_process(root, "classify", "gone.wav").returncode == 1
    assert as_a_process(root, "info", "gone.onnx").returncode == 2
    assert as_a_process(root, "sing").returncode == 2
    done = as_a_process(root, "classify", "examples/no.flac", "--format", "json", "-o", str(tmp_path / "out.json"))
    assert (done.returncode, done.stdout) == (0, "")
    assert [clip["path"] for clip in json.loads((tmp_path / "out.json").read_text())] == ["examples/no.flac"]


def test_an_ascii_terminal_gets_an_answer(stapes_command):
    done = stapes_command("classify", "examples/no.flac", "--top-k", "1", env={"PYTHONIOENCODING": "ascii"})
    assert done.returncode == 0
    assert "no" in done.stdout.split()
