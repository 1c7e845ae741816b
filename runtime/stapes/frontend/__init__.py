"""A feature extractor as a value: a rate, a minimum length and the steps from samples to the model's features."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from functools import reduce
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stapes.errors import ModelError
from stapes.frontend.steps import STEPS, Step

Array = NDArray[Any]


@dataclass(frozen=True)
class Frontend:
    """What turns one clip at `rate` Hz, of `min_samples` or more, into what the model reads.

    Call it: float samples (n,) -> float32 features, time on the first axis. The steps run in float64 and the result is rounded once.
    """

    rate: int
    min_samples: int
    steps: tuple[Step, ...]

    def __call__(self, samples: Array) -> NDArray[np.float32]:
        return np.asarray(self.evaluate(samples), np.float32)

    def evaluate(self, samples: Array) -> NDArray[np.float64]:
        """The features before rounding, float64."""
        return reduce(lambda x, step: step(x), self.steps, np.asarray(samples, np.float64))

    def length(self, samples: int) -> int:
        """Real entries along the features' time axis for a clip of `samples`."""
        return reduce(lambda n, step: step.length(n), self.steps, samples)

    def to_dict(self) -> dict[str, Any]:
        """The frontend as JSON knows it; `from_dict` gives it back."""
        steps = [{"step": type(step).__name__, **asdict(step)} for step in self.steps]  # type: ignore[call-overload]
        return {"rate": self.rate, "min_samples": self.min_samples, "steps": steps}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "Frontend":
        """The frontend that `to_dict` described; a ModelError names what this version does not know."""
        try:
            return cls(int(data["rate"]), int(data["min_samples"]), tuple(_step(entry) for entry in data["steps"]))
        except (KeyError, TypeError, ValueError) as error:
            raise ModelError(f"the manifest's frontend is damaged: {error}; export the model again") from error


def _step(entry: Mapping[str, Any]) -> Step:
    name, arguments = entry["step"], {key: value for key, value in entry.items() if key != "step"}
    if name not in STEPS:
        raise ValueError(f"this version of stapes has no step {name!r} (a newer one may)")
    kind = STEPS[name]
    if unknown := arguments.keys() - {field.name for field in fields(kind)}:  # type: ignore[arg-type]
        raise ValueError(f"step {name} takes no {', '.join(sorted(unknown))}")
    return kind(**arguments)
