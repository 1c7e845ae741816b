"""Hugging Face audio classification without torch.

import stapes

classify = stapes.load()              # or stapes.load("model.onnx", device="cuda")
classify("clip.wav", top_k=3)         # [Prediction(label="yes", score=0.98, index=0), ...]
"""

from stapes.audio import Clip, Reading
from stapes.classifier import Classifier, load
from stapes.dropin import pipeline
from stapes.errors import (
    AccuracyError,
    AudioError,
    AudioIsFolder,
    AudioNotFound,
    AudioWarning,
    CheckpointError,
    ClipTooShort,
    DeviceError,
    DownloadError,
    ExportError,
    InvalidInput,
    InvalidOption,
    LimitExceeded,
    MalformedAudio,
    MissingExtra,
    ModelError,
    ModelNotFound,
    ParityError,
    StapesError,
)
from stapes.predictions import MergedPrediction, Prediction, Segment

__all__ = [
    "pipeline",
    "load",
    "Classifier",
    "Prediction",
    "MergedPrediction",
    "Segment",
    "Clip",
    "Reading",
    "StapesError",
    "InvalidInput",
    "InvalidOption",
    "AudioError",
    "AudioNotFound",
    "AudioIsFolder",
    "DownloadError",
    "LimitExceeded",
    "MalformedAudio",
    "ClipTooShort",
    "ModelError",
    "ModelNotFound",
    "DeviceError",
    "MissingExtra",
    "ExportError",
    "CheckpointError",
    "ParityError",
    "AccuracyError",
    "AudioWarning",
]


def __getattr__(name: str) -> str:
    if name == "__version__":
        from importlib.metadata import version  # a third of the time that importing stapes would take

        return version("stapes")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
