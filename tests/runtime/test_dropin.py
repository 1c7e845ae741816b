"""stapes.pipeline answers in the shape that its users know; what it is to transformers is in tests/contract/test_dropin.py."""

import io
import itertools
import json
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

import stapes
from stapes.errors import AudioError, AudioNotFound, InvalidInput, InvalidOption, LimitExceeded, ModelError, StapesError

RATE = 16000

INT8_SCORE = 5e-3  # a batch may flip a rounding of the embedded model; measured 1e-4


@pytest.fixture(scope="module")
def pipe():
    return stapes.pipeline()


@pytest.fixture(scope="module")
def yes(root: Path) -> Path:
    return root / "examples" / "yes.flac"


@pytest.fixture(scope="module")
def no(root: Path) -> Path:
    return root / "examples" / "no.flac"


@pytest.fixture(scope="module")
def samples(yes: Path) -> np.ndarray:
    return soundfile.read(yes, dtype="float32")[0]


# --- answers


def test_a_clip_gives_five_pairs_of_score_and_label_best_first(pipe, root: Path):
    answer = pipe(str(root / "examples" / "stop.flac"))
    assert len(answer) == 5
    assert all(list(entry) == ["score", "label"] for entry in answer)
    assert all(type(entry["score"]) is float and type(entry["label"]) is str for entry in answer)
    assert answer[0]["label"] == "stop"
    assert [entry["score"] for entry in answer] == sorted((entry["score"] for entry in answer), reverse=True)


def test_top_k_holds_from_construction_and_gives_way_at_the_call(yes: Path):
    pipe = stapes.pipeline("audio-classification", top_k=2)
    assert len(pipe(yes)) == 2
    assert len(pipe(yes, top_k=None)) == 12
    assert len(stapes.pipeline(top_k=None)(yes)) == 12


def test_function_to_apply_holds_from_construction(yes: Path):
    pipe = stapes.pipeline(function_to_apply="none")
    assert pipe(yes)[0]["score"] > 1
    assert pipe(yes, function_to_apply="softmax")[0]["score"] < 1
    assert pipe(yes, function_to_apply=None) == pipe(yes)


def test_transform_and_predict_are_the_call(pipe, yes: Path):
    assert pipe.transform(yes) == pipe.predict(yes) == pipe(yes)


def test_the_calls_are_counted(yes: Path):
    pipe = stapes.pipeline()
    pipe(yes)
    pipe([yes, yes])
    assert pipe.call_count == 2


# --- one clip


@pytest.mark.parametrize(
    "kind",
    [
        str,
        Path,
        Path.read_bytes,
        lambda path: bytearray(path.read_bytes()),
        lambda path: memoryview(path.read_bytes()),
        lambda path: io.BytesIO(path.read_bytes()),
        lambda path: soundfile.read(path, dtype="float32")[0],
        lambda path: soundfile.read(path, dtype="float64")[0],
        lambda path: soundfile.read(path, dtype="int16")[0],
        lambda path: soundfile.read(path, dtype="int32")[0],
    ],
    ids=["str", "Path", "bytes", "bytearray", "memoryview", "a file in memory", "float32", "float64", "int16", "int32"],
)
def test_every_kind_of_clip_gets_the_answer_of_its_path(kind: Callable[[Path], Any], pipe, yes: Path):
    assert pipe(kind(yes)) == pipe(str(yes))


def test_an_open_file_is_one_clip(pipe, yes: Path):
    with yes.open("rb") as file:
        assert pipe(file) == pipe(yes)


def test_a_file_opened_as_text_is_refused_with_the_mode_to_use(pipe, tmp_path: Path):
    (tmp_path / "clip").write_text("words")
    with (tmp_path / "clip").open() as file, pytest.raises(InvalidInput, match="'rb'"):
        pipe(file)


