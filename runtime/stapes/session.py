"""ONNX Runtime behind one small door: the only module of stapes that imports it."""

import os
import platform
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stapes.errors import DeviceError, MissingExtra, ModelError

Array = NDArray[Any]

CPU_FLAGS = {"vnni": {"avx512_vnni", "avx_vnni"}, "amx": {"amx_int8"}, "dotprod": {"asimddp"}}
"""A manifest's word for a CPU ability -> the flags of /proc/cpuinfo that show it."""

DTYPES = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(double)": np.float64,
    "tensor(int64)": np.int64,
    "tensor(int32)": np.int32,
    "tensor(bool)": np.bool_,
}
"""ONNX Runtime's word for the type of an input -> NumPy's, for every type that features or a mask may have."""


class Session:
    """A model loaded on one device. Calling `run` from many threads at once is safe."""

    def __init__(self, path: str | os.PathLike[str], device: str = "auto", threads: int | None = None) -> None:
        """Load the ONNX file at `path`.

        `device`: "cpu", "cuda", "cuda:N", or "auto" (CUDA where it comes up, else the CPU). `threads`: within one operator; None
        leaves the choice to ONNX Runtime, one a physical core. Raises MissingExtra, DeviceError or ModelError.
        """
        runtime = _onnxruntime()
        kind, index = _parse(device)
        offered = runtime.get_available_providers()
        if kind == "cuda" and "CUDAExecutionProvider" not in offered:
            raise DeviceError(
                f"device {device!r} was asked for, but this ONNX Runtime is built without CUDA; "
                "replace it: pip uninstall onnxruntime && pip install 'stapes[gpu]'"
            )
        cuda = kind != "cpu" and "CUDAExecutionProvider" in offered
        providers: list[Any] = [("CUDAExecutionProvider", {"device_id": index})] if cuda else []
        options = runtime.SessionOptions()
        options.log_severity_level = 4 if kind == "auto" else 3  # errors only; auto may fail to find CUDA in silence
        if threads is not None:
            if threads < 1:
                raise DeviceError(f"threads is a number from 1 up, not {threads}")
            options.intra_op_num_threads = threads
        try:
            self._session = runtime.InferenceSession(Path(path), options, [*providers, "CPUExecutionProvider"])
        except Exception as error:  # ONNX Runtime raises a class of its own for each status code, with no base
            if kind == "cuda" and "CUDA" in str(error):
                raise DeviceError(_did_not_come_up(device, error)) from error
            raise ModelError(f"ONNX Runtime {runtime.__version__} cannot load {path}: {_first_line(error)}") from error
        active = self._session.get_providers()
        if kind == "cuda" and active[0] != "CUDAExecutionProvider":
            raise DeviceError(_did_not_come_up(device, None))  # ONNX Runtime would go on with the CPU without a word
        self.device = f"cuda:{index}" if active[0] == "CUDAExecutionProvider" else "cpu"
        inputs = self._session.get_inputs()
        self.inputs: tuple[str, ...] = tuple(entry.name for entry in inputs)
        self.outputs: tuple[str, ...] = tuple(entry.name for entry in self._session.get_outputs())
        self.dtypes: dict[str, type[np.generic]] = {entry.name: DTYPES[entry.type] for entry in inputs if entry.type in DTYPES}
        self.batches = not any(entry.shape and isinstance(entry.shape[0], int) for entry in inputs)
        """Whether the first axis of every input is free."""

    def run(self, outputs: Sequence[str], feeds: Mapping[str, Array]) -> list[Array]:
        """The named outputs for these inputs; ModelError where ONNX Runtime refuses them."""
        try:
            values: list[Array] = self._session.run(list(outputs), dict(feeds))
        except Exception as error:  # as above
            shapes = ", ".join(f"{name} {np.shape(value)}" for name, value in feeds.items())
            raise ModelError(f"the model failed on {shapes}: {_first_line(error)}") from error
        return values


def missing(needs: Sequence[str]) -> bool:
    """Whether this host surely lacks every one of `needs`. A host that does not tell is taken to have them."""
    flags = _cpu_flags()
    return bool(needs) and bool(flags) and not any(CPU_FLAGS.get(need, {need}) & flags for need in needs)


def _cpu_flags() -> set[str]:
    if platform.system() != "Linux":
        return set()  # every Arm Mac has the dot product; Windows on x86 is not asked yet
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace")
    except OSError:
        return set()
    found = re.search(r"^(?:flags|Features)\s*:(.*)$", text, re.MULTILINE)
    return set(found[1].split()) if found else set()


def _onnxruntime() -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingExtra("ONNX Runtime is not installed: pip install 'stapes[cpu]', or 'stapes[gpu]' for a host with CUDA") from error
    return onnxruntime


def _parse(device: str) -> tuple[str, int]:
    found = re.fullmatch(r"(auto|cpu)|(cuda)(?::(\d+))?", device)
    if not found:
        raise DeviceError(f"no device {device!r}: stapes knows auto, cpu, cuda and cuda:N")
    return (found[1] or found[2], int(found[3] or 0))


def _did_not_come_up(device: str, error: Exception | None) -> str:
    why = f" ({_first_line(error)})" if error else ""
    return (
        f"device {device!r} did not come up{why}; check the driver with nvidia-smi and the libraries with "
        "pip install 'stapes[gpu]', or use device='cpu'"
    )


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
