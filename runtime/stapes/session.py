"""ONNX Runtime behind one small door: the only module of stapes that imports it."""

import contextlib
import ctypes
import functools
import os
import re
import sys
import threading
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stapes import optimized
from stapes.bundle import check_external_data
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

BRING_UP_S = 120
"""How long a provider may take to come up; the first start of CUDA on a cold disk takes tens of seconds."""


class Session:
    """A model loaded on one device. Calling `run` from many threads at once is safe.

    ONNX Runtime's threads do not live on in a child made by fork, where its sessions would wait for them for ever: there the file is
    opened anew at the first run. The child must end as those of multiprocessing do, by os._exit: ONNX Runtime's own exit handlers wait for
    the same threads.
    """

    def __init__(self, path: str | os.PathLike[str], device: str = "auto", threads: int | None = None, cached: bool = False) -> None:
        """Load the ONNX file at `path`.

        `device`: "cpu", "cuda", "cuda:N", or "auto" (CUDA where it comes up, else the CPU). `threads`: within one operator; None
        leaves the choice to ONNX Runtime, one a physical core. `cached`: on the CPU, keep the optimized graph of a large model for the
        next time (see optimized). Raises MissingExtra, DeviceError or ModelError.
        """
        self._path, self._threads, self._cached = Path(path).absolute(), threads, cached
        self._opening = threading.Lock()
        session, self.device = _open(Path(path), device, threads, cached)
        self._session: Any = session
        """None in a forked child until its first run."""
        inputs = session.get_inputs()
        self.inputs: tuple[str, ...] = tuple(entry.name for entry in inputs)
        self.outputs: tuple[str, ...] = tuple(entry.name for entry in session.get_outputs())
        self.dtypes: dict[str, type[np.generic]] = {entry.name: DTYPES[entry.type] for entry in inputs if entry.type in DTYPES}
        self.widths: dict[str, object] = {entry.name: entry.shape[-1] if entry.shape else None for entry in session.get_outputs()}
        """The last axis of every output: a number, or a name or None where it is free."""
        self.batches = not any(entry.shape and isinstance(entry.shape[0], int) for entry in inputs)
        """Whether the first axis of every input is free."""
        _OPEN.add(self)

    def run(self, outputs: Sequence[str], feeds: Mapping[str, Array]) -> list[Array]:
        """The named outputs for these inputs; ModelError where ONNX Runtime refuses them."""
        session = self._session or self._open_again()
        values: list[Array]
        try:
            values = session.run(list(outputs), dict(feeds)) if self.device == "cpu" else bound_run(session, outputs, feeds)
        except Exception as error:  # ONNX Runtime raises a class of its own for each status code, with no base
            shapes = ", ".join(f"{name} {np.shape(value)}" for name, value in feeds.items())
            raise ModelError(f"the model failed on {shapes}: {_first_line(error)}") from error
        return values

    def leave_behind(self) -> None:
        """In a child just forked: never touch the parent's session again, not even to destroy it."""
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(self._session))  # its end would wait for threads that are not here
        self._session, self._opening = None, threading.Lock()

    def _open_again(self) -> Any:
        with self._opening:
            if self._session is None:
                if self.device != "cpu":
                    raise DeviceError(
                        f"the model was loaded on {self.device} before this process was forked, and CUDA does not survive a fork; start "
                        "workers by spawn (multiprocessing.get_context('spawn')), or load the model in each"
                    )
                self._session, _ = _open(self._path, self.device, self._threads, self._cached)
            return self._session


_OPEN: weakref.WeakSet[Session] = weakref.WeakSet()


def _after_fork() -> None:
    for session in list(_OPEN):
        session.leave_behind()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def bound_run(session: Any, outputs: Sequence[str], feeds: Mapping[str, Array]) -> list[Array]:
    """What session.run gives, for a device with memory of its own: each input is copied there once, and only `outputs` come back."""
    binding = session.io_binding()
    for name, value in feeds.items():
        binding.bind_cpu_input(name, np.ascontiguousarray(value))
    for name in outputs:
        binding.bind_output(name)  # to the CPU's memory
    session.run_with_iobinding(binding)
    return [np.asarray(value) for value in binding.copy_outputs_to_cpu()]


CUDA, CPU = "CUDAExecutionProvider", "CPUExecutionProvider"

CUDA_OPTIONS: Mapping[str, int | str] = {
    "use_tf32": 0,  # TF32 rounds products to 10 bits, which costs more than the whole error that an fp32 artifact may have
    "cudnn_conv_algo_search": "HEURISTIC",  # clips differ in length, and the default tries out every algorithm for each new length
    "arena_extend_strategy": "kSameAsRequested",  # the default's powers of two keep up to twice what the longest clip took
}


