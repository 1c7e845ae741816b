"""examples/hosts/node: the same scores as Python; and for what cannot be run one sentence and an exit status, never a stack trace."""

import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import host_models
import host_waves
import numpy as np
import pytest
import soundfile
from hosts.conftest import NATIVE, Expected

from stapes.bundle import read_manifest

Node = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session")
def node(root: Path) -> Node:
    """Runs Node in the example's folder, where its packages are."""
    folder = root / "examples" / "hosts" / "node"
    program = shutil.which("node")
    if program is None:
        pytest.skip("node is not installed")
    if not (folder / "node_modules").is_dir():
        pytest.skip("no onnxruntime-node: run npm install in examples/hosts/node")

    def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run([program, *map(str, arguments)], cwd=folder, capture_output=True, text=True, timeout=300)

    return run


@pytest.fixture(scope="session")
def scores(node: Node) -> Callable[..., dict[str, float]]:
    """scores(model, wave): what the program prints, label: score."""

    def of(model: Path, wave: Path, count: int = 1000) -> dict[str, float]:
        done = node("classify.mjs", model, wave, str(count))
        assert (done.returncode, done.stderr) == (0, "")
        return {label: float(score) for label, score in (line.split("\t") for line in done.stdout.splitlines())}

    return of


def assert_refused(done: subprocess.CompletedProcess[str], says: str, status: int) -> None:
    """One line on stderr that says which, and nothing else."""
    assert (done.returncode, done.stdout) == (status, "")
    assert re.fullmatch(r"classify: [^\n]+\n", done.stderr), done.stderr
    assert re.search(says, done.stderr), done.stderr


def test_fp32_scores_are_pythons(scores: Callable[..., dict[str, float]], fp32_model: Path, waves: list[Path], expected: Expected) -> None:
    for wave in waves:
        found = scores(fp32_model, wave)
        assert next(iter(found)) == next(iter(expected(fp32_model, wave)))
        assert list(found.values()) == sorted(found.values(), reverse=True)
        assert found == pytest.approx(expected(fp32_model, wave), rel=0, abs=NATIVE)


def test_int8_scores_are_pythons_within_the_golden_tolerance(
    scores: Callable[..., dict[str, float]], int8_model: Path, waves: list[Path], expected: Expected
) -> None:
    golden = read_manifest(int8_model).golden
    assert golden is not None
    for wave in waves:
        found = scores(int8_model, wave)
        assert next(iter(found)) == next(iter(expected(int8_model, wave)))
        assert found == pytest.approx(expected(int8_model, wave), rel=0, abs=golden.tolerance)


def test_k_lines_best_first(scores: Callable[..., dict[str, float]], int8_model: Path, waves: list[Path], expected: Expected) -> None:
    assert list(scores(int8_model, waves[0], 3)) == list(expected(int8_model, waves[0]))[:3]


@pytest.mark.parametrize("subtype", ["PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE"])
@pytest.mark.parametrize("container", ["WAV", "WAVEX"])
def test_every_kind_of_wave_is_read(
    scores: Callable[..., dict[str, float]], fp32_model: Path, tmp_path: Path, expected: Expected, subtype: str, container: str
) -> None:
    sound = np.random.default_rng(0).uniform(-0.5, 0.5, (4000, 3))  # three channels, whose mean is heard
    wave = tmp_path / "clip.wav"
    soundfile.write(wave, sound, 16_000, subtype=subtype, format=container)
    assert scores(fp32_model, wave) == pytest.approx(expected(fp32_model, wave), rel=0, abs=NATIVE)


def test_weights_beside_the_model_are_found(
    scores: Callable[..., dict[str, float]], node: Node, fp32_model: Path, waves: list[Path], tmp_path: Path
) -> None:
    model = host_models.with_weights_beside(fp32_model, tmp_path)
    assert scores(model, waves[0]) == pytest.approx(scores(fp32_model, waves[0]), abs=NATIVE)
    model.with_suffix(".data").unlink()
    assert_refused(node("classify.mjs", model, waves[0]), r"weights in model\.data, which is not beside it", 2)


@pytest.mark.parametrize("name", [*host_models.CHANGED, *host_models.BYTES])
def test_bad_model(node: Node, fp32_model: Path, waves: list[Path], tmp_path: Path, name: str) -> None:
    model, says = host_models.make(fp32_model, name, tmp_path)
    assert_refused(node("classify.mjs", model, waves[0]), says, 2)


@pytest.mark.parametrize("name", host_waves.BAD)
def test_bad_wave(node: Node, int8_model: Path, tmp_path: Path, name: str) -> None:
    content, says = host_waves.BAD[name]
    wave = tmp_path / "bad.wav"
    wave.write_bytes(content())
    assert_refused(node("classify.mjs", int8_model, wave), says, 1)


def test_files_that_are_not_there(node: Node, int8_model: Path, waves: list[Path], tmp_path: Path) -> None:
    assert_refused(node("classify.mjs", tmp_path / "gone.onnx", waves[0]), r"gone\.onnx", 2)
    assert_refused(node("classify.mjs", tmp_path, waves[0]), "directory", 2)
    assert_refused(node("classify.mjs", int8_model, tmp_path / "gone.wav"), r"gone\.wav", 1)


@pytest.mark.parametrize("arguments", [(), ("model",), ("model", "wave", "0"), ("model", "wave", "-1"), ("model", "wave", "many")])
def test_usage(node: Node, arguments: tuple[str, ...]) -> None:
    assert_refused(node("classify.mjs", *arguments), "usage: node classify.mjs MODEL WAV", 2)


CALL = """
import { readFileSync } from 'node:fs'
import ort from 'onnxruntime-node'
import { Classifier, StapesError } from './stapes.mjs'
const bytes = readFileSync(process.argv[1])
const file = { size: bytes.length, read: (begin, end) => bytes.subarray(begin, end), has: () => false }
const classifier = await Classifier.open(ort, file, bytes)
try {
  await classifier.classify(SAMPLES, RATE)
} catch (error) {
  if (!(error instanceof StapesError)) throw error
  console.log(error.message)
}
console.log((await classifier.classify(new Float32Array(16000), 16000)).length)
"""


@pytest.mark.parametrize(
    ("samples", "rate", "says"),
    [
        ("new Float32Array(2 ** 31)", "16000", r"2147483648 samples, more than the 2147483647"),
        ("new Float32Array(16000).fill(NaN)", "16000", "sample 0 of the clip is NaN"),
        ("new Float32Array(16000).fill(-Infinity)", "16000", "sample 0 of the clip is -Infinity"),
        ("new Float32Array(0)", "16000", "0 samples .* 1040"),
        ("new Float32Array(1039)", "16000", "1039 samples .* 1040"),
        ("new Float32Array(16000)", "44100", "44100 Hz .* 16000 Hz"),
        ("new Float32Array(16000)", "undefined", "undefined Hz .* 16000 Hz"),
        ("new Int16Array(16000)", "16000", "Float32Array"),
        ("'sound'", "16000", "Float32Array"),
    ],
)
def test_the_module_refuses_what_no_model_can_hear_and_goes_on(node: Node, int8_model: Path, samples: str, rate: str, says: str) -> None:
    done = node("--input-type=module", "-e", CALL.replace("SAMPLES", samples).replace("RATE", rate), int8_model)
    assert (done.returncode, done.stderr) == (0, "")
    message, labels = done.stdout.splitlines()
    assert re.search(says, message)
    assert labels == "12"
