"""examples/hosts/browser in Chromium without a screen: the same scores as Python, from a file and from the microphone, and its errors."""

import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path

import devtools
import host_models
import host_waves
import numpy as np
import pytest
import soundfile
from hosts.conftest import WASM, Expected

import stapes
from stapes.audio import Clip
from stapes.bundle import read_manifest

CERTAIN = "(text) => !text.startsWith('_') && parseFloat(text.split(/\\s+/)[1]) > 95"
"""Of a row of the list: a word, and hardly anything else."""

RECORD = "window.heard = []; document.addEventListener('heard', ({detail}) => heard.push(detail))"


@dataclass(frozen=True)
class Site:
    """The example served: `url` is its page's."""

    url: str
    model: Path


@pytest.fixture(scope="module")
def folder(root: Path) -> Path:
    folder = root / "examples" / "hosts" / "browser"
    if shutil.which("node") is None:
        pytest.skip("node is not installed")
    if devtools.program() is None:
        pytest.skip("no Chromium is installed")
    if not (folder / "node_modules").is_dir():
        pytest.skip("no onnxruntime-web: run npm install in examples/hosts/browser")
    return folder


@pytest.fixture(scope="module", params=["fp32", "int8"])
def site(request: pytest.FixtureRequest, folder: Path, fp32_model: Path, int8_model: Path) -> Iterator[Site]:
    model = {"fp32": fp32_model, "int8": int8_model}[request.param]
    with served(folder, model) as url:
        yield Site(url, model)


