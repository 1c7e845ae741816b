"""The embedded model is the export of the checkpoint in this repository, and as good as its card says."""

import csv
import re
import tomllib
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import pipeline

import stapes
from stapes.classifier import DEFAULT_MODEL
from stapes_export.build import export
from stapes_export.fetch import fetch, sha256

FP32_CLIPS = 1  # a clip whose two best labels are equal to the sixth digit may fall either way
INT8_POINTS = 1.0


def locked(root: Path) -> dict:
    return tomllib.loads((root / "models.lock").read_text())["speech-commands"]


def test_the_lock_holds_both_ends(root: Path):
    entry = locked(root)
    for name, pinned in entry["files"].items():
        path = root / entry["source"] / name
        assert (sha256(path), path.stat().st_size) == (pinned["sha256"], pinned["size"]), name
    (artifact,) = entry["artifacts"]
    path = root / artifact["path"]
    assert path == root / "runtime" / "stapes" / "models" / DEFAULT_MODEL.name
    assert (sha256(path), path.stat().st_size) == (artifact["sha256"], artifact["size"])
    assert sha256(path) == sha256(DEFAULT_MODEL), "the installed package carries another model"


def test_the_file_names_the_checkpoint_and_the_recipe_of_the_lock(root: Path):
    entry = locked(root)
    made = stapes.load().manifest.provenance
    assert dict(made.files) == {name: pinned["sha256"] for name, pinned in entry["files"].items()}
    assert dict(made.files) == dict(fetch(str(root / entry["source"])).sha256)
    assert made.precision == entry["artifacts"][0]["precision"]
    assert dict(made.tools) == entry["artifacts"][0]["tools"]


@pytest.fixture(scope="module")
def fp32(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> stapes.Classifier:
    out = tmp_path_factory.mktemp("fp32") / "default.onnx"
    export(str(checkpoint), out, "fp32")
    return stapes.load(out, device="cpu")


def test_exporting_again_gives_the_same_answers(root: Path, checkpoint: Path, tmp_path: Path):
    committed = stapes.load(device="cpu")
    golden = committed.manifest.golden
    assert golden is not None
    export(str(checkpoint), tmp_path / "again.onnx", committed.manifest.provenance.precision)
    again = stapes.load(tmp_path / "again.onnx", device="cpu")
    clips = [golden.signal(16000), *(root / "examples" / name for name in ("yes.flac", "no.flac", "off-stereo.mp3"))]
    assert np.abs(again.logits(clips) - committed.logits(clips)).max() <= golden.tolerance


def test_it_answers_as_transformers_on_the_example_clips(root: Path, checkpoint: Path, fp32: stapes.Classifier):
    original = pipeline("audio-classification", model=str(checkpoint), device="cpu")
    for path in sorted((root / "examples").glob("*.flac")):
        clip = fp32.read(path)
        want = {entry["label"]: entry["score"] for entry in original({"raw": clip.samples, "sampling_rate": clip.rate}, top_k=12)}
        got = {found.label: found.score for found in fp32(clip, top_k=None)}
        assert max(abs(got[label] - want[label]) for label in want) < 1e-5


def test_its_accuracy_is_the_checkpoints_and_the_cards(root: Path, shared: Path, checkpoint: Path, fp32: stapes.Classifier):
    folder = shared / "audio" / "speech-commands-test12"
    with (folder / "test.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    embedded = stapes.load(device="cpu")
    original = pipeline("audio-classification", model=str(checkpoint), device="cpu")
    right = {"checkpoint": 0, "fp32": 0, "embedded": 0}
    with torch.inference_mode():
        for row in rows:
            clip = fp32.read(folder / row["path"])
            best = original({"raw": clip.samples, "sampling_rate": clip.rate})[0]["label"]
            right["checkpoint"] += best == row["label"]
            right["fp32"] += fp32(clip, 1)[0].label == row["label"]
            right["embedded"] += embedded(clip, 1)[0].label == row["label"]
    assert len(rows) == 417
    assert abs(right["fp32"] - right["checkpoint"]) <= FP32_CLIPS
    assert (right["checkpoint"] - right["embedded"]) / len(rows) * 100 <= INT8_POINTS
    card = DEFAULT_MODEL.with_suffix(".md").read_text()
    stated = dict(re.findall(r"^\| (checkpoint|fp32|embedded)\b[^|]*\| (\d+) of 417", card, re.MULTILINE))
    assert stated.keys() == right.keys()
    # another CPU may round one clip otherwise
    assert all(abs(int(stated[name]) - count) <= 1 for name, count in right.items()), right
