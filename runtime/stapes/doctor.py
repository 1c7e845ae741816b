"""What this host can really run: one finding a fact, each with its remedy where there is something to mend.

Torch and the other optional packages are looked up in the table of installed packages, never imported.
"""

import ctypes.util
import importlib
import platform
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal

from stapes import cache, golden, optimized, session
from stapes.classifier import DEFAULT_MODEL, load
from stapes.errors import MissingExtra, StapesError
from stapes.session import CPU_FLAGS

State = Literal["ok", "note", "wrong"]


@dataclass(frozen=True)
class Finding:
    """One fact about the host."""

    name: str
    value: str
    state: State = "ok"
    """"note": stapes works, but not all of it or not at its best."""
    remedy: str | None = None
    """What to do."""


@dataclass(frozen=True)
class Runtime:
    """The ONNX Runtime on this host, asked once."""

    build: session.Build | None
    """None where it cannot be imported."""
    problem: str
    """Why it cannot be imported."""
    refused: dict[str, str]
    """Providers that were offered and did not come up -> the reason."""

    def offers(self, provider: str) -> bool:
        return self.build is not None and provider in self.build.providers

    def has(self, provider: str) -> bool:
        return self.offers(provider) and provider not in self.refused


Probe = Callable[[Runtime], Iterable[Finding]]

CPU, CUDA, AZURE = "CPUExecutionProvider", "CUDAExecutionProvider", "AzureExecutionProvider"
"""The last calls a service elsewhere and is no device of any host."""

BUILDS = (
    *("onnxruntime", "onnxruntime-gpu", "onnxruntime-directml", "onnxruntime-openvino", "onnxruntime-qnn", "onnxruntime-rocm"),
    *("onnxruntime-migraphx", "onnxruntime-cann", "onnxruntime-webgpu", "onnxruntime-windowsml", "onnxruntime-silicon"),
    *("onnxruntime-training", "onnxruntime-training-cpu", "onnxruntime-azure", "ort-nightly", "ort-nightly-gpu", "ort-nightly-directml"),
)
"""Distributions that unpack into the one folder onnxruntime/: the last one installed overwrites part of the others."""

ABILITIES = {
    "AVX2": {"avx2"},
    "AVX512-VNNI": {"avx512_vnni"},
    "AVX-VNNI": {"avx_vnni"},
    "AMX int8": {"amx_int8"},
    "AVX512-BF16": {"avx512_bf16"},
    "Arm dot product": {"asimddp"},
}
"""What to call a CPU's ability -> the flags of /proc/cpuinfo that show it."""

MAC_FLAGS = {"hw.optional.avx2_0": "avx2", "hw.optional.avx512vnni": "avx512_vnni", "hw.optional.arm.FEAT_DotProd": "asimddp"}
"""What sysctl calls a CPU's ability -> its flag on Linux."""

EXTRAS = {
    "hub": ("models by their Hugging Face name", ("huggingface_hub",)),
    "plot": ("pictures", ("matplotlib",)),
    "export": ("making models", ("torch", "transformers")),
}
"""Extra -> what it is for, and its packages."""

LIBRARIES = {
    "cuda runtime": (("nvidia-cuda-runtime", "nvidia-cuda-runtime-cu12"), ("cudart", "cudart64_13", "cudart64_12")),
    "cudnn": (("nvidia-cudnn-cu13", "nvidia-cudnn-cu12"), ("cudnn", "cudnn64_9")),
}
"""Finding -> the wheels that bring the library, and what the library is called on Linux and on Windows."""

LITTLE, TOO_LITTLE = 10**9, 10**8
"""Bytes free for the cache: below the first one large model fills it, below the second a small one does."""

PATIENCE_S = 20
"""For another program that is asked for its version."""


def examine(probes: Sequence[Probe] | None = None) -> list[Finding]:
    """Every finding, in the order to read them. A probe that fails is a finding itself."""
    runtime = _runtime()
    return [finding for probe in probes or PROBES for finding in _asked(probe, runtime)]


def _asked(probe: Probe, runtime: Runtime) -> list[Finding]:
    try:
        return list(probe(runtime))
    except Exception as error:  # whatever it is, the rest of the report is of use
        name = getattr(probe, "__name__", "probe").strip("_").replace("_", " ")
        return [Finding(name, f"could not be found out: {_said(error)}", "wrong", "report this line, which is a mistake of stapes doctor")]


def _runtime() -> Runtime:
    try:
        build = session.build()
    except MissingExtra as error:
        return Runtime(None, str(error.__cause__ or error), {})
    except Exception as error:  # an installation that two packages share fails in any way
        return Runtime(None, _said(error), {})
    refused = {provider: session.bring_up(DEFAULT_MODEL, provider) for provider in build.providers if provider != AZURE}
    return Runtime(build, "", {provider: reason for provider, reason in refused.items() if reason is not None})


