"""A graph that takes clips at another rate: what its resampler does to tones, and to the answers."""

import json
from pathlib import Path

import int8_here
import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
import soundfile
import soxr
from transformers import AutoFeatureExtractor, AutoModelForAudioClassification

import stapes
from stapes.audio import Clip
from stapes.bundle import golden_signal, read_manifest
from stapes.cli import main
from stapes.errors import ExportError
from stapes.frontend.steps import LARGEST_KERNEL, Resample
from stapes.predictions import activate
from stapes_export.build import export
from stapes_export.emitter import Emitter
from stapes_export.lower import Rows, lower
from stapes_export.recipes import RECIPES

RNG = np.random.default_rng(0)
RATES = [8000, 44100, 48000]
OWN = 16000
EDGE = 4000  # samples at the ends of a tone that a filter hears together with the silence around it

ALIAS_DB, FLAT_DB, FLAT_TO = -100.0, 0.05, 0.85
"""What is promised: of a frequency that the lower rate cannot hold; in the band, to that part of it."""

SOXR_DB = {8000: -100.0, 44100: -70.0, 48000: -100.0}
"""Largest difference from soxr HQ below FLAT_TO of the band. At 44100 Hz it is soxr that is off: by -75.7 dB from the true samples of a
sum of sines, where this filter is off by -120 (measured here, soxr 1.1)."""


def resampler(rate: int):
    """The lowered step on ONNX Runtime, float32: what stands in the graph."""
    emit = Emitter("test")
    x = ir.Value(name="x", shape=ir.Shape(["batch", "samples"]), type=ir.TensorType(ir.DataType.FLOAT))
    lengths = ir.Value(name="lengths", shape=ir.Shape(["batch"]), type=ir.TensorType(ir.DataType.INT64))
    rows = lower([Resample(rate, OWN)], emit, Rows(x, lengths))
    y = rows.values
    y.name, y.type = "y", ir.TensorType(ir.DataType.FLOAT)
    graph = ir.Graph([x, lengths], [y], nodes=emit.nodes, opset_imports={"": 20}, name="resampler")
    emit.register(graph)
    session = onnxruntime.InferenceSession(ir.to_proto(ir.Model(graph, ir_version=10)).SerializeToString())

    def run(samples: np.ndarray) -> np.ndarray:
        return session.run(None, {"x": samples[None].astype(np.float32), "lengths": np.array([len(samples)])})[0][0].astype(float)

    return run


@pytest.fixture(scope="module", params=RATES)
def rate(request: pytest.FixtureRequest) -> int:
    return request.param


def decibels(x: np.ndarray) -> float:
    """Of the largest sample, the ends left out."""
    return 20 * np.log10(np.abs(x[EDGE:-EDGE]).max() + 1e-12)


def tone(hz: float, rate: int) -> np.ndarray:
    """A second of it."""
    return np.sin(2 * np.pi * hz * np.arange(rate) / rate + 0.3)


def split(y: np.ndarray, hz: float) -> tuple[float, float]:
    """Gain in dB of a tone in what became of it, and all that is left beside it in dB of the tone."""
    y, n = y[EDGE:-EDGE], np.arange(EDGE, len(y) - EDGE)
    waves = np.stack([np.sin(2 * np.pi * hz * n / OWN), np.cos(2 * np.pi * hz * n / OWN)], axis=1)
    weights = np.linalg.lstsq(waves, y)[0]
    return 20 * np.log10(np.hypot(*weights)), 20 * np.log10(np.abs(y - waves @ weights).max() + 1e-12)


def test_tones_in_the_band_keep_their_level_and_bring_no_others(rate: int):
    resample = resampler(rate)
    for hz in np.linspace(20, FLAT_TO * min(rate, OWN) / 2, 40):
        gain, rest = split(resample(tone(hz, rate)), hz)
        assert abs(gain) <= FLAT_DB, hz
        assert rest <= ALIAS_DB, hz  # images of the lower rate's band where rates rise, rounding where they fall
        assert abs(gain - split(soxr.resample(tone(hz, rate), rate, OWN), hz)[0]) <= FLAT_DB, hz


def test_tones_above_the_band_are_gone():
    for rate in (44100, 48000):
        resample = resampler(rate)
        for hz in np.concatenate([np.linspace(8001, 9000, 40), np.linspace(9000, rate / 2 - 1, 40)]):
            assert decibels(resample(tone(hz, rate))) <= ALIAS_DB, hz


def test_a_sweep_through_all_the_band_is_gone_where_it_cannot_be_heard():
    for rate in (44100, 48000):
        t = np.arange(rate) / rate
        above = np.sin(2 * np.pi * (8100 * t + (rate / 2 - 8100) * t * t / 2))  # from 8100 Hz to half the rate, every frequency between
        assert decibels(resampler(rate)(above)) <= ALIAS_DB
        assert decibels(soxr.resample(above, rate, OWN)) <= ALIAS_DB  # as soxr's own


