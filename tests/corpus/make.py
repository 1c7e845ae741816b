"""Writes the seeds of tests/runtime/test_fuzz.py: one small file a container or codec, and some with odd headers.

python tests/corpus/make.py, with soundfile and PyAV installed. What other versions of them write differs in a few bytes.
"""

import io
import struct
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
import soundfile

FOLDER = Path(__file__).parent / "seeds"
RATE = 8000

CONTAINERS = sorted(soundfile.available_formats().keys() - {"RAW", "SD2"})
"""RAW has no header to know it by; SD2 keeps its header in another file."""

CODECS = [
    *(("WAV", codec) for codec in ("PCM_U8", "PCM_24", "FLOAT", "DOUBLE", "ULAW", "ALAW", "IMA_ADPCM", "MS_ADPCM", "GSM610", "G721_32")),
    *(("WAV", codec) for codec in ("NMS_ADPCM_16",)),
    *(("AIFF", codec) for codec in ("PCM_S8", "FLOAT", "ULAW", "DWVW_16", "GSM610", "IMA_ADPCM")),
    *(("AU", codec) for codec in ("ULAW", "DOUBLE", "G723_24")),
    *(("CAF", codec) for codec in ("ALAC_16", "ALAC_24")),
    *(("OGG", codec) for codec in ("VORBIS", "OPUS")),
    *(("VOC", codec) for codec in ("PCM_U8", "ALAW")),
    ("FLAC", "PCM_24"),
    ("W64", "IMA_ADPCM"),
    ("XI", "DPCM_8"),
]
"""Beside every container's own default."""

STREAMS = {
    "m4a": ("mp4", "aac"),
    "aac": ("adts", "aac"),
    "ts": ("mpegts", "aac"),
    "mka": ("matroska", "flac"),
    "webm": ("webm", "libopus"),
    "wma": ("asf", "wmav2"),
    "ac3": ("ac3", "ac3"),
    "mp2": ("mp2", "mp2"),
}
"""What PyAV writes: a container and the codec in it."""


def tone(samples: int, channels: int = 1) -> np.ndarray:
    t = np.arange(samples) / RATE
    return np.stack([0.4 * np.sin(2 * np.pi * 300 * (1 + channel) * t) for channel in range(channels)], axis=1)


def by_libsndfile() -> Iterator[tuple[str, bytes]]:
    for container, codec in [*((container, soundfile.default_subtype(container)) for container in CONTAINERS), *CODECS]:
        file = io.BytesIO()
        stereo = container in ("WAV", "FLAC", "W64")
        soundfile.write(file, tone(400, 2 if stereo and codec.startswith("PCM") else 1), RATE, format=container, subtype=codec)
        yield f"{container}-{codec}".lower(), file.getvalue()


def by_libav() -> Iterator[tuple[str, bytes]]:
    for name, (container, codec) in STREAMS.items():
        file = io.BytesIO()
        rate = 48000 if codec == "libopus" else 44100
        with av.open(file, "w", format=container) as output:
            stream = output.add_stream(codec, rate=rate, layout="mono", bit_rate=64000)
            frame = av.AudioFrame.from_ndarray(tone(4096).T.astype(np.float32), format="fltp", layout="mono")
            frame.sample_rate, frame.pts = rate, 0
            for part in (frame, None):
                output.mux(stream.encode(part))
        yield name, file.getvalue()


def chunk(name: bytes, content: bytes, size: int | None = None, order: str = "<") -> bytes:
    return name + struct.pack(f"{order}I", len(content) if size is None else size) + content + b"\0" * (len(content) % 2)


def riff(*chunks: bytes, name: bytes = b"RIFF", kind: bytes = b"WAVE", order: str = "<") -> bytes:
    return chunk(name, kind + b"".join(chunks), order=order)