@pytest.mark.parametrize("axis", [0, 1, -1, -2])
def test_channels_lie_along_the_axis_that_is_named(axis: int, pipe, samples: np.ndarray):
    stereo = np.stack([samples, np.roll(samples, 100)], axis=axis)
    mean = pipe(stereo.mean(axis=axis))
    assert pipe({"array": stereo, "sampling_rate": RATE, "channel_axis": axis}) == mean
    assert stapes.pipeline(channel_axis=axis)(stereo) == mean
    with pytest.raises(AudioError, match="channel_axis"):
        pipe(stereo)


def test_downmix_may_be_a_channels_number(pipe, samples: np.ndarray):
    stereo = {"array": np.stack([np.zeros_like(samples), samples]), "sampling_rate": RATE, "channel_axis": 0}
    assert stapes.pipeline(downmix=1)(stereo) == pipe(samples)
    with pytest.raises(AudioError, match="no channel 2"):
        stapes.pipeline(downmix=2)(stereo)


# --- many clips


def test_a_list_gives_a_list(pipe, yes: Path, no: Path):
    assert [answer[0]["label"] for answer in pipe([yes, no])] == ["yes", "no"]
    assert pipe([]) == []
    assert pipe([yes]) == [pipe(yes)]


def test_a_tuple_gives_a_list(pipe, yes: Path, no: Path):
    assert pipe((yes, no)) == pipe([yes, no])


class Dataset:
    """As torch has it: by index, and without __iter__."""

    def __init__(self, *items: Any) -> None:
        self.items = items

    def __getitem__(self, index: int) -> Any:
        return self.items[index]


class SizedDataset(Dataset):
    def __len__(self) -> int:
        return len(self.items)


def test_the_answers_of_a_dataset_are_as_many_as_its_clips(pipe, yes: Path, no: Path):
    answers = pipe(SizedDataset(yes, no), batch_size=2)
    assert len(answers) == 2
    assert next(answers)[0]["label"] == "yes"
    assert [answer[0]["label"] for answer in answers] == ["no"]


@pytest.mark.parametrize("collection", [Dataset, lambda *items: iter(items), lambda *items: (item for item in items)])
def test_what_does_not_say_its_length_has_lazy_answers_without_one(collection: Callable[..., Any], pipe, yes: Path, no: Path):
    answers = pipe(collection(yes, no))
    with pytest.raises(TypeError, match="how many"):
        len(answers)
    assert [answer[0]["label"] for answer in answers] == ["yes", "no"]


@pytest.mark.parametrize(("batch_size", "num_workers"), [(1, 0), (1, 1), (1, 4), (4, 0), (4, 2)])
def test_of_an_endless_generator_two_batches_and_a_clip_for_each_worker_are_taken(
    batch_size: int, num_workers: int, pipe, samples: np.ndarray
):
    taken = itertools.count(1)
    last = 0

    def endless() -> Iterator[np.ndarray]:
        nonlocal last
        for last in taken:  # noqa: B007
            yield samples

    answers = pipe(endless(), batch_size=batch_size, num_workers=num_workers)
    assert last == 0
    for asked in range(1, 4):
        next(answers)
        assert last <= asked - 1 + 2 * batch_size + num_workers


@pytest.mark.parametrize("batch_size", [2, 3, 8])
def test_a_batch_changes_no_answer(batch_size: int, pipe, samples: np.ndarray, no: Path):
    clips = [samples, no, samples[3000:7000], no, samples[:1040]]
    singly = [{each["label"]: each["score"] for each in pipe(clip, top_k=None)} for clip in clips]
    together = [{each["label"]: each["score"] for each in answer} for answer in pipe(clips, top_k=None, batch_size=batch_size)]
    assert together == [pytest.approx(alone, rel=0, abs=INT8_SCORE) for alone in singly]