def test_samples_are_those_of_the_same_sound_at_the_other_rate(rate: int):
    """A sum of sines is known at every rate: gain, delay and length at once."""
    hz, phase, level = RNG.uniform(20, FLAT_TO * min(rate, OWN) / 2, 50), RNG.uniform(0, 2 * np.pi, 50), RNG.standard_normal(50) / 50

    def sound(at: int) -> np.ndarray:
        return np.sin(2 * np.pi * np.outer(np.arange(at) / at, hz) + phase) @ level

    got = resampler(rate)(sound(rate))
    assert got.shape == (OWN,)
    assert decibels(got - sound(OWN)) <= ALIAS_DB
    assert decibels(got - soxr.resample(sound(rate), rate, OWN)) <= SOXR_DB[rate]


# Answers

SAME_FILTER = 1e-4  # fp32's budget against torch: rounding alone
OTHER_FILTER = 2e-2  # of max(1, largest logit): soxr's falls otherwise above 0.91 of the band; measured 8.5e-3 at 8000 Hz, 1.2e-3 beyond
OTHER_FILTER_SCORES = 1e-2  # measured 5e-3 at 8000 Hz, 1.1e-4 beyond


@pytest.fixture(scope="module")
def at_rate(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory):
    """at_rate(8000) -> the trained checkpoint in fp32 for clips at that rate; at_rate(None) -> for its own."""
    done: dict[int | None, Path] = {}

    def of(rate: int | None) -> Path:
        if rate not in done:
            done[rate] = tmp_path_factory.mktemp("at_rate") / "m.onnx"
            export(str(checkpoint), done[rate], input_rate=rate)
        return done[rate]

    return of


@pytest.fixture(scope="module")
def clips(root: Path) -> list[np.ndarray]:
    """The example clips at 16 kHz, and the golden signal."""
    files = sorted((root / "examples").glob("*.flac"))
    assert files
    return [*(soundfile.read(file, dtype="float32")[0] for file in files), golden_signal(1.0, OWN)]


def test_answers_are_the_plain_models_on_the_clip_that_soxr_made(rate: int, at_rate, clips: list[np.ndarray]):
    plain, heard = (stapes.load(at_rate(which), device="cpu") for which in (None, rate))
    assert heard.manifest.rate == heard.manifest.frontend.rate == rate
    for clip in clips:
        sent = soxr.resample(clip, OWN, rate)
        want = plain.logits([Clip(soxr.resample(sent, rate, OWN), OWN)])
        got = heard.logits([Clip(sent, rate)])
        assert np.abs(got - want).max() <= OTHER_FILTER * max(1, np.abs(want).max())
        assert np.abs(activate(got, "softmax") - activate(want, "softmax")).max() <= OTHER_FILTER_SCORES
        assert got.argmax() == want.argmax()


@pytest.mark.parametrize("rate", [44100, 48000])
def test_the_runtime_brings_any_clip_to_the_models_rate(rate: int, at_rate, root: Path):
    plain, heard = (stapes.load(at_rate(which), device="cpu") for which in (None, rate))
    for clip in sorted((root / "examples").glob("*.flac")):
        (want,), (got,) = plain(clip, top_k=1), heard(clip, top_k=1)  # up by soxr and down again by the graph
        assert got.label == want.label
        assert abs(got.score - want.score) <= OTHER_FILTER_SCORES


@pytest.mark.parametrize(
    ("model_type", "extractor"),
    [("wav2vec2", {}), ("wav2vec2", {"do_normalize": False}), ("audio-spectrogram-transformer", {}), ("whisper", {})],
    ids=["wav2vec2", "wav2vec2-plain", "ast", "whisper"],
)
@pytest.mark.parametrize("precision", ["fp32", int8_here.INT8])
def test_answers_are_torchs_and_rows_stay_apart(precision: str, model_type: str, extractor: dict, made, tmp_path: Path):
    """In every kind of frontend, one of them none at all: there the resampler's own output is what the model reads."""
    rate, folder = 44100, tmp_path / "checkpoint"
    folder.mkdir()
    for file in made(model_type).iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    config = json.loads((folder / "preprocessor_config.json").read_text()) | extractor
    (folder / "preprocessor_config.json").write_text(json.dumps(config))
    path = tmp_path / "m.onnx"
    export(str(folder), path, precision, input_rate=rate)
    recipe, frontend = RECIPES[precision], read_manifest(path).frontend
    shortest = frontend.min_samples
    rows = [(0.1 * RNG.standard_normal(n)).astype(np.float32) for n in (shortest, shortest + 1, 31000, 44444)]

    original = AutoModelForAudioClassification.from_pretrained(folder).eval()
    extract = AutoFeatureExtractor.from_pretrained(folder)
    at_own = [frontend.steps[0](row.astype(np.float64)).astype(np.float32) for row in rows]
    want = [original(**extract(row, sampling_rate=OWN, return_tensors="pt")).logits.detach().numpy()[0] for row in at_own]
    session = onnxruntime.InferenceSession(path)
    alone = [session.run(["logits"], {"waveform": row[None], "lengths": np.array([len(row)])})[0][0] for row in rows]
    for a, b in zip(want, alone, strict=True):
        assert np.abs(a - b).max() <= recipe.max_difference * max(1, np.abs(a).max())
    assert np.std(want, axis=0).max() > 0.01, "the logits must differ between the clips, or equality proves nothing"
    for garbage in (0.0, 1e4, np.nan, np.inf):
        waveform = np.full((len(rows), 50000), garbage, np.float32)
        for into, row in zip(waveform, rows, strict=True):
            into[: len(row)] = row
        together = session.run(["logits"], {"waveform": waveform, "lengths": np.array([len(row) for row in rows])})[0]
        for a, b in zip(alone, together, strict=True):
            assert np.abs(a - b).max() <= recipe.batch_difference * max(1, np.abs(a).max()), garbage
    waveform = np.zeros((2, shortest), np.float32)
    waveform[0] = rows[0]
    short = session.run(["logits"], {"waveform": waveform, "lengths": np.array([10**9, shortest - 1])})[0]
    np.testing.assert_allclose(short[0], alone[0], atol=recipe.batch_difference * max(1, np.abs(alone[0]).max()))
    assert np.isnan(short[1]).all()
    for lengths, samples in ([-5, 9000], [0, 9000], [9000, shortest - 1], [0, 0]):
        logits = session.run(["logits"], {"waveform": rows[3][None, :samples], "lengths": np.array([lengths])})[0]
        assert np.isnan(logits).all()


