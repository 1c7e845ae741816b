"""The NumPy frontends against transformers' own extractors, over lengths, levels and options."""

import numpy as np
import pytest
from transformers import ASTFeatureExtractor, SeamlessM4TFeatureExtractor, Wav2Vec2FeatureExtractor, WhisperFeatureExtractor

from stapes.frontend import huggingface

RNG = np.random.default_rng(0)
SIGNALS = {
    "noise": 0.1 * RNG.standard_normal(16121),
    "one frame": 0.1 * RNG.standard_normal(400),
    "silence": np.zeros(5000),
    "faint": 1e-5 * RNG.standard_normal(8000),
    "offset": 0.7 + 1e-3 * RNG.standard_normal(8000),
    "longer than AST": 0.1 * RNG.standard_normal(200000),
}

NORMALIZED = 1e-6  # the original normalizes in float32, we in float64: a rounding apart for ordinary clips
NORMALIZED_OFFSET = 1e-3  # its float32 mean of 0.7 is off by 1e-7, which is 1e-4 of a signal of 1e-3
LOG_MEL = 1e-6  # the original rounds its spectrum to complex64, we do not


@pytest.mark.parametrize("name", SIGNALS)
@pytest.mark.parametrize("options", [{}, {"do_normalize": False}, {"return_attention_mask": True}], ids=str)
def test_wav2vec2(options: dict, name: str):
    original = Wav2Vec2FeatureExtractor(**options)
    samples = SIGNALS[name].astype(np.float32)
    want = original(samples, sampling_rate=16000).input_values[0]
    got = huggingface.build(original.to_dict())(samples)
    assert got.dtype == want.dtype == np.float32
    budget = NORMALIZED_OFFSET if name == "offset" else NORMALIZED
    assert np.abs(got - want).max() <= budget * max(1, np.abs(want).max())


@pytest.mark.parametrize("name", SIGNALS)
@pytest.mark.parametrize(
    "options",
    [{}, {"max_length": 128, "mean": -6.845978, "std": 5.5654526}, {"num_mel_bins": 64, "max_length": 100}, {"do_normalize": False}],
    ids=["audioset", "speech-commands", "small", "raw"],
)
def test_ast(options: dict, name: str):
    original = ASTFeatureExtractor(**options)
    samples = SIGNALS[name].astype(np.float32)
    want = original(samples, sampling_rate=16000, return_tensors="np").input_values[0]
    got = huggingface.build(original.to_dict())(samples)
    assert got.shape == want.shape
    assert np.abs(got - want).max() <= LOG_MEL * max(1, np.abs(want).max())


LOG10_MEL = 1e-4  # the original runs a float32 STFT in torch; its own NumPy path is 3.6e-5 away from that


@pytest.mark.parametrize("name", SIGNALS)
@pytest.mark.parametrize("options", [{}, {"feature_size": 128}, {"chunk_length": 5}], ids=["80 mels", "128 mels", "5 s"])
def test_whisper(options: dict, name: str):
    original = WhisperFeatureExtractor(**options)
    samples = SIGNALS[name].astype(np.float32)
    want = original(samples, sampling_rate=16000, return_tensors="np").input_features[0]
    got = huggingface.build(original.to_dict())(samples)
    assert got.shape == want.shape
    assert np.abs(got - want).max() <= LOG10_MEL


NORMALIZED_BINS = 1e-4  # the original takes each bin's mean and variance in float32; measured 1.4e-5


@pytest.mark.parametrize("name", ["noise", "faint", "longer than AST"])
@pytest.mark.parametrize("cut", [0, 160], ids=["odd or even frames", "the other"])
def test_seamless(cut: int, name: str):
    original = SeamlessM4TFeatureExtractor(padding_value=1)
    samples = SIGNALS[name].astype(np.float32)
    samples = samples[: len(samples) - cut]
    want = original(samples, sampling_rate=16000, return_tensors="np")
    frontend = huggingface.build(original.to_dict())
    got, real = frontend(samples), frontend.length(len(samples))
    assert got.shape == want.input_features[0].shape
    assert real == want.attention_mask[0].sum()
    assert np.abs(got - want.input_features[0])[:real].max() <= NORMALIZED_BINS
