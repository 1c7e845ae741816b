"""Windows, mel scales, mel banks and the resampler's filter: pure functions, float64.

NumPy steps and the lowered graph read these very arrays, so neither can drift from the other.
"""

import math
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
MelScale = Literal["kaldi", "slaney"]

REJECTION_DB = 105
"""What the resampler leaves of a frequency that the lower rate cannot hold; in float32 100 dB remain of it with certainty."""

TRANSITION = 0.08
"""Where the resampler falls, as a part of the lower rate's band: flat up to 0.92 as soxr HQ is, and silent from 1 on, so that nothing is
mirrored into the band."""


def hann(length: int, periodic: bool = False) -> Array:
    """Hann window, (length,). Symmetric (both ends zero, as Kaldi's `hanning`) or periodic (the next sample would be zero)."""
    return 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(length) / (length if periodic else length - 1))


def povey(length: int) -> Array:
    """Kaldi's own window, (length,): the symmetric Hann window to the power of 0.85. Source: Kaldi feature-window."""
    return hann(length) ** 0.85


def hz_to_mel(hz: Any, scale: MelScale) -> Array:
    """Frequencies in Hz on the mel axis.

    kaldi: 1127 ln(1 + hz / 700). slaney: 3 hz / 200 up to 1000 Hz, then 27 / ln 6.4 mels a unit of ln(hz / 1000) more (Auditory Toolbox).
    """
    hz = np.asarray(hz, np.float64)
    if scale == "kaldi":
        return np.asarray(1127.0 * np.log1p(hz / 700.0))
    above = 15.0 + np.log(np.maximum(hz, 1000.0) / 1000.0) * (27.0 / np.log(6.4))
    return np.asarray(np.where(hz < 1000.0, hz * 3.0 / 200.0, above))


def mel_to_hz(mel: Any, scale: MelScale) -> Array:
    """The inverse of `hz_to_mel`."""
    mel = np.asarray(mel, np.float64)
    if scale == "kaldi":
        return np.asarray(700.0 * np.expm1(mel / 1127.0))
    above = 1000.0 * np.exp((np.maximum(mel, 15.0) - 15.0) * (np.log(6.4) / 27.0))
    return np.asarray(np.where(mel < 15.0, mel * 200.0 / 3.0, above))


def mel_bank(bins: int, mels: int, rate: int, low_hz: float, high_hz: float, scale: MelScale) -> Array:
    """Triangular filters, (bins, mels); edges at equal mel steps. `bins` are those of a real DFT: 0 Hz to rate / 2, both included.

    kaldi: sides straight on the mel axis, peaks at 1. slaney: sides straight in Hz, areas of equal size (2 / width in Hz).
    Sources: Kaldi mel-computations; Slaney, Auditory Toolbox.
    """
    edges = np.linspace(hz_to_mel(low_hz, scale), hz_to_mel(high_hz, scale), mels + 2)
    centres = np.linspace(0, rate / 2, bins)[:, None]
    if scale == "kaldi":
        centres = hz_to_mel(centres, scale)
    else:
        edges = mel_to_hz(edges, scale)
    rise = (centres - edges[:-2]) / (edges[1:-1] - edges[:-2])
    fall = (edges[2:] - centres) / (edges[2:] - edges[1:-1])
    height = 1.0 if scale == "kaldi" else 2.0 / (edges[2:] - edges[:-2])
    return np.maximum(0.0, np.minimum(rise, fall)) * height


def resampling_width(old: int, new: int) -> int:
    """Samples that the resampler reads on each side of an output's place, for rates old : new.

    Z / min(1, new / old), rounded up, where Z = (A - 7.95) / (2 * 2.285 pi TRANSITION) is half the length of a filter of A decibels and
    that transition. Source: Kaiser 1974.
    """
    return math.ceil(_half_length() / min(1.0, new / old))


def resampling_kernel(old: int, new: int) -> Array:
    """Coefficients (2 width + old, new) that make `new` outputs of `old` samples: y[m new + j] = sum_i x[m old + i - width] k[i, j].

    k[i, j] = b c sinc(c t) I0(beta sqrt(1 - (t / Z)^2)) / I0(beta) at t = b (i - width - j old / new), |t| <= Z: a sinc under a Kaiser
    window, in samples of the lower rate. b = min(1, new / old), c = 1 - TRANSITION / 2, beta = 0.1102 (A - 8.7), Z as above.
    """
    width, half, band = resampling_width(old, new), _half_length(), min(1.0, new / old)
    beta, cutoff = 0.1102 * (REJECTION_DB - 8.7), 1 - TRANSITION / 2
    places = np.arange(-width, width + old)[:, None] * new - np.arange(new) * old  # whole numbers: every block of outputs is the same
    t = places * (band / new)
    window = np.i0(beta * np.sqrt(np.maximum(0.0, 1 - (t / half) ** 2))) / np.i0(beta)
    return np.where(np.abs(t) <= half, band * cutoff * np.sinc(cutoff * t) * window, 0.0)


def _half_length() -> float:
    return (REJECTION_DB - 7.95) / (2 * 2.285 * math.pi * TRANSITION)
