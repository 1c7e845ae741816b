"""Node: the vectors that every host shares, and what strangers may send. tests/hosts/test_browser.py has the same module in Chromium."""

import json
import struct
from collections.abc import Callable
from pathlib import Path

import javascript
import numpy as np
import onnx
import pytest
import soundfile
from hosts.conftest import NATIVE, Expected
from tiny_models import MANIFEST, told, write
from tiny_models import tiny as tiny_model

from stapes.bundle import read_manifest


def classify(model: Path, wave: Path, *more: str) -> dict[str, float]:
    done = javascript.node(javascript.FOLDER / "classify.mjs", model, wave, *more)
    assert (done.returncode, done.stderr) == (0, "")
    return {label: float(score) for label, score in (line.split("\t") for line in done.stdout.splitlines())}


def refused(status: int, *arguments: str | Path) -> str:
    """The one sentence."""
    done = javascript.node(javascript.FOLDER / "classify.mjs", *arguments)
    assert (done.returncode, done.stdout) == (status, ""), done.stderr
    (line,) = done.stderr.splitlines()
    assert line.startswith("stapes: ")
    return line


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    return write(tmp_path / "tiny.onnx", tiny_model())


@pytest.fixture
def tone(tmp_path: Path) -> Path:
    soundfile.write(tmp_path / "tone.wav", 0.5 * np.sin(np.arange(8000) / 7), 16000, subtype="PCM_16")
    return tmp_path / "tone.wav"


def test_the_scores_of_the_fp32_model_are_pythons(fp32_model: Path, waves: list[Path], expected: Expected):
    for wave in waves:
        found, wanted = classify(fp32_model, wave, "12"), expected(fp32_model, wave)
        assert list(found)[:3] == list(wanted)[:3]
        assert max(abs(found[label] - wanted[label]) for label in wanted) <= NATIVE


def test_the_embedded_model_answers_within_its_tolerance(int8_model: Path, waves: list[Path], expected: Expected):
    golden = read_manifest(int8_model).golden
    assert golden is not None
    for wave in waves:
        found, wanted = classify(int8_model, wave, "12"), expected(int8_model, wave)
        assert next(iter(found)) == next(iter(wanted))
        assert max(abs(found[label] - wanted[label]) for label in wanted) <= golden.tolerance


def test_as_many_labels_as_asked_and_the_best_first(int8_model: Path, waves: list[Path], expected: Expected):
    wanted = list(expected(int8_model, waves[0]))
    assert list(classify(int8_model, waves[0])) == wanted[:5]
    assert list(classify(int8_model, waves[0], "2")) == wanted[:2]
    assert sorted(classify(int8_model, waves[0], "99")) == sorted(wanted)


@pytest.mark.parametrize("subtype", ["PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE"])
@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("kind", ["WAV", "WAVEX"])
def test_every_usual_wav_is_read(subtype: str, channels: int, kind: str, tiny: Path, tmp_path: Path):
    sound = np.random.default_rng(3).uniform(-0.9, 0.9, (4000, channels))
    soundfile.write(tmp_path / "x.wav", sound, 16000, subtype=subtype, format=kind)
    read = soundfile.read(tmp_path / "x.wav", always_2d=True)[0].mean(axis=1)
    logits = np.array([read.mean(), read.max(), read.min()])
    wanted = np.exp(logits) / np.exp(logits).sum()
    found = classify(tiny, tmp_path / "x.wav")
    np.testing.assert_allclose([found[label] for label in MANIFEST.labels], wanted, atol=1e-6)


@pytest.mark.parametrize(
    ("samples", "rate", "sentence"),
    [
        (np.zeros(8000), 8000, "has 8000 Hz and the model takes 16000"),
        (np.zeros(0), 16000, "no samples"),
        (np.zeros(399), 16000, "399 samples and the model needs 400"),
        (np.where(np.arange(8000) == 7, np.nan, 0.1), 16000, "sample 7 of the sound is NaN"),
        (np.where(np.arange(8000) == 9, np.inf, 0.1), 16000, "sample 9 of the sound is Infinity"),
    ],
    ids=["rate", "empty", "short", "nan", "infinite"],
)
def test_a_sound_without_an_answer_is_one_sentence(samples: np.ndarray, rate: int, sentence: str, tiny: Path, tmp_path: Path):
    soundfile.write(tmp_path / "x.wav", samples, rate, subtype="FLOAT")
    assert sentence in refused(1, tiny, tmp_path / "x.wav")


