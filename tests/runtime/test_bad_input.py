"""For every kind of bad input one line that names it, an exit status that says so, and the other inputs still done."""

import io
import json
import os
import re
import struct
import subprocess
import sys
import threading
import time
import tracemalloc
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from stapes import audio, decode
from stapes.audio import Reading
from stapes.decode import SUFFIXES, UNKNOWN_SIZE
from stapes.errors import AudioError, AudioWarning, LimitExceeded, MalformedAudio

pytest.importorskip("onnxruntime")

RATE = 16000
NOISE = (0.2 * np.random.default_rng(0).standard_normal(RATE)).astype(np.float32)
GOOD = ("examples/yes.flac", "examples/no.flac")


def encoded(samples: np.ndarray, rate: int = RATE, **how: str) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, rate, **({"format": "WAV"} | how))
    return file.getvalue()


def patched(data: bytes, at: int, layout: str, value: int) -> bytes:
    """The bytes with another number in them."""
    size = struct.calcsize(layout)
    return data[:at] + struct.pack(layout, value) + data[at + size :]


WAV = encoded(NOISE, subtype="PCM_16")
CHANNELS, SAMPLE_RATE, DATA_SIZE = (22, "<H"), (24, "<I"), (40, "<I")
"""Places in the header of a plain wav file."""


