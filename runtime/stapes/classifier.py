"""Clip -> logits -> scores -> the labels heard, best first."""

import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stapes import audio, repository
from stapes.audio import Clip, Source
from stapes.bundle import Activation, Manifest
from stapes.errors import ClipTooShort, ModelError
from stapes.session import Session, missing

Array = NDArray[Any]

DEFAULT_MODEL = Path(__file__).parent / "models" / "speech-commands.onnx"
"""The embedded model: twelve labels of spoken English commands, 16 kHz."""

FEATURES, MASK = ("input_values", "input_features"), "attention_mask"
"""What a graph without a frontend reads: features under one of two names, and perhaps which of their steps are real."""

FLOATS = ("fp32", "fp16")
"""Precisions whose rows see nothing of each other, whoever made the graph."""


@dataclass(frozen=True)
class Prediction:
    """One label and how sure the model is of it."""

    label: str
    score: float
    index: int
    """The label's place among the model's outputs."""


class Classifier:
    """A loaded model: call it with a clip."""

    def __init__(self, manifest: Manifest, session: Session) -> None:
        self.manifest = manifest
        self._session = session

    @property
    def device(self) -> str:
        """Where the model runs: "cpu" or "cuda:N"."""
        return self._session.device

    def __call__(self, clip: Source | Clip, top_k: int | None = 5, function_to_apply: Activation | None = None) -> list[Prediction]:
        """The `top_k` labels of one clip, best first; None for all. Equal scores keep the model's order.

        `function_to_apply` replaces the model's own activation. Raises InvalidInput or AudioError for a clip that cannot be used.
        """
        count = _count(top_k, len(self.manifest.labels))
        scores = activate(self.logits([clip])[0], function_to_apply or self.manifest.activation)
        best = np.argsort(-scores, kind="stable")[:count]
        return [Prediction(self.manifest.labels[i], float(scores[i]), int(i)) for i in best]

    def read(self, clip: Source | Clip) -> Clip:
        """The clip as the model gets it: at `manifest.rate`, and long enough."""
        if not isinstance(clip, Clip) or clip.rate != self.manifest.rate:
            source = {"array": clip.samples, "sampling_rate": clip.rate} if isinstance(clip, Clip) else clip
            clip = audio.read(source, self.manifest.rate)
        shortest = self.manifest.frontend.min_samples
        if len(clip.samples) < shortest:
            raise ClipTooShort(
                f"the clip has {len(clip.samples)} samples ({clip.seconds * 1e3:.1f} ms); {self.manifest.name} needs "
                f"{shortest} ({shortest / clip.rate * 1e3:.1f} ms) at {clip.rate} Hz"
            )
        return clip

    def logits(self, clips: Sequence[Source | Clip]) -> NDArray[np.float32]:
        """The model's raw outputs for a batch of clips of any lengths, (clips, labels) float32.

        A clip's row does not depend on the others.
        """
        rows = [self.read(clip).samples for clip in clips]
        if not rows:
            return np.empty((0, len(self.manifest.labels)), np.float32)
        if not self.manifest.frontend_in_graph:
            return self._logits_of_features(rows)
        lengths = np.array([len(row) for row in rows], np.int64)
        waveform = np.zeros((len(rows), int(lengths.max())), np.float32)
        for into, row in zip(waveform, rows, strict=True):
            into[: len(row)] = row
        logits: NDArray[np.float32] = self._session.run(["logits"], {"waveform": waveform, "lengths": lengths})[0]
        return logits

    def _logits_of_features(self, rows: Sequence[Array]) -> NDArray[np.float32]:
        """The frontend in NumPy, a clip at a time. Those of one shape share a batch: a foreign graph may not ignore padding."""
        frontend, session, made = self.manifest.frontend, self._session, self.manifest.provenance
        # others quantize with one scale for the whole batch, so that there a row would depend on its neighbours
        together = session.batches and (bool(made.passes) or made.precision in FLOATS)
        features = [frontend(row) for row in rows]
        lengths = [frontend.length(len(row)) for row in rows]
        batches: dict[tuple[int, ...], list[int]] = {}
        for index, (feature, length) in enumerate(zip(features, lengths, strict=True)):
            batches.setdefault((*feature.shape, length, 0 if together else index), []).append(index)
        logits = np.empty((len(rows), len(self.manifest.labels)), np.float32)
        for batch in batches.values():
            stacked = np.stack([features[index] for index in batch])
            real = np.arange(stacked.shape[1]) < lengths[batch[0]]
            mask = np.repeat(real[None], len(batch), axis=0)
            feeds = {name: mask if name == MASK else stacked for name in session.inputs}
            feeds = {name: value.astype(session.dtypes.get(name, value.dtype), copy=False) for name, value in feeds.items()}
            found = session.run(["logits"], feeds)[0]
            if found.shape != (len(batch), logits.shape[1]):
                raise ModelError(f"the graph's logits are {found.shape} for {len(batch)} clips and {logits.shape[1]} labels")
            logits[batch] = found
        return logits


