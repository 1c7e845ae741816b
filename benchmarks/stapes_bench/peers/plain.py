"""The graph that torch.onnx makes of a checkpoint, as anyone would export it: features in, logits out, nothing of stapes."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForAudioClassification

from stapes_bench.peers import Job
from stapes_bench.peers.features import Features

OPSET = 17
"""The newest that the TorchScript exporter writes without a remark and every runtime here reads."""


def export(job: Job, name: str) -> None:
    """Fill job.prepared as transformers.js reads it: config.json, preprocessor_config.json and the graph at `name`; int8 if it says so."""
    folder = Path(job.prepared)
    path = folder / name
    path.parent.mkdir(parents=True)
    for beside in ("config.json", "preprocessor_config.json"):
        shutil.copyfile(Path(job.checkpoint) / beside, folder / beside)
    names, features, axes = example(job)
    torch.onnx.export(
        Logits(AutoModelForAudioClassification.from_pretrained(job.checkpoint, attn_implementation="eager")).eval(),
        tuple(map(torch.from_numpy, features)),
        str(path),
        dynamo=False,  # the other one does not end where time is free in the speech encoders' convolutions
        input_names=names,
        output_names=["logits"],
        dynamic_axes=dict(zip(names, axes, strict=True)) | {"logits": {0: "batch"}},
        opset_version=OPSET,
    )
    if job.variant == "int8":
        _quantize(path)


def example(job: Job) -> tuple[list[str], list[Any], list[dict[int, str]]]:
    """Names of the features, an example of each, and their free axes: batch, and time where it varies with the clip."""
    features = Features(job.checkpoint, job.rate)
    draw = np.random.default_rng(0)
    short, long = (features([draw.standard_normal(seconds * job.rate).astype(np.float32)] * 2) for seconds in (1, 2))
    axes = [{0: "batch"} | {axis: "time" for axis in range(1, short[name].ndim) if short[name].shape != long[name].shape} for name in short]
    return list(short), [short[name] for name in short], axes


def _quantize(path: Path) -> None:
    """As optimum does it: weights of MatMuls in int8, activations with one scale a tensor, found while running."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    made = path.with_suffix(".int8")
    quantize_dynamic(path, made, op_types_to_quantize=["MatMul"], weight_type=QuantType.QInt8, per_channel=True)
    made.replace(path)


class Logits(torch.nn.Module):
    """A classifier that gives its logits alone."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, *features: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.model(*features).logits
        return logits
