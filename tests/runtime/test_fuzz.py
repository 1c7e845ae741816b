"""Damaged files by the thousand: each is a clip, a model, or an error of ours, in bounded time, and no C library takes the process with it.

The damage is done in a child process, always the same for the same versions, for a bounded time. What it was at is in a file before it
is read, so that a crash, or a hang, leaves the input behind. `python tests/runtime/test_fuzz.py audio FOLDER SECONDS SEED` does it by hand.
"""

import faulthandler
import hashlib
import json
import struct
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from stapes import audio, bundle, repository
from stapes.audio import Clip, Reading
from stapes.classifier import DEFAULT_MODEL, load
from stapes.errors import AudioError, AudioWarning, ModelError

SEEDS = Path(__file__).parent.parent / "corpus" / "seeds"

SECONDS = {"audio": 9.0, "header": 2.0, "manifest": 3.0, "graph": 6.0}
"""What is damaged, and for how long."""

MOST_INPUTS = 100_000
SLOWEST_S = 20
"""One input may take; the machine may be busy."""

INTERESTING = [0, 1, 2, 127, 128, 255, 256, 2**15 - 1, 2**15, 2**16 - 1, 2**24, 2**31 - 1, 2**31, 2**32 - 16, 2**32 - 1]
LAYOUTS = ["B", "<H", ">H", "<I", ">I", "<Q", ">Q"]


def damaged(data: bytes, other: bytes, rng: np.random.Generator, within: tuple[int, int] | None = None) -> bytes:
    """The bytes with one to four changes between two places: bits, numbers, cuts, repetitions and pieces of `other`."""
    changed = bytearray(data)
    low, high = within or (0, len(changed))
    for _ in range(rng.integers(1, 5)):
        high = min(high, len(changed))
        # half of the changes in the first bytes, where the headers are
        at = int(rng.integers(low, max(low + 1, high if rng.random() < 0.5 else min(high, low + 100))))
        kind = rng.integers(0, 8)
        if kind < 2:
            changed[at : at + 1] = bytes([rng.integers(0, 256)])
        elif kind < 3 and at < len(changed):
            changed[at] ^= 1 << int(rng.integers(0, 8))
        elif kind < 6:
            layout = LAYOUTS[rng.integers(0, len(LAYOUTS))]
            number = INTERESTING[rng.integers(0, len(INTERESTING))] if rng.random() < 0.7 else int(rng.integers(0, 2**32))
            size = struct.calcsize(layout)
            changed[at : at + size] = struct.pack(layout, number % 256**size)
        elif kind < 7:
            size = int(rng.integers(1, 65))
            piece = (other, bytes(changed), b"")[rng.integers(0, 3)]
            start = int(rng.integers(0, len(piece) + 1))
            changed[at : at + size * int(rng.integers(0, 2))] = piece[start : start + size]
        elif within is None:
            del changed[at:]
    return bytes(changed)


def audio_inputs(rng: np.random.Generator) -> Iterator[bytes]:
    seeds = [path.read_bytes() for path in sorted(SEEDS.iterdir())]
    yield from seeds
    while True:
        one, other = rng.integers(0, len(seeds), 2)
        yield damaged(seeds[one], seeds[other], rng)


def model_inputs(rng: np.random.Generator, region: str) -> Iterator[bytes]:
    """The embedded model with damage to its beginning, to the graph's nodes or to the manifest."""
    whole = DEFAULT_MODEL.read_bytes()
    manifest = bundle.read_manifest(DEFAULT_MODEL).to_json().encode()
    at = whole.index(manifest)
    nodes = whole.index(b"waveform"), whole.index(b"waveform") + 60_000
    within = {"header": (0, 200), "graph": nodes, "manifest": (at - 20, at + len(manifest))}[region]
    yield whole
    while True:
        yield damaged(whole, manifest, rng, within)


def hear(path: Path) -> None:
    """The file by its name and as bytes: a clip, or an error of ours."""
    for source in (path, path.read_bytes()):
        try:
            clip = audio.read(source, 16000, Reading(max_duration=600))
        except AudioError as error:
            check_message(str(error))
        else:
            assert isinstance(clip, Clip)
            assert np.isfinite(clip.samples).all()


def find(path: Path) -> None:
    """The model: one that loads, or an error of ours."""
    try:
        repository.find(path)
        load(path, device="cpu", threads=1)
    except ModelError as error:
        check_message(str(error))


def check_message(message: str) -> None:
    assert "\n" not in message
    assert len(message) < 2000


def main(what: str, folder: Path, seconds: float, seed: int) -> None:
    """Damage files and see what becomes of them; a line of JSON at the end, with every input that ended in something else."""
    rng = np.random.default_rng(seed)
    inputs, check = (audio_inputs(rng), hear) if what == "audio" else (model_inputs(rng, what), find)
    findings, done, slowest = [], 0, 0.0

    def found(error: BaseException | None, told: str) -> None:
        name = folder / hashlib.sha256(current.read_bytes()).hexdigest()[:16]
        name.write_bytes(current.read_bytes())
        findings.append(f"{name}: {type(error).__name__} {error}"[:500] + told)

    sys.unraisablehook = lambda raised: found(raised.exc_value, f" in {raised.object!r:.100}")  # a traceback that nobody asked for
    warnings.simplefilter("error")
    warnings.simplefilter("ignore", AudioWarning)
    current = folder / "current"
    end = time.monotonic() + seconds
    for content in inputs:
        if time.monotonic() > end or done == MOST_INPUTS or len(findings) >= 10:
            break
        current.write_bytes(content)
        faulthandler.dump_traceback_later(SLOWEST_S, exit=True)
        begin = time.monotonic()
        try:
            check(current)
        except Exception as error:
            found(error, "")
        slowest, done = max(slowest, time.monotonic() - begin), done + 1
    faulthandler.cancel_dump_traceback_later()
    print(json.dumps({"inputs": done, "slowest_s": round(slowest, 3), "findings": findings}))


Damage = Callable[[str], None]


@pytest.fixture
def damage(tmp_path: Path) -> Damage:
    def run(what: str) -> None:
        command = [sys.executable, "-X", "faulthandler", __file__, what, str(tmp_path), str(SECONDS[what]), "20240501"]
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=SECONDS[what] + 10 * SLOWEST_S)
        assert done.returncode == 0, f"{tmp_path / 'current'} ends the process ({done.returncode}): {done.stderr[-3000:]}"
        *others, told = done.stdout.splitlines()
        assert not others or what != "audio", "where results are printed no library may write"  # ONNX Runtime 1.20 does, of a failed load
        outcome = json.loads(told)
        assert not outcome["findings"], "\n".join(outcome["findings"])
        assert outcome["inputs"] > 10

    return run


def test_damaged_audio_is_a_clip_or_an_error_of_ours(damage: Damage):
    damage("audio")


@pytest.mark.parametrize("region", ["header", "manifest", "graph"])
def test_a_damaged_model_loads_or_is_an_error_of_ours(region: str, damage: Damage):
    pytest.importorskip("onnxruntime")
    damage(region)


def test_the_corpus_has_every_container(root: Path):
    names = [path.name for path in SEEDS.iterdir()]
    assert len(names) > 70
    assert all(path.stat().st_size < 8192 for path in SEEDS.iterdir())
    for kind in ("wav", "flac", "ogg", "mp3", "aiff", "caf", "au", "w64", "rf64", "m4a", "webm", "aac", "amr"):
        assert any(name.startswith(kind) for name in names)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), float(sys.argv[3]), int(sys.argv[4]))
