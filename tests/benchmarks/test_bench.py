"""The command from end to end: real processes, the trained checkpoint and the model made from it, and what it must refuse."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest

from stapes.classifier import DEFAULT_MODEL
from stapes_bench import records
from stapes_bench.peers import BY_NAME, FOLDER, PEERS
from stapes_bench.records import Answers, Cold, Contender, Stages, Times

Altered = Callable[..., Path]


@pytest.fixture(scope="module")
def altered(tmp_path_factory: pytest.TempPathFactory) -> Altered:
    """altered(precision, bias) -> the embedded model, said to be of that precision, `bias` added to its first label's logit."""

    def of(precision: str, bias: float = 0.0, needs: list[str] | None = None) -> Path:
        model = onnx.load(DEFAULT_MODEL)
        entry = next(entry for entry in model.metadata_props if entry.key == "stapes")
        manifest = json.loads(entry.value)
        manifest["provenance"]["precision"] = precision
        manifest["needs"] = manifest["needs"] if needs is None else needs
        entry.value = json.dumps(manifest)
        added = np.zeros(len(manifest["labels"]), np.float32)
        added[0] = bias
        model.graph.initializer.append(onnx.numpy_helper.from_array(added, "added"))
        for node in model.graph.node:
            node.output[:] = ["logits_before" if name == "logits" else name for name in node.output]
        model.graph.node.append(onnx.helper.make_node("Add", ["logits_before", "added"], ["logits"], "add"))
        path = tmp_path_factory.mktemp("altered") / f"{precision}.onnx"
        onnx.save(model, path)
        return path

    return of


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory, stapes_command, checkpoint: Path):
    """One run: two peers that are here, one that is not, two lengths, a batch, and every output."""
    folder = tmp_path_factory.mktemp("bench")
    outputs = {name: folder / f"out.{name}" for name in ("json", "html", "png")}
    given = [word for name, path in outputs.items() for word in (f"--{name}", str(path))]
    done = stapes_command(
        *("bench", DEFAULT_MODEL, "--checkpoint", checkpoint, "--against", "onnxruntime,optimum", "--python", f"optimum={folder}/python"),
        *("--seconds", "0.5,1", "--batch", "1,3", "--rounds", "2", *given),
    )
    assert done.returncode == 0, done.stderr
    return done, outputs, records.read(outputs["json"])


def test_the_peers_that_are_here_agree_and_are_timed(measured):
    done, _, found = measured
    answers = [record for record in found if isinstance(record, Answers)]
    assert {record.name for record in answers} == {"transformers", "onnxruntime", "stapes int8-portable"}
    assert all(record.agrees and record.clips == 8 for record in answers)
    assert max(record.noise for record in answers if record.name == "onnxruntime") < 1e-4  # float32 on both sides
    cases = {(record.name, record.seconds, record.batch) for record in found if isinstance(record, Times)}
    assert len(cases) == 3 * 2 * 2
    assert all(0 < value < 60 for record in found if isinstance(record, Times) for value in record.values)
    assert "x real time" in done.stdout


def test_a_peer_that_is_not_installed_says_so_in_every_table(measured):
    done, outputs, found = measured
    (absent,) = [record for record in found if isinstance(record, Contender) and record.absent]
    assert absent.name == "optimum"
    assert absent.absent.endswith("python is not there")
    assert done.stdout.count("python is not there") == 4 + 1 + 1  # cases, the cold start, the line-up
    assert "python is not there" in outputs["html"].read_text()


def test_a_cold_start_is_whole_and_its_memory_is_its_own(measured):
    cold = {record.name: record for record in measured[2] if isinstance(record, Cold)}
    assert set(cold) == {"transformers", "onnxruntime", "stapes int8-portable"}
    for record in cold.values():
        assert list(record.parts) == ["process", "import", "load", "first answer"]
        assert min(record.parts.values()) > 0
    assert 20 < cold["stapes int8-portable"].peak_mb < cold["transformers"].peak_mb / 2  # without torch


def test_our_way_is_taken_apart(measured):
    stages = [record for record in measured[2] if isinstance(record, Stages)]
    assert [record.seconds for record in stages] == [0.5, 1.0]
    for record in stages:
        assert list(record.parts) == ["decode", "resample", "frontend", "model", "post-processing"]


def test_what_is_installed_is_weighed(measured):
    weights = {record.name: record.installed_mb for record in measured[2] if isinstance(record, Contender) and not record.absent}
    assert 50 < weights["stapes int8-portable"] < weights["onnxruntime"] < weights["transformers"]


