"""What is classified while the clock runs: recordings, or signals with the structure of speech, the same on every machine.

A made clip is syllables of one speaker: each has a voiced part (harmonics of a gliding pitch under four formants) between a burst of
noise in a band of its own and perhaps a pause. Speakers, syllables and levels come from the seed.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from stapes import audio
from stapes.decode import SUFFIXES
from stapes.errors import AudioError

Samples = NDArray[np.float32]

RATE = 16_000
"""Hz: what every model here was trained for."""

VOWELS = ((730, 1090, 2440), (270, 2290, 3010), (300, 870, 2240), (530, 1840, 2480), (570, 840, 2410), (490, 1350, 1690), (660, 1720, 2410))
"""First three formants in Hz. Source: Peterson and Barney 1952, men."""

WIDTHS = (60, 90, 150, 250)
"""Of the formants, in Hz."""


def made(count: int, seconds: float, rate: int = RATE) -> list[Samples]:
    """`count` clips of that length, each (seconds * rate,) float32, each of another speaker."""
    return [speech(seconds, rate, seed) for seed in range(count)]


def recorded(folder: Path, count: int, seconds: float, rate: int = RATE, skip: int = 0) -> list[Samples]:
    """`count` clips of that length from the recordings below `folder`, joined and cut; `skip` samples of them are passed over.

    Raises AudioError where there is no recording, or one cannot be read. What is too short in all is repeated.
    """
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())
    if not paths:
        raise AudioError(f"no recordings below {folder}; give a folder of audio files")
    size, found, have = round(seconds * rate), [], 0
    for index in np.random.default_rng(0).permutation(len(paths)):  # neighbours often say the same word
        found.append(audio.read(paths[index], rate).samples)
        have += len(found[-1])
        if have >= skip + count * size:
            break
    joined = np.concatenate(found)
    joined = np.resize(joined[skip:] if have > skip else joined, count * size)
    return [np.ascontiguousarray(part) for part in joined.reshape(count, size)]


def speech(seconds: float, rate: int, seed: int) -> Samples:
    """One made clip, (seconds * rate,) float32, full scale at 1.0."""
    draw = np.random.default_rng([seed, rate])
    pitch, tract, level = draw.uniform(80, 260), draw.uniform(0.85, 1.25), draw.uniform(0.05, 0.3)
    parts: list[NDArray[np.float64]] = []
    have, size = 0, round(seconds * rate)
    while have < size:
        parts += _syllable(draw, rate, pitch * draw.uniform(0.85, 1.2), tract)
        have = sum(map(len, parts))
    whole = np.concatenate(parts)[:size] + 1e-3 * draw.standard_normal(size)
    return (level * whole / max(1e-9, float(np.sqrt(np.mean(whole**2)))) / 3).clip(-1, 1).astype(np.float32)


def _syllable(draw: np.random.Generator, rate: int, pitch: float, tract: float) -> Sequence[NDArray[np.float64]]:
    low = draw.uniform(1000, 5000)
    noise = draw.uniform(0.1, 0.6) * _band(draw, round(draw.uniform(0.03, 0.12) * rate), rate, low, low + draw.uniform(800, 3000))
    start, end = (np.array([*VOWELS[draw.integers(len(VOWELS))], 3500.0]) * tract for _ in range(2))
    voiced = _voiced(round(draw.uniform(0.09, 0.28) * rate), rate, pitch, draw.uniform(0.8, 1.15), start, end)
    pause = np.zeros(round(draw.choice([0, 0, 0.04, 0.15]) * rate))
    return noise, voiced, pause


def _voiced(size: int, rate: int, pitch: float, glide: float, start: NDArray[np.float64], end: NDArray[np.float64]) -> NDArray[np.float64]:
    """Harmonics of a pitch that glides by the factor `glide`, under formants that move from `start` to `end` Hz."""
    way = np.linspace(0, 1, size)
    hertz = pitch * glide**way
    phase = 2 * np.pi * np.cumsum(hertz) / rate
    sound = np.zeros(size)
    for harmonic in range(1, int(min(rate / 2, 5000) / (pitch * max(1.0, glide))) + 1):
        gain = np.zeros(size)
        for first, last, width in zip(start, end, WIDTHS, strict=True):
            gain += 1 / (1 + ((harmonic * hertz - (first + (last - first) * way)) / width) ** 2)
        sound += gain / harmonic**0.5 * np.sin(harmonic * phase)
    return sound * np.sin(np.pi * way) ** 0.5


def _band(draw: np.random.Generator, size: int, rate: int, low: float, high: float) -> NDArray[np.float64]:
    spectrum = np.fft.rfft(draw.standard_normal(size))
    hertz = np.fft.rfftfreq(size, 1 / rate)
    spectrum[(hertz < low) | (hertz > high)] = 0
    return np.fft.irfft(spectrum, size) * np.hanning(size)
