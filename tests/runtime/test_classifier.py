"""The embedded model through the Classifier: known words, laws of batches, and what is refused."""

from pathlib import Path

import numpy as np
import pytest

import stapes
from stapes.classifier import activate
from stapes.errors import ClipTooShort

SPOKEN = {"yes.flac": "yes", "no.flac": "no", "left.flac": "left", "stop.flac": "stop", "off-stereo.mp3": "off"}


@pytest.fixture(scope="module")
def classifier() -> stapes.Classifier:
    return stapes.load(device="cpu")


@pytest.mark.parametrize("name", SPOKEN)
def test_the_example_clips_are_understood(name: str, classifier: stapes.Classifier, root: Path):
    best = classifier(root / "examples" / name)[0]
    assert best.label == SPOKEN[name]
    assert best.score > 0.9


def test_this_host_computes_what_the_exporter_computed(classifier: stapes.Classifier):
    golden = classifier.manifest.golden
    assert golden is not None
    signal = golden.signal(classifier.manifest.rate)
    assert np.abs(classifier.logits([signal])[0] - golden.logits).max() <= golden.tolerance


def test_five_labels_come_best_first_and_scores_are_a_distribution(classifier: stapes.Classifier, root: Path):
    found = classifier(root / "examples" / "yes.flac")
    assert len(found) == 5
    everything = classifier(root / "examples" / "yes.flac", top_k=None)
    assert everything[:5] == found
    assert sorted(everything, key=lambda p: -p.score) == everything
    assert {p.label for p in everything} == set(classifier.manifest.labels)
    assert all(classifier.manifest.labels[p.index] == p.label for p in everything)
    assert abs(sum(p.score for p in everything) - 1) < 1e-5


@pytest.mark.parametrize(("top_k", "count"), [(0, 0), (1, 1), (100, 12), (None, 12), (np.int64(3), 3)])
def test_top_k_is_a_count(top_k, count: int, classifier: stapes.Classifier, root: Path):
    assert len(classifier(root / "examples" / "yes.flac", top_k=top_k)) == count


@pytest.mark.parametrize(("top_k", "error"), [(-1, ValueError), (2.0, TypeError), (True, TypeError), ("2", TypeError)])
def test_top_k_that_is_no_count_is_refused(top_k, error: type, classifier: stapes.Classifier, root: Path):
    with pytest.raises(error, match="top_k"):
        classifier(root / "examples" / "yes.flac", top_k=top_k)


def test_every_kind_of_input_gives_the_same_answer(classifier: stapes.Classifier, root: Path):
    path = root / "examples" / "no.flac"
    clip = classifier.read(path)
    sources = [path, str(path), path.read_bytes(), clip, clip.samples, clip.samples.astype(np.float64)]
    sources += [{"array": clip.samples, "sampling_rate": 16000}, {"raw": clip.samples, "sampling_rate": 16000.0}]
    answers = [classifier(source) for source in sources]
    assert all(answer == answers[0] for answer in answers)


INT8_ROWS = 1e-2  # a batch may flip a rounding; a tenth of what int8 itself costs these logits of 8


def test_a_row_does_not_depend_on_its_neighbours(classifier: stapes.Classifier, root: Path):
    clips = [classifier.read(root / "examples" / name).samples for name in SPOKEN]
    clips += [clips[0][:1040], np.zeros(5000, np.float32)]
    alone = np.concatenate([classifier.logits([clip]) for clip in clips])
    together = classifier.logits(clips)
    loud = classifier.logits([*clips, 1000 * np.ones(40000, np.float32)])[:-1]
    unit = np.maximum(1, np.abs(alone).max(axis=1, keepdims=True))
    assert (np.abs(together - alone) / unit).max() < INT8_ROWS
    assert (np.abs(loud - alone) / unit).max() < INT8_ROWS


@pytest.mark.parametrize("seconds", [1e-4, 1.0, 2.5])
def test_warming_up_changes_no_answer(seconds: float, classifier: stapes.Classifier, root: Path):
    warm = stapes.load(device="cpu")
    assert warm.warm_up(seconds) is None
    assert warm(root / "examples" / "yes.flac") == classifier(root / "examples" / "yes.flac")


@pytest.mark.parametrize("seconds", [0, -1.0, float("nan"), float("inf")])
def test_warming_up_takes_a_length_of_time(seconds: float, classifier: stapes.Classifier):
    with pytest.raises(ValueError, match="seconds"):
        classifier.warm_up(seconds)


def test_no_clips_give_no_rows(classifier: stapes.Classifier):
    assert classifier.logits([]).shape == (0, 12)


@pytest.mark.parametrize("samples", [0, 1, 1039])
def test_too_short_a_clip_is_refused_with_both_lengths(samples: int, classifier: stapes.Classifier):
    with pytest.raises(ClipTooShort, match=rf"{samples} samples.*1040"):
        classifier(np.zeros(samples, np.float32))


def test_the_shortest_clip_has_an_answer(classifier: stapes.Classifier):
    assert np.isfinite(classifier.logits([np.ones(1040, np.float32)])).all()


def test_scores_follow_the_function_that_is_asked_for(classifier: stapes.Classifier, root: Path):
    clip = root / "examples" / "yes.flac"
    logits = classifier.logits([clip])[0]
    plain = {p.index: p.score for p in classifier(clip, None, "none")}
    assert np.allclose([plain[i] for i in range(12)], logits)
    sigmoid = {p.index: p.score for p in classifier(clip, None, "sigmoid")}
    assert np.allclose([sigmoid[i] for i in range(12)], 1 / (1 + np.exp(-logits.astype(float))))
    with pytest.raises(ValueError, match="softmax, sigmoid or none"):
        classifier(clip, None, "tanh")


def test_equal_scores_keep_the_models_order():
    from stapes.session import Session

    class Even(stapes.Classifier):
        def logits(self, clips):
            return np.zeros((1, 12), np.float32)

    even = Even(stapes.load().manifest, Session.__new__(Session))
    assert [p.index for p in even(np.zeros(2000, np.float32), top_k=4)] == [0, 1, 2, 3]


@pytest.mark.parametrize("scale", [1.0, 100.0, 1e4])
def test_activations_do_not_overflow(scale: float):
    logits = scale * np.array([[-1.0, 0.0, 1.0]], np.float32)
    with np.errstate(over="raise", invalid="raise"):
        assert np.isclose(activate(logits, "softmax").sum(), 1)
        assert np.allclose(activate(logits, "sigmoid") + activate(-logits, "sigmoid"), 1)
