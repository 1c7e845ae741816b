"""Recorded clips, labelled or plain, as arrays; and what two sets of answers on them say of each other."""

import csv
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stapes import audio
from stapes.bundle import Activation, Manifest, Verdict
from stapes.errors import AudioError
from stapes.predictions import activate

SUFFIXES = {".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aif", ".aiff", ".caf"}

PATH, LABEL = "path", "label"
"""The columns of a table of clips."""


@dataclass(frozen=True)
class Recording:
    """One clip at the model's rate."""

    name: str
    samples: NDArray[np.float32]
    label: str | None = None
    """What is heard in it: one of the model's labels."""


def recordings(source: Path, rate: int, labels: tuple[str, ...]) -> list[Recording]:
    """The clips of `source`, a folder or a table; AudioError where there is none, or one cannot be read.

    A folder gives every audio file below it, in the order of its path; a clip is labelled where the folder that holds it is named as one
    of `labels`. A table is a csv with a header that names `path` and `label`, further columns left alone; paths are relative to it, and an
    empty label is none.
    """
    if source.suffix.lower() == ".csv" and not source.is_dir():
        listed = list(_table(source, labels))
        root = source.parent
    else:
        listed = [(path, path.parent.name if path.parent.name in labels else None) for path in _audio_files(source)]
        root = source
    if not listed:
        raise AudioError(
            f"no audio below {source}; give a folder of {', '.join(sorted(SUFFIXES))} files, one folder a label, or a csv with the columns "
            f"{PATH} and {LABEL}"
        )
    return [Recording(os.path.relpath(path, root), audio.read(path, rate).samples, label) for path, label in listed]


def _audio_files(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() in SUFFIXES and path.is_file():
            yield path


def _table(source: Path, labels: tuple[str, ...]) -> Iterator[tuple[Path, str | None]]:
    try:
        with source.open(newline="", encoding="utf-8-sig") as file:  # spreadsheets put a mark in front
            rows = csv.DictReader(file)
            if lacking := {PATH, LABEL} - set(rows.fieldnames or ()):
                raise AudioError(f"{source} has no column {' nor '.join(sorted(lacking, reverse=True))}; its first line must name both")
            for row in rows:
                path, label = row[PATH], row[LABEL]
                if not path:
                    raise AudioError(f"line {rows.line_num} of {source} names no file; its column {PATH} is empty")
                if label and label not in labels:
                    raise AudioError(
                        f"line {rows.line_num} of {source} has the label {label!r}, none of the model's: {', '.join(labels):.500}; leave "
                        "it empty where a clip has none"
                    )
                yield source.parent / path, label or None
    except FileNotFoundError as error:
        raise AudioError(f"no file {source}; give a folder of recordings, or a csv with the columns {PATH} and {LABEL}") from error
    except OSError as error:
        raise AudioError(f"cannot read {source}: {error.strerror}") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise AudioError(f"{source} is no csv in UTF-8 ({error})") from error


def check_lengths(clips: list[Recording], manifest: Manifest) -> None:
    """Raises AudioError naming the first clip that is too short for the model: the original itself would break on it."""
    shortest = manifest.frontend.min_samples
    for clip in clips:
        if len(clip.samples) < shortest:
            raise AudioError(
                f"{clip.name} has {len(clip.samples)} samples at {manifest.rate} Hz and {manifest.name} needs {shortest}; leave it out of "
                "the calibration"
            )


def accuracy(logits: NDArray[Any], clips: list[Recording], labels: tuple[str, ...]) -> float | None:
    """Fraction of the labelled clips whose top label is theirs, for `logits` (clips, labels); None where no clip is labelled."""
    right = [labels[row.argmax()] == clip.label for row, clip in zip(logits, clips, strict=True) if clip.label is not None]
    return float(np.mean(right)) if right else None


def verdict(before: NDArray[Any], after: NDArray[Any], clips: list[Recording], labels: tuple[str, ...], activation: Activation) -> Verdict:
    """What changed between two sets of logits (clips, labels) of the same clips."""
    with np.errstate(all="ignore"):  # a precision that overflows gives NaN, for its caller to refuse
        return Verdict(
            clips=len(clips),
            labelled=sum(clip.label is not None for clip in clips),
            accuracy_before=accuracy(before, clips, labels),
            accuracy_after=accuracy(after, clips, labels),
            agreement=float(np.mean(before.argmax(axis=1) == after.argmax(axis=1))),
            divergence=divergence(before, after, activation),
            max_score_change=float(np.abs(activate(before, activation) - activate(after, activation)).max()),
        )


def divergence(before: NDArray[Any], after: NDArray[Any], activation: Activation) -> float | None:
    """Kullback-Leibler divergence of the scores after from those before, in nats, mean over the clips; logits (clips, labels).

    softmax   sum_i p_i log(p_i / q_i)
    sigmoid   sum_i p_i log(p_i / q_i) + (1 - p_i) log((1 - p_i) / (1 - q_i)): each label is a yes or a no of its own

    None where the activation gives no probabilities.
    """
    if activation == "none":
        return None
    p, q = (_log_probabilities(logits.astype(np.float64), activation) for logits in (before, after))
    return max(0.0, float((np.exp(p) * (p - q)).reshape(len(before), -1).sum(axis=1).mean()))  # rounding may fall below zero


def _log_probabilities(logits: NDArray[np.float64], activation: Activation) -> NDArray[np.float64]:
    """(clips, labels) for softmax, (clips, labels, 2) of yes and no for sigmoid; exact where the probability itself would be zero."""
    pairs = logits if activation == "softmax" else np.stack([logits, np.zeros_like(logits)], axis=-1)
    return pairs - np.logaddexp.reduce(pairs, axis=-1, keepdims=True)