def load(
    path: str | os.PathLike[str] | None = None, device: str = "auto", threads: int | None = None, precision: str | None = None
) -> Classifier:
    """The model at `path` (the embedded default where None), ready on `device`: "auto", "cpu", "cuda" or "cuda:N".

    `path` is a stapes file, or a directory as optimum and transformers.js read it, of whose graphs `precision` picks one; see
    repository.find. Raises ModelError or ModelNotFound for the file, MissingExtra or DeviceError for the host.
    """
    found = repository.find(DEFAULT_MODEL if path is None else path, precision)
    manifest, path = found.manifest, found.file
    if missing(manifest.needs):
        warnings.warn(
            f"{manifest.name} needs a CPU with {' or '.join(manifest.needs)}; here its scores may be wrong without a sign: "
            "export it with --precision int8-portable",
            stacklevel=2,
        )
    session = Session(path, device, threads)
    if manifest.frontend_in_graph and session.inputs != ("waveform", "lengths"):
        raise ModelError(f"{path} takes {', '.join(session.inputs)} instead of waveform and lengths; export it again")
    if not manifest.frontend_in_graph:
        _check_features(path, session)
    return Classifier(manifest, session)


def _check_features(path: Path, session: Session) -> None:
    """Refuses a graph whose inputs no feature extractor makes, or that gives no logits."""
    if set(session.inputs) - {MASK} not in ({name} for name in FEATURES):
        raise ModelError(f"{path} takes {', '.join(session.inputs)}; an audio classifier takes {' or '.join(FEATURES)}, and perhaps {MASK}")
    if "logits" not in session.outputs:
        raise ModelError(f"{path} gives {', '.join(session.outputs)} and no logits, so it is no classifier")


def activate(logits: Array, activation: Activation) -> Array:
    """Scores from logits over the last axis, float32: softmax, sigmoid, or the logits themselves."""
    if activation == "softmax":
        grown = np.exp(logits - logits.max(axis=-1, keepdims=True))
        scores: Array = grown / grown.sum(axis=-1, keepdims=True)
        return scores
    if activation == "sigmoid":
        # exp of a negative number on both sides: no overflow
        small = np.exp(-np.abs(logits))
        return np.where(logits >= 0, 1 / (1 + small), small / (1 + small))
    if activation == "none":
        return logits
    raise ValueError(f"no activation {activation!r}: softmax, sigmoid or none")


def _count(top_k: int | None, labels: int) -> int:
    if top_k is None:
        return labels
    if isinstance(top_k, bool) or not isinstance(top_k, int | np.integer):
        raise TypeError(f"top_k is a whole number or None for all, not {top_k!r}")
    if top_k < 0:
        raise ValueError(f"top_k is 0 or more, or None for all, not {top_k}")
    return min(int(top_k), labels)
