"""What is printed of one input."""

from dataclasses import dataclass
from typing import Any

from stapes.classifier import Prediction


@dataclass(frozen=True)
class Result:
    """The labels heard in one input, or the error that took their place."""

    path: str
    duration: float = 0.0
    """Seconds."""
    predictions: tuple[Prediction, ...] = ()
    error: Exception | None = None

    def to_dict(self) -> dict[str, Any]:
        """The result as the json formats write it, scores with six digits."""
        if self.error is not None:
            return {"path": self.path, "error": {"type": type(self.error).__name__, "message": str(self.error)}}
        found = [{"label": p.label, "score": round(p.score, 6), "index": p.index} for p in self.predictions]
        return {"path": self.path, "duration": round(self.duration, 6), "predictions": found}
