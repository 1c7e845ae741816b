"""stapes.pipeline answers in the shape that its users know."""

from pathlib import Path

import pytest

import stapes


@pytest.fixture(scope="module")
def pipe():
    return stapes.pipeline()


def test_a_clip_gives_five_pairs_of_score_and_label_best_first(pipe, root: Path):
    answer = pipe(str(root / "examples" / "stop.flac"))
    assert len(answer) == 5
    assert all(list(entry) == ["score", "label"] for entry in answer)
    assert all(type(entry["score"]) is float and type(entry["label"]) is str for entry in answer)
    assert answer[0]["label"] == "stop"
    assert [entry["score"] for entry in answer] == sorted((entry["score"] for entry in answer), reverse=True)


def test_a_list_gives_a_list(pipe, root: Path):
    paths = [str(root / "examples" / name) for name in ("yes.flac", "no.flac")]
    assert [answer[0]["label"] for answer in pipe(paths)] == ["yes", "no"]
    assert pipe([]) == []
    assert pipe(paths[:1]) == [pipe(paths[0])]


def test_top_k_holds_from_construction_and_gives_way_at_the_call(root: Path):
    pipe = stapes.pipeline("audio-classification", top_k=2)
    clip = root / "examples" / "yes.flac"
    assert len(pipe(clip)) == 2
    assert len(pipe(clip, top_k=None)) == 12
    assert len(stapes.pipeline(top_k=None)(clip)) == 12


def test_function_to_apply_holds_from_construction(root: Path):
    clip = root / "examples" / "yes.flac"
    raw = stapes.pipeline(function_to_apply="none")(clip)
    assert raw[0]["score"] > 1
    assert stapes.pipeline(function_to_apply="none")(clip, function_to_apply="softmax")[0]["score"] < 1


def test_a_loaded_classifier_can_be_shared(root: Path):
    classifier = stapes.load()
    assert stapes.pipeline(model=classifier).classifier is classifier


def test_other_tasks_and_arguments_are_refused(pipe, root: Path):
    with pytest.raises(ValueError, match="audio-classification"):
        stapes.pipeline("image-classification")
    with pytest.raises(TypeError, match="top_q"):
        pipe(root / "examples" / "yes.flac", top_q=5)
