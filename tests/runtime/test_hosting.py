"""A Classifier in the programs that hold it: many threads, forked children, other processes."""

import multiprocessing
import os
import pickle
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

import stapes
from stapes.audio import Reading
from stapes.errors import DeviceError
from stapes.session import Session

WORDS = ["yes.flac", "no.flac", "left.flac", "stop.flac"]


def test_eight_threads_get_the_answers_of_one(root: Path):
    classifier = stapes.load(device="cpu")
    clips = [classifier.read(root / "examples" / name).samples for name in WORDS]
    clips += [clip[: len(clip) - 97 * i] for i, clip in enumerate(clips, 1)]
    alone = [classifier.logits([clip])[0] for clip in clips]

    def hammer(worker: int) -> float:
        worst = 0.0
        for turn in range(25):
            index = (worker + turn) % len(clips)
            worst = max(worst, float(np.abs(classifier.logits([clips[index]])[0] - alone[index]).max()))
        return worst

    with ThreadPoolExecutor(8) as pool:
        assert max(pool.map(hammer, range(8))) == 0


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.parametrize("threads", [1, 2])
def test_a_forked_child_answers_as_its_parent(threads: int, root: Path):
    program = f"""
import multiprocessing, stapes, warnings
warnings.simplefilter("ignore")  # of Python 3.12, that forking with threads is a risk: it is what is tested here
clip = {str(root / "examples" / "stop.flac")!r}
classifier = stapes.load(device="cpu", threads={threads})
before = classifier(clip)
context = multiprocessing.get_context("fork")
for _ in range(3):
    with context.Pool(2) as pool:
        assert pool.map(classifier.__call__, [clip] * 4) == [before] * 4  # pickled
    child = context.Process(target=lambda: exit(classifier(clip) != before))  # inherited
    child.start()
    child.join(30)
    assert child.exitcode == 0, child.exitcode
assert classifier(clip) == before
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_child_forked_after_cuda_came_up_is_told_to_spawn():
    session = Session(stapes.classifier.DEFAULT_MODEL, "cpu")
    session.device = "cuda:0"
    session.leave_behind()  # as after a fork
    with pytest.raises(DeviceError, match="spawn"):
        session.run(["logits"], {})


def test_a_classifier_pickles_by_its_path(root: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.chdir(root)
    classifier = stapes.load("runtime/stapes/models/speech-commands.onnx", device="cpu", threads=1, reading=Reading(downmix=0))
    data = pickle.dumps(classifier)
    assert len(data) < 2000
    monkeypatch.chdir(tmp_path)  # a relative path means the same file wherever it is loaded
    again = pickle.loads(data)
    assert again.reading == Reading(downmix=0)
    clip = root / "examples" / "off-stereo.mp3"
    assert again(clip) == classifier(clip)


def test_a_spawned_worker_gets_its_own(root: Path):
    classifier = stapes.load(device="cpu")
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply(classifier, (str(root / "examples" / "no.flac"),)) == classifier(root / "examples" / "no.flac")


def test_what_load_did_not_make_cannot_be_pickled():
    classifier = stapes.load(device="cpu")
    with pytest.raises(TypeError, match=r"stapes\.load"):
        pickle.dumps(stapes.Classifier(classifier.manifest, classifier._session))
