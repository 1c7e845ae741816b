"""OpenVINO on the CPU: the checkpoint converted from torch, in float32, with its hint for bf16, or quantized by NNCF on clips."""

from pathlib import Path
from typing import Any

import numpy as np
import openvino
from numpy.typing import NDArray

from stapes_bench.peers import Job
from stapes_bench.peers.features import Features, Scores, imports  # noqa: F401 (the worker calls the last)

PACKAGES = ("openvino", "nncf", "transformers", "numpy")
INSTALLED = (("openvino", "transformers"), ())

GRAPH = "model.xml"


class Model:
    def __init__(self, job: Job) -> None:
        settings = {
            "INFERENCE_NUM_THREADS": job.threads,
            "NUM_STREAMS": 1,
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": job.variant,
        }
        compiled = openvino.Core().compile_model(Path(job.prepared) / GRAPH, "CPU", settings)
        self._request, self._output = compiled.create_infer_request(), compiled.output(0)
        self._names = [entry.any_name for entry in compiled.inputs]
        self._features, self._scores = Features(job.checkpoint, job.rate), Scores(job.checkpoint)

    def logits(self, clips: list[NDArray[np.float32]]) -> NDArray[np.float32]:
        features = self._features(clips)
        found: NDArray[np.float32] = self._request.infer([features[name] for name in self._names], share_inputs=True)[self._output]
        return found

    def scores(self, clips: list[NDArray[np.float32]]) -> object:
        return self._scores(self.logits(clips))


def load(job: Job) -> Model:
    return Model(job)


def prepare(job: Job) -> None:
    import torch
    from transformers import AutoModelForAudioClassification

    from stapes_bench.peers.plain import Logits, example

    model: Any = Logits(AutoModelForAudioClassification.from_pretrained(job.checkpoint, attn_implementation="sdpa")).eval()
    names, features, axes = example(job)
    free = [
        [-1 if axis in varying else size for axis, size in enumerate(value.shape)] for value, varying in zip(features, axes, strict=True)
    ]
    with torch.no_grad():
        converted = openvino.convert_model(
            model, example_input=tuple(map(torch.from_numpy, features)), input=list(map(openvino.PartialShape, free))
        )
    for entry, name in zip(converted.inputs, names, strict=True):
        entry.get_tensor().set_names({name})
    if job.variant != "float":
        converted = _quantized(converted, job, names)
    openvino.save_model(converted, Path(job.prepared) / GRAPH, compress_to_fp16=False)


def _quantized(model: Any, job: Job, names: list[str]) -> Any:
    """NNCF's recipe for transformers, calibrated on the job's clips."""
    import nncf

    features = Features(job.checkpoint, job.rate)

    def inputs(file: str) -> dict[str, NDArray[Any]]:
        made = features([np.fromfile(file, np.float32)])
        return {name: made[name] for name in names}

    ignored = nncf.IgnoredScope(types=["Convolution", "GroupConvolution"]) if job.variant == "int8-matmul" else None
    return nncf.quantize(
        model,
        nncf.Dataset(job.calibration, inputs),
        model_type=nncf.ModelType.TRANSFORMER,
        subset_size=len(job.calibration),
        ignored_scope=ignored,
    )
