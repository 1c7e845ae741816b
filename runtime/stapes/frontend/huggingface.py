"""preprocessor_config.json -> Frontend, one builder per `feature_extractor_type`.

Each builder spells the extractor of transformers out in steps; keys absent from the file take that extractor's own defaults.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from stapes.errors import ModelError
from stapes.frontend import Frontend
from stapes.frontend.steps import (
    Frames,
    Hann,
    Log,
    MelBank,
    NormalizeBins,
    PadOrTrim,
    Povey,
    Power,
    PreEmphasis,
    RangeBelowMax,
    RealDft,
    ReflectPad,
    RemoveMean,
    Scale,
    Stack,
    Standardize,
    Step,
    Transpose,
    ZeroMeanUnitVariance,
)

Config = Mapping[str, Any]


def build(config: Config) -> Frontend:
    """The Frontend that equals the feature extractor of `config`, the content of a preprocessor_config.json.

    `min_samples` is what the extractor itself needs; a model may need more.
    """
    kind = config.get("feature_extractor_type")
    if kind not in BUILDERS:
        known = ", ".join(sorted(BUILDERS))
        raise ModelError(f"no frontend for feature_extractor_type {kind!r}; stapes knows {known}")
    return BUILDERS[kind](config)


def _wav2vec2(config: Config) -> Frontend:
    # The pipeline extracts one clip at a time, so its statistics are the clip's own whatever the padding keys say.
    steps: tuple[Step, ...] = (ZeroMeanUnitVariance(epsilon=1e-7),) if config.get("do_normalize", True) else ()
    return Frontend(config.get("sampling_rate", 16000), 1, steps)


def _ast(config: Config) -> Frontend:
    rate = config.get("sampling_rate", 16000)
    size, hop, points = 400, 160, 512  # fixed in ASTFeatureExtractor, whatever the rate
    mels = MelBank(config.get("num_mel_bins", 128), points // 2 + 1, rate, 20.0, float(rate // 2), "kaldi")
    steps: tuple[Step, ...] = (
        Frames(size, hop),
        RemoveMean(),
        PreEmphasis(0.97),
        Hann(),
        RealDft(points),
        Power(),
        mels,
        Log(floor=float(np.finfo(np.float32).eps)),
        PadOrTrim(config.get("max_length", 1024)),  # before Standardize: transformers pads first, so padding is standardized too
    )
    if config.get("do_normalize", True):
        deviation = 2 * config.get("std", 4.5689974)  # half the usual unit, as the AST authors trained it
        steps += (Standardize(config.get("mean", -4.2677393), deviation),)
    return Frontend(rate, size, steps)


def _whisper(config: Config) -> Frontend:
    rate, points, hop = config.get("sampling_rate", 16000), config.get("n_fft", 400), config.get("hop_length", 160)
    samples = config.get("chunk_length", 30) * rate
    mels = MelBank(config.get("feature_size", 80), points // 2 + 1, rate, 0.0, 8000.0, "slaney")
    steps: tuple[Step, ...] = (
        PadOrTrim(samples, config.get("padding_value", 0.0)),
        ReflectPad(points // 2),
        Frames(points, hop),
        PadOrTrim(samples // hop),  # transformers drops the frame behind the last whole hop
        Hann(periodic=True),
        RealDft(points),
        Power(),
        mels,
        Log(floor=1e-10, base="10"),
        RangeBelowMax(8.0),
        Standardize(-4.0, 4.0),
        Transpose(),
    )
    # a dither would be random; `do_normalize` in the file does nothing in the original either
    return Frontend(rate, 1, steps)


def _seamless(config: Config) -> Frontend:
    rate, stride = config.get("sampling_rate", 16000), config.get("stride", 2)
    size, hop, points = 400, 160, 512  # fixed in SeamlessM4TFeatureExtractor, whatever the rate
    mels = MelBank(config.get("num_mel_bins", 80), points // 2 + 1, rate, 20.0, float(rate // 2), "kaldi")
    steps: tuple[Step, ...] = (
        Scale(2.0**15),
        Frames(size, hop),
        RemoveMean(),
        PreEmphasis(0.97),
        Povey(),
        RealDft(points),
        Power(),
        mels,
        Log(floor=1.192092955078125e-07),
        NormalizeBins(epsilon=1e-7),
        Stack(stride, config.get("padding_value", 0.0)),
    )
    return Frontend(rate, size + hop, steps)  # the variance of a single frame is not a number


BUILDERS: dict[str, Callable[[Config], Frontend]] = {
    "ASTFeatureExtractor": _ast,
    "SeamlessM4TFeatureExtractor": _seamless,
    "Wav2Vec2FeatureExtractor": _wav2vec2,
    "WhisperFeatureExtractor": _whisper,
}
