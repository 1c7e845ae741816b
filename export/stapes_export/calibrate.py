"""Recorded clips, labelled or plain, as arrays."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stapes import audio
from stapes.errors import AudioError

SUFFIXES = {".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aif", ".aiff", ".caf"}


@dataclass(frozen=True)
class Recording:
    """One clip at the model's rate."""

    name: str
    samples: NDArray[np.float32]
    label: str | None = None
    """The folder's name, where the clips lie in one folder a label."""


def recordings(folder: Path, rate: int, labels: tuple[str, ...]) -> list[Recording]:
    """Every audio file below `folder`, in the order of its path; AudioError where there is none or one cannot be read.

    A clip is labelled where the folder that holds it is named as one of `labels`.
    """
    paths = list(_audio_files(folder))
    if not paths:
        raise AudioError(f"no audio below {folder}; give a folder of {', '.join(sorted(SUFFIXES))} files, one folder a label")
    found = []
    for path in paths:
        label = path.parent.name if path.parent.name in labels else None
        found.append(Recording(str(path.relative_to(folder)), audio.read(path, rate).samples, label))
    return found


def _audio_files(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() in SUFFIXES and path.is_file():
            yield path


def accuracy(logits: NDArray[Any], clips: list[Recording], labels: tuple[str, ...]) -> float | None:
    """Fraction of the labelled clips whose top label is theirs, for `logits` (clips, labels); None where no clip is labelled."""
    right = [labels[row.argmax()] == clip.label for row, clip in zip(logits, clips, strict=True) if clip.label is not None]
    return float(np.mean(right)) if right else None
