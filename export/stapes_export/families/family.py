"""What the exporter knows of an architecture: one value a file in this folder."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from optimum.utils import DummyAudioInputGenerator
from torch import nn


@dataclass(frozen=True)
class Family:
    """One architecture of transformers' audio classifiers."""

    model_type: str
    """As in config.json."""
    adapt: Callable[[Any], nn.Module]
    """transformers' module -> one that maps features (batch, time, ...) and lengths (batch,) to logits (batch, labels).

    A row's logits must not depend on other rows, nor on features at or behind its length. The given module may be altered.
    """
    min_samples: Callable[[Any], int]
    """config -> the fewest samples for which the answer is finite and depends on the clip."""
    dynamic_time: bool
    """Whether the time axis of the features varies; False where the extractor pads or trims to one size."""
    inputs: type[DummyAudioInputGenerator] = DummyAudioInputGenerator
    """optimum's generator of the example that is traced."""
