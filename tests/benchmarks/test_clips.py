"""Clips: of the asked length, the same every time, apart from each other."""

from pathlib import Path

import numpy as np
import pytest
import soundfile

from stapes.errors import AudioError
from stapes_bench import clips


@pytest.mark.parametrize("seconds", [0.025, 1.0, 3.3])
@pytest.mark.parametrize("rate", [8000, 16000, 48000])
def test_a_made_clip_has_its_length_and_no_more_than_full_scale(seconds: float, rate: int):
    made = clips.speech(seconds, rate, 3)
    assert made.shape == (round(seconds * rate),)
    assert made.dtype == np.float32
    assert 0.01 < np.abs(made).max() <= 1


def test_made_clips_are_the_same_every_time_and_differ_from_each_other():
    first, again = clips.made(4, 1.0), clips.made(4, 1.0)
    assert all(np.array_equal(one, two) for one, two in zip(first, again, strict=True))
    correlated = np.corrcoef(np.stack(first)) - np.eye(4)
    assert np.abs(correlated).max() < 0.2


def test_made_clips_have_most_of_their_power_where_speech_has():
    spectrum = np.abs(np.fft.rfft(clips.speech(10.0, 16000, 0))) ** 2
    hertz = np.fft.rfftfreq(160_000, 1 / 16000)
    assert spectrum[(hertz > 80) & (hertz < 5000)].sum() > 0.8 * spectrum.sum()


def test_recorded_clips_are_cut_from_the_recordings_and_not_from_those_passed_over(tmp_path: Path):
    for index in range(4):  # a second of one level each, at another rate
        soundfile.write(tmp_path / f"{index}.wav", np.full(8000, 0.1 * (index + 1), np.float32), 8000)
    (tmp_path / "notes.txt").write_text("no sound")
    first = clips.recorded(tmp_path, 2, 1.0, 16000)
    rest = clips.recorded(tmp_path, 2, 1.0, 16000, skip=2 * 16000)
    levels = [round(float(np.median(clip)), 1) for clip in (*first, *rest)]
    assert sorted(levels) == [0.1, 0.2, 0.3, 0.4]
    assert {clip.shape for clip in first} == {(16000,)}


def test_too_short_recordings_are_repeated(tmp_path: Path):
    soundfile.write(tmp_path / "one.wav", np.linspace(-0.5, 0.5, 1600, dtype=np.float32), 16000)
    (clip,) = clips.recorded(tmp_path, 1, 0.2, 16000)
    np.testing.assert_array_equal(clip[:1600], clip[1600:])


def test_a_folder_without_recordings_is_refused(tmp_path: Path):
    with pytest.raises(AudioError, match="no recordings below"):
        clips.recorded(tmp_path, 1, 1.0)