def _versions(_: Runtime) -> Iterable[Finding]:
    yield Finding("python", f"{platform.python_version()} ({platform.python_implementation()})")
    yield Finding("system", platform.platform())
    yield Finding("stapes", version("stapes"))
    for name in ("numpy", "soxr", "soundfile"):
        try:
            module = importlib.import_module(name)
        except Exception as error:  # soundfile raises OSError where its library does not load
            yield Finding(name, f"cannot be imported: {_said(error)}", "wrong", f"pip install --force-reinstall {name}")
            continue
        library = f" with libsndfile {module.__libsndfile_version__}" if name == "soundfile" else ""
        yield Finding(name, (_version(name) or str(module.__version__)) + library)


def _onnxruntime(runtime: Runtime) -> Iterable[Finding]:
    installed = [name for name in BUILDS if _version(name)]
    listed = " and ".join(f"{name} {_version(name)}" for name in installed)
    # uninstalling any of them takes files of the others away, so all go and one comes back
    again = f"pip uninstall -y {' '.join(installed)} && " if installed else ""
    extra = "gpu" if "onnxruntime-gpu" in installed else "cpu"
    if len(installed) > 1:
        remedy = f"{again}pip install 'stapes[{extra}]'"
        yield Finding("onnxruntime", f"{listed} are installed over one another in one folder", "wrong", remedy)
    elif runtime.build is None:
        value = f"{listed} cannot be imported: {runtime.problem}" if installed else "not installed"
        remedy = f"{again}pip install 'stapes[cpu]', or 'stapes[gpu]' for a host with CUDA"
        yield Finding("onnxruntime", value, "wrong", remedy)
    else:
        cuda = f", built for CUDA {runtime.build.cuda}" if runtime.build.cuda else ""
        yield Finding("onnxruntime", f"{listed or f'{runtime.build.version}, in no table of packages'}{cuda}")


def _providers(runtime: Runtime) -> Iterable[Finding]:
    if runtime.build is None:
        return
    up = ", ".join(_short(name) for name in runtime.build.providers if name not in runtime.refused and name != AZURE)
    value = f"{up or 'none'} up; this build offers {', '.join(map(_short, runtime.build.providers))}"
    if CPU in runtime.refused:
        remedy = "pip install --force-reinstall onnxruntime, on Windows after the Visual C++ runtime"
        yield Finding("providers", f"{value}; the CPU: {runtime.refused[CPU]}", "wrong", remedy)
    else:
        yield Finding("providers", value)
    if CUDA in runtime.refused:
        yield Finding(
            "cuda",
            f"does not come up: {runtime.refused[CUDA]}",
            "wrong",
            "pip install -U 'stapes[gpu]' brings its libraries, the system its driver (a container needs --gpus all); "
            "without a GPU: pip uninstall -y onnxruntime-gpu && pip install 'stapes[cpu]'",
        )


def _nvidia(runtime: Runtime) -> Iterable[Finding]:
    """A driver or library that CUDA came up without is only a note: it lies where nobody looked."""
    if platform.system() == "Darwin":
        return
    absent: State = "wrong" if CUDA in runtime.refused else "note"
    driver = _first_line("nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader")
    if driver is None:
        remedy = "install NVIDIA's driver; a container needs --gpus all and NVIDIA's container toolkit" if absent == "wrong" else None
        yield Finding("nvidia driver", "none (no nvidia-smi that answers)", absent, remedy)
    elif runtime.offers(CUDA):
        yield Finding("nvidia driver", driver)
    else:
        remedy = f"to use it: pip uninstall -y {' '.join(filter(_version, BUILDS)) or 'onnxruntime'} && pip install 'stapes[gpu]'"
        yield Finding("nvidia driver", f"{driver}, and an ONNX Runtime without CUDA", "note", remedy)
    for name, (wheels, libraries) in LIBRARIES.items():
        places = [f"{wheel} {number}" for wheel in wheels if (number := _version(wheel))]
        places += filter(None, map(ctypes.util.find_library, libraries))
        remedy = "pip install -U 'stapes[gpu]'" if absent == "wrong" else None
        yield Finding(name, ", ".join(places)) if places else Finding(name, "not found", absent, remedy)


def _cpu(_: Runtime) -> Iterable[Finding]:
    yield judge_cpu(*_this_cpu())


