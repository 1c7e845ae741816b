"""Laws that hold for any input: an answer or an error of ours, and long clips cut and joined without a loss."""

import copy
import io
import json
import math
import struct
import warnings
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import soundfile

pytest.importorskip("hypothesis", reason="hypothesis is not installed: pip install hypothesis")
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

import stapes
from stapes import audio
from stapes.audio import Clip, Reading
from stapes.bundle import Golden, Manifest, Parity, Verdict, read_manifest
from stapes.classifier import DEFAULT_MODEL
from stapes.errors import AudioError, AudioWarning, ClipTooShort, InvalidInput, InvalidOption, ModelError
from stapes.frontend import MOST, Frontend, huggingface
from stapes.predictions import MergedPrediction, Prediction, Segment
from stapes.segments import merged, windows

RATE = 16000


def properties(examples: int) -> settings:
    """No deadline, since the machine may be busy; always the same examples, so that a change that passed still passes."""
    return settings(deadline=None, derandomize=True, max_examples=examples, suppress_health_check=list(HealthCheck))


# Any array, any dictionary

dtypes = st.one_of(
    arrays.floating_dtypes(endianness="?"),
    arrays.integer_dtypes(endianness="?"),
    arrays.unsigned_integer_dtypes(endianness="?"),
    arrays.boolean_dtypes(),
    arrays.complex_number_dtypes(),
    arrays.unicode_string_dtypes(max_len=3),
    arrays.byte_string_dtypes(max_len=3),
    arrays.datetime64_dtypes(),
    st.just(np.dtype(object)),
    st.just(np.dtype([("left", "f4"), ("right", "f4")])),
)


@st.composite
def any_array(draw: st.DrawFn) -> np.ndarray:
    dtype = draw(dtypes)
    shape = draw(arrays.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=12))
    if dtype.kind in "OV":
        return np.zeros(shape, dtype)
    return draw(arrays.arrays(dtype, shape, elements=None if dtype.kind != "f" else arrays.from_dtype(dtype)))


readings = st.builds(
    Reading,
    downmix=st.sampled_from(["mean", "ffmpeg", 0, 1, 100]),
    resampler=st.sampled_from(["soxr", "sinc-hann"]),
    channel_axis=st.sampled_from([None, 0, 1, -1, -2]),
    max_duration=st.none() | st.floats(1e-6, 1e6),
    max_bytes=st.none() | st.integers(1, 10**6),
)


def outcome(*errors: type[Exception], of: Callable[[], Any]) -> Any:
    """What a call gives: its value, or one of these errors, whose message is a line."""
    try:
        return of()
    except errors as error:
        message = str(error)
        found = error
    assert "\n" not in message
    assert len(message) < 1000
    return found


