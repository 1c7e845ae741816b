"""int8 on trained checkpoints and recorded clips: what it may cost, and what a batch may do to a row."""

import csv
from pathlib import Path

import int8_here
import numpy as np
import pytest

import stapes
from stapes.bundle import read_manifest
from stapes_export import diagnose
from stapes_export.build import export
from stapes_export.calibrate import recordings, verdict
from stapes_export.fetch import fetch
from stapes_export.verify import Reference, answers

CHECKPOINTS = ("ast-ks12-small", "wav2vec2-ks12", "wav2vec2-ks12-small")

POINTS, LOST = 0.5, 3
"""What int8 may lose: points of accuracy, or clips where so few points are less than a clip or two."""

NEIGHBOURS = 1 / 5
"""The most that a batch may move a row, as a part of int8's own error. Rounding flips move single values by a step."""

SHORTEST, BATCH, RAGGED = 4000, 8, 48
"""Samples of the shortest clip in a ragged batch, clips in a batch, clips that are put in batches."""


def test_every_trained_checkpoint_is_here(shared: Path):
    assert sorted(path.name for path in (shared / "checkpoints").iterdir()) == sorted(CHECKPOINTS)


@pytest.mark.skipif(bool(int8_here.LACKING), reason=int8_here.REASON)
@pytest.mark.parametrize("name", CHECKPOINTS)
def test_int8_keeps_accuracy_and_rows_apart(name: str, shared: Path, tmp_path: Path):
    checkpoint, table = shared / "checkpoints" / name, shared / "audio" / "speech-commands-test12" / "test.csv"
    with table.open(newline="") as file:
        rows = list(csv.DictReader(file))

    path = tmp_path / "int8.onnx"
    export(str(checkpoint), path, "int8")
    labels, activation = read_manifest(path).labels, read_manifest(path).activation
    original = Reference.of(fetch(str(checkpoint)), diagnose.load(fetch(str(checkpoint))))
    recorded = recordings(table, 16000, labels)
    found = verdict(original.every(recorded), answers(path, recorded), recorded, labels, activation)
    assert found.clips == found.labelled == len(rows) == 417
    assert found.accuracy_before is not None
    assert found.accuracy_before > 0.85, "an untrained checkpoint has nothing to lose"
    assert found.drop <= max(POINTS, 100 * LOST / len(rows))

    classify = stapes.load(path, device="cpu")
    rng = np.random.default_rng(0)
    whole = [classify.read(table.parent / row["path"]) for row in rows[:: len(rows) // RAGGED]]
    clips = [stapes.Clip(clip.samples[: rng.integers(SHORTEST, len(clip.samples) + 1)], clip.rate) for clip in whole]
    alone = np.concatenate([classify.logits([clip]) for clip in clips])
    together = np.concatenate([classify.logits(clips[i : i + BATCH]) for i in range(0, len(clips), BATCH)])
    own = np.abs(alone - np.stack([original(clip.samples) for clip in clips])).max()
    moved = np.abs(together - alone)
    assert own > 0
    assert moved.max() <= NEIGHBOURS * own
    second, first = np.sort(alone, axis=1)[:, -2:].T
    same = alone.argmax(axis=1) == together.argmax(axis=1)
    assert (same | (first - second < 2 * moved.max(axis=1))).all()
