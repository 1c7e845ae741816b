"""The page in headless Chromium: a file, the microphone, and what may go wrong."""

import json
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import javascript
import numpy as np
import pytest
import soundfile
from hosts.conftest import WASM, Expected
from hosts.test_node import BAD_MODELS
from tiny_models import tiny, write

from stapes.bundle import read_manifest


@contextmanager
def served(model: Path) -> Iterator[str]:
    """The page's address."""
    (node,) = javascript.need("node")
    server = subprocess.Popen([node, javascript.FOLDER / "serve.mjs", model, "0"], stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        yield server.stdout.readline().strip()
    finally:
        server.terminate()
        server.communicate(timeout=30)


def page(model: Path, **job: Any) -> dict[str, Any]:
    """What the page shows in the end."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("the page needs Chromium")
    with served(model) as address:
        told = json.dumps({name: str(value) if isinstance(value, Path) else value for name, value in job.items()})
        done = javascript.node(Path(__file__).parent / "browse.mjs", javascript.FOLDER, chromium, address, told)
    assert done.returncode == 0, done.stderr
    shown = json.loads(done.stdout)
    assert shown["errors"] == []
    return shown


def test_the_scores_of_the_fp32_model_are_pythons(fp32_model: Path, waves: list[Path], expected: Expected):
    shown = page(fp32_model, file=waves[0])
    wanted = expected(fp32_model, waves[0])
    assert "error" not in shown
    assert [label for label, _ in shown["labels"]] == list(wanted)[:5]
    assert max(abs(score - wanted[label]) for label, score in shown["labels"]) <= WASM
    assert shown["lit"] > 50  # the spectrogram is there


def test_the_embedded_model_answers_within_its_tolerance(
    int8_model: Path, waves: list[Path], expected: Expected, pytestconfig: pytest.Config
):
    golden = read_manifest(int8_model).golden
    assert golden is not None
    shown = page(int8_model, file=waves[-1], screenshot=pytestconfig.getoption("--screenshot"))
    wanted = expected(int8_model, waves[-1])
    assert shown["labels"][0][0] == next(iter(wanted))
    assert max(abs(score - wanted[label]) for label, score in shown["labels"]) <= golden.tolerance


def test_the_microphone_is_heard(int8_model: Path, waves: list[Path], tmp_path: Path):
    samples, rate = soundfile.read(waves[0], dtype="int16")
    whole = np.zeros(2 * rate, np.int16)  # the word and a pause, again and again
    whole[: len(samples)] = samples
    soundfile.write(tmp_path / "again.wav", whole, rate, subtype="PCM_16")
    shown = page(int8_model, microphone=tmp_path / "again.wav", label=waves[0].stem)
    assert "error" not in shown
    assert shown["labels"][0][0] == waves[0].stem
    assert shown["lit"] > 50


@pytest.mark.parametrize("kind", sorted(set(BAD_MODELS) - {"no file"}))
def test_a_model_that_cannot_run_is_one_sentence(kind: str, tmp_path: Path):
    make, sentence = BAD_MODELS[kind]
    make(tmp_path / "bad.onnx")
    shown = page(tmp_path / "bad.onnx")
    assert sentence in shown["error"]
    assert shown["labels"] == []


def test_a_file_without_an_answer_is_one_sentence(tmp_path: Path):
    model = write(tmp_path / "tiny.onnx", tiny())
    soundfile.write(tmp_path / "short.wav", np.zeros(399), 16000, subtype="PCM_16")
    (tmp_path / "text.wav").write_text("no sound")
    assert "399 samples and the model needs 400" in page(model, file=tmp_path / "short.wav")["error"]
    assert "text.wav is no sound that this browser can decode" in page(model, file=tmp_path / "text.wav")["error"]


def test_the_server_gives_the_page_and_nothing_else(int8_model: Path, tmp_path: Path):
    from urllib.error import HTTPError
    from urllib.request import urlopen

    with served(int8_model) as address:
        assert urlopen(f"{address}model.onnx").read() == int8_model.read_bytes()
        assert urlopen(address).headers["Content-Type"] == "text/html"
        for path in ("../c/stapes.h", "%2e%2e/c/stapes.h", "%00", "none"):
            with pytest.raises(HTTPError, match="404"):
                urlopen(address + path)
    done = javascript.node(javascript.FOLDER / "serve.mjs", tmp_path / "none.onnx")
    assert (done.returncode, done.stdout) == (2, "")
    assert "there is no model" in done.stderr
