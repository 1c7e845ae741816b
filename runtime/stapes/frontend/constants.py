"""Windows, mel scales and mel banks: pure functions, float64.

NumPy steps and the lowered graph read these very arrays, so neither can drift from the other.
"""

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
MelScale = Literal["kaldi"]


def hann(length: int) -> Array:
    """Symmetric Hann window, (length,): both ends are zero. Source: Kaldi feature-window, type `hanning`."""
    return 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(length) / (length - 1))


def hz_to_mel(hz: Any, scale: MelScale) -> Array:
    """Frequencies in Hz on the mel axis. Source: Kaldi mel-computations, 1127 ln(1 + hz / 700)."""
    return 1127.0 * np.log1p(np.asarray(hz, np.float64) / 700.0)


def mel_bank(bins: int, mels: int, rate: int, low_hz: float, high_hz: float, scale: MelScale) -> Array:
    """Triangular filters, (bins, mels); edges at equal mel steps, sides straight on the mel axis.

    `bins` are those of a real DFT: 0 Hz to rate / 2, both included. Source: Kaldi mel-computations.
    """
    edges = np.linspace(hz_to_mel(low_hz, scale), hz_to_mel(high_hz, scale), mels + 2)
    centres = hz_to_mel(np.linspace(0, rate / 2, bins), scale)[:, None]
    rise = (centres - edges[:-2]) / (edges[1:-1] - edges[:-2])
    fall = (edges[2:] - centres) / (edges[2:] - edges[1:-1])
    return np.maximum(0.0, np.minimum(rise, fall))
