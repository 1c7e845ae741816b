"""For people: the path, then a line a label with its score and a bar; where there are segments, each with its time."""

from collections.abc import Iterable, Iterator
from typing import TextIO

from stapes.formats.result import Result
from stapes.formats.text import columns, printable
from stapes.predictions import MergedPrediction, Prediction

BAR = 20
"""Characters of a bar at score 1."""


def write(results: Iterable[Result], out: TextIO) -> None:
    for result in results:
        if result.error is None:
            out.write(f"{printable(result.path)}  ({result.duration:.2f} s)\n")
            out.writelines(f"  {line}".rstrip() + "\n" for line in _lines(result))
            out.flush()


def _lines(result: Result) -> Iterator[str]:
    """Start, end, label, score (mean and highest of merged windows) and bar, aligned within the clip; a whole clip has no times."""
    labels = [printable(found.label) for segment in result.timeline for found in segment.predictions]
    label_width = max(map(columns, labels), default=0)
    time_width = max((len(f"{segment.end:.2f}") for segment in result.timeline), default=0)
    for segment in result.timeline:
        times = "" if result.segments is None else f"{segment.start:{time_width}.2f}  {segment.end:{time_width}.2f}  "
        for found in segment.predictions:
            label = printable(found.label)
            yield f"{times}{label}{' ' * (label_width - columns(label))}  {_scores(found)}  {_bar(found.score)}"


def _scores(found: Prediction) -> str:
    return f"{found.score:8.4f}  {found.max_score:8.4f}" if isinstance(found, MergedPrediction) else f"{found.score:8.4f}"


def _bar(score: float) -> str:
    return "█" * round(BAR * min(max(score, 0.0), 1.0))
