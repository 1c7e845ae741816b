"""The steps obey their laws, the extractors equal the recorded features of the originals, and both survive JSON."""

import json
from pathlib import Path

import numpy as np
import pytest
import soxr

from stapes.errors import ModelError
from stapes.frontend import Frontend, constants, huggingface
from stapes.frontend import steps as step

AST = {"feature_extractor_type": "ASTFeatureExtractor"}
WAV2VEC2 = {"feature_extractor_type": "Wav2Vec2FeatureExtractor"}
RNG = np.random.default_rng(0)


def test_normalized_clip_has_mean_zero_and_variance_one():
    y = step.ZeroMeanUnitVariance(1e-7)(3 + 0.1 * RNG.standard_normal(5000))
    assert abs(y.mean()) < 1e-12
    assert abs(y.var() - 1) < 1e-4  # epsilon against a variance of 0.01


def test_silence_normalizes_to_silence():
    assert not step.ZeroMeanUnitVariance(1e-7)(np.zeros(100)).any()


RATES = (8000, 11025, 22050, 24000, 32000, 44100, 48000, 96000, 192000)
RESAMPLED = [*((rate, 16000) for rate in RATES), (16000, 44100)]


@pytest.mark.parametrize(("before", "after"), RESAMPLED)
def test_a_resampled_clip_has_as_many_samples_as_soxrs(before: int, after: int):
    resample = step.Resample(before, after)
    for n in [*range(1, 200), before - 1, before, before + 1]:
        x = RNG.standard_normal(n)
        assert len(resample(x)) == resample.length(n) == len(soxr.resample(x, before, after))


@pytest.mark.parametrize(("before", "after"), RESAMPLED)
def test_the_shortest_clip_for_some_outputs_is_the_shortest(before: int, after: int):
    resample = step.Resample(before, after)
    for outputs in [*range(1, 200), 400, 1040]:
        n = resample.shortest(outputs)
        assert resample.length(n) >= outputs
        assert n == 1 or resample.length(n - 1) < outputs


@pytest.mark.parametrize(("before", "after"), RESAMPLED)
def test_a_block_of_outputs_is_like_every_other(before: int, after: int):
    """A clip that comes whole blocks later gives the same samples, as much later."""
    resample = step.Resample(before, after)
    x = RNG.standard_normal(before // 10)
    later = resample(np.concatenate([np.zeros(20 * resample.stride), x]))
    np.testing.assert_allclose(later[20 * resample.block :][: len(resample(x)) - 1], resample(x)[:-1], atol=1e-12)


def test_rates_without_a_small_ratio_are_no_kernel_of_gigabytes():
    with pytest.raises(ModelError, match="from 44101 to 16000 Hz, as 44101 : 16000, takes 7"):
        Frontend(44101, 1, (step.Resample(44101, 16000),))(np.zeros(100))


@pytest.mark.parametrize(
    "steps",
    [
        [step.Resample(8000, 16000)],
        [step.Scale(2.0), step.Resample(44100, 16000)],
        [step.Resample(44100, 441000), step.Resample(441000, 1000000)],
    ],
)
def test_a_resampler_comes_first_and_from_the_clips_rate(steps: list[step.Step]):
    """Or a manifest could make any amount of a clip."""
    with pytest.raises(ModelError, match="a Resample is the first step and begins at 44100 Hz"):
        Frontend.from_dict(Frontend(44100, 1, tuple(steps)).to_dict())


@pytest.mark.parametrize("config", [AST, WAV2VEC2])
def test_a_frontend_hears_another_rate_and_survives_json(config: dict):
    own = huggingface.build(config)
    heard = own.heard_at(44100)
    assert Frontend.from_dict(json.loads(json.dumps(heard.to_dict()))) == heard
    x = RNG.standard_normal(30000)
    np.testing.assert_array_equal(heard(x), own(heard.steps[0](x)))


@pytest.mark.parametrize("n", [400, 401, 559, 560, 719, 720, 16000])
def test_frames_are_the_whole_windows_of_the_clip(n: int):
    x = np.arange(n, dtype=float)
    frames = step.Frames(400, 160)(x)
    assert len(frames) == step.Frames(400, 160).length(n)
    assert frames[-1][-1] <= n - 1 < frames[-1][-1] + 160
    assert all(np.array_equal(frame, x[160 * i :][:400]) for i, frame in enumerate(frames))


@pytest.mark.parametrize("n", [0, 1, 159, 240, 399])
def test_a_clip_shorter_than_a_frame_has_none(n: int):
    assert step.Frames(400, 160).length(n) == 0


def test_power_of_the_dft_keeps_the_energy():
    x = RNG.standard_normal((3, 400))
    power = step.Power()(step.RealDft(512)(x))
    both_sides = power.sum(axis=1) * 2 - power[:, 0] - power[:, -1]
    np.testing.assert_allclose(both_sides / 512, (x**2).sum(axis=1))  # Parseval


def test_linear_steps_are_linear():
    x, y = RNG.standard_normal((2, 5, 400))
    for linear in (step.PreEmphasis(0.97), step.Hann(), step.RealDft(512)):
        assert linear.linear
        np.testing.assert_allclose(linear(2 * x - 3 * y), 2 * linear(x) - 3 * linear(y), atol=1e-10)


def test_mel_filters_rise_and_fall_between_their_edges():
    bank = constants.mel_bank(257, 64, 16000, 20.0, 8000.0, "kaldi")
    assert bank.shape == (257, 64)
    assert bank.min() >= 0
    assert bank.max() <= 1
    peaks = bank.argmax(axis=0)
    assert (np.diff(peaks) >= 0).all()
    inside = bank[peaks[2] : peaks[-3]].sum(axis=1)
    np.testing.assert_allclose(inside, 1)  # neighbours cross-fade: what one loses the next gains


def test_folding_changes_the_shape_of_the_work_and_not_its_value():
    steps = huggingface.build(AST).steps
    folded = step.fold(steps)
    assert [type(s).__name__ for s in folded] == ["Frames", "RemoveMean", "Matrix", "Power", "Matrix", "Log", "PadOrTrim", "Standardize"]
    x = RNG.standard_normal(9000)
    plain = Frontend(16000, 400, steps).evaluate(x)
    np.testing.assert_allclose(Frontend(16000, 400, folded).evaluate(x), plain, atol=1e-9)


@pytest.mark.parametrize("config", [AST, WAV2VEC2, AST | {"do_normalize": False, "max_length": 12}, WAV2VEC2 | {"do_normalize": False}])
def test_a_frontend_survives_json(config: dict):
    frontend = huggingface.build(config)
    assert Frontend.from_dict(json.loads(json.dumps(frontend.to_dict()))) == frontend


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        ({"steps": [{"step": "Teleport"}]}, "Teleport"),
        ({"steps": [{"step": "Log", "flor": 1}]}, "flor"),
        ({"steps": [{"step": "Log"}]}, "floor"),
        ({"steps": [{"floor": 1}]}, "step"),
        ({"steps": 5}, "int"),
        ({"rate": "fast"}, "fast"),
    ],
)
def test_a_damaged_frontend_is_refused_by_name(damage: dict, says: str):
    data = huggingface.build(WAV2VEC2).to_dict() | damage
    with pytest.raises(ModelError, match=says):
        Frontend.from_dict(data)


