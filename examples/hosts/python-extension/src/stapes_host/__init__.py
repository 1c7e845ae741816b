"""A stapes model inside a Python process that has neither NumPy nor the onnxruntime package; see ../../_model.c."""

from stapes_host._model import AudioError, Error, Model, ModelError, ModelNotFound

__all__ = ["Model", "Error", "ModelError", "ModelNotFound", "AudioError"]
