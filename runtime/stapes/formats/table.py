"""For people: the path, then a line a label with its score and a bar."""

from collections.abc import Iterable
from typing import TextIO

from stapes.formats.result import Result

BAR = 20
"""Characters of a bar at score 1."""


def write(results: Iterable[Result], out: TextIO) -> None:
    for result in results:
        if result.error is None:
            out.write(f"{result.path}  ({result.duration:.2f} s)\n")
            width = max((len(found.label) for found in result.predictions), default=0)
            for found in result.predictions:
                bar = "█" * round(BAR * min(max(found.score, 0.0), 1.0))
                out.write(f"  {found.label:<{width}}  {found.score:8.4f}  {bar}".rstrip() + "\n")
            out.flush()
