"""Containers and codecs: what each decoder reads, what a broken-off file gives, and what is said where none can."""

import builtins
import io
import os
import warnings
from pathlib import Path

import numpy as np
import pytest
import soundfile

from stapes import audio, decode
from stapes.audio import Reading
from stapes.errors import AudioError, AudioWarning, InvalidOption, LimitExceeded, MalformedAudio

RATE = 16000
TONE = (0.5 * np.sin(2 * np.pi * 300 * np.arange(2 * RATE) / RATE)).astype(np.float32)
NOISE = (0.2 * np.random.default_rng(0).standard_normal(RATE)).astype(np.float32)


def encoded(samples: np.ndarray, rate: int = RATE, **how: str) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, rate, **how)
    return file.getvalue()


def decoded(file: Path | bytes) -> np.ndarray:
    with decode.decoded(file, "the clip") as sound:
        return np.concatenate(list(sound.blocks))


@pytest.fixture
def ffmpeg(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder on PATH with a real ffmpeg in it."""
    imageio_ffmpeg = pytest.importorskip("imageio_ffmpeg", reason="no ffmpeg to test with: pip install imageio-ffmpeg")
    folder = tmp_path_factory.mktemp("bin")
    (folder / "ffmpeg").symlink_to(imageio_ffmpeg.get_ffmpeg_exe())
    monkeypatch.setenv("PATH", str(folder) + os.pathsep + os.environ["PATH"])
    return folder / "ffmpeg"


@pytest.fixture
def without_pyav(monkeypatch: pytest.MonkeyPatch) -> None:
    find = builtins.__import__

    def refuse(name: str, *rest: object, **named: object) -> object:
        if name == "av":
            raise ImportError(name)
        return find(name, *rest, **named)

    monkeypatch.setattr(builtins, "__import__", refuse)


@pytest.fixture
def without_ffmpeg(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))


PCM = {"PCM_U8": 1 / 128, "PCM_16": 2**-15, "PCM_24": 2**-23, "PCM_32": 2**-24, "FLOAT": 0, "DOUBLE": 0, "ULAW": 0.03, "ALAW": 0.03}
"""A wav file's encodings, and how far a sample may be from what was encoded: a step; for the logarithmic two a step at full scale."""


@pytest.mark.parametrize("subtype", PCM)
def test_every_encoding_of_wav_decodes(subtype: str):
    found = decoded(encoded(NOISE, format="WAV", subtype=subtype))[:, 0]
    assert np.abs(found - NOISE).max() <= PCM[subtype]


@pytest.mark.parametrize("subtype", ["IMA_ADPCM", "MS_ADPCM"])
def test_adpcm_decodes_with_the_noise_of_its_four_bits(subtype: str):
    found = decoded(encoded(TONE, format="WAV", subtype=subtype))[: len(TONE), 0]
    assert np.sqrt(np.mean((found - TONE) ** 2)) < 0.02 * np.sqrt(np.mean(TONE**2))


@pytest.mark.parametrize("how", [{"format": "AIFF"}, {"format": "CAF"}, {"format": "W64"}, {"format": "RF64"}, {"format": "AU"}], ids=str)
def test_other_containers_of_pcm_decode(how: dict[str, str]):
    assert np.abs(decoded(encoded(NOISE, **how, subtype="PCM_16"))[:, 0] - NOISE).max() <= 1 / 32768


CUT_OFF = [
    {"format": "WAV", "subtype": "PCM_16"},
    {"format": "AIFF", "subtype": "PCM_16"},
    {"format": "W64", "subtype": "PCM_16"},
    {"format": "RF64", "subtype": "PCM_16"},
    {"format": "AU", "subtype": "PCM_16"},
    {"format": "FLAC", "subtype": "PCM_16"},
    {"format": "MP3", "subtype": "MPEG_LAYER_III"},
    {"format": "OGG", "subtype": "VORBIS"},
]


@pytest.mark.parametrize("how", CUT_OFF, ids=lambda how: how["format"])
def test_a_file_that_breaks_off_gives_what_is_there_and_a_warning(how: dict[str, str], tmp_path: Path):
    long = np.tile(NOISE, 30)
    data = encoded(long, **how)
    path = tmp_path / "clip"
    path.write_bytes(data[: len(data) * 6 // 10])
    for source in (path, path.read_bytes()):
        with pytest.warns(AudioWarning, match="breaks off"):
            found = decoded(source)[:, 0]
        assert 0.4 * len(long) < len(found) < 0.7 * len(long)
        if how["subtype"] == "PCM_16":
            assert np.abs(found - long[: len(found)]).max() <= 1 / 32768


def test_a_short_flac_that_breaks_off_gives_its_first_part(without_pyav: None, without_ffmpeg: None):
    data = encoded(NOISE, format="FLAC", subtype="PCM_16")
    with pytest.warns(AudioWarning, match="breaks off"):
        found = decoded(data[: len(data) * 6 // 10])[:, 0]
    assert len(found) >= 4096  # a frame of libFLAC's
    assert np.abs(found - NOISE[: len(found)]).max() <= 1 / 32768


@pytest.mark.parametrize("how", CUT_OFF, ids=lambda how: how["format"])
def test_a_whole_file_brings_no_warning(how: dict[str, str]):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        decoded(encoded(np.tile(NOISE, 3), **how))


def test_a_wav_of_unknown_length_is_no_broken_one():
    data = bytearray(encoded(NOISE, format="WAV", subtype="PCM_16"))
    at = data.index(b"data") + 4
    data[at : at + 4] = data[4:8] = b"\xff" * 4  # as ffmpeg writes to a pipe
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(decoded(bytes(data))) == RATE


def test_blocks_are_decoded_as_they_are_asked_for():
    data = encoded(np.zeros(50 * decode.BLOCK, np.float32), format="FLAC", subtype="PCM_16")
    with decode.decoded(data, "the clip") as sound:
        assert len(next(sound.blocks)) == decode.BLOCK
        # what comes after was not looked at: the file may be any length


def test_a_long_clip_is_stopped_while_it_is_decoded(monkeypatch: pytest.MonkeyPatch):
    data = encoded(np.zeros(200 * RATE, np.float32), format="FLAC", subtype="PCM_16")
    asked = []
    read = soundfile.SoundFile.read
    monkeypatch.setattr(soundfile.SoundFile, "read", lambda self, *a, **k: asked.append(1) or read(self, *a, **k))
    with pytest.raises(LimitExceeded, match=r"10 s.*--max-duration"):
        audio.read(data, RATE, Reading(max_duration=10))
    assert len(asked) <= 4  # blocks of four seconds
    assert audio.read(data, RATE, Reading(max_duration=200)).seconds == 200


def test_a_large_file_is_not_opened(tmp_path: Path):
    path = tmp_path / "clip.wav"
    path.write_bytes(encoded(NOISE, format="WAV"))
    size = path.stat().st_size
    assert len(audio.read(path, RATE, Reading(max_bytes=size)).samples) == RATE
    with path.open("rb") as file:
        for source in (path, path.read_bytes(), file):
            with pytest.raises(LimitExceeded, match=r"--max-bytes"):
                audio.read(source, RATE, Reading(max_bytes=size - 1))


COMPRESSED = ["audiofile/gs-16b-1c-44100hz.aac", "audiofile/gs-16b-1c-44100hz.m4a", "tinytag/test_flac.oga"]


@pytest.mark.parametrize("name", COMPRESSED)
def test_pyav_and_ffmpeg_read_what_libsndfile_cannot_and_agree(name: str, shared: Path, ffmpeg: Path, monkeypatch: pytest.MonkeyPatch):
    pytest.importorskip("av", reason="no PyAV to test with: pip install 'stapes[av]'")
    path = shared / "audio" / "decode" / name
    by_pyav = decoded(path)
    assert np.array_equal(decoded(path.read_bytes()), by_pyav)
    monkeypatch.delitem(decode.DECODERS, "PyAV")
    for source in (path, path.read_bytes()):
        by_ffmpeg = decoded(source)
        assert by_ffmpeg.shape == by_pyav.shape
        assert np.abs(by_ffmpeg - by_pyav).max() < 1e-6


@pytest.mark.parametrize("suffix", ["m4a", "aac", "mp4", "webm", "amr", "mka"])
def test_what_ffmpeg_writes_is_read_by_both(suffix: str, ffmpeg: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    import subprocess

    pytest.importorskip("av", reason="no PyAV to test with: pip install 'stapes[av]'")
    (tmp_path / "tone.wav").write_bytes(encoded(TONE, format="WAV", subtype="PCM_16"))
    path = tmp_path / f"tone.{suffix}"
    rate = ["-ar", "8000"] if suffix == "amr" else []
    done = subprocess.run([ffmpeg, "-v", "error", "-i", tmp_path / "tone.wav", *rate, path], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"this ffmpeg cannot write {suffix}: {done.stderr.splitlines()[-1]}")
    found = {}
    for decoder in ("PyAV", "ffmpeg"):
        with monkeypatch.context() as patch:
            patch.setattr(decode, "DECODERS", {decoder: decode.DECODERS[decoder]})
            found[decoder] = audio.read(path, RATE).samples
    for samples in found.values():
        assert 1.9 < len(samples) / RATE < 2.3
        middle = samples[RATE // 2 : RATE]
        spectrum = np.abs(np.fft.rfft(middle * np.hanning(len(middle))))
        assert abs(spectrum.argmax() * RATE / len(middle) - 300) <= 4
        assert abs(np.abs(middle).max() - 0.5) < 0.1
    assert np.abs(found["PyAV"][:RATE] - found["ffmpeg"][:RATE]).max() < 1e-4


def test_without_pyav_and_ffmpeg_the_error_names_both(without_pyav: None, without_ffmpeg: None):
    with pytest.raises(MalformedAudio, match=r"stapes\[av\].*ffmpeg") as caught:
        decoded(b"\0\0\0\x20ftypM4A " + bytes(500))
    assert "\n" not in str(caught.value)


def test_a_playlist_cannot_make_a_decoder_open_another_file(ffmpeg: Path, tmp_path: Path):
    (tmp_path / "secret.aac").write_bytes(encoded(NOISE, format="WAV"))
    (tmp_path / "list.m3u8").write_text(
        "#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXT-X-MEDIA-SEQUENCE:0\n#EXTINF:10,\nsecret.aac\n#EXT-X-ENDLIST\n"
    )
    (tmp_path / "list.ffconcat").write_text(f"ffconcat version 1.0\nfile {tmp_path / 'secret.aac'}\n")
    for name in ("list.m3u8", "list.ffconcat"):
        with pytest.raises(MalformedAudio):
            decoded(tmp_path / name)


@pytest.fixture
def by_channel() -> dict[int, bytes]:
    """Files of one to nine channels, each sounding alone for a while."""
    files = {}
    for channels in range(1, 10):
        samples = np.kron(np.eye(channels), np.full((100, 1), 0.25)).astype(np.float32)
        files[channels] = encoded(samples, format="WAV", subtype="FLOAT")
    return files


@pytest.mark.parametrize("channels", range(1, 9))
def test_the_downmix_of_ffmpeg_is_what_ffmpeg_does(channels: int, by_channel: dict[int, bytes], ffmpeg: Path):
    import subprocess

    command = [ffmpeg, "-i", "pipe:0", "-ac", "1", "-ar", str(RATE), "-f", "f32le", "-hide_banner", "-loglevel", "quiet", "pipe:1"]
    want = np.frombuffer(subprocess.run(command, input=by_channel[channels], capture_output=True, check=True).stdout, np.float32)
    found = audio.read(by_channel[channels], RATE, Reading(downmix="ffmpeg")).samples
    np.testing.assert_allclose(found, want, atol=1e-6)


def test_one_channel_can_be_chosen_by_its_number(by_channel: dict[int, bytes]):
    found = audio.read(by_channel[9], RATE, Reading(downmix=4)).samples
    assert np.array_equal(np.flatnonzero(found), np.arange(400, 500))
    with pytest.raises(AudioError, match="no channel 3: it has 3"):
        audio.read(by_channel[3], RATE, Reading(downmix=3))


@pytest.mark.parametrize("downmix", ["mean", "ffmpeg"])
def test_more_channels_than_a_speaker_layout_has_are_not_averaged(downmix: str, by_channel: dict[int, bytes]):
    with pytest.raises(AudioError, match=r"9 channels.*--downmix 0"):
        audio.read(by_channel[9], RATE, Reading(downmix=downmix))


@pytest.mark.parametrize(
    "wrong",
    [
        {"downmix": "left"},
        {"downmix": -1},
        {"downmix": True},
        {"resampler": "linear"},
        {"channel_axis": 2},
        {"max_duration": 0},
        {"max_bytes": -5},
        {"timeout": 0},
    ],
    ids=str,
)
def test_a_way_of_reading_that_makes_no_sense_is_refused(wrong: dict[str, object]):
    with pytest.raises(InvalidOption, match=next(iter(wrong))):
        Reading(**wrong)