def _open(path: Path, device: str, threads: int | None, cached: bool = False) -> tuple[Any, str]:
    """An InferenceSession, and the device that it runs on."""
    runtime = _onnxruntime()
    kind, index = _parse(device)
    if threads is not None and threads < 1:
        raise DeviceError(f"threads is a number from 1 up, not {threads}")
    check_external_data(path)
    if kind != "cpu" and CUDA in runtime.get_available_providers():
        if session := _open_cuda(runtime, path, device, threads, index, quiet=kind == "auto"):
            return session, f"cuda:{index}"
    elif kind == "cuda":
        raise DeviceError(
            f"device {device!r} was asked for, but this ONNX Runtime is built without CUDA; "
            "replace it: pip uninstall onnxruntime && pip install 'stapes[gpu]'"
        )
    try:
        return _open_cpu(runtime, path, threads, cached), "cpu"
    except Exception as error:  # as in Session.run
        raise ModelError(f"ONNX Runtime {runtime.__version__} cannot load {path}: {_first_line(error)}") from error


def _open_cpu(runtime: Any, path: Path, threads: int | None, cached: bool) -> Any:
    """A session on the CPU. If `cached`, of the graph that was optimized before, or else it is kept now."""
    if not cached or not optimized.is_large(path) or not keeps_graphs():
        return _inference_session(runtime, path, threads, [CPU])
    entry = optimized.find(path, f"{runtime.__version__} {runtime.get_build_info()}", _cpu_identity())
    if entry is None:
        return _inference_session(runtime, path, threads, [CPU])
    if entry.whole():
        try:
            session = _inference_session(runtime, entry.graph, threads, [CPU], optimize=False)
        except Exception:  # whatever is wrong with it, the model itself serves
            entry.give_up()
        else:
            entry.used()
            return session
    session = None
    with contextlib.suppress(Exception), entry.filling() as draft:  # a disk that is full or only read; or it is the model's own fault
        session = _inference_session(runtime, path, threads, [CPU], keep=draft)
    return session or _inference_session(runtime, path, threads, [CPU])


def _open_cuda(runtime: Any, path: Path, device: str, threads: int | None, index: int, quiet: bool) -> Any:
    """A session on CUDA. Where it does not come up: None and no word if `quiet`, else a DeviceError."""
    if hasattr(runtime, "preload_dlls"):
        runtime.preload_dlls()  # the libraries of stapes[gpu] lie in site-packages, where the loader does not look
    if quiet:
        runtime.set_default_logger_severity(4)
    providers = [(CUDA, {"device_id": index, **CUDA_OPTIONS}), CPU]
    try:
        session = _inference_session(runtime, path, threads, providers)
    except Exception as error:
        if quiet:
            return None  # if it is the model's fault, the CPU will say so
        if "CUDA" in str(error):
            raise DeviceError(_did_not_come_up(device, reason_in(str(error)))) from error
        raise ModelError(f"ONNX Runtime {runtime.__version__} cannot load {path}: {_first_line(error)}") from error
    finally:
        if quiet:
            runtime.set_default_logger_severity(2)
    if session.get_providers()[0] == CUDA:
        return session
    if not quiet:
        raise DeviceError(_did_not_come_up(device, None))  # ONNX Runtime would go on with the CPU without a word
    return None


def _inference_session(
    runtime: Any, path: Path, threads: int | None, providers: list[Any], optimize: bool = True, keep: Path | None = None
) -> Any:
    """`optimize`: not a graph that was. `keep`: a folder to write the optimized graph into."""
    options = runtime.SessionOptions()
    options.log_severity_level = 3  # errors only
    options.add_session_config_entry("session.load_model_format", "ONNX")  # what was checked, whatever the file is called
    # A thread that waits for work sleeps: by default it spins, which takes a sixth more of a shared host's CPU and wins nothing measurable
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # Plans memory for each shape anew, and clips are of any length: 17 MB for one second through wav2vec2-base, and no faster
    options.enable_mem_pattern = False
    if threads is not None:
        options.intra_op_num_threads = threads
    if not optimize:
        options.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_DISABLE_ALL
    if keep is not None:
        options.optimized_model_filepath = os.fspath(keep / optimized.GRAPH)
        options.add_session_config_entry("session.save_model_format", "ONNX")
        options.add_session_config_entry("session.optimized_model_external_initializers_file_name", optimized.WEIGHTS)
        options.add_session_config_entry("session.optimized_model_external_initializers_min_size_in_bytes", "1024")
        # as they are multiplied, or each start would lay them out anew; 1.20 does not know the option
        options.add_session_config_entry("session.save_external_prepacked_constant_initializers", "1")
    # without fallback: with it ONNX Runtime tells of a failed provider on standard output, and goes on
    return runtime.InferenceSession(path, options, providers, enable_fallback=0)


