"""Any input -> Clip: decode, downmix, resample, scale integers."""

import io
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stapes.errors import AudioError, AudioNotFound, InvalidInput, MalformedAudio

Source = str | os.PathLike[str] | bytes | NDArray[Any] | Mapping[str, Any]
"""What can be classified: a path, a file's bytes, samples at the model's rate, or {"raw" | "array": samples, "sampling_rate": Hz}."""

FULL_SCALE = {"int8": 2.0**7, "int16": 2.0**15, "int32": 2.0**31}
"""Signed PCM: the integer just above the largest sample. uint8 is PCM too, around 128 (as in a wav file)."""


@dataclass(frozen=True)
class Clip:
    """One channel of sound."""

    samples: NDArray[np.float32]
    """(n,), full scale at 1.0."""
    rate: int
    """Hz."""

    @property
    def seconds(self) -> float:
        return len(self.samples) / self.rate


def read(source: Source, rate: int) -> Clip:
    """The clip in `source` at `rate` Hz, channels averaged.

    Raises InvalidInput for a kind of object that is no clip, AudioError (AudioNotFound, MalformedAudio) for one that cannot be used.
    """
    if isinstance(source, str | os.PathLike):
        samples, from_rate = _decode(_bytes(Path(source)), str(source))
    elif isinstance(source, bytes):
        samples, from_rate = _decode(source, f"{len(source)} bytes")
    elif isinstance(source, np.ndarray):
        samples, from_rate = _samples(source), rate
    elif isinstance(source, Mapping):
        samples, from_rate = _unpack(source)
    else:
        raise InvalidInput(
            f"cannot classify a {type(source).__name__}: give a path, the bytes of an audio file, a 1-D array at {rate} Hz, "
            'or {"array": samples, "sampling_rate": Hz}'
        )
    if not np.isfinite(samples).all():
        raise AudioError("the clip holds NaN or infinite samples, which have no answer; clean it before")
    return Clip(_resample(samples, from_rate, rate), rate)


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise AudioNotFound(f"no file at {path}") from error
    except OSError as error:
        raise AudioError(f"cannot read {path}: {error.strerror}") from error


def _decode(data: bytes, what: str) -> tuple[NDArray[np.float32], int]:
    import soundfile  # 100 ms of import, which arrays need not pay

    try:
        channels, rate = soundfile.read(io.BytesIO(data), dtype="float32", always_2d=True)
    except soundfile.LibsndfileError as error:
        raise MalformedAudio(
            f"cannot decode {what} ({error.error_string.rstrip('.')}); it should be wav, flac, ogg, opus, mp3, aiff or caf"
        ) from error
    if not len(channels):
        raise MalformedAudio(f"{what}: an audio file without a single sample")
    return channels.mean(axis=1), rate


def _unpack(source: Mapping[str, Any]) -> tuple[NDArray[np.float32], int]:
    samples = source.get("raw")
    if samples is None:
        samples = source.get("array")
    if samples is None or "sampling_rate" not in source:
        raise AudioError(
            'a dictionary needs the samples under "raw" or "array" and their rate in Hz under "sampling_rate"; '
            f"this one has {', '.join(map(repr, source)) or 'nothing'}"
        )
    rate = source["sampling_rate"]
    if isinstance(rate, bool) or not isinstance(rate, int | float | np.number) or not (math.isfinite(rate) and rate >= 1):
        raise AudioError(f'"sampling_rate" is a number of Hz, not {rate!r}')
    if rate != int(rate):
        raise AudioError(f'"sampling_rate" is a whole number of Hz, not {rate!r}')
    if not isinstance(samples, np.ndarray):
        raise InvalidInput(f"the samples in a dictionary are a NumPy array, not a {type(samples).__name__}")
    return _samples(samples), int(rate)


def _samples(array: NDArray[Any]) -> NDArray[np.float32]:
    if array.ndim != 1:
        raise AudioError(f"samples are one channel, of shape (n,); this array is {array.shape}: average or choose a channel first")
    if array.dtype.kind == "f":
        return array.astype(np.float32, copy=False)
    if array.dtype == np.uint8:
        return (array.astype(np.float32) - 128.0) / 128.0
    if array.dtype.name in FULL_SCALE:
        return (array / FULL_SCALE[array.dtype.name]).astype(np.float32)
    known = ", ".join(FULL_SCALE)
    raise AudioError(f"{array.dtype} samples have no known full scale; give floats in [-1, 1], or PCM as uint8, {known}")


def _resample(samples: NDArray[np.float32], from_rate: int, rate: int) -> NDArray[np.float32]:
    if from_rate == rate or not len(samples):
        return samples
    import soxr

    resampled: NDArray[np.float32] = soxr.resample(samples, from_rate, rate, quality="HQ")
    return resampled