def check_read(source: object, rate: int, reading: Reading) -> None:
    """A clip of finite samples, or an error of the two kinds that `read` promises, in one line."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.simplefilter("ignore", AudioWarning)
        clip = outcome(AudioError, InvalidInput, of=lambda: audio.read(source, rate, reading))
    if isinstance(clip, Exception):
        return
    assert isinstance(clip, Clip)
    assert clip.rate == rate
    assert clip.samples.ndim == 1
    assert clip.samples.dtype == np.float32
    assert np.isfinite(clip.samples).all()


@properties(300)
@given(any_array(), readings)
@example(np.array([1e300, -1e300]), Reading())
@example(np.zeros((0, 3)), Reading(channel_axis=0))
@example(np.zeros((0, 3)), Reading(channel_axis=1))
@example(np.full((4, 2), np.finfo(np.float32).max, np.float32), Reading("ffmpeg", channel_axis=1))
def test_any_array_is_a_clip_or_an_error_of_ours(array: np.ndarray, reading: Reading):
    check_read(array, RATE, reading)


anything = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=10)
    | st.binary(max_size=50)
    | st.complex_numbers()
    | any_array(),
    lambda inner: st.lists(inner, max_size=3) | st.tuples(inner) | st.dictionaries(st.text(max_size=5) | st.integers(), inner, max_size=3),
    max_leaves=5,
)
rates = st.integers(100, 10**6) | st.sampled_from([8000, 16000, 44100, 1000.0, np.int32(22050), np.float32(100)])


@properties(300)
@given(
    st.fixed_dictionaries(
        {},
        optional={
            "raw": anything,
            "array": anything | any_array(),
            "sampling_rate": anything | rates,
            "channel_axis": anything | st.sampled_from([0, 1]),
            "path": anything,
        },
    )
    | st.dictionaries(
        anything.filter(lambda value: getattr(value, "__hash__", None) is not None and not isinstance(value, tuple)), anything
    ),
    readings,
)
def test_any_dictionary_is_a_clip_or_an_error_of_ours(source: dict[Any, Any], reading: Reading):
    check_read(source, RATE, reading)


@properties(100)
@given(anything.filter(lambda value: not isinstance(value, str)), readings)
def test_any_object_is_a_clip_or_an_error_of_ours(source: object, reading: Reading):
    check_read(source, RATE, reading)


@properties(100)
@given(rates, rates.filter(lambda rate: 100 <= rate <= 96000), st.integers(0, 3000), st.sampled_from(["soxr", "sinc-hann"]))
def test_a_resampled_clip_lasts_as_long(rate: float, to_rate: float, samples: int, method: Any):
    source = {"array": np.full(samples, 0.25, np.float32), "sampling_rate": rate}
    clip = outcome(AudioError, of=lambda: audio.read(source, int(to_rate), Reading(resampler=method)))
    if isinstance(clip, AudioError):
        assert method == "sinc-hann", "its kernel may be too large"
        assert "no kernel" in str(clip)
        return
    assert abs(len(clip.samples) - samples * float(to_rate) / float(rate)) <= 1


@pytest.fixture(scope="module")
def classifier() -> stapes.Classifier:
    pytest.importorskip("onnxruntime")
    return stapes.load(device="cpu", threads=1)


@properties(60)
@given(
    array=arrays.arrays(np.float32, st.integers(0, 3000), elements=st.floats(width=32), fill=st.floats(width=32)),
    top_k=st.none() | st.integers(-3, 20),
    activation=st.sampled_from([None, "softmax", "sigmoid", "none", "tanh"]),
)
def test_any_samples_have_an_answer_or_an_error_of_ours(
    classifier: stapes.Classifier, array: np.ndarray, top_k: int | None, activation: Any
):
    found = outcome(AudioError, InvalidOption, of=lambda: classifier(array, top_k, activation))
    if isinstance(found, Exception):
        assert len(array) < 1040 or not np.isfinite(array).all() or activation == "tanh" or (top_k is not None and top_k < 0)
        assert isinstance(found, ClipTooShort) <= (len(array) < 1040)
        return
    assert len(found) == min(12, 12 if top_k is None else top_k)
    assert [each.score for each in found] == sorted((each.score for each in found), reverse=True)
    assert all(math.isfinite(each.score) for each in found)
    if activation in (None, "softmax") and top_k is None:
        assert sum(each.score for each in found) == pytest.approx(1, abs=1e-5)


# Headers


def encoded(**how: str) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, np.full((3000, 2), 0.25, np.float32), RATE, **how)
    return file.getvalue()


HEADERS = {
    "wav": (encoded(format="WAV", subtype="PCM_16"), 44),
    "float wav": (encoded(format="WAV", subtype="FLOAT"), 80),
    "adpcm": (encoded(format="WAV", subtype="IMA_ADPCM"), 60),
    "aiff": (encoded(format="AIFF"), 60),
    "au": (encoded(format="AU"), 24),
    "w64": (encoded(format="W64"), 104),
    "flac": (encoded(format="FLAC"), 60),
}
INTERESTING = [0, 1, 2, 3, 7, 16, 64, 255, 256, 2**15, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 16, 2**32 - 1]


@pytest.mark.parametrize("kind", HEADERS)
@properties(60)
@given(
    changes=st.lists(
        st.tuples(
            st.integers(0, 103), st.sampled_from(["B", "<H", ">H", "<I", ">I"]), st.sampled_from(INTERESTING) | st.integers(0, 2**32 - 1)
        ),
        min_size=1,
        max_size=3,
    ),
    cut=st.none() | st.integers(0, 200),
)
def test_any_header_is_a_clip_or_an_error_of_ours(kind: str, changes: list[tuple[int, str, int]], cut: int | None):
    data, header = HEADERS[kind]
    changed = bytearray(data[:cut])
    for at, layout, value in changes:
        size = struct.calcsize(layout)
        if at % header + size <= len(changed):
            struct.pack_into(layout, changed, at % header, value % 256**size)
    check_read(bytes(changed), RATE, Reading(max_duration=3600))


# Manifests

OWN = read_manifest(DEFAULT_MODEL)
FRONTENDS = [huggingface.build({"feature_extractor_type": kind}) for kind in huggingface.BUILDERS]
texts = st.text(max_size=20)
numbers = st.floats(allow_nan=False, allow_infinity=False)
fractions = st.floats(0, 1)
verdicts = st.builds(
    Verdict,
    clips=st.integers(min_value=1000),
    labelled=st.integers(0, 1000),
    accuracy_before=st.none() | fractions,
    accuracy_after=st.none() | fractions,
    agreement=fractions,
    divergence=st.none() | numbers,
    max_score_change=numbers,
    kept=st.lists(texts, max_size=3).map(tuple),
    max_drop=st.none() | numbers,
)
manifests = st.builds(
    Manifest,
    name=texts,
    rate=st.just(RATE),
    labels=st.lists(texts, min_size=1, max_size=5).map(tuple),
    activation=st.sampled_from(["softmax", "sigmoid", "none"]),
    frontend=st.sampled_from([OWN.frontend, *FRONTENDS]),
    frontend_in_graph=st.booleans(),
    needs=st.lists(texts, max_size=3).map(tuple),
    provenance=st.just(OWN.provenance),
    golden=st.none() | st.builds(Golden, numbers, st.lists(numbers, max_size=3).map(tuple), numbers),
    parity=st.none() | st.builds(Parity, st.integers(), texts, numbers, numbers, numbers, numbers),
    verdict=st.none() | verdicts,
)

values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.sampled_from([-1, 0, 1, 2**31, 2**63, 10**400, 1e308, "Log", "10"])
    | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=4,
)


@properties(100)
@given(manifests)
def test_a_manifest_survives_json(manifest: Manifest):
    assert Manifest.from_json(manifest.to_json()) == manifest
    assert Manifest.from_json(json.dumps(json.loads(manifest.to_json()))) == manifest


def places(tree: Any) -> list[tuple[Any, Any]]:
    """Every container with a key or an index in it."""
    keys = list(tree) if isinstance(tree, dict) else list(range(len(tree))) if isinstance(tree, list) else []
    return [(tree, key) for key in keys] + [place for key in keys for place in places(tree[key])]


@properties(400)
@given(manifests, st.data())
def test_a_changed_manifest_is_a_manifest_or_a_model_error(manifest: Manifest, data: st.DataObject):
    tree = json.loads(manifest.to_json())
    for _ in range(data.draw(st.integers(1, 3))):
        container, key = data.draw(st.sampled_from(places(tree) or [({}, "")]), label="place")
        if data.draw(st.booleans()):
            container[key] = data.draw(values)
        else:
            del container[key]
    found = outcome(ModelError, of=lambda: Manifest.from_json(json.dumps(tree)))
    if isinstance(found, ModelError):
        return
    assert Manifest.from_json(found.to_json()) == found
    check_frontend(found.frontend)


@properties(100)
@given(st.text() | values.map(lambda value: json.dumps(value)))
def test_any_text_is_a_manifest_or_a_model_error(text: str):
    with pytest.raises(ModelError):
        Manifest.from_json(text)


def check_frontend(frontend: Frontend) -> None:
    """Features of finite numbers for the shortest clip, or a ModelError."""
    sizes = [value for step in frontend.to_dict()["steps"] for name, value in step.items() if name in MOST and name != "rate"]
    assume(max([frontend.min_samples, *sizes]) < 10**6)  # what is allowed may still take its seconds
    features = outcome(ModelError, of=lambda: frontend(np.linspace(-1, 1, frontend.min_samples, dtype=np.float32)))
    if isinstance(features, ModelError):
        return
    assert np.isfinite(features).all()
    assert features.dtype == np.float32


# Long clips

cuts = st.lists(st.integers(0, 30), max_size=12)
sizes = st.integers(1, 25)


def clip_of(lengths: list[int]) -> list[np.ndarray]:
    """Blocks of these lengths, of samples that are all different."""
    whole = np.arange(sum(lengths), dtype=np.float32)
    return np.split(whole, np.cumsum(lengths)[:-1]) if lengths else []


@properties(300)
@given(cuts, sizes, sizes)
def test_windows_are_whole_and_where_they_say_and_cover_the_clip(lengths: list[int], size: int, hop: int):
    samples = sum(lengths)
    found = list(windows(clip_of(lengths), size, hop))
    assert found, "a clip has a window, however short"
    for start, window in found:
        assert len(window) == min(size, samples)
        assert np.array_equal(window, np.arange(start, start + len(window)))
    starts = [start for start, _ in found]
    assert starts == sorted(set(starts))
    assert all(start == place * hop for place, start in enumerate(starts[:-1]))
    if hop <= size:
        assert {sample for start, window in found for sample in range(start, start + len(window))} == set(range(samples))
        assert starts[-1] + min(size, samples) == samples


@properties(300)
@given(cuts, cuts, sizes, sizes)
def test_windows_do_not_depend_on_how_a_clip_comes(lengths: list[int], places: list[int], size: int, hop: int):
    samples = sum(lengths)
    otherwise = np.split(np.arange(samples, dtype=np.float32), sorted(place % (samples + 1) for place in places))
    one, other = (list(windows(blocks, size, hop)) for blocks in (clip_of(lengths), otherwise))
    assert [start for start, _ in one] == [start for start, _ in other]
    assert all(np.array_equal(left, right) for (_, left), (_, right) in zip(one, other, strict=True))


scores = st.floats(0, 1, width=32).map(float)
heard = st.lists(st.dictionaries(st.integers(0, 3), scores, max_size=4), max_size=15)


@properties(300)
@given(heard, st.integers(1, 4), st.integers(1, 6))
def test_merged_windows_are_runs_that_lose_none(found: list[dict[int, float]], size: int, hop: int):
    given_windows = [
        Segment(place * hop, place * hop + size, tuple(Prediction(f"label {index}", score, index) for index, score in each.items()))
        for place, each in enumerate(found)
    ]
    runs = list(merged(iter(copy.deepcopy(given_windows))))
    assert [run.start for run in runs] == sorted(run.start for run in runs)
    for run in runs:
        (label,) = run.predictions
        assert isinstance(label, MergedPrediction)
        inside = [
            prediction.score
            for window in given_windows
            for prediction in window.predictions
            if prediction.index == label.index and run.start <= window.start and window.end <= run.end
        ]
        assert label.max_score == max(inside)
        assert label.score == pytest.approx(sum(inside) / len(inside))
        assert label.score <= label.max_score * (1 + 1e-12)  # a mean of equal numbers may be a rounding above them
        assert {run.start, run.end} <= {time for window in given_windows for time in (window.start, window.end)}
    for window in given_windows:
        for prediction in window.predictions:
            around = [
                run for run in runs if run.predictions[0].index == prediction.index and run.start <= window.start and window.end <= run.end
            ]
            assert len(around) == 1
            assert around[0].predictions[0].label == prediction.label
    by_label = {index: [run for run in runs if run.predictions[0].index == index] for index in range(4)}
    for ours in by_label.values():
        neighbours = pairwise(ours)
        # between two runs of one label there is a gap, or a window that it was not heard in
        assert all(
            later.start > earlier.end or any(earlier.start < window.start < later.start for window in given_windows)
            for earlier, later in neighbours
        )
