"""Any input becomes one channel of floats at the model's rate, or one clear sentence."""

import io
from pathlib import Path

import numpy as np
import pytest
import soundfile

from stapes import audio
from stapes.errors import AudioError, AudioNotFound, InvalidInput, MalformedAudio

RATE = 16000


def tone(hz: float, rate: int = RATE, seconds: float = 0.5) -> np.ndarray:
    return (0.5 * np.sin(2 * np.pi * hz * np.arange(round(seconds * rate)) / rate)).astype(np.float32)


def encoded(samples: np.ndarray, rate: int = RATE, **how: str) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, rate, **how)
    return file.getvalue()


LOSSLESS = 1 / 32768  # a step of 16-bit PCM
LOSSY = 0.04  # a tone of amplitude 0.5 through a perceptual coder at its default quality; opus costs 0.026, the others less


@pytest.mark.parametrize(
    ("how", "tolerance"),
    [
        ({"format": "WAV", "subtype": "PCM_16"}, LOSSLESS),
        ({"format": "WAV", "subtype": "FLOAT"}, 0),
        ({"format": "FLAC"}, LOSSLESS),
        ({"format": "OGG", "subtype": "VORBIS"}, LOSSY),
        ({"format": "OGG", "subtype": "OPUS"}, LOSSY),
        ({"format": "MP3"}, LOSSY),
    ],
    ids=lambda how: "-".join(how.values()) if isinstance(how, dict) else None,
)
def test_every_format_decodes_to_what_was_encoded(how: dict[str, str], tolerance: float, tmp_path: Path):
    sent = tone(440)
    data = encoded(sent, **how)
    (tmp_path / "clip").write_bytes(data)
    for source in (data, tmp_path / "clip", str(tmp_path / "clip")):
        clip = audio.read(source, RATE)
        assert clip.samples.dtype == np.float32
        assert clip.rate == RATE
        middle = slice(2000, 6000)  # coders smear the ends
        assert np.abs(clip.samples[middle] - sent[middle]).max() <= tolerance


def test_channels_are_averaged():
    left, right = tone(440), tone(880)
    clip = audio.read(encoded(np.stack([left, right], axis=1), format="WAV", subtype="FLOAT"), RATE)
    np.testing.assert_allclose(clip.samples, (left + right) / 2, atol=1e-7)


@pytest.mark.parametrize("rate", [8000, 22050, 44100, 48000])
def test_resampling_keeps_a_tone_and_the_duration(rate: int):
    clip = audio.read({"array": tone(440, rate), "sampling_rate": rate}, RATE)
    assert abs(len(clip.samples) - RATE // 2) <= 1
    middle = slice(1000, 7000)
    np.testing.assert_allclose(clip.samples[middle], tone(440)[: len(clip.samples)][middle], atol=1e-4)


def test_resampling_removes_what_the_new_rate_cannot_hold():
    clip = audio.read({"array": tone(9000, 48000), "sampling_rate": 48000}, RATE)
    assert np.abs(clip.samples[1000:7000]).max() < 1e-4


@pytest.mark.parametrize("dtype", ["int8", "int16", "int32", "uint8"])
def test_integers_are_scaled_by_their_full_scale(dtype: str):
    limits = np.iinfo(dtype)
    middle = 128 if dtype == "uint8" else 0
    clip = audio.read(np.array([limits.min, middle, limits.max], dtype), RATE)
    assert clip.samples[0] == -1
    assert clip.samples[1] == 0
    # int32's largest value rounds to 1.0 in float32: the only one that reaches it
    assert 0.99 < clip.samples[2] <= 1


@pytest.mark.parametrize("dtype", ["int64", "uint16", "uint32", "bool", "complex64"])
def test_numbers_without_a_known_full_scale_are_refused(dtype: str):
    with pytest.raises(AudioError, match=dtype):
        audio.read(np.zeros(2000, dtype), RATE)


def test_floats_are_taken_as_they_are():
    for dtype in (np.float16, np.float32, np.float64):
        clip = audio.read(np.array([0.25, -2.0], dtype), RATE)
        assert clip.samples.tolist() == [0.25, -2.0]


def test_raw_wins_over_array_unless_it_is_none():
    first, second = tone(100), tone(200)
    both = {"raw": first, "array": second, "sampling_rate": RATE}
    assert np.array_equal(audio.read(both, RATE).samples, first)
    assert np.array_equal(audio.read(both | {"raw": None}, RATE).samples, second)


@pytest.mark.parametrize("source", [None, 5, [0.1, 0.2], (tone(100),), object()])
def test_what_is_no_clip_is_a_type_error_that_names_what_is(source: object):
    with pytest.raises(InvalidInput, match=r"path.*bytes.*array") as caught:
        audio.read(source, RATE)
    assert isinstance(caught.value, TypeError)


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ({"array": tone(100)}, "sampling_rate"),
        ({"sampling_rate": RATE}, '"raw" or "array"'),
        ({}, "nothing"),
        ({"array": tone(100), "sampling_rate": 0}, "Hz"),
        ({"array": tone(100), "sampling_rate": "16000"}, "Hz"),
        ({"array": tone(100), "sampling_rate": float("nan")}, "Hz"),
        ({"array": tone(100), "sampling_rate": 16000.5}, "whole"),
        (np.zeros((2, 100), np.float32), r"\(2, 100\)"),
        (np.array(0.5), r"\(\)"),
        (np.array([0.0, np.nan]), "NaN"),
        (np.array([0.0, np.inf]), "NaN or infinite"),
    ],
)
def test_a_clip_that_cannot_be_used_is_a_value_error_that_says_why(source: object, says: str):
    with pytest.raises(AudioError, match=says) as caught:
        audio.read(source, RATE)
    assert isinstance(caught.value, ValueError)


@pytest.mark.parametrize("data", [b"", b"RIFF", b"not audio at all" * 50, encoded(np.zeros(0, np.float32), format="WAV")])
def test_bytes_without_audio_are_malformed(data: bytes):
    with pytest.raises(MalformedAudio) as caught:
        audio.read(data, RATE)
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path):
    with pytest.raises(AudioNotFound, match=r"gone\.wav"):
        audio.read(tmp_path / "gone.wav", RATE)
    with pytest.raises(AudioError, match="directory"):
        audio.read(tmp_path, RATE)


def test_the_callers_array_and_dictionary_are_left_alone():
    samples = tone(440, 44100)
    source = {"array": samples, "sampling_rate": 44100}
    before = samples.copy()
    audio.read(source, RATE)
    assert source.keys() == {"array", "sampling_rate"}
    assert np.array_equal(samples, before)


DECODABLE = [
    "audiofile/gs-16b-1c-16000hz.opus",
    "librosa/test_audio.flac",
    "librosa/test_audio.ogg",
    "scipy/test-44100Hz-2ch-32bit-float-be.wav",
    "scipy/test-8000Hz-le-1ch-1byte-ulaw.wav",
    "scipy/test-8000Hz-le-3ch-5S-24bit.wav",
    "tinytag/adpcm.wav",
    "tinytag/cbr.mp3",
    "tinytag/pluck-pcm8.aiff",
    "tinytag/vbr48stereo.mp3",
    "whisper/jfk.wav",
]


@pytest.mark.parametrize("name", DECODABLE)
def test_other_peoples_files_decode_to_their_own_duration(name: str, shared: Path):
    path = shared / "audio" / "decode" / name
    clip = audio.read(path, RATE)
    assert abs(clip.seconds - soundfile.info(path).duration) < 2 / RATE + 0.05 * name.endswith("mp3")
    assert np.isfinite(clip.samples).all()
