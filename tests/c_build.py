"""Building C programs of examples/hosts against the library in the installed wheel of ONNX Runtime."""

import importlib.util
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

STRICT = ("-Wall", "-Wextra", "-Wpedantic", "-Werror")


def need(*tools: str) -> None:
    """Skips where a tool is not installed, and says which."""
    missing = [tool for tool in tools if shutil.which(tool) is None]
    if missing or not sys.platform.startswith("linux"):
        pytest.skip(f"needs Linux with {' and '.join(tools)}; missing: {', '.join(missing) or sys.platform}")


def wheel_library() -> Path:
    """The folder of the wheel that holds libonnxruntime.so.*."""
    found = importlib.util.find_spec("onnxruntime")
    assert found is not None
    assert found.origin is not None
    folder = Path(found.origin).parent / "capi"
    assert list(folder.glob("libonnxruntime.so.*")), f"{folder} has no shared library"
    return folder


def make(folder: Path, out: Path, *settings: str, target: str = "all") -> subprocess.CompletedProcess[str]:
    """`make` in a folder; what it builds goes to `out`."""
    return run(["make", "-C", folder, f"ORT={wheel_library()}", f"OUT={out}", *settings, target])


def compiled(source: Path, out: Path, host: Path, compiler: Sequence[str], *flags: str) -> Path:
    """The program of one source file over stapes.h. `host`: the folder that holds it, `out` stands beside a built libonnxruntime.so.1."""
    library = out.parent / "libonnxruntime.so.1"
    if not library.exists():
        library.symlink_to(next(wheel_library().glob("libonnxruntime.so.*")))
    command = [*compiler, *STRICT, *flags, f"-I{host}", source, "-x", "none", library, "-Wl,-rpath,$ORIGIN", "-lm", "-lpthread", "-o", out]
    done = run(command)
    assert done.returncode == 0, done.stderr
    return out


def run(command: Sequence[str | Path], **options: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*map(str, command)], capture_output=True, encoding="utf-8", timeout=600, **options)
