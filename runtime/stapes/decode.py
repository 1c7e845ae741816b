"""An audio file -> its channels, block by block: libsndfile, else PyAV, else an ffmpeg on PATH.

Nothing is decoded before it is asked for, so that a caller can stop at any sample.
"""

import io
import os
import re
import struct
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from stapes.errors import AudioWarning, MalformedAudio

if TYPE_CHECKING:
    import subprocess

Block = NDArray[np.float32]

BLOCK = 2**16
"""Samples a channel and block."""

SUFFIXES = frozenset(
    f".{name}"
    for name in (
        *("wav", "wave", "w64", "rf64", "flac", "ogg", "oga", "opus", "mp3", "aif", "aiff", "aifc", "caf", "au", "snd"),
        *("m4a", "m4b", "aac", "mp4", "mov", "webm", "mka", "mkv", "amr", "3gp", "wma"),  # by PyAV or ffmpeg
    )
)
"""What an audio file may be called; a folder's other files are passed over."""

DEMUXERS = "aac,ac3,aiff,amr,amrnb,amrwb,asf,au,caf,eac3,flac,matroska,webm,mov,mp4,mp3,mpegts,ogg,w64,wav,wv"
"""What FFmpeg may open. Not its playlists, which make it open other files and addresses that they name."""

SHORTFALL = 0.95
"""Fraction of the promised samples below which a clip counts as cut off: headers of compressed files are a little off."""

UNKNOWN_SIZE = 2**32 - 1
"""What a 32-bit size says where the writer could not know it, as when ffmpeg writes to a pipe."""


SAMPLE_DUMP = b"\xf0\x7e"
"""How a MIDI sample dump begins, which libsndfile reads too, and prints what is damaged in it to standard output."""


@dataclass(frozen=True)
class Sound:
    """A file that is being decoded."""

    rate: int
    """Hz."""
    channels: int
    blocks: Iterator[Block]
    """Each (n, channels), full scale at 1.0; there is at least one sample."""


class _Unreadable(Exception):
    """This decoder has nothing to give; the message says why, in few words."""


@contextmanager
def decoded(file: Path | bytes, name: str) -> Iterator[Sound]:
    """The sound in `file`, a path or a file's bytes, which errors call `name`.

    Raises MalformedAudio where no decoder finds a sample. A file that breaks off gives what is there and an AudioWarning.
    """
    with ExitStack() as stack:
        yield _first(file, name, stack)


def _first(file: Path | bytes, name: str, stack: ExitStack) -> Sound:
    reasons = {}
    for decoder, opened in DECODERS.items():
        try:
            sound = stack.enter_context(opened(file, name))
            first = next(sound.blocks, None)
        except _Unreadable as reason:
            reasons[decoder] = str(reason)
            continue
        if first is not None:
            return replace(sound, blocks=chain([first], sound.blocks))
        reasons[decoder] = "not a single sample in it"
    tried = "; ".join(f"{decoder}: {reason}" for decoder, reason in reasons.items() if reason != ABSENT)
    others = "" if len(reasons) > sum(reason == ABSENT for reason in reasons.values()) + 1 else OTHERS
    raise MalformedAudio(f"cannot decode {name} ({tried}); it should be wav, flac, ogg, opus, mp3, aiff or caf{others}")


ABSENT = "not here"
OTHERS = "; for m4a, aac, mp4, webm or amr pip install 'stapes[av]', or put ffmpeg on PATH"


def _cut_off(name: str, why: str) -> None:
    warnings.warn(f"{name} breaks off ({why}); what is there was used", AudioWarning, stacklevel=2)


