"""The same vectors for every host: WAV files, and the scores that Python computes for them."""

from collections.abc import Callable
from pathlib import Path

import pytest
import soundfile
import torch

import stapes
from stapes.classifier import DEFAULT_MODEL
from stapes_export.build import export

torch.set_num_threads(1)  # the suite runs a worker a core

NATIVE = 1e-5
"""Largest difference of an fp32 score in a host that runs the same native library."""

WASM = 1e-4
"""The same in WebAssembly, whose kernels sum in another order."""


@pytest.fixture(scope="session")
def fp32_model(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The fp32 export of the embedded model's checkpoint."""
    path = tmp_path_factory.mktemp("fp32") / "speech-commands.onnx"
    export(str(checkpoint), path, "fp32")
    return path


@pytest.fixture(scope="session")
def int8_model() -> Path:
    """The embedded model's file."""
    return DEFAULT_MODEL


@pytest.fixture(scope="session")
def waves(root: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The example clips as WAV, mono, 16 kHz, 16 bits."""
    folder = tmp_path_factory.mktemp("waves")
    made = []
    for clip in sorted((root / "examples").glob("*.flac")):
        samples, rate = soundfile.read(clip, dtype="int16")
        made.append(folder / f"{clip.stem}.wav")
        soundfile.write(made[-1], samples, rate, subtype="PCM_16")
    return made


Expected = Callable[[Path, Path], dict[str, float]]


@pytest.fixture(scope="session")
def expected() -> Expected:
    """expected(model, wave) -> label: score, for every label, best first."""

    def of(model: Path, wave: Path) -> dict[str, float]:
        return {found.label: found.score for found in stapes.load(model, device="cpu")(wave, top_k=None)}

    return of