@pytest.mark.parametrize("num_workers", [0, 1, 4])
def test_the_workers_change_neither_answers_nor_their_order(num_workers: int, pipe, root: Path):
    paths = sorted((root / "examples").glob("*.flac")) * 2
    assert pipe(paths, num_workers=num_workers) == [pipe(path) for path in paths]


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_bad_clip_raises_its_error_by_default(num_workers: int, pipe, yes: Path):
    with pytest.raises(AudioNotFound, match=r"gone\.wav"):
        pipe([yes, "gone.wav", yes], num_workers=num_workers)


def test_the_answers_before_a_bad_clip_are_given(pipe, yes: Path):
    answers = pipe(iter([yes, yes, None]))
    assert next(answers)
    assert next(answers)
    with pytest.raises(InvalidInput):
        next(answers)


@pytest.mark.parametrize("batch_size", [1, 2, 8])
def test_a_bad_clip_can_be_skipped_or_its_error_stand_in_its_place(batch_size: int, pipe, yes: Path, no: Path):
    clips = [yes, "gone.wav", b"words", None, np.full(2000, np.nan), no]
    skipped = pipe(clips, on_error="skip", batch_size=batch_size)
    assert [answer[0]["label"] for answer in skipped] == ["yes", "no"]
    returned = pipe(clips, on_error="return", batch_size=batch_size)
    assert [answer[0]["label"] for answer in (returned[0], returned[-1])] == ["yes", "no"]
    assert [type(error).__name__ for error in returned[1:-1]] == ["AudioNotFound", "MalformedAudio", "InvalidInput", "AudioError"]
    assert all(isinstance(error, StapesError) for error in returned[1:-1])


def test_on_error_holds_from_construction_and_gives_way_at_the_call(yes: Path):
    pipe = stapes.pipeline(on_error="skip")
    assert len(pipe([yes, "gone.wav"])) == 1
    assert len(pipe([yes, "gone.wav"], on_error="return")) == 2


def test_a_list_of_bad_clips_is_no_error_where_they_are_skipped(pipe):
    assert pipe(["gone.wav", None], on_error="skip", batch_size=2) == []


# --- limits


def test_a_clip_longer_than_allowed_is_refused(yes: Path, samples: np.ndarray):
    short = stapes.pipeline(max_duration=0.5)
    for clip in (yes, yes.read_bytes(), samples):
        with pytest.raises(LimitExceeded, match=r"0\.5 s"):
            short(clip)
    assert stapes.pipeline(max_duration=1)(yes)


def test_a_file_larger_than_allowed_is_refused(yes: Path):
    small = stapes.pipeline(max_bytes=1000)
    for clip in (yes, yes.read_bytes(), io.BytesIO(yes.read_bytes())):
        with pytest.raises(LimitExceeded, match="1000 bytes"):
            small(clip)


# --- construction


def test_a_loaded_classifier_can_be_shared(yes: Path):
    classifier = stapes.load()
    assert stapes.pipeline(model=classifier).classifier is classifier
    assert stapes.pipeline(model=classifier, downmix="ffmpeg").classifier is not classifier
    assert stapes.pipeline(model=classifier)(yes) == stapes.pipeline()(yes)


def test_other_tasks_and_frameworks_are_refused():
    with pytest.raises(InvalidOption, match="audio-classification"):
        stapes.pipeline("image-classification")
    with pytest.raises(InvalidOption, match="framework"):
        stapes.pipeline(framework="tf")


def test_an_unknown_argument_is_ignored_with_a_warning(pipe, yes: Path):
    with pytest.warns(UserWarning, match="^top_q: no argument") as caught:
        assert pipe(yes, top_q=5) == pipe(yes)
    assert [warning.filename for warning in caught] == [__file__], "the warning points at its caller"
    with pytest.warns(UserWarning, match="^tokenizer, top_q: no argument") as caught:
        stapes.pipeline(top_q=5, tokenizer=None)
    assert [warning.filename for warning in caught] == [__file__]


