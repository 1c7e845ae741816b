"""Every architecture in every option against transformers: alone at five lengths, and as a ragged batch with garbage behind each row.

CI runs a pairwise cover of the options; --full runs their whole product. --parity FILE writes the largest differences as a table.
"""

from pathlib import Path

import made_checkpoints
import numpy as np
import pytest
import torch
from pairwise import full, pairwise

import stapes
from stapes.audio import Clip
from stapes_export import diagnose
from stapes_export.build import export
from stapes_export.fetch import fetch
from stapes_export.verify import Reference

PARITY = 1e-4  # of max(1, largest logit): what fp32 may cost
PARITY_TWO_FRAMES = 1e-3
"""wav2vec2-bert below three mel frames: the original divides the difference of two float32 values by their deviation, and its features are
then off by up to 3e-3 of their own float64 value. torch on exact features equals the artifact to 4e-7."""
NEIGHBOURS = 1e-5  # of the same: a batch only changes the order of sums

SHORTEST = {"sew": 720, "sew-d": 720, "wav2vec2-bert": 560, "whisper": 1}
"""Fewest samples with an answer that depends on the clip; 400 elsewhere."""

LABELS = {1: ("тишина",), 2: ("はい", "いいえ"), 1251: tuple(f"صوت {i}" for i in range(1251))}

HEAD = {
    "labels": [1, 2, 1251],
    "problem_type": ["single_label_classification", "multi_label_classification", "regression"],
    "dtype": ["float32", "float16"],
}
SUM = {"use_weighted_layer_sum": [False, True]}
NORM = {"feat_extract_norm": ["group", "layer"], "return_attention_mask": [False, True]}
STABLE = {"do_stable_layer_norm": [False, True], "layer_sum": ["v4", "v5"]}

OPTIONS = {
    "audio-spectrogram-transformer": HEAD,
    "data2vec-audio": HEAD | SUM | {"return_attention_mask": [False, True]},  # it knows one norm, `layer`
    "hubert": HEAD | SUM | NORM | STABLE,
    "sew": HEAD | SUM | NORM,
    "sew-d": HEAD | SUM | NORM,
    "unispeech": HEAD | SUM | NORM | STABLE,
    "unispeech-sat": HEAD | SUM | NORM | STABLE,
    "wav2vec2": HEAD | SUM | NORM | STABLE,
    "wav2vec2-bert": HEAD | SUM | {"position_embeddings_type": ["relative_key", "relative", "rotary"]},
    "wav2vec2-conformer": HEAD | SUM | NORM | {"position_embeddings_type": ["relative", "rotary"]},
    "wavlm": HEAD | SUM | NORM | STABLE,
    "whisper": HEAD | SUM,
}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    choose = full if metafunc.config.getoption("--full") else pairwise
    cells = [(model_type, cell) for model_type, options in OPTIONS.items() for cell in choose(options)]
    ids = [f"{model_type}-{'-'.join(map(str, cell.values()))}" for model_type, cell in cells]
    metafunc.parametrize(("model_type", "cell"), cells, ids=ids)


def test_the_artifact_answers_as_transformers(model_type: str, cell: dict, tmp_path: Path, record_property):
    options = dict(cell)
    layer_sum = options.pop("layer_sum", "v4")
    if options["labels"] == 1 and options["problem_type"] == "single_label_classification":
        options["problem_type"] = None  # which transformers refuses by name for one label and means by default
    options["labels"] = LABELS[options["labels"]]
    options["dtype"] = getattr(torch, options["dtype"])
    folder = made_checkpoints.make(tmp_path / "checkpoint", model_type, **options)
    export(str(folder), tmp_path / "artifact.onnx", layer_sum=layer_sum)
    classifier = stapes.load(tmp_path / "artifact.onnx", device="cpu")
    checkpoint = fetch(str(folder))
    reference = Reference.of(checkpoint, diagnose.load(checkpoint), layer_sum)

    shortest = classifier.manifest.frontend.min_samples
    assert shortest == SHORTEST.get(model_type, 400)
    assert classifier.manifest.labels == options["labels"]
    rng = np.random.default_rng(0)
    lengths = [shortest, shortest + 1, 16000, 16122, 80000]
    clips = [(rng.uniform(0.01, 0.3) * rng.standard_normal(n)).astype(np.float32) for n in lengths]
    want = np.stack([reference(clip) for clip in clips])
    got = np.concatenate([classifier.logits([Clip(clip, 16000)]) for clip in clips])
    assert want.std(axis=0).max() > 0.01 * np.abs(want).max(), "the logits must differ between the clips, or equality proves nothing"
    unit = np.maximum(1, np.abs(want).max(axis=1, keepdims=True))
    differences = (np.abs(got - want) / unit).max(axis=1)
    difference = float(differences[lengths.index(16000) :].max() if model_type == "wav2vec2-bert" else differences.max())
    assert difference <= PARITY
    assert differences.max() <= PARITY_TWO_FRAMES

    rows = [0, 2, 3]  # the shortest, and two that end within a frame of each other
    waveform = np.full((len(rows), 20000), np.nan, np.float32)
    for into, row in zip(waveform, rows, strict=True):
        into[: lengths[row]] = clips[row]
    feeds = {"waveform": waveform, "lengths": np.array([lengths[row] for row in rows], np.int64)}
    batched = classifier._session.run(["logits"], feeds)[0]
    neighbours = float((np.abs(batched - got[rows]) / unit[rows]).max())
    assert neighbours <= NEIGHBOURS
    record_property("parity", {"model_type": model_type, "cell": cell, "difference": difference, "neighbours": neighbours})
