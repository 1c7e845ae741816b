"""Logits -> scores -> the labels heard, best first."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from stapes.bundle import Activation
from stapes.errors import InvalidOption

Array = NDArray[Any]

ACTIVATIONS: tuple[Activation, ...] = get_args(Activation)


@dataclass(frozen=True)
class Prediction:
    """One label and how sure the model is of it."""

    label: str
    score: float
    index: int
    """The label's place among the model's outputs."""


@dataclass(frozen=True)
class MergedPrediction(Prediction):
    """One label over adjacent windows that were merged: `score` is their mean."""

    max_score: float
    """The highest score among the windows."""


@dataclass(frozen=True)
class Segment:
    """A stretch of a clip and what is heard in it."""

    start: float
    """Seconds from the clip's beginning."""
    end: float
    """Seconds."""
    predictions: tuple[Prediction, ...]
    """Best first."""


def activate(logits: Array, activation: Activation) -> Array:
    """Scores from logits over the last axis, float32: softmax, sigmoid, or the logits themselves."""
    if activation == "softmax":
        grown = np.exp(logits - logits.max(axis=-1, keepdims=True))
        scores: Array = grown / grown.sum(axis=-1, keepdims=True)
        return scores
    if activation == "sigmoid":
        # exp of a negative number on both sides: no overflow
        small = np.exp(-np.abs(logits))
        return np.where(logits >= 0, 1 / (1 + small), small / (1 + small))
    if activation == "none":
        return logits
    raise InvalidOption(f"no function_to_apply {activation!r}: softmax, sigmoid or none")


def best(scores: Array, labels: Sequence[str], count: int) -> list[Prediction]:
    """The `count` highest of `scores` (labels,), best first; equal ones in the model's order."""
    order = np.argsort(-scores, kind="stable")[:count]
    return [Prediction(labels[i], float(scores[i]), int(i)) for i in order]


def count_of(top_k: int | None, labels: int) -> int:
    """How many of `labels` labels `top_k` asks for; None and what is beyond them ask for all."""
    if top_k is None:
        return labels
    if isinstance(top_k, bool) or not isinstance(top_k, int | np.integer):
        raise TypeError(f"top_k is a whole number or None for all, not {top_k!r}")
    if top_k < 0:
        raise InvalidOption(f"top_k is 0 or more, or None for all, not {top_k}")
    return min(int(top_k), labels)
