"""Artifacts that several tests read: each is exported once a session."""

import os
from pathlib import Path

import int8_here
import made_checkpoints
import pytest
import torch

from stapes_export.build import export

os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
torch.set_num_threads(1)  # the suite runs a worker a core


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory):
    """made("wav2vec2", feat_extract_norm="layer") -> the folder of such a checkpoint."""
    done: dict[str, Path] = {}

    def of(model_type: str, **options: object) -> Path:
        key = f"{model_type} {sorted(options.items())}"
        if key not in done:
            done[key] = made_checkpoints.make(tmp_path_factory.mktemp(model_type), model_type, **options)
        return done[key]

    return of


@pytest.fixture(scope="session")
def exported(made, tmp_path_factory: pytest.TempPathFactory):
    """exported("fp32", "wav2vec2", **options) -> the artifact of such a checkpoint."""
    done: dict[str, Path] = {}

    def of(precision: str, model_type: str, **options: object) -> Path:
        if precision == "int8" and int8_here.LACKING:
            pytest.skip(int8_here.REASON)
        key = f"{precision} {model_type} {sorted(options.items())}"
        if key not in done:
            done[key] = tmp_path_factory.mktemp("exported") / f"{model_type}.onnx"
            export(str(made(model_type, **options)), done[key], precision)
        return done[key]

    return of
