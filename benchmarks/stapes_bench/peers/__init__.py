"""What stapes is measured against: one file a library, run by worker.py in a process and, where it needs one, an environment of its own.

The file of a library has, with its library imported at module level:

    prepare(job)  makes what `load` reads, once and in a process of its own, at job.prepared; only where a peer says so
    imports(job)  imports what `load` will need, where that depends on the job; may be missing
    load(job)     the model, ready: an object with logits(clips) and scores(clips), see worker.Model

This package is imported in environments without stapes: nothing here imports more than the standard library and NumPy.
"""

from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Peer:
    """One way to run a checkpoint."""

    name: str
    library: str
    """Its file in this package, and the name of its environment."""
    says: str
    """What runs, for the report."""
    variant: str = ""
    """Which of the library's ways."""
    prepared_by: str = ""
    """The library whose `prepare` makes what this one loads; empty for none."""
    prepared_as: str = ""
    """The variant that it makes."""


@dataclass(frozen=True)
class Job:
    """What a worker is to load, or to make."""

    variant: str
    threads: int
    checkpoint: str = ""
    """The folder of the Hugging Face checkpoint."""
    prepared: str = ""
    """The folder that `prepare` fills."""
    model: str = ""
    """The stapes file."""
    calibration: list[str] = field(default_factory=list)
    """Clips for quantization, none of which is classified later: files as `read` reads them."""
    rate: int = 16_000


def _openvino(name: str, says: str, variant: str, made: str) -> Peer:
    return Peer(name, "openvino", f"OpenVINO, {says}", variant, "openvino", made)


PEERS = (
    Peer("transformers", "transformers", "transformers.pipeline, torch float32"),
    Peer("torch-bf16", "transformers", "transformers.pipeline, torch bfloat16", "bf16"),
    Peer("onnxruntime", "onnxruntime", "plain torch.onnx export, ONNX Runtime", "fp32", "onnxruntime", "fp32"),
    Peer("onnxruntime-int8", "onnxruntime", "the same, quantize_dynamic of its MatMuls", "int8", "onnxruntime", "int8"),
    Peer("optimum", "optimum", "ORTModelForAudioClassification", "", "optimum"),
    _openvino("openvino", "float32", "f32", "float"),
    _openvino("openvino-bf16", "inference precision hint bf16", "bf16", "float"),
    _openvino("openvino-int8", "NNCF post-training quantization of everything", "f32", "int8"),
    _openvino("openvino-int8-bf16", "the same, the rest in bf16", "bf16", "int8"),
    _openvino("openvino-int8-matmul", "NNCF post-training quantization, convolutions in float", "f32", "int8-matmul"),
    _openvino("openvino-int8-matmul-bf16", "the same, the rest in bf16", "bf16", "int8-matmul"),
    Peer("transformersjs", "transformersjs", "transformers.js in Node, plain export", "fp32", "onnxruntime", "fp32"),
)
"""In the order of the report."""

BY_NAME = {peer.name: peer for peer in PEERS}

STAPES = "stapes"
"""The library of our own rows."""

FOLDER = Path(__file__).parent