def test_results_are_on_stdout_progress_on_stderr_and_files_are_whole(measured):
    done, outputs, found = measured
    assert "round 2 of 2" in done.stderr
    assert "round" not in done.stdout
    assert outputs["png"].read_bytes().startswith(b"\x89PNG")
    assert outputs["html"].read_text().endswith("</html>\n")
    assert sorted(outputs["json"].parent.iterdir()) == sorted(outputs.values())  # no draft is left
    assert len(outputs["json"].read_text().splitlines()) == len(found)


def test_a_report_is_made_again_from_the_raw_lines(measured, stapes_command):
    done, outputs, _ = measured
    again = stapes_command("bench", "--from", outputs["json"])
    assert again.returncode == 0
    assert again.stdout == done.stdout


def test_the_file_to_deploy_is_chosen_and_a_wrong_one_has_no_speed(altered: Altered, stapes_command):
    files = altered("fp32"), altered("int8", bias=6.0), altered("int8-portable", bias=1e-3)
    done = stapes_command("bench", "--choose", *files, "--seconds", "0.5", "--rounds", "2", "--no-startup")
    assert done.returncode == 1  # one of our own has no speed
    verdict = done.stdout.strip().splitlines()[-1]
    assert verdict.startswith(("deploy fp32.onnx", "deploy int8-portable.onnx"))
    assert "stapes int8: answers differ" in verdict
    (wrong,) = [line for line in done.stdout.splitlines() if line.startswith("stapes int8 ")]
    assert wrong.split(maxsplit=2)[2].startswith("answers differ (noise")


def test_a_file_whose_needs_this_cpu_lacks_is_not_deployed(altered: Altered, stapes_command):
    files = altered("fp32"), altered("int8", needs=["a cpu of the future"])
    done = stapes_command("bench", "--choose", *files, "--seconds", "0.5", "--rounds", "1", "--no-startup")
    if not Path("/proc/cpuinfo").exists():
        pytest.skip("this system does not tell what its CPU has, and then it is taken to have all")
    assert done.stdout.strip().splitlines()[-1].startswith("deploy fp32.onnx")
    assert "stapes int8 needs what this CPU lacks" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "give the stapes files to measure, or --from FILE"),
        (("no.onnx",), "no.onnx"),
        ((DEFAULT_MODEL, "--against", "transformers"), "name it with --checkpoint DIR"),
        ((DEFAULT_MODEL, "--against", "tensorrt"), "no peer tensorrt"),
        ((DEFAULT_MODEL, "--checkpoint", "docs"), "it has no config.json"),
        ((DEFAULT_MODEL, "--seconds", "1,-2"), "numbers above 0"),
        ((DEFAULT_MODEL, "--threads", "0"), "whole numbers from 1 up"),
        ((DEFAULT_MODEL, "--rounds", "1,2"), "a whole number from 1 up"),
        ((DEFAULT_MODEL, "--choose"), "give two or more"),
        ((DEFAULT_MODEL, DEFAULT_MODEL, "--choose"), "these are int8-portable, int8-portable: give that file too"),
        ((DEFAULT_MODEL, DEFAULT_MODEL), "rename a file"),
        ((DEFAULT_MODEL, "--python", "tensorflow=/x"), "no peer runs on tensorflow"),
        ((DEFAULT_MODEL, "--python", "openvino"), "NAME=PATH"),
        ((DEFAULT_MODEL, "--json", "no/such/folder/x"), "to write x into; make it first"),
        ((DEFAULT_MODEL, "--from", "x"), "not both"),
        (("--from", "README.md"), "is no file of stapes bench --json"),
        (("--from", "no.jsonl"), "cannot read no.jsonl"),
        ((DEFAULT_MODEL, "--clips", "docs/none", "--no-startup"), "no recordings below docs/none"),
        ((DEFAULT_MODEL, "--seconds", "0.001", "--no-startup"), "fails on clips of 0.001 s"),
    ],
    ids=str,
)
def test_what_cannot_be_is_one_sentence_and_exit_2(arguments: tuple, said: str, stapes_command):
    done = stapes_command("bench", *arguments)
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert not done.stdout


def test_a_missing_extra_is_one_sentence_and_exit_2(stapes_command):
    done = stapes_command("bench", DEFAULT_MODEL, without=("packaging",))
    assert done.returncode == 2
    assert done.stderr.strip().endswith("pip install 'stapes[cpu,bench]'")


def test_the_commands_module_needs_the_base_dependencies_alone():
    blocked = ("torch", "transformers", "onnx", "onnxruntime", "matplotlib", "packaging")
    code = f"import sys; sys.modules.update(dict.fromkeys({blocked!r})); import stapes_bench.cli"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_every_peer_has_its_file_and_every_file_its_peer():
    files = {path.stem for path in FOLDER.iterdir() if path.suffix in (".py", ".mjs")}
    assert files == {peer.library for peer in PEERS} | {"stapes", "worker", "features", "plain", "__init__"}
    assert len(BY_NAME) == len(PEERS)
