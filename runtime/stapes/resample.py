"""From one rate to another, block by block: soxr, or the windowed sinc that equals torchaudio's."""

import math
from typing import Literal, Protocol, get_args

import numpy as np
from numpy.typing import NDArray

from stapes.errors import AudioError

Samples = NDArray[np.float32]

Method = Literal["soxr", "sinc-hann"]
"""soxr HQ, or what torchaudio.functional.resample does by default: softer above 0.8 of the band and full of its aliases, but what
transformers' pipeline computes from dictionaries."""

METHODS: tuple[Method, ...] = get_args(Method)

ZEROS, ROLLOFF = 6, 0.99
"""torchaudio's defaults: zero crossings of the sinc on each side, and its cutoff in units of the lower rate's band."""

KERNEL_LIMIT = 50_000_000
"""Coefficients of the largest kernel: rates without a common divisor need one phase an output sample."""


class Resampler(Protocol):
    """Call it with consecutive blocks (n,), then once with `last`; the results are the pieces of the resampled clip."""

    def __call__(self, block: Samples, last: bool = False) -> Samples: ...


def resampler(from_rate: int, to_rate: int, method: Method = "soxr") -> Resampler:
    """What turns blocks at `from_rate` Hz into blocks at `to_rate` Hz. Its state is one clip's: make one for each."""
    if from_rate == to_rate:
        return _unchanged
    return _Soxr(from_rate, to_rate) if method == "soxr" else _SincHann(from_rate, to_rate)


def _unchanged(block: Samples, last: bool = False) -> Samples:
    return block


class _Soxr:
    def __init__(self, from_rate: int, to_rate: int) -> None:
        import soxr

        self._stream = soxr.ResampleStream(from_rate, to_rate, 1, dtype="float32", quality="HQ")

    def __call__(self, block: Samples, last: bool = False) -> Samples:
        resampled: Samples = self._stream.resample_chunk(np.ascontiguousarray(block), last=last)
        return resampled


class _SincHann:
    """For each run of `old` samples `new` outputs, each a product of one kernel row with the samples around it.

    y[m new + j] = sum_i x[m old + i - width] k[j, i] for rates old : new in lowest terms; ceil(new n / old) samples from n.
    """

    def __init__(self, from_rate: int, to_rate: int) -> None:
        divisor = math.gcd(from_rate, to_rate)
        self._old, self._new = from_rate // divisor, to_rate // divisor
        self._kernel, self._width = sinc_hann_kernel(self._old, self._new)
        self._waiting: Samples = np.zeros(self._width, np.float32)  # silence before the clip
        self._taken = self._given = 0

    def __call__(self, block: Samples, last: bool = False) -> Samples:
        self._taken += len(block)
        after = [np.zeros(self._width + self._old, np.float32)] if last else []
        self._waiting = np.concatenate([self._waiting, block, *after])
        taps = self._kernel.shape[1]
        if len(self._waiting) < taps:
            return np.empty(0, np.float32)
        windows = np.lib.stride_tricks.sliding_window_view(self._waiting, taps)[:: self._old]
        outputs = (windows @ self._kernel.T).reshape(-1)
        self._waiting = self._waiting[len(windows) * self._old :]
        if last:
            outputs = outputs[: math.ceil(self._new * self._taken / self._old) - self._given]
        self._given += len(outputs)
        return outputs


def sinc_hann_kernel(old: int, new: int) -> tuple[Samples, int]:
    """Coefficients (new, 2 width + old) and the width in samples, for rates old : new in lowest terms.

    k[j, i] = b/old sinc(t) cos(pi t / 2 Z)^2 at t = b (i/old - j/new), i from -width, |t| <= Z, with Z = ZEROS and
    b = ROLLOFF min(old, new). Source: torchaudio.functional.resample (sinc_interp_hann), which computes it in the waveform's
    type: so float32 here, or the result would differ by more than rounding does.
    """
    base = min(old, new) * ROLLOFF
    width = math.ceil(ZEROS * old / base)
    if new * (2 * width + old) > KERNEL_LIMIT:
        raise AudioError(
            f"sinc-hann has no kernel of reasonable size for rates as {old} : {new}; use the resampler soxr, or a file of another rate"
        )
    place = np.arange(-width, width + old, dtype=np.float32) / np.float32(old)
    phase = np.arange(0, -new, -1, dtype=np.float32) / np.float32(new)
    t = np.clip((phase[:, None] + place) * np.float32(base), -ZEROS, ZEROS)
    window = np.cos(t * np.float32(math.pi / ZEROS / 2)) ** 2
    return np.sinc(t).astype(np.float32) * window * np.float32(base / old), width
