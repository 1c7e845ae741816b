"""The process that a contender runs in: one JSON object a line comes in, one goes out.

    {"do": "load", "job": {...}}                  -> {"started", "imported", "loaded": seconds of the system's monotonic clock, "versions"}
    {"do": "prepare", "job": {...}}               -> {}
    {"do": "first", "clip": FILE}                 -> {"answered": the same clock, "peak_mb"}
    {"do": "logits", "batch": [FILE, ...]}        -> {"logits": (clips, labels)}
    {"do": "time", "batches": [[FILE, ...], ...], "calls": most, "budget_s": stop after} -> {"seconds": [...]}
    {"do": "stages", "clip": FILE, "file": FILE}  -> {"stages": {name: [seconds, ...]}}
    {"do": "installed"}                           -> {"bytes"}

Instead of any of these: {"absent": what is not installed} or {"error": one line}. FILE: float32 samples and nothing else, except `file`,
an audio file. It is run by its path, so that nothing of the environment it was started from comes along; the standard output of the
libraries goes to standard error.
"""

import time

STARTED = time.monotonic()  # before any import that takes time

import dataclasses  # noqa: E402
import importlib  # noqa: E402
import importlib.util  # noqa: E402
import json  # noqa: E402
import os  # noqa: E402
import sys  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import TYPE_CHECKING, Any, Protocol  # noqa: E402

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Model(Protocol):
    """What a library's `load` gives."""

    def logits(self, clips: "list[NDArray[Any]]") -> Any:
        """(clips, labels) for a batch of clips of one length."""

    def scores(self, clips: "list[NDArray[Any]]") -> object:
        """The same with everything that a caller waits for, from samples to scores by label: what is timed."""


class Worker:
    """One library in one process."""

    def __init__(self, library: str) -> None:
        self._library = library
        self._model: Any = None
        self._clips: dict[str, Any] = {}

    def load(self, job: dict[str, Any]) -> dict[str, object]:
        module = self._module()
        given = self._job(job)
        if hasattr(module, "imports"):
            module.imports(given)
        imported = time.monotonic()
        self._model = module.load(self._job(job))
        versions = {name: found for name in module.PACKAGES if (found := _version(name))}
        return {"started": STARTED, "imported": imported, "loaded": time.monotonic(), "versions": versions}

    def prepare(self, job: dict[str, Any]) -> dict[str, object]:
        self._module().prepare(self._job(job))
        return {}

    def first(self, clip: str) -> dict[str, object]:
        self._model.scores([self._read(clip)])
        return {"answered": time.monotonic(), "peak_mb": _peak_mb()}

    def logits(self, batch: list[str]) -> dict[str, object]:
        return {"logits": [[float(value) for value in row] for row in self._model.logits([self._read(clip) for clip in batch])]}

    def time(self, batches: list[list[str]], calls: int, budget_s: float) -> dict[str, object]:
        ready = [[self._read(clip) for clip in batch] for batch in batches]
        self._model.scores(ready[0])  # not counted: the CPU's caches were another's
        seconds: list[float] = []
        while len(seconds) < calls and sum(seconds) < budget_s:
            batch = ready[len(seconds) % len(ready)]
            start = time.perf_counter()
            self._model.scores(batch)
            seconds.append(time.perf_counter() - start)
        return {"seconds": seconds}

    def stages(self, clip: str, file: str) -> dict[str, object]:
        return {"stages": self._model.stages(self._read(clip), Path(file))}

    def installed(self) -> dict[str, object]:
        from stapes_bench.footprint import closure, installed_bytes

        packages, extras = self._module().INSTALLED
        loaded = ("torch",) if sys.modules.get("torch") else ()  # transformers' extractors take it where they can use it
        return {"bytes": installed_bytes(closure((*packages, *loaded), extras))}

    def _module(self) -> Any:
        return importlib.import_module(f"stapes_bench.peers.{self._library}")

    def _job(self, job: dict[str, Any]) -> Any:
        from stapes_bench.peers import Job

        return Job(**{entry.name: job[entry.name] for entry in dataclasses.fields(Job) if entry.name in job})

    def _read(self, clip: str) -> Any:
        import numpy as np

        if clip not in self._clips:
            self._clips[clip] = np.fromfile(clip, np.float32)
        return self._clips[clip]


def _version(name: str) -> str | None:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _peak_mb() -> float:
    """The most memory that this process had; not getrusage's, which on Linux begins with what the parent had."""
    try:
        status = Path("/proc/self/status").read_text()
        return int(status.split("VmHWM:")[1].split()[0]) / 1024
    except OSError:
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def _make_importable() -> None:
    """The package `stapes_bench` alone, whatever else lies beside it."""
    package = Path(__file__).parent.parent
    spec = importlib.util.spec_from_file_location("stapes_bench", package / "__init__.py", submodule_search_locations=[str(package)])
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["stapes_bench"] = module
    spec.loader.exec_module(module)


def main() -> None:
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    _make_importable()
    worker = Worker(sys.argv[1])
    for line in sys.stdin:
        request = json.loads(line)
        try:
            reply = getattr(worker, request.pop("do"))(**request)
        except ModuleNotFoundError as error:
            reply = {"absent": error.name or str(error)}
        except Exception as error:
            said = " ".join(str(error).split())
            reply = {"error": f"{type(error).__name__}: {said:.300}"}
        print(json.dumps(reply), file=replies, flush=True)


if __name__ == "__main__":
    main()
