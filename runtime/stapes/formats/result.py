"""What is printed of one input."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from stapes.predictions import MergedPrediction, Prediction, Segment

DIGITS = 6
"""Decimals of scores and seconds in the formats that programs read."""


@dataclass(frozen=True)
class Result:
    """What is heard in one input, or the error that took its place."""

    path: str
    duration: float = 0.0
    """Seconds."""
    rate: int = 0
    """Hz at which the model heard it."""
    predictions: tuple[Prediction, ...] = ()
    """Of the whole clip."""
    segments: tuple[Segment, ...] | None = None
    """Of its windows, where windows were asked for; then `predictions` is empty."""
    error: Exception | None = None

    @property
    def timeline(self) -> tuple[Segment, ...]:
        """What is heard when: the segments, or the whole clip as one."""
        if self.segments is not None:
            return self.segments
        return (Segment(0.0, self.duration, self.predictions),) if self.error is None else ()

    def to_dict(self) -> dict[str, Any]:
        """The result as the json formats write it, numbers with DIGITS decimals."""
        if self.error is not None:
            return {"path": self.path, "error": {"type": type(self.error).__name__, "message": str(self.error)}}
        whole = {"path": self.path, "duration": round(self.duration, DIGITS)}
        if self.segments is None:
            return whole | {"predictions": _dicts(self.predictions)}
        return whole | {
            "segments": [
                {"start": round(segment.start, DIGITS), "end": round(segment.end, DIGITS), "predictions": _dicts(segment.predictions)}
                for segment in self.segments
            ]
        }


def _dicts(predictions: Iterable[Prediction]) -> list[dict[str, Any]]:
    return [_dict(prediction) for prediction in predictions]


def _dict(prediction: Prediction) -> dict[str, Any]:
    plain = {"label": prediction.label, "score": round(prediction.score, DIGITS), "index": prediction.index}
    return plain | {"max_score": round(prediction.max_score, DIGITS)} if isinstance(prediction, MergedPrediction) else plain
