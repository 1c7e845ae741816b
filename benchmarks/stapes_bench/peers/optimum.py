"""optimum's own class for ONNX Runtime, exported by itself. It needs an environment with the transformers that it is made for."""

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from optimum.onnxruntime import ORTModelForAudioClassification

from stapes_bench.peers import Job
from stapes_bench.peers.features import Features, Scores, imports  # noqa: F401 (the worker calls the last)

PACKAGES = ("optimum", "optimum-onnx", "onnxruntime", "transformers", "torch", "numpy")
INSTALLED = (("optimum-onnx", "onnxruntime"), ())


class Model:
    def __init__(self, job: Job) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = job.threads
        self._model: Any = ORTModelForAudioClassification.from_pretrained(
            Path(job.prepared), provider="CPUExecutionProvider", session_options=options
        )
        self._features, self._scores = Features(job.checkpoint, job.rate), Scores(job.checkpoint)

    def logits(self, clips: list[NDArray[np.float32]]) -> NDArray[np.float32]:
        found: NDArray[np.float32] = self._model(**self._features(clips)).logits
        return found

    def scores(self, clips: list[NDArray[np.float32]]) -> object:
        return self._scores(self.logits(clips))


def load(job: Job) -> Model:
    return Model(job)


def prepare(job: Job) -> None:
    ORTModelForAudioClassification.from_pretrained(job.checkpoint, export=True).save_pretrained(job.prepared)