@contextmanager
def _libsndfile(file: Path | bytes, name: str) -> Iterator[Sound]:
    import soundfile  # 100 ms of import, which arrays need not pay

    with ExitStack() as stack:
        # by descriptor, since by name libsndfile would believe suffixes, and take noise called x.vox for sound
        stream: IO[bytes] = stack.enter_context(_Bytes(file) if isinstance(file, bytes) else file.open("rb", buffering=0))
        if stream.read(2) == SAMPLE_DUMP:
            raise _Unreadable("a MIDI sample dump")
        stream.seek(0)
        try:
            sound = stack.enter_context(soundfile.SoundFile(stream if isinstance(file, bytes) else stream.fileno(), closefd=False))
        except soundfile.LibsndfileError as error:
            raise _Unreadable(_brief(error.error_string)) from error
        yield Sound(sound.samplerate, sound.channels, _libsndfile_blocks(sound, stream, name))


class _Bytes(io.BytesIO):
    """A file's bytes for libsndfile, which in some damaged ones seeks to before the beginning."""

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        return super().seek(max(0, offset) if whence == os.SEEK_SET else offset, whence)


def _libsndfile_blocks(sound: Any, stream: IO[bytes], name: str) -> Iterator[Block]:
    import soundfile

    got = 0
    try:
        while len(block := sound.read(out=(buffer := np.empty((BLOCK, sound.channels), np.float32)))):
            got += len(block)
            yield block
    except soundfile.LibsndfileError as error:
        good = buffer[: max(0, sound.tell() - got)]  # of the block that was being read
        if not got and not len(good):
            raise _Unreadable(_brief(error.error_string)) from error
        if len(good):
            yield good
        return _cut_off(name, _brief(error.error_string) or "damaged data")
    if got:
        if (promised := _promised_bytes(sound.extra_info)) is not None:
            _cut_off(name, f"its header promises {promised[0]} bytes of sound and {promised[1]} are there")
        elif got < SHORTFALL * sound.frames < 2**62:  # unknown lengths are near 2^63
            _cut_off(name, f"its header promises {sound.frames} samples and {got} are there")
        elif sound.format == "OGG" and not _ogg_ends(stream):
            _cut_off(name, "its last page is missing")
    return None


def _promised_bytes(log: str) -> tuple[int, int] | None:
    """What libsndfile's log says of a data chunk that ends behind the file: the size in the header, and the real one."""
    for promised, real in re.findall(r"(?:data|SSND|Data Size|riff|Riff size)\s*:\s*(\w+) \(should be (\w+)\)", log):
        sizes = int(promised, 0), int(real, 0)
        if sizes[0] > sizes[1] and sizes[0] != UNKNOWN_SIZE:
            return sizes
    return None


def _ogg_ends(stream: IO[bytes]) -> bool:
    """Whether the last page is flagged as the stream's end and all there (RFC 3533: flags at byte 5, segment table from byte 26)."""
    size = stream.seek(0, os.SEEK_END)
    stream.seek(max(0, size - 2 * 65307))  # a page has at most 65307 bytes
    tail = stream.read()
    page = tail[tail.rfind(b"OggS") :]
    if len(page) < 27:
        return False
    lengths = page[27 : 27 + page[26]]
    return bool(page[5] & 4) and len(page) >= 27 + page[26] + sum(lengths)


@contextmanager
def _pyav(file: Path | bytes, name: str) -> Iterator[Sound]:
    try:
        import av
    except ImportError as error:
        raise _Unreadable(ABSENT) from error
    try:
        opened = av.open(io.BytesIO(file) if isinstance(file, bytes) else f"file:{file}", options={"format_whitelist": DEMUXERS})
    except (av.FFmpegError, ValueError) as error:
        raise _Unreadable(_brief(error.strerror if isinstance(error, av.FFmpegError) else str(error))) from error
    with opened as container:
        if not container.streams.audio:
            raise _Unreadable("no sound in it")
        stream = container.streams.audio[0]
        frames = _pyav_frames(container, stream, name)
        first = next(frames, None)  # a decoder may find another rate than the header has
        if first is None:
            raise _Unreadable("not a single sample in it")
        channels = first.layout.nb_channels
        blocks = (frame.to_ndarray().reshape(-1, channels) for frame in chain([first], frames))
        yield Sound(first.sample_rate, channels, blocks)