def spoilt(value: float) -> bytes:
    samples = NOISE.copy()
    samples[RATE // 2] = value
    return encoded(samples, subtype="FLOAT")


BAD: dict[str, tuple[bytes, str]] = {
    "empty.wav": (b"", "cannot decode"),
    "header.wav": (WAV[:44], "cannot decode"),
    "half-a-header.wav": (WAV[:30], "cannot decode"),
    "no-samples.wav": (encoded(NOISE[:0]), "cannot decode"),
    "no-samples.flac": (encoded(NOISE[:0], format="FLAC"), "cannot decode"),
    "short.wav": (encoded(NOISE[:1039]), "has 1039 samples .* needs 1040"),
    "one-sample.wav": (encoded(NOISE[:1]), "has 1 samples .* needs 1040"),
    "nan.wav": (spoilt(np.nan), "NaN or infinite samples.*clean it"),
    "infinite.wav": (spoilt(-np.inf), "NaN or infinite samples.*clean it"),
    "no-rate.wav": (patched(WAV, *SAMPLE_RATE, 0), "cannot decode"),
    "slow.wav": (patched(WAV, *SAMPLE_RATE, 1), "1 samples a second; a recording has 100 to 1000000"),
    "fast.wav": (patched(WAV, *SAMPLE_RATE, 2**31 - 1), "2147483647 samples a second"),
    "faster.wav": (patched(WAV, *SAMPLE_RATE, 2**32 - 1), "cannot decode"),
    "no-channels.wav": (patched(WAV, *CHANNELS, 0), "cannot decode"),
    "too-many-channels.wav": (patched(WAV, *CHANNELS, 65535), "cannot decode"),
    "microphones.wav": (encoded(np.zeros((2000, 64), np.float32)), "64 channels.*--downmix 0"),
    "notes.txt": (b"This is no recording.\n" * 100, "cannot decode"),
    "notes.mp3": (b"This is no recording.\n" * 100, "cannot decode"),
    "program.wav": (Path(sys.executable).read_bytes()[:5000], "cannot decode"),
    "\x1b[31mred\nand blue.wav": (b"", "cannot decode"),
} | {f"noise{suffix}": (np.random.default_rng(list(suffix.encode())).bytes(3000), "cannot decode") for suffix in SUFFIXES}
"""A file's name -> what is in it, and what is said of it."""

LIBMPG123 = ("[src/libmpg123/", "Warning: Xing", "Note: ")
"""How lines begin that libmpg123 writes to the standard error of the whole process, past Python, and that libsndfile has no switch for."""


def said(stderr: str) -> list[str]:
    """The lines of standard error about inputs."""
    lines = [line for line in stderr.split("\n")[:-1] if not line.startswith(LIBMPG123)]
    assert all(line.startswith("stapes: ") for line in lines), "whatever is said, stapes says it"
    return [line for line in lines if not line.startswith("stapes: device: ")]


class Outcome:
    """One run of `stapes classify` over several inputs."""

    def __init__(self, done: subprocess.CompletedProcess[str]) -> None:
        self.status, self.lines = done.returncode, said(done.stderr)
        self.results = [json.loads(line) for line in done.stdout.splitlines()]
        assert "Traceback" not in done.stderr


@pytest.fixture(scope="module")
def classify(stapes_command) -> Callable[..., Outcome]:
    return lambda *inputs, **how: Outcome(stapes_command("classify", *inputs, "--format", "jsonl", "--top-k", "1", "-q", **how))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bad")
    for name, (content, _) in BAD.items():
        (folder / name).write_bytes(content)
    return folder


@pytest.fixture(scope="module")
def together(folder: Path, classify: Callable[..., Outcome]) -> Outcome:
    """All of BAD in one command, between two clips that are good."""
    return classify(GOOD[0], *(folder / name for name in BAD), GOOD[1])


@pytest.mark.parametrize("name", sorted(BAD), ids=repr)
def test_a_bad_file_is_one_line_that_names_it(name: str, folder: Path, together: Outcome):
    _, says = BAD[name]
    place = list(BAD).index(name)
    result, line = together.results[1 + place], together.lines[place]
    assert result["path"] == str(folder / name)
    assert result["error"]["type"] in {"MalformedAudio", "AudioError", "ClipTooShort"}
    assert name.replace("\x1b", "\ufffd").replace("\n", "\ufffd") in line
    assert re.search(says, line)


def test_bad_files_keep_no_good_one_from_its_answer(together: Outcome):
    assert together.status == 1
    assert len(together.lines) == len(BAD), "a line a bad file, and no other"
    assert [result["path"] for result in (together.results[0], together.results[-1])] == list(GOOD)
    assert [together.results[place]["predictions"][0]["label"] for place in (0, -1)] == ["yes", "no"]


def test_bad_files_in_windows_and_threads_keep_no_good_one_from_its_answer(folder: Path, classify: Callable[..., Outcome]):
    found = classify(GOOD[0], folder, GOOD[1], "--window", "0.5", "--jobs", "2", "-b", "4")
    audio_files = [name for name in BAD if Path(name).suffix.lower() in SUFFIXES]
    assert found.status == 1
    assert len(found.lines) == len(audio_files)
    assert all("segments" in found.results[place] for place in (0, -1))


def test_a_batch_of_good_and_bad_answers_the_good(folder: Path, classify: Callable[..., Outcome]):
    found = classify(GOOD[0], folder / "nan.wav", folder / "short.wav", GOOD[1], "-b", "4")
    assert found.status == 1
    assert [("error" in result) for result in found.results] == [False, True, True, False]


@pytest.mark.parametrize("name", ["empty.wav", "short.wav", "nan.wav", "microphones.wav"])
def test_a_bad_file_alone_is_exit_1(name: str, folder: Path, stapes_command):
    done = stapes_command("classify", folder / name)
    assert (done.returncode, done.stdout) == (1, "")
    assert len(said(done.stderr)) == 1


class Names:
    """Inputs that are no files."""

    def __init__(self, folder: Path) -> None:
        self.missing = folder / "gone.wav"
        self.no_folder = folder / "gone" / "clip.wav"
        self.below_a_file = folder / "file" / "clip.wav"
        (folder / "file").write_bytes(b"")
        self.bare = folder / "bare"
        self.bare.mkdir()
        (self.bare / "notes.txt").write_text("nothing to hear")
        self.loop = folder / "loop.wav"
        self.loop.symlink_to("loop.wav")
        self.dangling = folder / "dangling.wav"
        self.dangling.symlink_to("nowhere.wav")
        self.too_long = folder / ("x" * 300 + ".wav")


@pytest.mark.parametrize(
    ("which", "says"),
    [
        ("missing", "no file at"),
        ("no_folder", "no file at"),
        ("below_a_file", "cannot read"),
        ("bare", r"no audio below .* \.wav"),
        ("loop", "cannot read"),
        ("dangling", "no file at"),
        ("too_long", "cannot read"),
    ],
)
def test_a_name_without_sound_behind_it_is_one_line(which: str, says: str, classify: Callable[..., Outcome], tmp_path: Path):
    name = getattr(Names(tmp_path), which)
    found = classify(name, GOOD[0])
    (line,) = found.lines
    assert found.status == 1
    assert str(name) in line
    assert re.search(says, line)
    assert found.results[1]["predictions"][0]["label"] == "yes"


def test_a_folder_with_a_loop_in_it_ends(classify: Callable[..., Outcome], tmp_path: Path):
    (tmp_path / "again").symlink_to(tmp_path)
    (tmp_path / "loop.wav").symlink_to("loop.wav")
    (tmp_path / "clip.wav").write_bytes(WAV)
    found = classify(tmp_path)
    assert [Path(result["path"]).name for result in found.results] == ["clip.wav"]


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="nothing is unreadable to root")
def test_an_unreadable_file_is_one_line(classify: Callable[..., Outcome], tmp_path: Path):
    (tmp_path / "clip.wav").write_bytes(WAV)
    (tmp_path / "clip.wav").chmod(0)
    found = classify(tmp_path / "clip.wav", GOOD[0])
    assert found.status == 1
    assert "cannot read" in found.lines[0]
    assert "Permission denied" in found.lines[0]
    assert found.results[1]["predictions"][0]["label"] == "yes"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
