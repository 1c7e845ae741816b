"""What the command line names -> the inputs to work on, in order."""

import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from stapes.audio import Source
from stapes.decode import SUFFIXES
from stapes.errors import AudioError

STANDARD_INPUT = "-"


@dataclass(frozen=True)
class Input:
    """One clip to classify, or what is wrong with the name that was given."""

    name: str
    """As results call it."""
    below: str
    """Where its results belong below an output folder."""
    error: AudioError | None = None

    @property
    def source(self) -> Source:
        return sys.stdin.buffer if self.name == STANDARD_INPUT else self.name


def inputs(names: Sequence[str]) -> list[Input]:
    """The files named, and every audio file below the folders named, in the order of their paths."""
    return [each for name in names for each in _expand(name)]


def _expand(name: str) -> Iterator[Input]:
    if name == STANDARD_INPUT or not os.path.isdir(name):
        yield Input(name, "stdin" if name == STANDARD_INPUT else os.path.basename(name))
        return
    folder = Path(name)
    found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and not _hidden(path, folder) and path.is_file())
    if not found:
        kinds = " ".join(sorted(SUFFIXES))
        yield Input(name, folder.name, AudioError(f"no audio below {name}; files in it should end in one of {kinds}"))
    for path in found:
        yield Input(str(path), str(path.relative_to(folder)))


def _hidden(path: Path, folder: Path) -> bool:
    """Whether a name begins with a dot, as those of the resource forks do that macOS leaves on other systems' disks."""
    return any(part.startswith(".") for part in path.relative_to(folder).parts)
