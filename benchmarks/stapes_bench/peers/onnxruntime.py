"""What torch.onnx exports, on ONNX Runtime as it comes: nothing of stapes but the clips. As it is, or its MatMuls quantized dynamically."""

from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from stapes_bench.peers import Job
from stapes_bench.peers.features import Features, Scores, imports  # noqa: F401 (the worker calls the last)

PACKAGES = ("onnxruntime", "transformers", "numpy")
INSTALLED = (("onnxruntime", "transformers"), ())

GRAPH = "onnx/model.onnx"
"""Where optimum and transformers.js look for it."""


class Model:
    def __init__(self, job: Job) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = job.threads
        self._session = onnxruntime.InferenceSession(Path(job.prepared) / GRAPH, options, providers=["CPUExecutionProvider"])
        self._names = [entry.name for entry in self._session.get_inputs()]
        self._features, self._scores = Features(job.checkpoint, job.rate), Scores(job.checkpoint)

    def logits(self, clips: list[NDArray[np.float32]]) -> NDArray[np.float32]:
        features = self._features(clips)
        found: NDArray[np.float32] = self._session.run(["logits"], {name: features[name] for name in self._names})[0]
        return found

    def scores(self, clips: list[NDArray[np.float32]]) -> object:
        return self._scores(self.logits(clips))


def load(job: Job) -> Model:
    return Model(job)


def prepare(job: Job) -> None:
    from stapes_bench.peers import plain  # torch, which is no part of running the graph

    plain.export(job, GRAPH)
