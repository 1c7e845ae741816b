"""A long clip as windows, and the windows of one label as one stretch; both in constant memory."""

import heapq
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stapes.predictions import MergedPrediction, Prediction, Segment

Samples = NDArray[Any]


def windows(blocks: Iterable[Samples], size: int, hop: int) -> Iterator[tuple[int, Samples]]:
    """Windows of `size` samples every `hop`, with the sample that each begins at, from consecutive blocks (n,).

    Where the last one would reach behind the clip it is moved back to end with it, so that every window is whole and no sound is left
    out (but what lies between windows, where `hop` is larger than `size`). A clip shorter than a window is one window.
    """
    held: Samples = np.empty(0, np.float32)
    begin = start = 0  # of what is held, of the next window
    for block in blocks:
        held = np.concatenate([held, block])
        while start + size <= begin + len(held):
            yield start, held[start - begin : start - begin + size]
            start += hop
        keep = max(begin, min(start, begin + len(held) - size))
        held, begin = held[keep - begin :], keep
    end = begin + len(held)
    if not start:
        yield 0, held
    elif start - hop + size < end and start < end:
        yield end - size, held[end - size - begin :]


def above(segments: Iterable[Segment], threshold: float) -> Iterator[Segment]:
    """Each segment with those predictions alone whose score is `threshold` or more."""
    for segment in segments:
        yield replace(segment, predictions=tuple(found for found in segment.predictions if found.score >= threshold))


@dataclass
class _Run:
    """A label that is being heard."""

    start: float
    end: float
    prediction: Prediction
    windows: int = 0
    total: float = 0.0
    highest: float = -math.inf

    def extend(self, end: float, score: float) -> None:
        self.end, self.windows, self.total, self.highest = end, self.windows + 1, self.total + score, max(self.highest, score)

    def segment(self) -> Segment:
        label, index = self.prediction.label, self.prediction.index
        return Segment(self.start, self.end, (MergedPrediction(label, self.total / self.windows, index, self.highest),))


def merged(segments: Iterable[Segment]) -> Iterator[Segment]:
    """One segment for each run of windows that a label is heard in without a break, in the order of their beginnings.

    Windows with a gap between them are no run.
    """
    running: dict[int, _Run] = {}
    ended: list[tuple[float, int, Segment]] = []  # a heap: a short run may end within a long one that began before it
    for segment in segments:
        heard = {found.index: found for found in segment.predictions}
        for index in [index for index, run in running.items() if index not in heard or segment.start > run.end]:
            run = running.pop(index)
            heapq.heappush(ended, (run.start, index, run.segment()))
        for index, found in heard.items():
            running.setdefault(index, _Run(segment.start, segment.end, found)).extend(segment.end, found.score)
        first = min((run.start for run in running.values()), default=segment.end)
        while ended and ended[0][0] < first:
            yield heapq.heappop(ended)[2]
    for index, run in running.items():
        heapq.heappush(ended, (run.start, index, run.segment()))
    while ended:
        yield heapq.heappop(ended)[2]
