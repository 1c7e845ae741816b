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

JUDGED = 8
"""Calibration clips on which two ways of quantizing are compared."""


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
    path = Path(job.prepared) / GRAPH
    openvino.save_model(converted, path, compress_to_fp16=False)
    if job.variant != "float":
        quantized = _quantized(path, job, names)
        for file in (path, path.with_suffix(".bin")):
            file.unlink()
        openvino.save_model(quantized, path, compress_to_fp16=False)


def _quantized(graph: Path, job: Job, names: list[str]) -> Any:
    """NNCF's recipe for transformers, calibrated on the job's clips: with SmoothQuant and without, whichever is more exact on them.

    SmoothQuant is the recipe's default, and on some models costs more than it saves; the peer gets the better of the two.
    """
    import nncf
    from nncf.quantization.advanced_parameters import AdvancedSmoothQuantParameters

    features = Features(job.checkpoint, job.rate)
    made = [features([np.fromfile(file, np.float32)]) for file in job.calibration]
    inputs = [{name: each[name] for name in names} for each in made]
    convolutions = nncf.IgnoredScope(types=["Convolution", "GroupConvolution"], validate=False)  # few models have both
    ignored = convolutions if job.variant == "int8-matmul" else None
    want = _run(openvino.Core().read_model(graph), inputs[:JUDGED])
    found: list[tuple[float, int, Any]] = []
    for smooth in (nncf.AdvancedQuantizationParameters().smooth_quant_alphas, AdvancedSmoothQuantParameters(convolution=-1, matmul=-1)):
        quantized = nncf.quantize(
            openvino.Core().read_model(graph),
            nncf.Dataset(inputs),
            model_type=nncf.ModelType.TRANSFORMER,
            subset_size=len(inputs),
            ignored_scope=ignored,
            advanced_parameters=nncf.AdvancedQuantizationParameters(smooth_quant_alphas=smooth),
        )
        error = float(np.square(_run(quantized, inputs[:JUDGED]) - want).mean())
        found.append((error, len(found), quantized))
    return min(found)[-1]


def _run(model: Any, inputs: list[dict[str, NDArray[Any]]]) -> NDArray[np.float32]:
    compiled = openvino.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return np.concatenate([compiled(each)[0] for each in inputs])
