"""What the exporter knows of an architecture: one value a file in this folder."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from optimum.utils import DummyAudioInputGenerator, NormalizedConfig
from torch import Tensor, nn

from stapes_export.layer_sum import LayerSum
from stapes_export.surgery.channels_last import Grid

BATCH = 2
"""Rows of the example that is traced: more than one, or the batch would be taken for a constant."""


def example_waveform(config: Any) -> Tensor:
    """(batch, samples): a second of noise by optimum's generator."""
    waveform: Tensor = _generator(config).generate("input_values")
    return waveform


def example_features(config: Any, channels: int, frames: int) -> Tensor:
    """(batch, channels, frames) by optimum's generator."""
    features: Tensor = _generator(config, feature_size=channels, nb_max_frames=frames).generate("input_features")
    return features


def _generator(config: Any, **sizes: int) -> DummyAudioInputGenerator:
    return DummyAudioInputGenerator("audio-classification", NormalizedConfig(config), batch_size=BATCH, **sizes)


@dataclass(frozen=True)
class Family:
    """One architecture of transformers' audio classifiers."""

    model_type: str
    """As in config.json."""
    adapt: Callable[[Any, LayerSum], nn.Module]
    """transformers' module -> one that maps features (batch, time, ...) and lengths (batch,) to logits (batch, labels).

    A row's logits must not depend on other rows, nor on features at or behind its length. The given module may be altered.
    """
    min_samples: Callable[[Any], int]
    """config -> the fewest samples for which the answer is finite and depends on the clip."""
    grid: Callable[[Any], Grid] | None = None
    """config -> the sizes that the time axis of the features may have: the graph pads with zeros behind, up to the next one. None where
    the extractor pads or trims to one size."""
    example: Callable[[Any], Tensor] = example_waveform
    """config -> features of more than one row, to trace with."""