def test_an_unknown_extractor_is_refused_with_those_that_are_known():
    with pytest.raises(ModelError, match=r"EncodecFeatureExtractor.*ASTFeatureExtractor"):
        huggingface.build({"feature_extractor_type": "EncodecFeatureExtractor"})


EXACT = 1e-6  # float32 features of order 1, rounded once
TORCH_STFT = 1e-4  # the file's Whisper features were made by a float32 STFT
FLOAT32_STATISTICS = 1e-4  # the original takes the mean and variance of each bin in float32; measured 1.4e-5 from float64
STEADY_BIN = 1e-2  # under a steady tone a bin varies by 1e-5 around 23, where float32 steps by 2e-6; measured 6e-3

SEAMLESS = {"feature_extractor_type": "SeamlessM4TFeatureExtractor"}
WHISPER = {"feature_extractor_type": "WhisperFeatureExtractor"}


@pytest.mark.parametrize("signal", ["x", "y"])
@pytest.mark.parametrize(
    ("config", "name", "budget"),
    [
        (WAV2VEC2, "wav2vec2", EXACT),
        (AST, "ast", EXACT),
        (WHISPER, "whisper80", TORCH_STFT),
        (WHISPER | {"feature_size": 128}, "whisper128", TORCH_STFT),
    ],
)
def test_extractors_equal_the_recorded_originals(config: dict, name: str, budget: float, signal: str, shared: Path):
    golden = np.load(shared / "reference" / "golden_features.npz")
    want = golden[f"{signal}_{name}"][0]
    features = huggingface.build(config)(golden[signal])
    assert features.dtype == np.float32
    got = features[tuple(slice(size) for size in want.shape)]  # of AST's 1024 frames the file keeps 160, of Whisper's 3000 200
    assert np.abs(got - want).max() <= budget


@pytest.mark.parametrize("signal", ["x", "y"])
def test_seamless_features_and_mask_equal_the_recorded_original(signal: str, shared: Path):
    golden = np.load(shared / "reference" / "golden_features.npz")
    frontend = huggingface.build(SEAMLESS)
    got, mask = frontend(golden[signal]), golden[f"{signal}_seamless_mask"][0]
    real = frontend.length(len(golden[signal]))
    assert mask.tolist() == [1] * real + [0] * (len(got) - real)
    log_mel = Frontend(16000, 560, frontend.steps[:-2]).evaluate(golden[signal])
    budget = np.tile(np.where(log_mel.std(axis=0) < 1e-3, STEADY_BIN, FLOAT32_STATISTICS), 2)  # two frames side by side
    assert (np.abs(got - golden[f"{signal}_seamless"][0])[:real] <= budget).all()
