"""torchaudio, the original's resampler, in a process of its own: transformers computes otherwise where it has once seen torchaudio.

STAPES_TORCHAUDIO names a folder with the package (pip install --no-deps --target FOLDER torchaudio). Its wheel is built for one torch and
its extension loads with no other; resampling is plain Python and does without.
"""

import os
import pickle
import subprocess
import sys
import types
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

VARIABLE = "STAPES_TORCHAUDIO"

ABSENT = f"set {VARIABLE} to a folder with the unpacked torchaudio: the original resamples with it"


def there() -> bool:
    return VARIABLE in os.environ


def resampled(jobs: Sequence[tuple[Any, int, int]]) -> list[Any]:
    """torchaudio.functional.resample of each (samples, from rate, to rate), as arrays."""
    return _elsewhere("_resample", jobs)


def classified(checkpoint: Path, jobs: Sequence[tuple[Any, dict[str, Any]]]) -> list[Any]:
    """What transformers' pipeline answers to each (input, arguments of the call); where it raises, the error."""
    return _elsewhere("_classify", (checkpoint, jobs))


def _elsewhere(what: str, payload: Any) -> Any:
    done = subprocess.run([sys.executable, __file__, what], input=pickle.dumps(payload), stdout=subprocess.PIPE, timeout=300, check=True)
    return pickle.loads(done.stdout)


def _load(folder: Path) -> None:
    extension = types.ModuleType("torchaudio._extension")
    extension.__dict__.update(
        _IS_TORCHAUDIO_EXT_AVAILABLE=False,
        _IS_ALIGN_AVAILABLE=False,
        _IS_RNNT_AVAILABLE=False,
        fail_if_no_align=lambda function: function,
        _check_cuda_version=lambda: None,
    )
    sys.modules["torchaudio._extension"] = extension
    sys.path.insert(0, str(folder))


def _resample(jobs: Sequence[tuple[Any, int, int]]) -> list[Any]:
    import torch
    from torchaudio.functional import resample

    return [resample(torch.from_numpy(samples), before, after).numpy() for samples, before, after in jobs]


def _classify(asked: tuple[Path, Sequence[tuple[Any, dict[str, Any]]]]) -> list[Any]:
    from transformers import pipeline

    checkpoint, jobs = asked
    pipe = pipeline("audio-classification", model=str(checkpoint), device="cpu")

    def outcome(clip: Any, call: dict[str, Any]) -> Any:
        try:
            return pipe(clip, **call)
        except Exception as error:
            return error

    return [outcome(*job) for job in jobs]


if __name__ == "__main__":
    functions: dict[str, Callable[[Any], Any]] = {"_resample": _resample, "_classify": _classify}
    _load(Path(os.environ[VARIABLE]))
    result = functions[sys.argv[1]](pickle.load(sys.stdin.buffer))
    sys.stdout.buffer.write(pickle.dumps(result))