@pytest.mark.parametrize(("content", "says"), [(WAV, None), (b"", "cannot decode"), (WAV[:44], "cannot decode")])
def test_a_named_pipe_is_read_to_its_end(content: bytes, says: str | None, classify: Callable[..., Outcome], tmp_path: Path):
    os.mkfifo(tmp_path / "clip.wav")
    writer = threading.Thread(target=(tmp_path / "clip.wav").write_bytes, args=(content,), daemon=True)
    writer.start()
    found = classify(tmp_path / "clip.wav", GOOD[0])
    writer.join(10)
    assert found.status == (0 if says is None else 1)
    assert found.lines == [] if says is None else says in found.lines[0]
    assert found.results[1]["predictions"][0]["label"] == "yes"


# Headers that promise more than there is


def warned(source: object, reading: Reading = audio.AS_IT_COMES) -> tuple[int, list[str]]:
    """How many samples there are, and what was said of them."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        clip = audio.read(source, RATE, reading)
    assert all(issubclass(warning.category, AudioWarning) for warning in caught)
    return len(clip.samples), [str(warning.message) for warning in caught]


@pytest.mark.parametrize("size", [2**32 - 16, 2**32 - 2, 2**32 - 2**16, 2**31, 2**31 - 1, len(WAV), len(WAV) - 42])
def test_a_header_that_claims_gigabytes_gives_what_is_there_in_little_memory(size: int):
    tracemalloc.start()
    try:
        samples, messages = warned(patched(WAV, *DATA_SIZE, size))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert samples == RATE
    assert len(messages) == 1
    assert f"promises {size} bytes" in messages[0]
    assert peak < 2**21, "the file's own size, some times over"


def test_a_header_of_unknown_length_is_no_promise():
    assert warned(patched(WAV, *DATA_SIZE, UNKNOWN_SIZE)) == (RATE, [])
    assert UNKNOWN_SIZE == 2**32 - 1


def test_a_header_that_claims_too_much_is_a_warning_and_exit_0(classify: Callable[..., Outcome], tmp_path: Path):
    (tmp_path / "claims.wav").write_bytes(patched(WAV, *DATA_SIZE, 2**32 - 16))
    found = classify(tmp_path / "claims.wav")
    assert found.status == 0
    assert len(found.lines) == 1
    assert found.lines[0].startswith(f"stapes: warning: {tmp_path / 'claims.wav'} breaks off")
    assert found.results[0]["duration"] == 1


@pytest.mark.parametrize(
    "how",
    [
        {"format": "WAV"},
        {"format": "FLAC"},
        {"format": "OGG", "subtype": "VORBIS"},
        {"format": "OGG", "subtype": "OPUS"},
        {"format": "MP3"},
        {"format": "AIFF"},
    ],
    ids=lambda how: "-".join(how.values()),
)
def test_a_truncated_file_gives_what_is_there_a_warning_and_exit_0(how: dict[str, str], classify: Callable[..., Outcome], tmp_path: Path):
    data = encoded(np.tile(NOISE, 20), **how)
    (tmp_path / "cut").write_bytes(data[: len(data) * 6 // 10])
    found = classify(tmp_path / "cut", GOOD[0])
    assert found.status == 0
    assert len(found.lines) == 1
    assert found.lines[0].startswith(f"stapes: warning: {tmp_path / 'cut'} breaks off")
    assert 6 < found.results[0]["duration"] < 14


# Limits that an operator sets


@pytest.fixture(scope="module")
def hours(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four hours of silence in less than 2 MB."""
    path = tmp_path_factory.mktemp("hours") / "silence.flac"
    with soundfile.SoundFile(path, "w", 8000, 1, format="FLAC", subtype="PCM_16", **COMPRESSION) as file:
        for _ in range(110):
            file.write(np.zeros(2**20, np.int16))
    assert path.stat().st_size < 2**21
    return path


