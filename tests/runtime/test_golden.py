"""The golden signal through this host, and what is said where it does not come out."""

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from onnx_wire import GRAPH, model_with

import stapes
from stapes import golden
from stapes.bundle import Golden, Manifest, read_manifest
from stapes.classifier import DEFAULT_MODEL
from stapes.errors import ModelError

pytest.importorskip("onnxruntime")

OWN = read_manifest(DEFAULT_MODEL)
assert OWN.golden is not None

OFF = replace(OWN.golden, logits=(OWN.golden.logits[0] + 7, *OWN.golden.logits[1:]))
"""Logits that the embedded model does not give: the first is off by 7."""

Altered = Callable[..., Path]


@pytest.fixture
def altered(tmp_path: Path) -> Altered:
    """The embedded model with other words in its manifest: of two entries of one name the last one counts."""

    def write(manifest: Manifest = OWN, **changes: object) -> Path:
        path = tmp_path / "altered.onnx"
        told = replace(manifest, **changes)
        path.write_bytes(DEFAULT_MODEL.read_bytes() + model_with(told.to_json()).removeprefix(GRAPH))
        return path

    return write


@pytest.mark.parametrize("threads", [None, 1, 3])
def test_the_embedded_model_passes_on_this_host(threads: int | None):
    outcome = golden.check(stapes.load(device="cpu", threads=threads))
    assert outcome.passed
    assert outcome.remedy is None
    assert outcome.difference <= outcome.tolerance
    assert outcome.device == "cpu"
    assert outcome.seconds > 0


def test_verify_says_in_one_line_how_near_the_logits_are(stapes_command):
    done = stapes_command("verify", "--device", "cpu")
    assert done.returncode == 0
    assert done.stdout.count("\n") == 1
    assert done.stdout.startswith(f"{OWN.name}: logits within ")
    assert done.stdout.endswith(" on cpu\n")
    assert done.stderr == ""


def test_logits_past_the_tolerance_are_exit_1_with_the_difference(altered: Altered, stapes_command):
    done = stapes_command("verify", altered(golden=OFF), "--device", "cpu")
    assert done.returncode == 1
    assert done.stdout.count("\n") == 1
    assert "logits off by 7 " in done.stdout
    assert "stapes doctor" in done.stdout


def test_int8_that_needs_vnni_fails_with_the_way_to_portable_int8(altered: Altered, stapes_command):
    done = stapes_command("verify", altered(golden=OFF, needs=("vnni", "amx", "dotprod")), "--device", "cpu")
    assert done.returncode == 1
    assert "without vnni or amx or dotprod int8 saturates" in done.stdout
    assert "--precision int8-portable" in done.stdout


@pytest.mark.parametrize(("told", "status"), [(OWN.golden, 0), (OFF, 1)])
def test_json_agrees_with_the_exit_status(told: Golden, status: int, altered: Altered, stapes_command):
    done = stapes_command("verify", altered(golden=told), "--json", "--threads", "1", "--device", "cpu")
    assert done.returncode == status
    said = json.loads(done.stdout)
    assert said.keys() == {"model", "device", "passed", "difference", "tolerance", "seconds", "remedy"}
    assert said["passed"] is (status == 0)
    assert (said["remedy"] is None) is said["passed"]
    assert (said["difference"] > said["tolerance"]) is not said["passed"]


def test_nan_is_a_failure():
    outcome = golden.Outcome("made", "cpu", math.nan, 1.0, 0.1, ())
    assert not outcome.passed
    assert outcome.remedy
    assert "off by nan" in str(outcome)


def test_a_device_that_differs_is_compared_with_the_cpu():
    assert "--device cpu" in str(golden.Outcome("made", "cuda:0", 2.0, 1.0, 0.1, ()).remedy)


def test_a_model_without_a_golden_test_is_exit_2_and_says_where_one_comes_from(altered: Altered, stapes_command):
    done = stapes_command("verify", altered(golden=None), "--device", "cpu")
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert "has no golden test" in done.stderr
    assert "stapes export" in done.stderr


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"golden": replace(OWN.golden, seconds=60.1)}, "longer than the 60 s"),
        ({"golden": replace(OWN.golden, seconds=1e300)}, "longer than the 60 s"),
        (
            {"rate": 10**6, "frontend": replace(OWN.frontend, rate=10**6), "golden": replace(OWN.golden, seconds=3.0)},
            "longer than the 60 s at 48 kHz",
        ),
        ({"golden": replace(OWN.golden, seconds=0.0)}, r"of 0 samples and needs \d+"),
        ({"golden": replace(OWN.golden, seconds=-1.0)}, r"samples and needs \d+"),
        ({"golden": replace(OWN.golden, logits=OWN.golden.logits[:-1])}, r"expects \(1, 11\)"),
    ],
)
def test_a_golden_test_that_makes_no_sense_is_refused(changes: dict[str, object], says: str, altered: Altered):
    with pytest.raises(ModelError, match=says):
        golden.check(stapes.load(altered(**changes), device="cpu"))


def test_a_missing_model_is_exit_2(stapes_command):
    done = stapes_command("verify", "gone.onnx")
    assert done.returncode == 2
    assert "no model at gone.onnx" in done.stderr
