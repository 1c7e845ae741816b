"""The manifest is found, read and doubted."""

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from onnx_wire import GRAPH, model_with

from stapes.bundle import LONGEST_TEXT, MOST_ITEMS, Golden, Manifest, Verdict, golden_signal, read_manifest
from stapes.classifier import DEFAULT_MODEL
from stapes.errors import ModelError, ModelNotFound

VERDICT = Verdict(
    clips=420,
    labelled=417,
    accuracy_before=375 / 417,
    accuracy_after=373 / 417,
    agreement=418 / 420,
    divergence=9e-5,
    max_score_change=0.03,
    kept=("encoder.layers.3.attention", "projection"),
    max_drop=0.5,
)


@pytest.fixture(scope="module")
def manifest() -> Manifest:
    return read_manifest(DEFAULT_MODEL)


def test_a_manifest_survives_json(manifest: Manifest):
    assert Manifest.from_json(manifest.to_json()) == manifest
    other = replace(manifest, labels=("да", "はい", "نعم"), golden=None, parity=None, verdict=None)
    assert Manifest.from_json(other.to_json()) == other
    judged = replace(manifest, verdict=VERDICT)
    assert Manifest.from_json(judged.to_json()) == judged
    plain = replace(
        manifest, verdict=replace(VERDICT, labelled=0, accuracy_before=None, accuracy_after=None, divergence=None, max_drop=None)
    )
    assert Manifest.from_json(plain.to_json()) == plain


def test_a_manifest_from_before_there_were_verdicts_still_loads(manifest: Manifest):
    data = json.loads(manifest.to_json())
    del data["verdict"]
    assert Manifest.from_json(json.dumps(data)) == replace(manifest, verdict=None)


@pytest.mark.parametrize(
    "change",
    [
        {"clips": -1},
        {"clips": "417"},
        {"clips": 416},  # fewer than are labelled
        {"clips": True},
        {"labelled": -1},
        {"labelled": None},
        {"accuracy_before": 1.5},
        {"accuracy_after": -0.1},
        {"accuracy_after": float("nan")},
        {"accuracy_before": "0.9"},
        {"agreement": None},
        {"agreement": 99.3},
        {"divergence": float("inf")},
        {"divergence": []},
        {"max_score_change": None},
        {"kept": None},
        {"kept": "encoder"},
        {"kept": ["x"] * (MOST_ITEMS + 1)},
        {"kept": ["x" * (LONGEST_TEXT + 1)]},
        {"kept": [1]},
        {"max_drop": "0.5"},
    ],
)
def test_a_hostile_verdict_is_refused_by_name(change: dict, manifest: Manifest):
    data = json.loads(replace(manifest, verdict=VERDICT).to_json())
    data["verdict"] |= change
    with pytest.raises(ModelError, match=re.compile("|".join([*change, "verdict"]))):
        Manifest.from_json(json.dumps(data))


def test_every_key_of_a_verdict_is_needed(manifest: Manifest):
    data = json.loads(replace(manifest, verdict=VERDICT).to_json())
    for key in data["verdict"]:
        with pytest.raises(ModelError, match=key):
            Manifest.from_json(json.dumps(data | {"verdict": {k: v for k, v in data["verdict"].items() if k != key}}))


def test_a_verdict_says_what_was_lost():
    assert VERDICT.drop == pytest.approx(100 * 2 / 417, abs=1e-6)
    assert str(VERDICT) == (
        "89.93% before, 89.45% after on 417 labelled clips; same top label on 99.5% of 420, KL divergence 9e-05, scores within 0.03"
    )
    plain = replace(VERDICT, labelled=0, accuracy_before=None, accuracy_after=None, divergence=None, agreement=0.75)
    assert plain.drop == 25
    assert str(plain) == "unknown: 420 clips without labels; same top label on 75.0% of 420, scores within 0.03"


def test_a_manifest_is_read_from_the_wire_format_alone(manifest: Manifest, tmp_path: Path):
    (tmp_path / "m.onnx").write_bytes(model_with(manifest.to_json()))
    assert read_manifest(tmp_path / "m.onnx") == manifest


def test_a_missing_model_is_named_with_the_command_that_makes_it(tmp_path: Path):
    with pytest.raises(ModelNotFound, match="stapes export"):
        read_manifest(tmp_path / "gone.onnx")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "0 graphs"),
        (b"plain text, surely no protobuf", "not an ONNX file"),
        (model_with("{}")[:200], "not an ONNX file, or a truncated one"),
        (GRAPH, "without a stapes manifest"),
        (model_with("{"), "not JSON"),
        (model_with("[]"), "no object"),
        (model_with('{"schema": true}'), "schema"),
        (model_with('{"schema": 99}'), "upgrade stapes"),
        (model_with('{"schema": 1}'), "no 'name'"),
        (b"\xff" * 40, "not an ONNX file"),
    ],
)
def test_what_is_no_artifact_says_so(content: bytes, says: str, tmp_path: Path):
    (tmp_path / "m.onnx").write_bytes(content)
    with pytest.raises(ModelError, match=says):
        read_manifest(tmp_path / "m.onnx")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("name", 5),
        ("rate", "16000"),
        ("rate", -1),
        ("rate", True),
        ("labels", []),
        ("labels", ["yes", 5]),
        ("labels", "yes"),
        ("activation", "tanh"),
        ("frontend", None),
        ("frontend_in_graph", 1),
        ("needs", [None]),
        ("provenance", {}),
        ("golden", {"seconds": 1.0, "logits": ["x"], "tolerance": 1}),
        ("parity", []),
        ("verdict", 0.5),
        ("verdict", {}),
    ],
)
def test_a_hostile_manifest_is_refused(key: str, value: object, manifest: Manifest):
    data = json.loads(manifest.to_json())
    data[key] = value
    with pytest.raises(ModelError, match=re.compile(f"{key}|provenance|logits|source|clips")):
        Manifest.from_json(json.dumps(data))


def test_every_key_of_a_manifest_is_needed(manifest: Manifest):
    data = json.loads(manifest.to_json())
    for key in data.keys() - {"golden", "parity", "verdict"}:
        with pytest.raises(ModelError, match=key):
            Manifest.from_json(json.dumps({k: v for k, v in data.items() if k != key}))


def test_the_golden_signal_follows_its_formula():
    seconds, rate = 0.25, 8000
    signal = golden_signal(seconds, rate)
    assert signal.shape == (2000,)
    assert signal.dtype == np.float32
    state = 1
    for i in range(3):
        t = i / rate
        state = (1664525 * state + 1013904223) % 2**32
        sweep = np.sin(2 * np.pi * (100 * t + 3300 * t**2 / (2 * seconds)))
        want = 0.4 * sweep * (0.5 - 0.5 * np.cos(8 * np.pi * t)) + 0.1 * (state / 2**31 - 1)
        assert abs(signal[i] - want) < 1e-7
    assert np.array_equal(Golden(seconds, (0.0,), 0.0).signal(rate), signal)