def judge_cpu(name: str, flags: frozenset[str] | None) -> Finding:
    """What a CPU with these flags of /proc/cpuinfo (None: not known) means for int8."""
    if flags is None:
        return Finding("cpu", f"{name}; its abilities are not known here", "note", "stapes verify MODEL tells whether int8 is right on it")
    abilities = ", ".join(ability for ability, shown in ABILITIES.items() if shown & flags) or "nothing that helps int8"
    if any(shown & flags for shown in CPU_FLAGS.values()):
        return Finding("cpu", f"{name}: {abilities}; int8 keeps its whole range")
    return Finding(
        "cpu",
        f"{name}: {abilities}; int8 in 8 bits may saturate without a sign",
        "note",
        "export with --precision int8-portable, as the embedded model was",
    )


def _this_cpu() -> tuple[str, frozenset[str] | None]:
    name = platform.processor() or platform.machine()
    if platform.system() == "Linux":
        try:
            text = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace")
        except OSError:  # a sandbox
            return name, None
        fields = dict(re.findall(r"^(model name|flags|Features)\s*:\s*(.*)$", text, re.MULTILINE))
        flags = fields.get("flags") or fields.get("Features")
        return fields.get("model name", name), frozenset(flags.split()) if flags else None
    if platform.system() == "Darwin":
        named = _first_line("sysctl", "-n", "machdep.cpu.brand_string")
        return named or name, frozenset(flag for key, flag in MAC_FLAGS.items() if _first_line("sysctl", "-n", key) == "1")
    return name, None


def _decoders(_: Runtime) -> Iterable[Finding]:
    found = [f"PyAV {number}"] if (number := _version("av")) else []
    if line := _first_line("ffmpeg", "-version"):
        found.append(line.split(" Copyright")[0].replace(" version ", " "))
    if found:
        yield Finding("decoders", ", ".join(["libsndfile", *found]))
    else:
        remedy = "pip install 'stapes[av]', or put ffmpeg on PATH"
        yield Finding("decoders", "libsndfile alone: no m4a, aac, mp4, webm or amr", "note", remedy)


def _extras(_: Runtime) -> Iterable[Finding]:
    for extra, (purpose, packages) in EXTRAS.items():
        absent = [name for name in packages if not _version(name)]
        if absent:
            yield Finding(f"[{extra}]", f"{purpose}: no {' and no '.join(absent)}", "note", f"pip install 'stapes[{extra}]'")
        else:
            yield Finding(f"[{extra}]", f"{purpose}: {', '.join(f'{name} {_version(name)}' for name in packages)}")


def _cache(_: Runtime) -> Iterable[Finding]:
    remedy = f"set {cache.VARIABLE} to a folder that can be written, on a disk with room"
    try:
        folder = cache.folder()
        nearest = next(place for place in (folder, *folder.parents) if place.exists())
        with tempfile.TemporaryDirectory(dir=nearest):  # the only sure test; a folder that is not there yet is not made
            free = shutil.disk_usage(nearest).free
        graphs, size = optimized.holdings()
    except Exception as error:
        yield Finding("cache", f"cannot be written: {_said(error)}", "wrong", remedy)
        return
    state: State = "wrong" if free < TOO_LITTLE else "note" if free < LITTLE else "ok"
    absent = "" if nearest == folder else ", not made yet"
    held = f", {graphs} optimized graph{'s' if graphs > 1 else ''} of {size / 1e9:.1f} GB" if graphs else ""
    yield Finding("cache", f"{folder}{absent}{held}, {free / 1e9:.1f} GB free", state, None if state == "ok" else remedy)


def _golden_test(runtime: Runtime) -> Iterable[Finding]:
    if not runtime.has(CPU):
        yield Finding("golden test", "not run, for want of ONNX Runtime", "note")
        return
    for device in ("cpu", "cuda") if runtime.has(CUDA) else ("cpu",):
        try:
            outcome = golden.check(load(DEFAULT_MODEL, device))
        except StapesError as error:
            yield Finding("golden test", f"{error} (on {device})", "wrong")
        else:
            yield Finding("golden test", str(outcome), "ok" if outcome.passed else "wrong", outcome.remedy)


PROBES: tuple[Probe, ...] = (_versions, _onnxruntime, _providers, _nvidia, _cpu, _decoders, _extras, _cache, _golden_test)


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _short(provider: str) -> str:
    return provider.removesuffix("ExecutionProvider")


def _said(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())


def _first_line(*command: str) -> str | None:
    """The first line that a program prints; None where it is not there or fails."""
    program = shutil.which(command[0])
    if program is None:
        return None
    try:
        done = subprocess.run(
            [program, *command[1:]],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=PATIENCE_S,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    lines = done.stdout.strip().splitlines()
    return lines[0].strip() if done.returncode == 0 and lines else None
