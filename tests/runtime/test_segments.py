"""Long audio in windows: which, what they give, and that memory does not grow with the clip."""

import itertools
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

import stapes
from stapes.errors import AudioError, AudioWarning, ClipTooShort, InvalidOption
from stapes.frontend import Frontend, huggingface
from stapes.predictions import MergedPrediction, Prediction, Segment
from stapes.segments import above, merged, windows

RATE = 16000


@pytest.fixture(scope="module")
def classifier() -> stapes.Classifier:
    return stapes.load(device="cpu")


@pytest.fixture(scope="module")
def words(root: Path, classifier: stapes.Classifier) -> np.ndarray:
    """Four words, each in the middle of a silent stretch of 1.5 s."""
    clip = np.zeros(4 * 24000, np.float32)
    for i, name in enumerate(["yes", "no", "stop", "left"]):
        samples = classifier.read(root / "examples" / f"{name}.flac").samples
        begin = i * 24000 + (24000 - len(samples)) // 2
        clip[begin : begin + len(samples)] = samples
    return clip


def cut(n: int, size: int, hop: int, block: int) -> list[tuple[int, int, int]]:
    """Each window as its beginning, its first and its last sample, of a clip that counts its samples."""
    clip = np.arange(n, dtype=np.float32)
    blocks = (clip[i : i + block] for i in range(0, n, block))
    return [(start, int(samples[0]), int(samples[-1])) for start, samples in windows(blocks, size, hop)]


def test_windows_begin_every_hop_and_the_last_ends_with_the_clip():
    assert cut(10, 4, 2, 3) == [(0, 0, 3), (2, 2, 5), (4, 4, 7), (6, 6, 9)]
    assert cut(11, 4, 2, 3) == [(0, 0, 3), (2, 2, 5), (4, 4, 7), (6, 6, 9), (7, 7, 10)]
    assert cut(9, 4, 4, 100) == [(0, 0, 3), (4, 4, 7), (5, 5, 8)]


def test_a_clip_shorter_than_a_window_is_one_window():
    assert cut(3, 4, 4, 2) == [(0, 0, 2)]
    assert cut(4, 4, 4, 2) == [(0, 0, 3)]


def test_what_lies_between_windows_is_left_out_where_the_hop_is_larger():
    assert cut(10, 2, 5, 3) == [(0, 0, 1), (5, 5, 6)]
    assert cut(11, 2, 5, 3) == [(0, 0, 1), (5, 5, 6), (9, 9, 10)]


@pytest.mark.parametrize(("n", "size", "hop"), list(itertools.product([1, 7, 20, 50], [3, 8], [1, 3, 8, 11])))
def test_the_windows_do_not_depend_on_the_blocks(n: int, size: int, hop: int):
    assert len({tuple(cut(n, size, hop, block)) for block in (1, 2, 5, 19, 100)}) == 1


def heard(*labels: str, size: float = 1.0, hop: float = 1.0, score: float = 0.5) -> list[Segment]:
    return [
        Segment(i * hop, i * hop + size, tuple(Prediction(name, score + i / 100, ord(name)) for name in names))
        for i, names in enumerate(labels)
    ]


def stretches(segments: list[Segment]) -> list[tuple[str, float, float]]:
    return [(segment.predictions[0].label, segment.start, segment.end) for segment in merged(segments)]


def test_adjacent_windows_of_one_label_become_one_segment():
    assert stretches(heard("a", "a", "b", "a")) == [("a", 0, 2), ("b", 2, 3), ("a", 3, 4)]


def test_labels_that_sound_together_have_segments_of_their_own_in_the_order_of_their_beginnings():
    assert stretches(heard("a", "ab", "ac", "a", "")) == [("a", 0, 4), ("b", 1, 2), ("c", 2, 3)]


def test_a_window_without_the_label_ends_its_segment_and_so_does_a_gap():
    assert stretches(heard("a", "", "a")) == [("a", 0, 1), ("a", 2, 3)]
    assert stretches(heard("a", "a", size=1, hop=1.5)) == [("a", 0, 1), ("a", 1.5, 2.5)]
    assert stretches(heard("a", "a", size=1, hop=0.5)) == [("a", 0, 1.5)]


def test_a_merged_segment_keeps_the_mean_and_the_highest_score():
    (segment,) = merged(heard("a", "a", "a"))
    (found,) = segment.predictions
    assert isinstance(found, MergedPrediction)
    assert found.score == pytest.approx(0.51)
    assert found.max_score == pytest.approx(0.52)


def test_a_threshold_keeps_what_reaches_it():
    segments = [Segment(0, 1, (Prediction("a", 0.7, 0), Prediction("b", 0.3, 1)))]
    assert [found.label for found in next(above(segments, 0.7)).predictions] == ["a"]
    assert next(above(segments, 0.71)).predictions == ()


def test_each_window_is_answered_as_a_clip_of_its_own(classifier: stapes.Classifier, words: np.ndarray):
    found = list(classifier.segments(words, 1.5, top_k=3))
    assert [segment.predictions[0].label for segment in found] == ["yes", "no", "stop", "left"]
    assert [(segment.start, segment.end) for segment in found] == [(0, 1.5), (1.5, 3), (3, 4.5), (4.5, 6)]
    for segment in found:
        alone = classifier(words[round(segment.start * RATE) : round(segment.end * RATE)], top_k=3)
        assert [each.label for each in alone] == [each.label for each in segment.predictions]
        assert [each.score for each in alone] == pytest.approx([each.score for each in segment.predictions], abs=1e-2)  # int8 rows


