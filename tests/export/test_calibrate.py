"""Clips come from a folder or a table; what is said of two sets of answers follows the definitions."""

from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from torch.distributions import Bernoulli, Categorical, kl_divergence

from stapes.bundle import Verdict, read_manifest
from stapes.classifier import DEFAULT_MODEL
from stapes.errors import AudioError
from stapes_export.calibrate import Recording, check_lengths, divergence, recordings, verdict

LABELS = ("one", "two", "three")
RNG = np.random.default_rng(0)


@pytest.fixture
def clips(tmp_path: Path) -> Path:
    """A folder with one/a.wav, two/b.wav and other/c.wav."""
    for name in ("one/a.wav", "two/b.wav", "other/c.wav"):
        (tmp_path / name).parent.mkdir()
        soundfile.write(tmp_path / name, 0.1 * RNG.standard_normal(8000), 8000)
    return tmp_path


def table(folder: Path, content: str | bytes) -> Path:
    path = folder / "clips.csv"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def test_a_folders_name_is_the_label_where_the_model_has_it(clips: Path):
    found = recordings(clips, 16000, LABELS)
    assert [(clip.name, clip.label) for clip in found] == [("one/a.wav", "one"), ("other/c.wav", None), ("two/b.wav", "two")]
    assert {len(clip.samples) for clip in found} == {16000}


@pytest.mark.parametrize("mark", ["", "\ufeff"], ids=["plain", "byte order mark"])
@pytest.mark.parametrize("end", ["\n", "\r\n"], ids=["LF", "CRLF"])
def test_a_table_names_clips_beside_it_with_their_labels(mark: str, end: str, clips: Path):
    rows = ["speaker,path,label", "x,two/b.wav,one", 'x,"other/c.wav",', "y,one/a.wav,three", ""]
    found = recordings(table(clips, mark + end.join(rows)), 16000, LABELS)
    assert [(clip.name, clip.label) for clip in found] == [("two/b.wav", "one"), ("other/c.wav", None), ("one/a.wav", "three")]


def test_a_table_may_name_a_clip_by_its_whole_path(clips: Path, tmp_path_factory: pytest.TempPathFactory):
    elsewhere = table(tmp_path_factory.mktemp("elsewhere"), f"path,label\n{clips / 'one' / 'a.wav'},two\n")
    assert [clip.label for clip in recordings(elsewhere, 16000, LABELS)] == ["two"]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("", "no column path nor label; its first line must name both"),
        ("file,label\none/a.wav,one\n", "no column path; its first"),
        ("path\none/a.wav\n", "no column label; its first"),
        ("path,label\n", "no audio below .*clips.csv"),
        ("path,label\none/a.wav,One\n", "line 2 of .* has the label 'One', none of the model's: one, two, three; leave it empty"),
        ("path,label\none/a.wav,one\n,two\n", "line 3 of .* names no file"),
        ("path,label\none/a.wav,one\ngone.wav,two\n", "gone.wav"),
        ("path,label\none/a.wav,one,,,\nclips.csv,two", "clips.csv"),
        ("path,label\n\0.wav,one\n", "wav"),
        (b"path,label\n\xff\xfe,one\n", "no csv in UTF-8"),
        ('path,label\n"' + "x" * 200_000 + '",one', "no csv in UTF-8"),
    ],
)
def test_what_is_wrong_with_a_table_is_said_with_its_line(content: str | bytes, says: str, clips: Path):
    with pytest.raises(AudioError, match=says):
        recordings(table(clips, content), 16000, LABELS)


def test_a_row_that_ends_early_has_no_label(clips: Path):
    assert [clip.label for clip in recordings(table(clips, "path,label\none/a.wav\n"), 16000, LABELS)] == [None]


def test_a_source_that_is_not_there_is_named(tmp_path: Path):
    with pytest.raises(AudioError, match=r"no file .*gone\.csv"):
        recordings(tmp_path / "gone.csv", 16000, LABELS)
    with pytest.raises(AudioError, match=r"no audio below .*gone"):
        recordings(tmp_path / "gone", 16000, LABELS)


def test_a_clip_too_short_for_the_model_is_named_before_the_original_breaks_on_it():
    manifest = read_manifest(DEFAULT_MODEL)
    shortest = manifest.frontend.min_samples
    check_lengths([Recording("enough", np.zeros(shortest, np.float32))], manifest)
    with pytest.raises(AudioError, match=f"short has {shortest - 1} samples at 16000 Hz .* needs {shortest}"):
        check_lengths([Recording("short", np.zeros(shortest - 1, np.float32))], manifest)


BEFORE, AFTER = RNG.normal(0, 3, (2, 7, 5)).astype(np.float32)


def test_divergence_is_torchs():
    p, q = torch.tensor(BEFORE, dtype=torch.float64), torch.tensor(AFTER, dtype=torch.float64)
    softmax = kl_divergence(Categorical(logits=p), Categorical(logits=q)).mean().item()
    sigmoid = kl_divergence(Bernoulli(logits=p), Bernoulli(logits=q)).sum(1).mean().item()
    assert divergence(BEFORE, AFTER, "softmax") == pytest.approx(softmax, rel=1e-9)
    assert divergence(BEFORE, AFTER, "sigmoid") == pytest.approx(sigmoid, rel=1e-9)
    assert divergence(BEFORE, AFTER, "none") is None


@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
def test_divergence_is_zero_only_between_equals_and_finite_for_sure_answers(activation):
    assert divergence(BEFORE, BEFORE, activation) == 0
    assert divergence(BEFORE, AFTER, activation) > 0
    sure = np.array([[1000, 0, -1000]], np.float32)
    assert divergence(sure, -sure, activation) == pytest.approx(2000)
    assert divergence(BEFORE, BEFORE + 5, "softmax") == pytest.approx(0, abs=1e-12)  # a shift moves no softmax


def heard(*labels: str | None) -> list[Recording]:
    return [Recording(str(i), np.zeros(1, np.float32), label) for i, label in enumerate(labels)]


def test_a_verdict_counts_as_one_does_by_hand():
    before = np.array([[2, 1, 0], [2, 1, 0], [0, 1, 2], [0, 1, 2]], np.float32)
    after = np.array([[2, 1, 0], [1, 2, 0], [2, 1, 0], [0, 1, 2]], np.float32)
    found = verdict(before, after, heard("one", "one", None, "two"), LABELS, "none")
    assert (found.clips, found.labelled) == (4, 3)
    assert (found.accuracy_before, found.accuracy_after) == (2 / 3, 1 / 3)
    assert found.agreement == 0.5
    assert found.drop == pytest.approx(100 / 3)
    assert found.max_score_change == 2
    plain = verdict(before, after, heard(None, None, None, None), LABELS, "softmax")
    assert (plain.accuracy_before, plain.accuracy_after, plain.drop) == (None, None, 50)


@pytest.mark.parametrize("clips", [200, 400, 417, 1000, 3001])
def test_a_budget_of_as_many_points_as_clips_were_lost_holds(clips: int):
    for lost in range(1, 20):
        for right in (clips, clips - 3, clips // 2):
            found = Verdict(clips, clips, right / clips, (right - lost) / clips, 1.0, 0.0, 0.0)
            assert abs(found.drop - 100 * lost / clips) < 1e-6
            assert (found.drop <= 0.5) == (200 * lost <= clips)