COMPRESSION = {"compression_level": 0.0} if tuple(map(int, soundfile.__version__.split(".")[:2])) >= (0, 13) else {}


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="only Linux tells a process's largest memory in /proc")
@pytest.mark.parametrize("windows", [(), ("--window", "1")], ids=["whole", "windows"])
def test_a_flac_that_unpacks_to_hours_is_stopped_early(windows: tuple[str, ...], hours: Path, root: Path):
    code = (
        "import sys; from stapes.cli import main; status = main(); "
        "print(next(line.split()[1] for line in open('/proc/self/status') if line.startswith('VmHWM'))); sys.exit(status)"
    )
    command = [sys.executable, "-c", code, "classify", str(hours), "--max-duration", "30", "--device", "cpu", "-q", *windows]
    begin = time.monotonic()
    done = subprocess.run(command, capture_output=True, text=True, cwd=root, timeout=120)
    assert done.returncode == 1
    assert len(said(done.stderr)) == 1
    assert "silence.flac lasts longer than the 30 s allowed (max_duration, --max-duration)" in done.stderr
    assert int(done.stdout) < 400_000, "kB: ONNX Runtime and the model; four hours of samples take 900000 more"
    assert time.monotonic() - begin < 30


def test_what_a_limit_stops_was_not_decoded_before(hours: Path, monkeypatch: pytest.MonkeyPatch):
    decoded = []
    read = soundfile.SoundFile.read

    def counted(self: soundfile.SoundFile, *arguments: object, **options: object) -> np.ndarray:
        decoded.append(read(self, *arguments, **options))
        return decoded[-1]

    monkeypatch.setattr(soundfile.SoundFile, "read", counted)
    with pytest.raises(LimitExceeded):
        audio.read(hours, RATE, Reading(max_duration=30))
    assert sum(map(len, decoded)) / 8000 < 2 * 30


def test_a_clip_of_exactly_the_limit_is_within_it(tmp_path: Path, classify: Callable[..., Outcome]):
    (tmp_path / "clip.wav").write_bytes(WAV)
    assert classify(tmp_path / "clip.wav", "--max-duration", "1", "--max-bytes", str(len(WAV))).status == 0
    found = classify(tmp_path / "clip.wav", GOOD[0], "--max-bytes", str(len(WAV) - 1))
    assert found.status == 1
    assert f"larger than the {len(WAV) - 1} bytes allowed (max_bytes, --max-bytes)" in found.lines[0]
    assert found.results[1]["predictions"][0]["label"] == "yes"
    assert classify(tmp_path / "clip.wav", "--max-duration", "0.999").status == 1