def test_the_batch_does_not_change_what_is_heard(classifier: stapes.Classifier, words: np.ndarray):
    found = {size: list(classifier.segments(words, 0.9, 0.3, batch_size=size)) for size in (1, 5, 100)}
    for other in found.values():
        assert [(s.start, s.end, s.predictions[0].label) for s in other] == [(s.start, s.end, s.predictions[0].label) for s in found[1]]


def test_merging_finds_each_word_once(classifier: stapes.Classifier, words: np.ndarray):
    found = list(classifier.segments(words, 1.5, 0.5, threshold=0.9, merge=True))
    assert [segment.predictions[0].label for segment in found] == ["yes", "no", "stop", "left"]


def test_a_file_and_its_samples_give_the_same_segments(classifier: stapes.Classifier, words: np.ndarray, tmp_path: Path):
    soundfile.write(tmp_path / "words.wav", words, RATE, subtype="FLOAT")
    assert list(classifier.segments(tmp_path / "words.wav", 1.5)) == list(classifier.segments(words, 1.5))


def test_streamed_resampling_is_that_of_the_whole_clip(classifier: stapes.Classifier, tmp_path: Path):
    noise = (0.1 * np.random.default_rng(0).standard_normal(300_000)).astype(np.float32)
    soundfile.write(tmp_path / "noise.wav", noise, 44100, subtype="FLOAT")
    streamed = np.concatenate(list(classifier.stream(tmp_path / "noise.wav")))
    assert np.array_equal(streamed, classifier.read({"array": noise, "sampling_rate": 44100}).samples)


def test_an_endless_stream_of_blocks_is_heard_as_it_comes(classifier: stapes.Classifier):
    def microphone():
        yield from itertools.repeat(np.zeros(1000, np.float32))

    assert len(list(itertools.islice(classifier.segments(microphone(), 1.0, batch_size=1), 3))) == 3


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"window": 0}, "window"),
        ({"window": float("nan")}, "window"),
        ({"window": 1, "hop": -1}, "hop"),
        ({"window": 0.01}, "1040"),
        ({"window": 1, "batch_size": 0}, "batch_size"),
        ({"window": 1, "function_to_apply": "tanh"}, "tanh"),
    ],
    ids=str,
)
def test_windows_that_make_no_sense_are_refused_at_once(arguments: dict, says: str, classifier: stapes.Classifier):
    with pytest.raises(InvalidOption, match=says):
        classifier.segments(np.zeros(RATE, np.float32), **arguments)


def test_a_clip_below_the_models_minimum_is_too_short_in_windows_too(classifier: stapes.Classifier):
    with pytest.raises(ClipTooShort):
        list(classifier.segments(np.zeros(1039, np.float32), 1.0))


def test_a_bad_sample_late_in_a_clip_is_found_when_it_is_reached(classifier: stapes.Classifier):
    clip = np.zeros(20 * 65536, np.float32)
    clip[-1] = np.nan
    found = classifier.segments(clip, 1.0)
    assert next(found).start == 0
    with pytest.raises(AudioError, match="NaN"):
        list(found)


@pytest.mark.parametrize(("kind", "seconds"), [("ASTFeatureExtractor", 10.26), ("WhisperFeatureExtractor", 30.0)])
def test_sound_that_a_model_of_fixed_length_drops_is_told_with_what_keeps_it(kind: str, seconds: float, classifier: stapes.Classifier):
    frontend = huggingface.build({"feature_extractor_type": kind})
    fixed = stapes.Classifier(_with(classifier, frontend), classifier._session)
    longest = frontend.max_samples
    assert longest is not None
    fixed.read(np.zeros(longest, np.float32))  # without a warning
    with pytest.warns(AudioWarning, match=rf"first {seconds:.2f} s.*--window {seconds:.2f}"):
        fixed.read(np.zeros(longest + 1, np.float32))
    with pytest.warns(AudioWarning, match=rf"window of 31 s.*{seconds:.2f} s"):
        fixed.segments(np.zeros(longest, np.float32), 31.0)


def _with(classifier: stapes.Classifier, frontend: Frontend):
    from dataclasses import replace

    return replace(classifier.manifest, frontend=frontend)


@pytest.mark.skipif(sys.platform != "linux", reason="the peak of a process's memory is read as Linux tells it")
def test_three_hours_stay_below_300_mb(tmp_path: Path):
    path = tmp_path / "long.flac"
    tone = (0.3 * np.sin(2 * np.pi * 440 * np.arange(60 * 8000) / 8000)).astype(np.float32)
    with soundfile.SoundFile(path, "w", 8000, 1, subtype="PCM_16") as file:
        for _ in range(180):
            file.write(tone)
    program = f"""
import json, re, stapes
found = list(stapes.load(device="cpu").segments({str(path)!r}, 1.0, 20.0))
peak_kb = re.search(r"VmHWM:\\s+(\\d+) kB", open("/proc/self/status").read())  # ru_maxrss would count this suite's, from before exec
print(json.dumps([len(found), found[-1].end, int(peak_kb[1])]))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    count, end, peak_kb = json.loads(done.stdout)
    assert (count, end) == (540, 10781.0)
    assert peak_kb * 1024 < 300e6
