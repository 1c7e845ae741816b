"""What the command line knows of a format."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TextIO

from stapes.formats.result import Result


@dataclass(frozen=True)
class Format:
    """One way to print results."""

    write: Callable[[Iterable[Result], TextIO], None]
    """Writes each result as soon as it is there; failed ones only where the format has a place for errors."""
    suffix: str
    """How its files' names usually end, with the dot."""
    many: bool
    """Whether one output can hold several clips: the format has a place for a file's name."""
