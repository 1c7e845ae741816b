"""From nothing to the first answer, as whole processes: stapes beside the transformers pipeline, on the same checkpoint and clip.

    python -m stapes_bench.startup > benchmarks/results/startup.json      (from the checkout, with [cpu,export] installed)

Rounds are interleaved, since a shared machine drifts; answers are compared before anything is timed.
"""

import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from stapes_bench.footprint import closure, installed_bytes
from stapes_bench.host import fingerprint

ROUNDS = 7
CLIP = Path("examples/yes.flac")
CHECKPOINT = Path("tests/checkpoints/wav2vec2-ks12")
SAME_SCORE = 0.01  # int8 against float32 on the top label

PROGRAMS = {
    "import numpy": "import numpy",
    "import stapes": "import stapes",
    "stapes": f"import stapes; best = stapes.load()({str(CLIP)!r})[0]; print(best.label, best.score)",
    "stapes classify": f"import sys; from stapes.cli import run; sys.argv = ['stapes', 'classify', {str(CLIP)!r}]; run()",
    "transformers": (
        "import soundfile, transformers; "
        f"samples, rate = soundfile.read({str(CLIP)!r}, dtype='float32'); "
        f"pipe = transformers.pipeline('audio-classification', model={str(CHECKPOINT)!r}, device='cpu'); "
        "best = pipe({'raw': samples, 'sampling_rate': rate})[0]; print(best['label'], best['score'])"
    ),
}


@dataclass(frozen=True)
class Run:
    """One process from start to end."""

    seconds: float
    peak_mb: float
    printed: str


def run(program: str) -> Run:
    """Run a Python program in a process of its own."""
    start = time.perf_counter()
    child = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert child.stdout is not None
    printed = child.stdout.read()
    _, status, usage = os.wait4(child.pid, 0)
    seconds = time.perf_counter() - start
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise RuntimeError(f"exit status {child.returncode}: {program}")
    return Run(seconds, usage.ru_maxrss / 1024, printed.strip())


def measure(rounds: int = ROUNDS) -> dict[str, object]:
    """Seconds and peak memory of every program, the installed sizes and the host."""
    answers = {name: run(PROGRAMS[name]).printed.split() for name in ("stapes", "transformers")}
    (label, score), (want_label, want_score) = answers.values()
    if label != want_label or abs(float(score) - float(want_score)) > SAME_SCORE:
        raise RuntimeError(f"the answers differ, so their speeds do not compare: {answers}")
    runs: dict[str, list[Run]] = {name: [] for name in PROGRAMS}
    for turn in range(rounds):
        for name, program in PROGRAMS.items():
            runs[name].append(run(program))
        print(f"round {turn + 1} of {rounds}", file=sys.stderr)
    return {
        "host": fingerprint(),
        "answers": answers,
        "seconds": {name: [round(each.seconds, 4) for each in some] for name, some in runs.items()},
        "peak_mb": {name: [round(each.peak_mb, 1) for each in some] for name, some in runs.items()},
        "installed_mb": {
            "stapes": round(installed_bytes(closure(["stapes"], ["cpu"])) / 1e6, 1),
            "transformers": round(installed_bytes(closure(["transformers", "torch"])) / 1e6, 1),
        },
    }


if __name__ == "__main__":
    json.dump(measure(), sys.stdout, indent=1)
    print()
