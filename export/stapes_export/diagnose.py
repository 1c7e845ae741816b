"""Checkpoint -> torch module with every weight in place, or the reason why not.

transformers fills what a checkpoint lacks with random numbers and only logs it. An artifact made from that would answer at chance, so
here it is an error that lists the keys.
"""

import contextlib
from collections.abc import Iterator

import torch
from optimum.exporters.tasks import TasksManager
from transformers import PreTrainedModel
from transformers.utils import logging

from stapes.errors import CheckpointError
from stapes_export.fetch import Checkpoint

TASK = "audio-classification"


def load(checkpoint: Checkpoint) -> PreTrainedModel:
    """The checkpoint as transformers runs it, float32, eager attention, in evaluation mode. Raises CheckpointError."""
    model_class = TasksManager.get_model_class_for_task(TASK, framework="pt")
    try:
        with _quiet():
            model, report = model_class.from_pretrained(
                checkpoint.path,
                attn_implementation="eager",  # under sdpa some families do not trace
                dtype=torch.float32,
                local_files_only=True,
                ignore_mismatched_sizes=True,  # reported below instead, with their keys
                output_loading_info=True,
            )
    except (OSError, ValueError, RuntimeError) as error:
        raise CheckpointError(f"transformers cannot load {checkpoint.name}: {str(error).strip().splitlines()[0]}") from error
    missing = sorted(report["missing_keys"])
    mismatched = sorted(str(key[0]) for key in report["mismatched_keys"])
    if missing or mismatched:
        raise CheckpointError(
            f"{checkpoint.name} lacks weights, which transformers would fill with random numbers: "
            + "; ".join(f"{what} {', '.join(keys)}" for what, keys in (("missing", missing), ("of another shape", mismatched)) if keys)
            + f"; unexpected {', '.join(sorted(report['unexpected_keys'])) or 'none'}. Use a checkpoint fine-tuned for {TASK}"
        )
    return model.eval()


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keeps transformers' own progress and load report off the terminal: what it reports is judged here."""
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
