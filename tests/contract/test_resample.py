"""The sinc-hann resampler against torchaudio's, whole and in blocks."""

import math
from collections.abc import Callable, Iterator
from itertools import cycle

import numpy as np
import original_torchaudio
import pytest

from stapes.resample import resampler

PAIRS = [(8000, 16000), (11025, 16000), (16000, 8000), (22050, 16000), (32000, 16000), (44100, 16000), (48000, 16000), (44100, 48000)]

LENGTHS = [1, 7, 441, 20011]

BLOCKS = [1, 333, 4097, 0, 15]

ROUNDING = 1e-6  # both sum float32 products of a full-scale signal with kernels of length 1; measured 3.6e-7

Original = Callable[[int, int, int], np.ndarray]


def noise(length: int) -> np.ndarray:
    """Full scale: the largest errors."""
    return np.random.default_rng(length).uniform(-1, 1, length).astype(np.float32)


def blocks(samples: np.ndarray) -> Iterator[np.ndarray]:
    start = 0
    for size in cycle(BLOCKS):
        if start >= len(samples):
            return
        yield samples[start : start + size]
        start += size


@pytest.fixture(scope="module")
def original() -> Original:
    """What torchaudio makes of `noise`, by length and rates."""
    if not original_torchaudio.there():
        pytest.skip(original_torchaudio.ABSENT)
    jobs = [(length, *pair) for length in LENGTHS for pair in PAIRS]
    found = dict(zip(jobs, original_torchaudio.resampled([(noise(n), before, after) for n, before, after in jobs]), strict=True))
    return lambda length, before, after: found[length, before, after]


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize(("before", "after"), PAIRS)
def test_it_equals_torchaudios(before: int, after: int, length: int, original: Original):
    want = original(length, before, after)
    got = resampler(before, after, "sinc-hann")(noise(length), last=True)
    assert got.dtype == np.float32
    assert got.shape == want.shape
    assert np.abs(got - want).max() <= ROUNDING


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize(("before", "after"), PAIRS)
def test_it_equals_torchaudios_in_blocks(before: int, after: int, length: int, original: Original):
    resample = resampler(before, after, "sinc-hann")
    pieces = [resample(block) for block in blocks(noise(length))]
    got = np.concatenate([*pieces, resample(np.empty(0, np.float32), last=True)])
    want = original(length, before, after)
    assert got.shape == want.shape
    assert np.abs(got - want).max() <= ROUNDING


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize(("before", "after"), PAIRS)
def test_n_samples_become_the_next_whole_number_from_n_new_over_old(before: int, after: int, length: int):
    got = resampler(before, after, "sinc-hann")(noise(length), last=True)
    assert len(got) == math.ceil(length * after / before)
