"""WAV files that no host may run a model on, or fall over."""

import struct
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

RATE = 16_000


def wave(
    data: bytes, rate: int = RATE, *, kind: int = 1, bits: int = 16, channels: int = 1, says: int | None = None, fmt: int = 16
) -> bytes:
    """A WAV file by the letter of RIFF; `says` is what its data chunk claims to hold, `fmt` its fmt chunk."""
    frame = channels * bits // 8
    head = struct.pack("<4sIHHIIHH", b"fmt ", fmt, kind, channels, rate, rate * frame % 2**32, frame % 2**16, bits)
    body = head + struct.pack("<4sI", b"data", len(data) if says is None else says) + data
    return struct.pack("<4sI4s", b"RIFF", 4 + len(body), b"WAVE") + body


def floats(samples: NDArray[Any]) -> bytes:
    return wave(samples.astype("<f4").tobytes(), kind=3, bits=32)


NOISE = np.random.default_rng(0).uniform(-0.1, 0.1, RATE)
PCM = (NOISE * 2**15).astype("<i2").tobytes()
NAN = NOISE.copy()
NAN[5] = np.nan

BAD: dict[str, tuple[Callable[[], bytes], str]] = {
    "another rate": (lambda: wave(PCM, 8000), "8000 Hz .* 16000 Hz"),
    "no number": (lambda: floats(NAN), "sample 5 "),
    "infinite": (lambda: floats(np.where(np.isnan(NAN), np.inf, NAN)), "sample 5 "),
    "no samples": (lambda: wave(b""), "0 samples .* 1040"),
    "too short": (lambda: wave(PCM[: 2 * 1039]), "1039 samples .* 1040"),
    "empty": (lambda: b"", "no WAV"),
    "text": (lambda: b"This is no sound.\n" * 100, "no WAV"),
    "header alone": (lambda: wave(PCM)[:12], "without a data chunk"),
    "truncated": (lambda: wave(PCM)[:-1000], "truncated"),
    "more than there is": (lambda: wave(PCM, says=2**32 - 1), "truncated"),
    "a format chunk cut short": (lambda: wave(PCM, fmt=4), "fmt chunk"),
    "an endless format chunk": (lambda: wave(PCM, fmt=2**32 - 1), "truncated"),
    "no channels": (lambda: wave(PCM, channels=0), "0 channels"),
    "no rate": (lambda: wave(PCM, rate=0), "0 Hz"),
    "65535 channels": (lambda: wave(PCM, channels=65535), "0 samples"),
    "bits that do not exist": (lambda: wave(PCM, bits=13), "13 bits"),
    "a compressed format": (lambda: wave(PCM, kind=85), "format 85"),
    "a sound before its format": (lambda: wave(PCM)[:12] + struct.pack("<4sI", b"data", 4) + bytes(4), "before its fmt"),
}
"""What is wrong with the file, and what the error has to say."""