def missing(needs: Sequence[str]) -> bool:
    """Whether this host surely lacks every one of `needs`. A host that does not tell is taken to have them."""
    flags = _cpu_flags()
    return bool(needs) and bool(flags) and not any(CPU_FLAGS.get(need, {need}) & flags for need in needs)


@dataclass(frozen=True)
class Build:
    """The ONNX Runtime that is installed. What it offers says how it was built, and nothing of this host."""

    version: str
    providers: tuple[str, ...]
    """Best first."""
    cuda: str
    """The version of CUDA that it was built for; empty for none."""


def build() -> Build:
    """The installed ONNX Runtime; MissingExtra where there is none that can be imported."""
    runtime = _onnxruntime()
    return Build(runtime.__version__, tuple(runtime.get_available_providers()), str(getattr(runtime, "cuda_version", None) or ""))


def bring_up(path: str | os.PathLike[str], provider: str) -> str | None:
    """None where a session with the model at `path` really has `provider`, else why it has not.

    In a process of its own: ONNX Runtime tells the reason on standard error alone, and a library that does not fit may end the process.
    """
    import subprocess  # here: every start would pay for it

    code = "import sys; from stapes.session import active; print(); print(*active(*sys.argv[1:]))"
    command = [sys.executable, "-P", "-c", code, os.fspath(path), provider]  # -P: no module of the working directory
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, encoding="utf-8", errors="replace", timeout=BRING_UP_S
        )
    except subprocess.TimeoutExpired:
        return f"no answer within {BRING_UP_S} s"
    except OSError as error:
        return f"no process could be started to find out ({error.strerror})"
    if done.returncode < 0:
        return f"the process died of signal {-done.returncode}"
    if done.returncode == 0 and provider in done.stdout.splitlines()[-1].split():
        return None
    return reason_in(done.stdout + done.stderr)


def active(path: str | os.PathLike[str], provider: str) -> list[str]:
    """The providers of a session that asks for `provider`; the CPU's alone where ONNX Runtime fell back."""
    if provider == CUDA:
        session, _ = _open(Path(path), "cuda", None)  # as a user's own
    else:
        session = _onnxruntime().InferenceSession(Path(path), providers=[provider, CPU])
    names: list[str] = session.get_providers()
    return names


def reason_in(said: str) -> str:
    """What in ONNX Runtime's log tells why a provider failed: the library or the call; else the last line."""
    lines = re.sub(r"\x1b\[[0-9;]*m", "", said).strip().splitlines() or ["no reason was given"]
    found = re.search(r"(?:with error: |(?=CUDA failure \d))([^;\n]+)", "\n".join(lines))
    return (found[1] if found else lines[-1]).strip()


def keeps_graphs() -> bool:
    """Whether optimized graphs can be kept here: where the CPU that they are for is known, by an ONNX Runtime that notices a full disk."""
    version = tuple(map(int, _onnxruntime().__version__.split(".")[:2]))
    return version >= (1, 21) and bool(_cpu_identity())


@functools.cache
def _cpuinfo() -> str:
    if sys.platform != "linux":
        return ""  # every Arm Mac has the dot product; Windows on x86 is not asked yet
    try:
        return Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace")
    except OSError:
        return ""


def _cpu_identity() -> str:
    """What tells one kind of CPU from another, all cores considered; empty where this host does not tell."""
    told = re.findall(
        r"^(vendor_id|cpu family|model|model name|stepping|flags|Features|CPU \w+|isa|uarch)\s*:(.*)$", _cpuinfo(), re.MULTILINE
    )
    return "\n".join(sorted({f"{key}:{value}" for key, value in told}))


def _cpu_flags() -> set[str]:
    found = re.search(r"^(?:flags|Features)\s*:(.*)$", _cpuinfo(), re.MULTILINE)
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


def _did_not_come_up(device: str, reason: str | None) -> str:
    why = f" ({reason})" if reason else ""
    return (
        f"device {device!r} did not come up{why}; check the driver with nvidia-smi and the libraries with "
        "pip install 'stapes[gpu]', or use device='cpu'"
    )


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