def by_hand() -> Iterator[tuple[str, bytes]]:
    samples = (tone(200)[:, 0] * 32767).astype("<i2").tobytes()
    fmt = chunk(b"fmt ", struct.pack("<HHIIHH", 1, 1, RATE, 2 * RATE, 2, 16))
    data = chunk(b"data", samples)
    yield "wav-unknown-length", riff(fmt, chunk(b"data", samples, 2**32 - 1))
    yield "wav-4-gb", riff(fmt, chunk(b"data", samples, 2**32 - 16))
    yield "wav-odd-chunks", riff(chunk(b"LIST", b"INFOISFT\5\0\0\0odd\0"), chunk(b"fact", b"\1\2\3"), fmt, chunk(b"junk", b""), data)
    yield "wav-data-first", riff(data, fmt)
    yield "wav-two-formats", riff(fmt, chunk(b"fmt ", struct.pack("<HHIIHH", 3, 2, RATE, 16 * RATE, 8, 32)), data)
    yield "wav-two-data", riff(fmt, data, data)
    extended = struct.pack("<HHIIHHHHI", 0xFFFE, 1, RATE, 2 * RATE, 2, 16, 22, 12, 4) + b"\1\0\0\0\0\0\x10\0\x80\0\0\xaa\0\x38\x9b\x71"
    yield "wav-extensible", riff(chunk(b"fmt ", extended), data)
    yield "wav-cues", riff(fmt, chunk(b"cue ", struct.pack("<I", 2**20) + bytes(48)), chunk(b"smpl", bytes(36 + 24)), data)
    yield "wav-bext", riff(chunk(b"bext", bytes(602) + b"history\r\n"), fmt, data)
    big = chunk(b"fmt ", struct.pack(">HHIIHH", 1, 1, RATE, 2 * RATE, 2, 16), order=">")
    yield "rifx", riff(big, chunk(b"data", samples, order=">"), name=b"RIFX", order=">")
    common = chunk(b"COMM", struct.pack(">hIh", 1, 200, 16) + b"\x40\x0b\xfa\0\0\0\0\0\0\0", order=">")
    sound = chunk(b"SSND", bytes(8) + samples, order=">")
    yield "aiff-sound-first", riff(sound, common, name=b"FORM", kind=b"AIFF", order=">")
    marks = chunk(b"MARK", b"\xff\xff" + bytes(20), order=">")
    yield "aiff-marks", riff(common, marks, chunk(b"INST", bytes(20), order=">"), sound, name=b"FORM", kind=b"AIFF", order=">")
    yield "flac-long-metadata", b"fLaC\x04\xff\xff\xff" + bytes(64)
    yield "flac-no-frames", b"fLaC\x80\0\0\x22" + bytes(10) + struct.pack(">Q", RATE << 44 | 15 << 36 | 2**36 - 1) + bytes(16)
    yield "ogg-first-page", b"OggS\0\2" + bytes(8) + b"\1\0\0\0" + bytes(8) + b"\1\x1e\1vorbis" + bytes(23)
    yield "id3-long-tag", b"ID3\4\0\0\x7f\x7f\x7f\x7f" + bytes(64) + b"\xff\xfb\x90\x00" + bytes(413)
    yield "mp3-frames", (b"\xff\xfb\x10\xc4" + bytes(100)) * 4
    yield "au-no-size", b".snd" + struct.pack(">5I", 24, 2**32 - 1, 3, RATE, 1) + samples
    yield (
        "caf-endless",
        b"caff\0\1\0\0desc" + struct.pack(">qd4s5I", 32, RATE, b"lpcm", 0, 2, 1, 1, 16) + b"data" + struct.pack(">qI", -1, 0) + samples,
    )
    yield "mp4-boxes", b"\0\0\0\x14ftypM4A \0\0\0\0M4A \0\0\0\x10moov\0\0\0\x08mvhd\0\0\0\0mdat"
    yield (
        "matroska-header",
        b"\x1a\x45\xdf\xa3\xa3\x42\x86\x81\1\x42\xf7\x81\1\x42\xf2\x81\4\x42\xf3\x81\x08\x42\x82\x88matroska\x18\x53\x80\x67\xff",
    )
    yield "amr", b"#!AMR\n" + (b"\x3c" + bytes(range(31))) * 4
    yield "text", b"#EXTM3U\nfile:///etc/passwd\n"
    yield "empty", b""


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for old in FOLDER.iterdir():
        old.unlink()
    for name, content in [*by_libsndfile(), *by_libav(), *by_hand()]:
        (FOLDER / name).write_bytes(content)
