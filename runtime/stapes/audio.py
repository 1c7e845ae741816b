"""Any input -> Clip: open, decode, downmix, resample, scale integers; whole, or block by block."""

import math
import operator
import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np
from numpy.typing import NDArray

from stapes.decode import BLOCK, Sound, decoded
from stapes.errors import AudioError, AudioIsFolder, AudioNotFound, InvalidInput, InvalidOption, LimitExceeded
from stapes.frontend import RATES
from stapes.resample import METHODS, Method, resampler

Source = Any
"""What can be classified: a path or http(s) address, a file's bytes or the open file, samples at the model's rate (an array of NumPy, torch
or whatever converts itself), {"raw" | "array": samples, "sampling_rate": Hz}, or a torchcodec decoder. Duck-typed: see `read`."""

FULL_SCALE = {"int8": 2.0**7, "int16": 2.0**15, "int32": 2.0**31}
"""Signed PCM: the integer just above the largest sample. uint8 is PCM too, around 128 (as in a wav file)."""

SPEAKERS = 8
"""Channels of the largest common layout, 7.1. More are microphones, and their average is no one's sound."""

ADDRESSES = ("http://", "https://")
"""How a path begins that is an address, as the original decides it."""

HALF = math.sqrt(0.5)
TO_MONO: dict[int, tuple[float, ...]] = {
    1: (1,),
    2: (HALF, HALF),
    3: (HALF, HALF, 0),
    4: (HALF, HALF, 1, 0.5),
    5: (HALF, HALF, 1, 0.5, 0.5),
    6: (HALF, HALF, 1, 0, 0.5, 0.5),
    7: (HALF, HALF, 1, 0, 0.5, 0.5, 0.5),
    8: (HALF, HALF, 1, 0, 0.5, 0.5, 0.5, 0.5),
}
"""What `ffmpeg -ac 1` weighs the channels of its default layouts with when it writes floats, so that nothing is normalized. Source:
libswresample's rematrixing, measured."""

Downmix = Literal["mean", "ffmpeg"] | int


@dataclass(frozen=True)
class Reading:
    """How clips are read. Raises InvalidOption for a value that makes no sense."""

    downmix: Downmix = "mean"
    """The average of the channels; the weights of `ffmpeg -ac 1`, which make a stereo file 1.41 times as loud; or one channel's number."""
    resampler: Method = "soxr"
    channel_axis: int | None = None
    """Which axis of a two-dimensional array holds the channels; a dictionary may say it under the same name."""
    max_duration: float | None = None
    """Seconds that a clip may last."""
    max_bytes: int | None = None
    """Bytes that a file may have; addresses without it: download.MAX_BYTES."""
    timeout: float = 10.0
    """Seconds that an address may take."""

    def __post_init__(self) -> None:
        if isinstance(self.downmix, bool) or not (
            self.downmix in ("mean", "ffmpeg") or (isinstance(self.downmix, int) and self.downmix >= 0)
        ):
            raise InvalidOption(f"downmix is 'mean', 'ffmpeg' or a channel's number from 0 up, not {self.downmix!r}")
        if self.resampler not in METHODS:
            raise InvalidOption(f"resampler is one of {', '.join(METHODS)}, not {self.resampler!r}")
        if self.channel_axis not in (None, 0, 1, -1, -2):
            raise InvalidOption(f"channel_axis is 0 or 1, not {self.channel_axis!r}")
        for name in ("max_duration", "max_bytes", "timeout"):
            limit = getattr(self, name)
            if limit is not None and not limit > 0:
                raise InvalidOption(f"{name} is above 0, not {limit!r}")


AS_IT_COMES = Reading()


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


def read(source: Source, rate: int, reading: Reading = AS_IT_COMES) -> Clip:
    """The clip in `source` at `rate` Hz.

    Raises InvalidInput for a kind of object that is no clip, AudioError (AudioNotFound, DownloadError, LimitExceeded, MalformedAudio) for
    one that cannot be used.
    """
    blocks = list(stream(source, rate, reading))
    return Clip(blocks[0] if len(blocks) == 1 else np.concatenate(blocks), rate)


