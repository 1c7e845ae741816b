"""The machine and the versions that a figure belongs to."""

import os
import platform
import re
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

PACKAGES = ("stapes", "numpy", "onnxruntime", "torch", "transformers")
FLAGS = ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "avx512_bf16", "amx_int8", "amx_bf16", "asimddp", "i8mm")


def fingerprint() -> dict[str, object]:
    """CPU, the flags that matter to inference, cores, system and versions; nothing that names the machine itself."""
    return {
        "cpu": _cpu(),
        "flags": [flag for flag in FLAGS if flag in _cpuinfo("flags|Features").split()],
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "versions": {name: found for name in PACKAGES if (found := _version(name))},
    }


def describe(host: dict[str, object]) -> str:
    """The fingerprint in half a sentence."""
    flags = host["flags"]
    assert isinstance(flags, list)
    known = ", ".join(flag.upper().replace("_", "-") for flag in flags if flag in ("avx512_vnni", "avx512_bf16", "amx_int8", "asimddp"))
    return f"{host['cpu']}, {host['cores']} cores{f' ({known})' if known else ''}, {host['system']}, Python {host['python']}"


def _cpu() -> str:
    name = _cpuinfo("model name") or platform.processor() or platform.machine()
    family, model = _cpuinfo("cpu family"), _cpuinfo("model")
    return f"{name} (family {family}, model {model})" if family and model else name


def _cpuinfo(key: str) -> str:
    try:
        found = re.search(rf"^(?:{key})\s*:(.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    except OSError:
        return ""
    return found[1].strip() if found else ""


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
