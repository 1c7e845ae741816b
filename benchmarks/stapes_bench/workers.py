"""A contender's process, seen from here: it is told what to do a line at a time, and answers a line at a time."""

import contextlib
import json
import os
import queue
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from stapes_bench.peers import FOLDER, Job

PATIENCE_S = 1800.0
"""For one answer: quantizing a large model takes minutes."""

NODE = "transformersjs"
"""The library whose worker runs in Node; its environment is a folder with node_modules."""


class Absent(Exception):
    """What a contender needs is not installed; the message says what."""


class WorkerError(Exception):
    """A contender refused, or its process ended."""


class Worker:
    """One process; a context manager, since it must not outlive the run."""

    def __init__(self, library: str, environments: Mapping[str, str], threads: int) -> None:
        """`environments`: library -> its interpreter, or for Node the folder that holds node_modules."""
        command = _command(library, environments)
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 (closed with the process)
        self.begun = time.monotonic()
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            encoding="utf-8",
            env=_environment(foreign=command[0] != sys.executable, threads=threads),
        )
        self._lines: queue.Queue[str] = queue.Queue()
        threading.Thread(target=self._listen, daemon=True).start()

    def ask(self, do: str, **arguments: Any) -> dict[str, Any]:
        """The reply to one request. Raises Absent or WorkerError."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps({"do": do} | arguments) + "\n")
            self._process.stdin.flush()
            line = self._lines.get(timeout=PATIENCE_S)
        except queue.Empty:
            self._process.kill()
            raise WorkerError(f"no answer within {PATIENCE_S:g} s") from None
        except BrokenPipeError:
            line = ""
        if not line:
            raise WorkerError(f"its process ended with status {self._process.wait()}: {self._last_words()}")
        reply: dict[str, Any] = json.loads(line)
        if "absent" in reply:
            raise Absent(f"{reply['absent']} is not installed")
        if "error" in reply:
            raise WorkerError(reply["error"])
        return reply

    def load(self, job: Job) -> dict[str, Any]:
        return self.ask("load", job=asdict(job))

    def close(self) -> None:
        """End the process, and wait for it."""
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                with contextlib.suppress(BrokenPipeError):  # what it was told last was never read
                    stream.close()
        self._log.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _listen(self) -> None:
        assert self._process.stdout is not None
        try:
            for line in self._process.stdout:
                self._lines.put(line)
        except ValueError:  # closed meanwhile
            pass
        self._lines.put("")

    def _last_words(self) -> str:
        self._log.seek(0)
        lines = self._log.read().decode("utf-8", "replace").strip().splitlines()
        return lines[-1][:200] if lines else "it said nothing"


def _command(library: str, environments: Mapping[str, str]) -> list[str]:
    if library == NODE:
        node = shutil.which("node")
        if node is None:
            raise Absent("node is not installed")
        folder = environments.get(library)
        if folder is None or not Path(folder).is_dir():
            raise Absent(f"{folder or 'a folder with its node_modules'} is not there")
        return [node, str(FOLDER / "transformersjs.mjs"), folder]
    python = environments.get(library, sys.executable)
    if shutil.which(python) is None:
        raise Absent(f"{python} is not there")
    return [python, "-P", str(FOLDER / "worker.py"), library]


def _environment(foreign: bool, threads: int) -> dict[str, str]:
    """Ours, with as many threads for NumPy and torch as for the model, and without a way into our packages for other interpreters."""
    found = dict(os.environ) | dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), str(threads))
    found |= {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error", "TOKENIZERS_PARALLELISM": "false"}
    if foreign:
        found.pop("PYTHONPATH", None)
    return found