def stream(source: Source, rate: int, reading: Reading = AS_IT_COMES) -> Iterator[NDArray[np.float32]]:
    """The same clip as consecutive blocks, at least one, in constant memory where the source is a file."""
    if isinstance(source, Clip):
        source = {"array": source.samples, "sampling_rate": source.rate}
    name = name_of(source)
    with _opened(source, name, rate, reading) as sound:
        if sound.rate not in RATES:
            raise AudioError(f"{name} has {sound.rate} samples a second; a recording has {RATES[0]} to {RATES[-1]}")
        weights = _weights(sound.channels, reading.downmix, name)
        at_rate = resampler(sound.rate, rate, reading.resampler)
        taken = 0
        for block in sound.blocks:
            taken += len(block)
            if reading.max_duration is not None and taken > reading.max_duration * sound.rate:
                raise LimitExceeded(f"{name} lasts longer than the {reading.max_duration:g} s allowed (max_duration, --max-duration)")
            mono = _finite(_mono(block, weights), name)
            yield _finite(at_rate(mono), name)  # again, since resampling makes such samples of very large ones
        rest = _finite(at_rate(np.empty(0, np.float32), last=True), name)
        if len(rest) or not taken:
            yield rest


def _finite(samples: NDArray[np.float32], name: str) -> NDArray[np.float32]:
    if not np.isfinite(samples).all():
        raise AudioError(f"{name} holds NaN or infinite samples, which have no answer; clean it before")
    return samples


def name_of(source: Source) -> str:
    """What messages call an input."""
    if isinstance(source, str | os.PathLike):
        return os.fspath(source) if isinstance(source, str) else str(source)
    if isinstance(source, bytes | bytearray | memoryview):
        return f"{len(source)} bytes"
    named = getattr(source, "name", None)
    return named if isinstance(named, str) and hasattr(source, "read") else "the clip"


@contextmanager
def _opened(source: Source, name: str, rate: int, reading: Reading) -> Iterator[Sound]:
    """The source as sound, whatever it is."""
    file = _file(source, name, reading)
    if file is not None:
        with decoded(file, name) as sound:
            yield sound
        return
    axis = reading.channel_axis
    if isinstance(source, Mapping):
        samples, rate, axis = _unpack(source, axis)
    elif hasattr(source, "get_all_samples"):  # a torchcodec decoder: channels come first
        whole = source.get_all_samples()
        samples, rate, axis = np.asarray(_array(whole.data)), _rate(whole.sample_rate), 0 if whole.data.ndim == 2 else None
    else:
        found = _array(source)
        if found is None:
            raise InvalidInput(
                f"cannot classify a {type(source).__name__}: give a path, an http(s) address, the bytes of an audio file, "
                f'an array at {rate} Hz, or {{"array": samples, "sampling_rate": Hz}}'
            )
        samples = found
    channels = _channels(samples, axis)
    blocks = (_floats(channels[i : i + BLOCK]) for i in range(0, len(channels), BLOCK))
    yield Sound(rate, channels.shape[1], blocks)


def _file(source: Source, name: str, reading: Reading) -> Path | bytes | None:
    """The path or the bytes of an audio file, within the limit on its size; None where the source is none."""
    if isinstance(source, str) and source.startswith(ADDRESSES):
        from stapes.download import download  # its libraries take longer to load than most clips to classify

        return download(source, reading.timeout, reading.max_bytes)
    if isinstance(source, str) and not source:  # Path makes the current folder of it
        raise AudioNotFound("no file at '', an empty path")
    if isinstance(source, str | os.PathLike):
        return _path(Path(source), reading.max_bytes)
    if isinstance(source, bytes | bytearray | memoryview):
        return _within(bytes(source), name, reading.max_bytes)
    if hasattr(source, "read") and not hasattr(source, "__array__"):
        return _within(_contents(source, name, reading.max_bytes), name, reading.max_bytes)
    return None


def _path(path: Path, max_bytes: int | None) -> Path | bytes:
    try:
        found = path.stat()
        if stat.S_ISDIR(found.st_mode):
            raise AudioIsFolder(f"{path} is a directory; give its files, or let `stapes classify` go through it")
        with path.open("rb") as file:
            if not stat.S_ISREG(found.st_mode):  # a pipe: decoders need to go back and forth
                return _within(_contents(file, str(path), max_bytes), str(path), max_bytes)
    except FileNotFoundError as error:
        raise AudioNotFound(f"no file at {path}; check the path") from error
    except ValueError as error:
        if isinstance(error, AudioError):
            raise
        raise AudioNotFound(f"no file at {str(path)!r}, which is no path ({error})") from error
    except OSError as error:
        raise AudioError(f"cannot read {path}: {error.strerror}") from error
    if max_bytes is not None and found.st_size > max_bytes:
        raise _too_large(str(path), max_bytes)
    return path


def _contents(file: IO[bytes], name: str, max_bytes: int | None) -> bytes:
    data = file.read() if max_bytes is None else file.read(max_bytes + 1)
    if not isinstance(data, bytes):
        raise InvalidInput(f"{name} gives {type(data).__name__} when read; open an audio file in binary mode ('rb')")
    return data


