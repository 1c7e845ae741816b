"""Makes the example clips again: python examples/make.py (needs espeak-ng on PATH, and soundfile and soxr)."""

import io
import subprocess
from pathlib import Path

import numpy as np
import soundfile
import soxr

HERE = Path(__file__).parent

CLIPS = {  # file -> word, espeak-ng voice, words a minute
    "yes.flac": ("yes", "en-gb", 160),
    "no.flac": ("no", "en-us+Annie", 160),
    "left.flac": ("left", "en-us+f2", 160),
    "stop.flac": ("stop", "en-gb-scotland", 160),
}
STEREO = ("off", "en-us+m7", 130)
SPOKEN = {"yes": 0.6, "left": 2.6, "stop": 4.3, "no": 7.0, "stop ": 8.9, "yes ": 10.4}  # word -> second at which long/commands.flac says it


def speak(word: str, voice: str, speed: int) -> tuple[np.ndarray, int]:
    """The word as espeak-ng says it: samples (n,) and their rate in Hz."""
    said = subprocess.run(["espeak-ng", "-v", voice, "-s", str(speed), "--stdout", word], capture_output=True, check=True)
    return soundfile.read(io.BytesIO(said.stdout), dtype="float32")


def main() -> None:
    for name, (word, voice, speed) in CLIPS.items():
        samples, rate = speak(word, voice, speed)
        soundfile.write(HERE / name, soxr.resample(samples, rate, 16000), 16000, subtype="PCM_16")
    samples, rate = soundfile.read(HERE / "yes.flac", dtype="int16")
    soundfile.write(HERE / "yes.wav", samples, rate, subtype="PCM_16")
    samples, rate = speak(*STEREO)
    left = soxr.resample(samples, rate, 44100)
    right = 0.5 * np.concatenate([np.zeros(20, left.dtype), left])[: len(left)]  # half as loud, half a millisecond later
    soundfile.write(HERE / "off-stereo.mp3", np.stack([left, right], axis=1), 44100)
    long = 3e-4 * np.random.default_rng(0).standard_normal(12 * 16000)  # a quiet room
    for word, second in SPOKEN.items():
        samples, _ = soundfile.read(HERE / f"{word.strip()}.flac")
        long[round(second * 16000) :][: len(samples)] += samples
    soundfile.write(HERE / "long" / "commands.flac", long, 16000, subtype="PCM_16")


if __name__ == "__main__":
    main()
