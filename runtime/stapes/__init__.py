"""Hugging Face audio classification without torch.

import stapes

classify = stapes.load()              # or stapes.load("model.onnx", device="cuda")
classify("clip.wav", top_k=3)         # [Prediction(label="yes", score=0.98, index=0), ...]
"""

from importlib.metadata import version

from stapes.audio import Clip
from stapes.classifier import Classifier, Prediction, load
from stapes.dropin import pipeline
from stapes.errors import (
    AudioError,
    AudioNotFound,
    CheckpointError,
    ClipTooShort,
    DeviceError,
    ExportError,
    InvalidInput,
    MalformedAudio,
    MissingExtra,
    ModelError,
    ModelNotFound,
    ParityError,
    StapesError,
)

__all__ = [
    "pipeline",
    "load",
    "Classifier",
    "Prediction",
    "Clip",
    "StapesError",
    "InvalidInput",
    "AudioError",
    "AudioNotFound",
    "MalformedAudio",
    "ClipTooShort",
    "ModelError",
    "ModelNotFound",
    "DeviceError",
    "MissingExtra",
    "ExportError",
    "CheckpointError",
    "ParityError",
]

__version__ = version("stapes")