def _within(data: bytes, name: str, max_bytes: int | None) -> bytes:
    if max_bytes is not None and len(data) > max_bytes:
        raise _too_large(name, max_bytes)
    return data


def _too_large(name: str, max_bytes: int) -> LimitExceeded:
    return LimitExceeded(f"{name} is larger than the {max_bytes} bytes allowed (max_bytes, --max-bytes)")


def _unpack(source: Mapping[str, Any], axis: int | None) -> tuple[NDArray[Any], int, int | None]:
    samples = source.get("raw")
    if samples is None:
        samples = source.get("array")
    if not ({"raw", "array"} & source.keys() and "sampling_rate" in source):
        raise AudioError(
            'a dictionary needs the samples under "raw" or "array" and their rate in Hz under "sampling_rate"; '
            f"this one has {', '.join(map(_shown, source)) or 'nothing'}"
        )
    rate = _rate(source["sampling_rate"])
    array = _array(samples)
    if array is None:
        raise InvalidInput(f"the samples in a dictionary are a NumPy array or a tensor, not a {type(samples).__name__}")
    axis = source.get("channel_axis", axis)
    if not _is_axis(axis):
        raise AudioError(f'"channel_axis" is 0 or 1, not {_shown(axis)}')
    return array, rate, axis


def _rate(value: Any) -> int:
    number = value if isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool) else math.nan
    if not RATES[0] <= number <= RATES[-1] or int(number) != number:
        raise AudioError(f'"sampling_rate" is a whole number of Hz from {RATES[0]} to {RATES[-1]}, not {_shown(value)}')
    return int(number)


def _is_axis(value: Any) -> bool:
    return value is None or (isinstance(value, int | np.integer) and value in (0, 1, -1, -2))


def _shown(value: Any) -> str:
    """A value as a few words of a sentence, whatever it is."""
    try:
        return f"{' '.join(repr(value).split()):.80}"
    except Exception:  # a stranger's class; or a whole number of more digits than Python prints
        return f"a {type(value).__name__}"


def _array(source: Any) -> NDArray[Any] | None:
    """The samples of an array of any library; None for what is no array."""
    if isinstance(source, np.ndarray):
        return source
    if hasattr(source, "detach") and hasattr(source, "cpu"):  # a torch tensor, on any device, in training or not
        tensor = source.detach().cpu()
        return np.asarray((tensor.float() if str(tensor.dtype) == "torch.bfloat16" else tensor).numpy())
    return np.asarray(source) if hasattr(source, "__array__") and not isinstance(source, np.generic) else None


def _channels(samples: NDArray[Any], axis: int | None) -> NDArray[Any]:
    """(n, channels), or AudioError where it is not said which axis is which."""
    if samples.ndim == 1:
        return samples[:, None]
    if samples.ndim == 2 and axis is not None:
        return np.moveaxis(samples, axis, 1)
    hint = "say which axis holds the channels with channel_axis=0 or 1" if samples.ndim == 2 else "give one clip at a time"
    raise AudioError(f"samples are one channel, of shape (n,); this array is {samples.shape}: {hint}")


@np.errstate(over="ignore")  # what is too large for float32 becomes infinite, and that is refused
def _floats(array: NDArray[Any]) -> NDArray[np.float32]:
    if array.dtype.kind == "f":
        return array.astype(np.float32, copy=False)
    if array.dtype == np.uint8:
        return (array.astype(np.float32) - 128.0) / 128.0
    if array.dtype.name in FULL_SCALE:
        return (array / FULL_SCALE[array.dtype.name]).astype(np.float32)
    known = ", ".join(FULL_SCALE)
    raise AudioError(f"{array.dtype} samples have no known full scale; give floats in [-1, 1], or PCM as uint8, {known}")


def _weights(channels: int, downmix: Downmix, name: str) -> NDArray[np.float32] | int:
    """One factor a channel, or the number of the only channel to take."""
    if isinstance(downmix, int):
        if downmix >= channels:
            raise AudioError(f"{name} has no channel {downmix}: it has {channels}, counted from 0")
        return operator.index(downmix)
    if not channels:
        raise AudioError(f"{name} has no channels, so no sound; check channel_axis")
    if channels > SPEAKERS:
        raise AudioError(f"{name} has {channels} channels, more than any speaker layout; choose one by its number (downmix=0, --downmix 0)")
    if channels == 1:
        return 0
    return np.array(TO_MONO[channels] if downmix == "ffmpeg" else [1 / channels] * channels, np.float32)


@np.errstate(over="ignore", invalid="ignore")  # as above; and infinity times 0 is NaN
def _mono(block: NDArray[np.float32], weights: NDArray[np.float32] | int) -> NDArray[np.float32]:
    return block[:, weights] if isinstance(weights, int) else block @ weights