def test_what_changes_nothing_is_taken(pipe, yes: Path):
    other = stapes.pipeline(
        framework="pt", modelcard="a card", binary_output=True, args_parser=object(), dtype="auto", torch_dtype="float32"
    )
    assert other(yes) == pipe(yes)


@pytest.mark.parametrize(
    "wrong",
    [
        {"function_to_apply": "Softmax"},
        {"top_k": -1},
        {"batch_size": 0},
        {"batch_size": 2.0},
        {"batch_size": True},
        {"num_workers": -1},
        {"on_error": "ignore"},
    ],
    ids=str,
)
def test_an_option_that_makes_no_sense_is_refused_at_construction_and_at_the_call(wrong: dict[str, Any], pipe, yes: Path):
    (name,) = wrong
    with pytest.raises(InvalidOption, match=name):
        stapes.pipeline(**wrong)
    with pytest.raises(InvalidOption, match=name):
        pipe([yes], **wrong)


class Device:
    """A torch.device, as far as it is looked at."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __str__(self) -> str:
        return self.name


@pytest.mark.parametrize("device", [-1, "cpu", "cpu:0", Device("cpu"), Device("cpu:0")], ids=str)
def test_the_cpu_has_several_names(device: Any):
    assert stapes.pipeline(device=device).device == "cpu"


@pytest.mark.parametrize("device", ["mps", Device("xpu"), True])
def test_a_device_that_stapes_does_not_know_is_a_runtime_error(device: Any):
    with pytest.raises(RuntimeError, match=str(device)):
        stapes.pipeline(device=device)


@pytest.mark.parametrize("argument", ["dtype", "torch_dtype"])
def test_half_types_change_nothing_with_a_warning_and_others_are_refused(argument: str):
    with pytest.warns(UserWarning, match="decided at export"):
        stapes.pipeline(**{argument: "float16"})
    with pytest.raises(InvalidOption, match="int7"):
        stapes.pipeline(**{argument: "int7"})


class Extractor:
    """One of transformers, as far as it is looked at."""

    def __init__(self, config: dict[str, Any]) -> None:
        self.config = config

    def to_dict(self) -> dict[str, Any]:
        return self.config


def test_the_models_own_feature_extractor_changes_nothing(pipe, yes: Path, checkpoint: Path):
    config = json.loads((checkpoint / "preprocessor_config.json").read_text())
    for extractor in (checkpoint, str(checkpoint), Extractor(config)):
        assert stapes.pipeline(feature_extractor=extractor)(yes) == pipe(yes)


def test_another_feature_extractor_does_not_fit_a_graph_that_has_its_own(checkpoint: Path):
    config = json.loads((checkpoint / "preprocessor_config.json").read_text())
    with pytest.raises(ModelError, match="export the checkpoint again"):
        stapes.pipeline(feature_extractor=Extractor(config | {"do_normalize": False}))


def test_what_is_no_feature_extractor_is_refused(tmp_path: Path):
    with pytest.raises(InvalidInput, match="not a int"):
        stapes.pipeline(feature_extractor=5)
    with pytest.raises(FileNotFoundError, match="preprocessor_config"):
        stapes.pipeline(feature_extractor=tmp_path)


def test_a_pipeline_pickles_with_its_classifier_and_its_options(yes: Path):
    pipe = stapes.pipeline(top_k=2, on_error="skip", downmix="ffmpeg")
    again = pickle.loads(pickle.dumps(pipe))
    assert again([yes, None]) == pipe([yes, None])
    assert again.classifier.reading == pipe.classifier.reading


def test_it_says_what_it_is(pipe):
    assert repr(pipe).startswith("<AudioClassificationPipeline <Classifier ")
    assert pipe.task == "audio-classification"
    assert pipe.feature_extractor.sampling_rate == RATE
    config = pipe.model.config
    assert config.num_labels == len(config.id2label) == 12
    assert {index: label for label, index in config.label2id.items()} == config.id2label