def _pyav_frames(container: Any, stream: Any, name: str) -> Iterator[Any]:
    import av

    # the same rate and channels, as floats; not planar ones: PyAV reads those beyond the end of memory from eight channels on
    packed = av.AudioResampler(format="flt")
    got = 0
    try:
        for decoded_frame in chain(container.decode(stream), [None]):  # None: what the resampler still holds
            for frame in packed.resample(decoded_frame):
                got += frame.samples
                rate = frame.sample_rate
                yield frame
    except (av.FFmpegError, ValueError) as error:  # ValueError: the channels or the rate change on the way
        why = _brief(error.strerror if isinstance(error, av.FFmpegError) else str(error))
        if not got:
            raise _Unreadable(why) from error
        return _cut_off(name, why)
    if got and stream.duration and got / rate < SHORTFALL * float(stream.duration * stream.time_base):
        _cut_off(name, f"its header promises {float(stream.duration * stream.time_base):.2f} s and {got / rate:.2f} s are there")
    return None


@contextmanager
def _ffmpeg(file: Path | bytes, name: str) -> Iterator[Sound]:
    import shutil  # these here: only what libsndfile cannot read needs them, and every start would pay
    import subprocess
    import tempfile

    program = shutil.which("ffmpeg")
    if program is None:
        raise _Unreadable(ABSENT)
    with ExitStack() as stack:
        if isinstance(file, bytes):  # from a pipe it could not go back to the tables that some files end with
            copy = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="stapes-"))) / "clip"
            copy.write_bytes(file)
            file = copy
        complaints = stack.enter_context(tempfile.TemporaryFile())
        command = [program, "-nostdin", "-v", "error", "-format_whitelist", DEMUXERS, "-i", f"file:{file}"]
        command += ["-map", "0:a:0", "-f", "au", "-c:a", "pcm_f32be", "pipe:1"]
        child = stack.enter_context(subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=complaints))
        stack.callback(child.kill)  # where the caller stops early; before Popen's own exit, which waits
        assert child.stdout is not None
        # a Sun/NeXT header is the simplest that tells rate and channels: magic, where the data begins, its size, encoding, rate, channels
        header = child.stdout.read(24)
        if len(header) < 24:
            raise _Unreadable(_said(complaints))
        _, begin, _, _, rate, channels = struct.unpack(">4s5I", header)
        child.stdout.read(begin - 24)
        yield Sound(rate, channels, _ffmpeg_blocks(child, channels, complaints, name))


def _ffmpeg_blocks(child: "subprocess.Popen[bytes]", channels: int, complaints: IO[bytes], name: str) -> Iterator[Block]:
    assert child.stdout is not None
    frame = 4 * channels
    got = False
    while data := child.stdout.read(BLOCK * frame):
        whole = data[: len(data) // frame * frame]
        got = True
        yield np.frombuffer(whole, ">f4").astype(np.float32).reshape(-1, channels)
    if child.wait() and got:
        _cut_off(name, _said(complaints))


def _said(complaints: IO[bytes]) -> str:
    """The last line that ffmpeg wrote, without the address of the part of it that speaks."""
    complaints.seek(0)
    lines = complaints.read().decode(errors="replace").split("\n")
    return _brief(next((line for line in reversed(lines) if line.strip()), "no sound in it"))


def _brief(message: str) -> str:
    """A decoder's own words as part of a sentence."""
    words = re.sub(r"^\[[^\]]*\] ", "", " ".join(message.split())).rstrip(".")
    return words[:1].lower() + words[1:200] if words else "damaged data"


DECODERS: dict[str, Callable[[Path | bytes, str], AbstractContextManager[Sound]]] = {
    "libsndfile": _libsndfile,
    "PyAV": _pyav,
    "ffmpeg": _ffmpeg,
}
"""Best first."""
