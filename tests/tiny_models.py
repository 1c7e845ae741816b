"""Artifacts of a few hundred bytes: a clip's mean, largest and smallest sample as the logits of three labels."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from stapes.bundle import KEY, Golden, Manifest, Provenance, golden_signal
from stapes.frontend import Frontend

RATE = 16000
SECONDS = 0.5
LABELS = ("mean", "largest", "smallest")


def logits_of(samples: np.ndarray) -> tuple[float, ...]:
    return float(samples.astype(np.float64).mean()), float(samples.max()), float(samples.min())


MANIFEST = Manifest(
    name="tiny",
    rate=RATE,
    labels=LABELS,
    activation="softmax",
    frontend=Frontend(RATE, 400, ()),
    frontend_in_graph=True,
    needs=(),
    provenance=Provenance("tiny", None, {}, "tiny", "fp32", (), {}),
    golden=Golden(SECONDS, logits_of(golden_signal(SECONDS, RATE)), 1e-5),
)


def tiny(
    manifest: Manifest | str | None = MANIFEST,
    *,
    before: Sequence[onnx.NodeProto] = (),
    outputs: Mapping[str, int | onnx.TypeProto] | None = None,
    inputs: Sequence[str] = ("waveform", "lengths"),
    scores: Sequence[onnx.NodeProto] | None = None,
) -> onnx.ModelProto:
    """The model. `scores`: other nodes than a softmax of the logits, under the type that `outputs` says."""
    declared = {"logits": TensorProto.FLOAT, "scores": TensorProto.FLOAT, **(outputs or {})}
    kinds = {"waveform": (TensorProto.FLOAT, ["batch", "samples"]), "lengths": (TensorProto.INT64, ["batch"])}
    nodes = [
        helper.make_node("ReduceMean", ["waveform"], ["mean"], axes=[1]),
        helper.make_node("ReduceMax", ["waveform"], ["largest"], axes=[1]),
        helper.make_node("ReduceMin", ["waveform"], ["smallest"], axes=[1]),
        helper.make_node("Concat", list(LABELS), ["joined"], axis=1),
        helper.make_node("Add", ["joined", "zero"], ["logits"]),
        *(scores if scores is not None else [helper.make_node("Softmax", ["logits"], ["scores"])]),
    ]
    graph = helper.make_graph(
        [*before, *nodes],
        "tiny",
        [helper.make_tensor_value_info(name, *kinds.get(name, (TensorProto.FLOAT, ["batch"]))) for name in inputs],
        [
            helper.make_value_info(name, kind) if isinstance(kind, onnx.TypeProto) else helper.make_tensor_value_info(name, kind, None)
            for name, kind in declared.items()
        ],
        [numpy_helper.from_array(np.zeros(1, np.float32), "zero")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    if manifest is not None:
        helper.set_model_props(model, {KEY: manifest if isinstance(manifest, str) else manifest.to_json()})
    return model


def write(path: Path, model: onnx.ModelProto) -> Path:
    path.write_bytes(model.SerializeToString())
    return path


def told(**changes: Any) -> Manifest:
    """The manifest with something else in it."""
    return replace(MANIFEST, **changes)