def test_more_samples_than_a_call_takes_are_refused_before_anything_is_copied():
    code = """
    import { check } from "./stapes.mjs";
    try { check({ length: 2 ** 31 }, 16000, { rate: 16000, frontend: { min_samples: 400 } }); }
    catch (error) { console.log(error.constructor.name, error.message); }
    """
    assert javascript.script(code).startswith("StapesError the sound has 2147483648 samples; up to 67108864 go at once")


def external(path: Path) -> None:
    model = tiny_model()
    weight = onnx.numpy_helper.from_array(np.zeros(4096, np.float32), "large")
    model.graph.initializer.append(weight)
    model.graph.node.insert(0, onnx.helper.make_node("ReduceMax", ["large"], ["unused"]))
    onnx.save_model(model, path, save_as_external_data=True, location="gone.data", size_threshold=1024)
    (path.parent / "gone.data").unlink()


def newer(path: Path) -> None:
    write(path, tiny_model(json.dumps({**json.loads(MANIFEST.to_json()), "schema": 2})))


BAD_MODELS: dict[str, tuple[Callable[[Path], object], str]] = {
    "no file": (lambda path: None, "cannot read"),
    "empty": (lambda path: path.write_bytes(b""), "says nothing of stapes"),
    "no model": (lambda path: path.write_bytes(b"RIFF or anything else"), "is no ONNX file"),
    "a part": (lambda path: path.write_bytes(tiny_model().SerializeToString()[:200]), "is no ONNX file, or only a part of one"),
    "by others": (lambda path: write(path, tiny_model(None)), "says nothing of stapes in its metadata"),
    "newer": (newer, "has manifest schema 2 and this host reads up to 1"),
    "no JSON": (lambda path: write(path, tiny_model("{")), "is not JSON"),
    "no labels": (lambda path: write(path, tiny_model(told(labels=()))), "lacks its schema, rate, labels"),
    "no weights": (external, "gone.data"),
}


@pytest.mark.parametrize("kind", BAD_MODELS)
def test_a_model_that_cannot_run_is_one_sentence(kind: str, tone: Path, tmp_path: Path):
    make, sentence = BAD_MODELS[kind]
    make(tmp_path / "bad.onnx")
    assert sentence in refused(2, tmp_path / "bad.onnx", tone)


def test_a_wrong_command_line_is_one_sentence(tiny: Path, tone: Path):
    for arguments in ((), (tiny,), (tiny, tone, "0"), (tiny, tone, "many"), (tiny, tone, "1", "2")):
        assert "node classify.mjs MODEL WAV [K]" in refused(2, *arguments)


def test_truncated_and_mutated_files_give_errors_of_ours_alone(int8_model: Path, tone: Path, tmp_path: Path):
    """Cut anywhere, or with any byte of its head another: an answer, or a sentence, and nothing is read beyond the end."""
    (tmp_path / "model").write_bytes(int8_model.read_bytes())
    code = """
    import { readFileSync } from "node:fs";
    import { manifestOf, readWav, StapesError } from "./stapes.mjs";
    const [model, wave] = process.argv.slice(1).map((path) => new Uint8Array(readFileSync(path)));
    let answers = 0, refusals = 0;
    const attempt = (work) => {
      try { work(); answers++; } catch (error) { if (!(error instanceof StapesError)) throw error; refusals++; }
    };
    for (let size = 0; size < model.length; size += 997) attempt(() => manifestOf(model.subarray(0, size)));
    for (let size = 0; size < 200; size++) attempt(() => readWav(wave.subarray(0, size)));
    for (const [bytes, read, head] of [[model, manifestOf, 400], [wave, readWav, 60]])
      for (let at = 0; at < head; at++)
        for (const value of [0, 1, 127, 128, 255]) {
          const other = bytes.slice();
          other[at] = value;
          attempt(() => read(other));
        }
    console.log(answers, refusals);
    """
    answers, refusals = map(int, javascript.script(code, tmp_path / "model", tone).split())
    assert answers > 100
    assert refusals > 1000


def test_a_chunk_before_the_sound_is_passed_over(tiny: Path, tone: Path, tmp_path: Path):
    wave = tone.read_bytes()
    odd = b"note" + struct.pack("<I", 3) + b"abc\0"
    (tmp_path / "odd.wav").write_bytes(wave[:12] + odd + wave[12:])
    assert classify(tiny, tmp_path / "odd.wav") == classify(tiny, tone)
