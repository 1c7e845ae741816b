"""A feature extractor as a value: a rate, a minimum length and the steps from samples to the model's features."""

import math
from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from functools import cached_property, reduce
from itertools import takewhile
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from stapes.errors import ModelError
from stapes.frontend.steps import STEPS, PadOrTrim, Resample, Step

Array = NDArray[Any]

RATES = range(100, 1_000_001)
"""Hz of recordings and models: seismographs to ultrasound. What lies outside is a mistake, and costs gigabytes to resample."""

MOST = {"size": 2**24, "hop": 2**24, "points": 2**16, "bins": 2**15 + 1, "mels": 2**12, "count": 2**8} | dict.fromkeys(
    ("rate", "from_rate", "to_rate"), RATES[-1]
)
"""The largest value of each whole number that a step has, so that a stranger's file cannot ask for any amount of memory. Whisper, the
largest so far, has a size of 480000 samples, 128 mels and 400 points; frames of 2**16 points last more than a second at any usual rate."""

MOST_STEPS = 64
"""Five times what Whisper takes."""


@dataclass(frozen=True)
class Frontend:
    """What turns one clip at `rate` Hz, of `min_samples` or more, into what the model reads.

    Call it: float samples (n,) -> float32 features, time on the first axis. The steps run in float64 and the result is rounded once.
    """

    rate: int
    min_samples: int
    steps: tuple[Step, ...]

    def __call__(self, samples: Array) -> NDArray[np.float32]:
        """The features; a ModelError where the steps do not fit together, as in a damaged file."""
        try:
            with np.errstate(all="ignore"):
                features = np.asarray(self.evaluate(samples), np.float32)
        except (ValueError, IndexError, ArithmeticError) as error:
            raise ModelError(f"the frontend's steps do not fit {len(samples)} samples, or one another: {error}") from error
        if not np.isfinite(features).all():
            raise ModelError(f"the frontend makes NaN or infinity of {len(samples)} finite samples; its numbers make no sense")
        return features

    def evaluate(self, samples: Array) -> NDArray[np.float64]:
        """The features before rounding, float64."""
        return reduce(lambda x, step: step(x), self.steps, np.asarray(samples, np.float64))

    def length(self, samples: int) -> int:
        """Real entries along the features' time axis for a clip of `samples`."""
        return reduce(lambda n, step: step.length(n), self.steps, samples)

    @cached_property
    def max_samples(self) -> int | None:
        """Samples of the longest clip that is read whole, where a step cuts what is longer; else None."""
        before = list(takewhile(lambda step: not isinstance(step, PadOrTrim), self.steps))
        if len(before) == len(self.steps):
            return None
        cut = self.steps[len(before)]
        assert isinstance(cut, PadOrTrim)

        def entries(samples: int) -> int:
            return reduce(lambda n, step: step.length(n), before, samples)

        enough = 1
        while entries(enough) <= cut.size:
            enough *= 2
        return bisect_right(range(enough), cut.size, key=entries) - 1

    def heard_at(self, rate: int) -> "Frontend":
        """The same features from a clip at `rate` Hz, which is resampled first; `min_samples` are counted at that rate."""
        resample = Resample(rate, self.rate)
        return Frontend(rate, resample.shortest(self.min_samples), (resample, *self.steps))

    def to_dict(self) -> dict[str, Any]:
        """The frontend as JSON knows it; `from_dict` gives it back."""
        steps = [{"step": type(step).__name__, **asdict(step)} for step in self.steps]  # type: ignore[call-overload]
        return {"rate": self.rate, "min_samples": self.min_samples, "steps": steps}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "Frontend":
        """The frontend that `to_dict` described; a ModelError names what this version does not know."""
        try:
            frontend = cls(data["rate"], data["min_samples"], tuple(_step(entry) for entry in data["steps"]))
            frontend.check()
        except (KeyError, TypeError, ValueError, ArithmeticError) as error:
            raise ModelError(f"the manifest's frontend is damaged: {error!s:.200}; export the model again") from error
        return frontend

    def check(self) -> None:
        """ValueError or ArithmeticError where a number has the wrong type or makes no sense: for what a stranger wrote."""
        _check("rate", self.rate, RATES)
        _check("min_samples", self.min_samples, range(1, MOST["size"] + 1))
        if len(self.steps) > MOST_STEPS:
            raise ValueError(f"it has {len(self.steps)} steps, more than {MOST_STEPS}")
        for step in self.steps:
            for field in fields(step):  # type: ignore[arg-type]
                kind = range(1, MOST[field.name] + 1) if field.type is int else field.type
                _check(f"{type(step).__name__}.{field.name}", getattr(step, field.name), kind)
        for place, step in enumerate(self.steps):
            if isinstance(step, Resample) and (place or step.from_rate != self.rate):  # or a row of them would make any amount of a clip
                raise ValueError(f"a Resample is the first step and begins at {self.rate} Hz; step {place + 1} is {step}")
        _ = self.max_samples  # which many steps one after the other can put beyond every number


def _step(entry: Mapping[str, Any]) -> Step:
    name, arguments = entry["step"], {key: value for key, value in entry.items() if key != "step"}
    if name not in STEPS:
        raise ValueError(f"this version of stapes has no step {name!r:.80} (a newer one may)")
    kind = STEPS[name]
    if unknown := arguments.keys() - {field.name for field in fields(kind)}:  # type: ignore[arg-type]
        raise ValueError(f"step {name} takes no {', '.join(sorted(unknown))}")
    return kind(**arguments)


def _check(name: str, value: object, kind: Any) -> None:
    """ValueError where `value` is not of `kind`: a range of whole numbers, float, bool or a Literal."""
    if isinstance(kind, range):
        fits, wanted = type(value) is int and value in kind, f"a whole number from {kind[0]} to {kind[-1]}"
    elif kind is float:
        fits, wanted = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value), "a finite number"
    elif kind is bool:
        fits, wanted = isinstance(value, bool), "true or false"
    else:
        fits, wanted = value in get_args(kind), f"one of {', '.join(map(repr, get_args(kind)))}"
    if not fits:
        raise ValueError(f"{name} is {wanted}, not {value!r:.80}")