@contextmanager
def served(folder: Path, model: Path) -> Iterator[str]:
    """The address of the example's page, with that model beside it."""
    with subprocess.Popen(["node", "serve.mjs", str(model), "0"], cwd=folder, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout
            yield server.stdout.readline().strip()
        finally:
            server.terminate()


@pytest.fixture(scope="module")
def page(site: Site, tmp_path_factory: pytest.TempPathFactory) -> Iterator[devtools.Page]:
    with devtools.browser(tmp_path_factory.mktemp("chromium") / "profile") as page:
        opened(page, site)
        yield page


def opened(page: devtools.Page, site: Site) -> None:
    page.send("Page.navigate", url=site.url)
    page.wait("document.readyState === 'complete' && document.querySelector('#status').textContent === 'Ready'")
    page.evaluate(RECORD)


def heard(page: devtools.Page, source: str) -> tuple[dict[str, float], np.ndarray]:
    """The next thing heard: label: score, best first, and the samples that the page gave to the model."""
    detail = page.wait(
        "heard.length && (({source, samples, predictions}) => ({source, samples: [...samples], predictions}))(heard.shift())"
    )
    assert detail["source"] == source
    return {found["label"]: found["score"] for found in detail["predictions"]}, np.array(detail["samples"], np.float32)


def tolerance(model: Path) -> float:
    """Of a score: WebAssembly's for fp32, the file's own for int8."""
    manifest = read_manifest(model)
    assert manifest.golden
    return WASM if manifest.provenance.precision == "fp32" else manifest.golden.tolerance


def assert_pythons(found: dict[str, float], expected: dict[str, float], model: Path) -> None:
    """The same top label, and the same scores within the tolerance."""
    assert next(iter(found)) == next(iter(expected))
    assert list(found.values()) == sorted(found.values(), reverse=True)
    assert found == pytest.approx(expected, rel=0, abs=tolerance(model))


def test_a_chosen_file_has_pythons_scores(page: devtools.Page, site: Site, waves: list[Path], expected: Expected) -> None:
    for wave in waves:
        page.choose("#clip-file", wave)
        found, samples = heard(page, "file")
        # the browser's 16-bit samples are Python's but for their last bit: it divides by 32767 above zero
        assert samples == pytest.approx(soundfile.read(wave, dtype="float32")[0], abs=2**-15)
        assert_pythons(found, expected(site.model, wave), site.model)


def test_a_dropped_file_is_heard_and_its_labels_are_shown(page: devtools.Page, site: Site, waves: list[Path], expected: Expected) -> None:
    page.drop("#drop", waves[-1])
    found, _ = heard(page, "file")
    assert_pythons(found, expected(site.model, waves[-1]), site.model)
    shown = page.evaluate("[...document.querySelectorAll('#labels li')].map((row) => row.innerText.split(/\\s*\\n\\s*/))")
    assert shown == [[label, f"{100 * score:.1f} %"] for label, score in list(found.items())[:6]]
    best = next(iter(found))
    assert page.evaluate("document.querySelector('#status').textContent") == f"Heard {best}, {100 * found[best]:.1f} %"
    assert best in ("yes", "_unknown_", waves[-1].stem)


def test_the_spectrogram_shows_a_tone_at_its_frequency(page: devtools.Page, tmp_path: Path) -> None:
    wave, hz = tmp_path / "tone.wav", 2000
    soundfile.write(wave, 0.5 * np.sin(2 * np.pi * hz * np.arange(16_000) / 16_000), 16_000)
    page.choose("#clip-file", wave)
    heard(page, "file")
    # the brightest row, from 0 at the bottom to 1 at the top, in the middle of the picture
    height = page.evaluate(
        "(({width, height}, pen) => { const column = pen.getImageData(width >> 1, 0, 1, height).data;"
        "const light = Array.from({length: height}, (_, y) => column[4 * y] + column[4 * y + 1] + column[4 * y + 2]);"
        "return 1 - (light.indexOf(Math.max(...light)) + 0.5) / height })"
        "(document.querySelector('#spectrogram'), document.querySelector('#spectrogram').getContext('2d'))"
    )
    mel = np.log10(1 + hz / 700) / np.log10(1 + 8000 / 700)
    assert height == pytest.approx(mel, abs=2 / 128)  # rows


@pytest.mark.parametrize("rate", [8000, 44_100, 48_000])
def test_a_file_of_another_rate_is_resampled(page: devtools.Page, waves: list[Path], tmp_path: Path, rate: int) -> None:
    samples, model_rate = soundfile.read(waves[-1], dtype="float32")
    wave = tmp_path / "clip.wav"
    soundfile.write(wave, np.interp(np.arange(0, len(samples), model_rate / rate), np.arange(len(samples)), samples), rate)
    page.choose("#clip-file", wave)
    found, heard_samples = heard(page, "file")
    assert len(heard_samples) == pytest.approx(len(samples), abs=2)
    assert next(iter(found)) == waves[-1].stem


def test_the_microphone_is_heard_live(site: Site, waves: list[Path], tmp_path: Path, root: Path, request: pytest.FixtureRequest) -> None:
    speech = tmp_path / "speech.wav"
    long, rate = soundfile.read(root / "examples" / "long" / "commands.flac", dtype="float32")
    soundfile.write(speech, long, rate)
    flags = ["--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream", f"--use-file-for-fake-audio-capture={speech}"]
    classifier = stapes.load(site.model, device="cpu")
    with devtools.browser(tmp_path / "profile", *flags) as page:
        page.show(1280, 720, "light")
        opened(page, site)
        page.click("#listen")
        words: set[str] = set()
        answers = 0
        while answers < 20 or not words:
            answers += 1
            assert answers < 200, "no word in all that was heard"
            found, samples = heard(page, "microphone")
            assert len(samples) == classifier.manifest.rate  # the last second
            python = {each.label: each.score for each in classifier(Clip(samples, classifier.manifest.rate), top_k=None)}
            # a window in the middle of a word may stand between two labels
            assert found == pytest.approx(python, rel=0, abs=tolerance(site.model))
            assert python[next(iter(found))] >= max(python.values()) - 2 * tolerance(site.model)
            words |= set(list(found)[:1]) - {"_silence_", "_unknown_"}
        assert page.evaluate("document.querySelector('#listen').getAttribute('aria-pressed')") == "true"
        if picture := request.config.getoption("--picture"):
            page.wait("document.querySelectorAll('#words span').length > 3")
            page.wait(f"({CERTAIN})(document.querySelector('#labels li').innerText)")
            picture.write_bytes(page.picture())
        page.click("#listen")
        page.wait("document.querySelector('#status').textContent === 'Ready'")
        page.evaluate("new Promise((done) => setTimeout(done, 500)).then(() => { heard.length = 0 })")
        page.evaluate("new Promise((done) => setTimeout(done, 1000))")
        assert page.evaluate("heard.length") == 0


def test_a_refused_microphone_is_a_sentence(page: devtools.Page) -> None:
    page.click("#listen")
    assert_refused(page, "microphone")


def assert_refused(page: devtools.Page, says: str) -> None:
    """One sentence on the page."""
    text = page.wait("!document.querySelector('#error').hidden && document.querySelector('#error').textContent")
    assert re.fullmatch(r"[^\n]+\.", text), text
    assert re.search(says, text, re.IGNORECASE), text
    assert "without a known reason" not in text


def assert_still_works(page: devtools.Page, wave: Path) -> None:
    page.evaluate("heard.length = 0")
    page.choose("#clip-file", wave)
    heard(page, "file")
    assert page.evaluate("document.querySelector('#error').hidden")


PLAYABLE = (
    "another rate",
    "truncated",
    "more than there is",
    "an endless format chunk",
    "65535 channels",
    "a format chunk cut short",
    "bits that do not exist",
)
"""Bad for a host that reads the file itself; the browser resamples, and takes what it can of a damaged one, or refuses it."""


@pytest.mark.parametrize("name", [name for name in host_waves.BAD if name not in PLAYABLE])
def test_bad_clip(page: devtools.Page, waves: list[Path], tmp_path: Path, name: str) -> None:
    content, says = host_waves.BAD[name]
    wave = tmp_path / "bad.wav"
    wave.write_bytes(content())
    page.choose("#clip-file", wave)
    assert_refused(page, f"{says}|holds no sound that this browser can decode")
    assert_still_works(page, waves[0])


@pytest.mark.parametrize("name", PLAYABLE[1:])
def test_a_damaged_clip_is_heard_or_refused(page: devtools.Page, waves: list[Path], tmp_path: Path, name: str) -> None:
    wave = tmp_path / "bad.wav"
    wave.write_bytes(host_waves.BAD[name][0]())
    page.evaluate("heard.length = 0")
    page.choose("#clip-file", wave)
    page.wait("heard.length || !document.querySelector('#error').hidden")
    assert_still_works(page, waves[0])


def test_clips_too_long_for_a_page(page: devtools.Page, waves: list[Path], tmp_path: Path) -> None:
    wave = tmp_path / "long.wav"
    wave.write_bytes(host_waves.wave(bytes(2 * 16_000 * 61)))
    page.choose("#clip-file", wave)
    assert_refused(page, r"long\.wav. lasts 61 s and this page takes 60 s")
    with wave.open("wb") as file:  # 2^31 samples of 16 bits, of which none is on the disk
        file.write(host_waves.wave(b"", says=2**32 - 1))
        file.truncate(2**32 + 44)
    page.choose("#clip-file", wave)
    assert_refused(page, r"long\.wav. has 4295 MB, more than")
    assert_still_works(page, waves[0])


@pytest.mark.parametrize("name", [*host_models.CHANGED, *host_models.BYTES])
def test_bad_model(page: devtools.Page, site: Site, waves: list[Path], tmp_path: Path, name: str) -> None:
    model, says = host_models.make(site.model, name, tmp_path)
    page.choose("#model-file", model)
    if name == "fewer labels":  # a run shows it
        page.wait("document.querySelector('#model').textContent.includes('· 2 labels')")
        page.choose("#clip-file", waves[0])
    assert_refused(page, says)
    page.choose("#model-file", site.model)
    page.wait("document.querySelector('#model').textContent.includes('· 12 labels') && document.querySelector('#error').hidden")
    assert_still_works(page, waves[0])


def test_weights_beside_the_model_are_chosen_with_it(
    page: devtools.Page, site: Site, waves: list[Path], tmp_path: Path, expected: Expected
) -> None:
    model = host_models.with_weights_beside(site.model, tmp_path)
    page.choose("#model-file", model, model.with_suffix(".data"))
    page.wait("document.querySelector('#status').textContent === 'Ready'")
    page.evaluate("heard.length = 0")
    page.choose("#clip-file", waves[0])
    assert_pythons(heard(page, "file")[0], expected(site.model, waves[0]), site.model)


def test_nothing_is_asked_of_another_host(page: devtools.Page, site: Site) -> None:
    names = page.evaluate("performance.getEntriesByType('resource').map(({name}) => name)")
    assert names
    assert all(name.startswith(site.url) for name in names)


def test_a_page_without_a_model_says_so_and_takes_one(folder: Path, int8_model: Path, waves: list[Path], tmp_path: Path) -> None:
    model = tmp_path / "model.onnx"
    model.write_bytes(int8_model.read_bytes())
    with served(folder, model) as url, devtools.browser(tmp_path / "profile") as page:
        model.unlink()
        page.send("Page.navigate", url=url)
        page.wait("document.readyState === 'complete' && !document.querySelector('#error')?.hidden")
        assert_refused(page, r"no model\.onnx beside this page")
        page.choose("#model-file", int8_model)
        page.wait("document.querySelector('#status').textContent === 'Ready'")
        page.evaluate(RECORD)
        assert_still_works(page, waves[0])


PRIVATE = (
    "/../node/classify.mjs",
    "/..%2fnode%2fclassify.mjs",
    "/ort/../package.json",
    "/node_modules/onnxruntime-web/package.json",
    "/package.json",
    "/.npmrc",
    "/ort/",
    "//",
    "/%ff",
)


@pytest.mark.parametrize("path", PRIVATE)
def test_the_server_gives_nothing_but_the_page(site: Site, path: str) -> None:
    assert status(site, path) == 404
    assert status(site, "/stapes.mjs?again") == 200


def status(site: Site, path: str) -> int:
    """Of the answer to a request of that path, letter for letter."""
    connection = HTTPConnection("127.0.0.1", int(site.url.rstrip("/").rpartition(":")[2]), timeout=60)
    try:
        connection.putrequest("GET", path, skip_host=False)
        connection.endheaders()
        return connection.getresponse().status
    finally:
        connection.close()


@pytest.mark.parametrize(
    ("model", "port", "says"),
    [
        ("gone.onnx", "0", r"no model at .*gone\.onnx: name one"),
        ("", "eighty", "eighty is no port: .*"),
        ("", "70000", "70000 is no port: .*"),
    ],
)
def test_the_server_says_what_is_wrong(folder: Path, tmp_path: Path, model: str, port: str, says: str) -> None:
    done = subprocess.run(["node", "serve.mjs", tmp_path / model, port], cwd=folder, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (2, "")
    assert re.fullmatch(rf"serve: {says}\n", done.stderr), done.stderr
