"""From raw values to figures: percentiles, ratios, and the rule by which two contenders' answers agree.

**The rule.** With R the reference's logits (clips, labels) and P the contender's, on the same clips:

1. noise.   rms(P - R) <= NOISE * rms(R - mean of R over clips). What a contender adds is at least 10 dB below what tells clips apart. The
   unit is what differs BETWEEN clips: a model that answers every clip alike has the logits' own spread in its favour, and here a noise
   of 1. Float32 stays below 1e-3, bfloat16 around 0.02, usable int8 below 0.3.
2. top label.   Equal on every clip whose winner in R leads by more than CLEAR times the noise found in 1 on a difference of two logits.
   Narrower wins are a toss-up that no rounding survives, above all with random weights; a label lost by more than that is no rounding, but
   a mistake that the mean of 1 hides.
3. Every logit is a number.

A contender that fails is not timed, since a wrong answer has no speed. How many top labels agree in all, and how far scores move, is
reported of every contender, agreeing or not.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

NOISE = 10**-0.5
"""10 dB."""

CLEAR = 4.0
"""Standard deviations of a difference: noise alone crosses them once in 30,000 clips."""

EXACT = 1e-4
"""Of the unit in 1, what float32 may differ by whatever the margin: below it ties are decided by rounding."""

Array = NDArray[Any]


@dataclass(frozen=True)
class Agreement:
    """How a contender's answers compare with the reference's."""

    clips: int
    same_top: int
    """Clips with the same top label."""
    noise: float
    """See 1; NaN where a logit is no number."""
    score_difference: float
    """The largest of a score."""
    clear_losses: int
    """Clips with another top label in spite of a clear margin; see 2."""

    @property
    def agrees(self) -> bool:
        return self.noise <= NOISE and not self.clear_losses  # NaN is not

    @property
    def why(self) -> str:
        """What differs, in a few words; empty where it agrees."""
        if self.agrees:
            return ""
        if math.isnan(self.noise):
            return "a logit is no number"
        top = f"top label {self.same_top}/{self.clips}"
        return f"noise {self.noise:.2g}, {top}" if self.noise > NOISE else f"{top}, {self.clear_losses} of them clear"


def agreement(reference: Array, found: Array, activation: str = "softmax") -> Agreement:
    """Compare logits (clips, labels). Raises ValueError where the shapes differ, or there are too few clips to tell anything apart."""
    if reference.shape != found.shape or reference.ndim != 2 or len(reference) < 2:
        raise ValueError(
            f"logits of shape {found.shape} do not compare with the reference's {reference.shape}; two clips are needed at least"
        )
    difference = np.asarray(found, np.float64) - reference
    unit = max(_rms(reference - reference.mean(axis=0)), 1e-12)
    noise = _rms(difference) / unit if np.isfinite(found).all() else math.nan
    ordered = np.sort(reference, axis=1)
    margin = ordered[:, -1] - ordered[:, -2] if reference.shape[1] > 1 else np.full(len(reference), math.inf)
    same = found.argmax(axis=1) == reference.argmax(axis=1)
    clear = margin > max(EXACT, CLEAR * math.sqrt(2) * (0.0 if math.isnan(noise) else noise)) * unit
    return Agreement(
        clips=len(reference),
        same_top=int(same.sum()),
        noise=noise,
        score_difference=float(np.abs(scores(found, activation) - scores(reference, activation)).max()),
        clear_losses=int((clear & ~same).sum()),
    )


def scores(logits: Array, activation: str) -> Array:
    """Softmax, sigmoid or the logits themselves, in float64."""
    logits = np.asarray(logits, np.float64)
    if activation == "softmax":
        grown = np.exp(logits - logits.max(axis=1, keepdims=True))
        shares: Array = grown / grown.sum(axis=1, keepdims=True)
        return shares
    return 1 / (1 + np.exp(-logits)) if activation == "sigmoid" else logits


@dataclass(frozen=True)
class Figures:
    """What many timings of one thing come to, in the unit of the values."""

    count: int
    p50: float
    p90: float
    p99: float
    least: float
    most: float


def figures(values: Sequence[float]) -> Figures:
    """Percentiles between neighbours linearly, as NumPy has them; ValueError for no values."""
    if not values:
        raise ValueError("no values to summarize")
    p50, p90, p99 = (float(each) for each in np.percentile(values, (50, 90, 99)))
    return Figures(len(values), p50, p90, p99, min(values), max(values))


def ratio(of: Sequence[float], to: Sequence[float]) -> float:
    """How many times faster `of` is than `to`: the ratio of their medians."""
    return median(to) / median(of)


def real_time_factor(seconds: float, audio_s: float) -> float:
    """Seconds of sound classified in a second."""
    return audio_s / seconds


def throughput(seconds: float, clips: int) -> float:
    """Clips a second, where a batch of so many takes that long."""
    return clips / seconds


def _rms(values: Array) -> float:
    return float(np.sqrt(np.mean(np.square(values, dtype=np.float64))))