@pytest.mark.parametrize("arguments", [("--max-bytes", "0"), ("--max-bytes", "-1"), ("--max-duration", "nan"), ("--max-duration", "0")])
def test_a_limit_that_makes_no_sense_is_wrong_usage(arguments: tuple[str, str], stapes_command):
    done = stapes_command("classify", GOOD[0], *arguments)
    assert done.returncode == 2
    assert arguments[0] in done.stderr.splitlines()[-1]


# What only the library can be given


@pytest.mark.parametrize("value", [np.float32(3e38), np.float64(1e300)])
def test_samples_too_large_to_resample_are_refused(value: np.floating):
    samples = np.where(np.arange(8000) % 2, value, -value)
    with pytest.raises(AudioError, match="NaN or infinite"):
        audio.read({"array": samples, "sampling_rate": 8000}, RATE)


@pytest.mark.parametrize("channels", [1, 8, 9, 200])
def test_pyav_reads_as_many_channels_as_there_are(channels: int, monkeypatch: pytest.MonkeyPatch):
    pytest.importorskip("av", reason="no PyAV to test with: pip install 'stapes[av]'")
    monkeypatch.setattr(decode, "DECODERS", {"PyAV": decode.DECODERS["PyAV"]})
    samples = np.random.default_rng(0).uniform(-1, 1, (3000, channels)).astype(np.float32)
    for number in (0, channels - 1):
        clip = audio.read(encoded(samples, subtype="FLOAT"), RATE, Reading(downmix=number))
        assert np.array_equal(clip.samples, samples[:, number])


@pytest.mark.parametrize(("seed", "damage"), [("sds-pcm_16", slice(100, 400)), ("aiff-pcm_16", slice(35, 39))])
def test_no_library_speaks_past_us(seed: str, damage: slice, stapes_command, root: Path, tmp_path: Path):
    # libsndfile prints what is wrong with a MIDI sample dump to standard output, and cffi a traceback where a callback of ours fails
    damaged = bytearray((root / "tests" / "corpus" / "seeds" / seed).read_bytes())
    damaged[damage] = bytes(damage.stop - damage.start)
    (tmp_path / "clip").write_bytes(damaged)
    with (tmp_path / "clip").open("rb") as stdin:
        done = stapes_command("classify", tmp_path / "clip", "-", "-q", stdin=stdin)
    assert (done.returncode, done.stdout) == (1, "")
    assert len(said(done.stderr)) == 2


NO_RATES = [0, -1, -16000, 99, 1_000_001, 2**63, 10**400, 10**5000, 0.5, 16000.5, np.nan, np.inf, "16000", None, True, np.eye(9), 16000j]


@pytest.mark.parametrize("rate", NO_RATES, ids=lambda rate: type(rate).__name__)
def test_a_rate_that_makes_no_sense_is_a_value_error_that_says_what_does(rate: object):
    with pytest.raises(AudioError, match=r'"sampling_rate" is a whole number of Hz from 100 to 1000000') as caught:
        audio.read({"array": NOISE, "sampling_rate": rate}, RATE)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("rate", [100, 16000.0, np.int16(8000), np.float32(44100), 1_000_000])
def test_a_rate_of_another_kind_of_number_is_taken(rate: object):
    clip = audio.read({"array": NOISE, "sampling_rate": rate}, RATE)
    assert clip.seconds == pytest.approx(RATE / float(rate), abs=0.001)


@pytest.mark.parametrize("suffix", sorted(SUFFIXES))
def test_random_bytes_are_malformed_however_they_begin(suffix: str, tmp_path: Path):
    rng = np.random.default_rng(list(suffix.encode()))
    for start in (b"", WAV[:12], b"fLaC", b"OggS\0\2", b"ID3\4", b"FORM\0\0\x10\0AIFF", b"caff\0\1\0\0", b".snd", b"\0\0\0\x20ftypM4A "):
        path = tmp_path / f"noise{suffix}"
        path.write_bytes(start + rng.bytes(2000))
        with pytest.raises(MalformedAudio, match="cannot decode"):
            audio.read(path, RATE)