def test_a_frontend_that_cuts_says_how_much_it_reads_at_the_other_rate(made, tmp_path: Path):
    path = tmp_path / "m.onnx"
    export(str(made("audio-spectrogram-transformer")), path, input_rate=48000)
    frontend = read_manifest(path).frontend
    longest, (resample, frames, *_) = frontend.max_samples, frontend.steps
    assert longest is not None
    assert [frames.length(resample.length(n)) for n in (longest, longest + 1)] == [60, 61]


def test_the_resampler_keeps_its_floats(checkpoint: Path, tmp_path: Path):
    for precision in ("fp32", "fp16", "int8-portable"):
        path = tmp_path / f"{precision}.onnx"
        export(str(checkpoint), path, precision, input_rate=48000)
        model = onnx.load(path)
        onnx.checker.check_model(model, full_check=True)
        (kernel,) = (entry for entry in model.graph.initializer if tuple(entry.dims) == Resample(48000, OWN).kernel.shape)
        (product,) = (node for node in model.graph.node if kernel.name in node.input)
        assert kernel.data_type == onnx.TensorProto.FLOAT
        assert product.op_type == "MatMul"
        assert {entry.value for entry in product.metadata_props} == {"frontend"}
        assert {node.domain for node in model.graph.node} == {""}


def test_the_file_says_at_which_rate_it_listens(rate: int, at_rate, root: Path, capsys: pytest.CaptureFixture[str]):
    path = at_rate(rate)
    manifest = read_manifest(path)
    assert {entry.key: entry.value for entry in onnx.load(path).metadata_props}["sampling_rate"] == str(rate)
    assert manifest.provenance.options["input_rate"] == str(rate)
    assert manifest.parity is not None
    assert manifest.parity.max_difference <= SAME_FILTER
    assert manifest.frontend.length(manifest.frontend.min_samples) >= read_manifest(at_rate(None)).frontend.min_samples
    assert manifest.frontend.length(manifest.frontend.min_samples - 1) < read_manifest(at_rate(None)).frontend.min_samples
    assert main(["info", str(path)]) == 0
    said = capsys.readouterr().out
    assert f"{rate} Hz, {manifest.frontend.min_samples} samples at least; the graph resamples them to 16000 Hz" in said
    assert f"input_rate={rate}" in said
    assert main(["verify", str(path)]) == 0
    assert main(["classify", str(root / "examples" / "yes.flac"), "-m", str(path), "--top-k", "1"]) == 0
    assert "yes" in capsys.readouterr().out.splitlines()[-1]


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        (16000, "takes 16000 Hz without resampling; leave --input-rate out"),
        (0, "from 100 to 1000000, not 0"),
        (10**7, "from 100 to 1000000, not 10000000"),
        (44101, rf"from 44101 to 16000 Hz, as 44101 : 16000, takes \d+ coefficients, more than {LARGEST_KERNEL}; name a usual"),
    ],
)
def test_a_rate_that_serves_no_one_is_refused(asked: int, says: str, checkpoint: Path, tmp_path: Path):
    with pytest.raises(ExportError, match=says):
        export(str(checkpoint), tmp_path / "m.onnx", input_rate=asked)
    assert not list(tmp_path.iterdir())


def test_the_hubs_layout_has_no_place_for_it(checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["export", str(checkpoint), "-o", str(tmp_path / "hub"), "--layout", "hub", "--input-rate", "8000"]) == 2
    assert "leave --input-rate out" in capsys.readouterr().err
