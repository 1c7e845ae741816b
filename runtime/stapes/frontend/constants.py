"""Windows, mel scales and mel banks: pure functions, float64.

NumPy steps and the lowered graph read these very arrays, so neither can drift from the other.
"""

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
MelScale = Literal["kaldi", "slaney"]


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
