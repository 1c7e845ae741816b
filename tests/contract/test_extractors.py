"""The NumPy frontends against transformers' own extractors, over lengths, levels and options."""

import numpy as np
import pytest
from transformers import ASTFeatureExtractor, Wav2Vec2FeatureExtractor

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
