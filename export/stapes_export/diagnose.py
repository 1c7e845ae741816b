"""Checkpoint -> torch module with every weight in place, or the reason why not.

transformers fills what a checkpoint lacks with random numbers and only logs it. An artifact made from that would answer at chance, so
here it is an error that lists the keys. What a checkpoint has beyond the module is no harm, unless it is a head.
"""

import contextlib
from collections.abc import Iterable, Iterator

import torch
from optimum.exporters.tasks import TasksManager
from torch import nn
from transformers import PreTrainedModel
from transformers.utils import logging

from stapes.errors import CheckpointError
from stapes_export import heads
from stapes_export.fetch import Checkpoint

TASK = "audio-classification"

TRAINING_ONLY = ("masked_spec_embed",)
"""Weights that only training reads: they may be missing."""

HEAD = ("classifier.", "projector.", "age.", "gender.")
"""How keys of a head begin. One that the module has no place for means that the module's own head is random."""


class UndecidedHead(CheckpointError):
    """The keys fit more than one head, and nothing in the checkpoint says which; `names` are those of heads.HEADS."""

    def __init__(self, message: str, names: tuple[str, ...]) -> None:
        super().__init__(message)
        self.names = names


def load(checkpoint: Checkpoint, head: str | None = None) -> PreTrainedModel:
    """The checkpoint as transformers runs it, float32, eager attention, in evaluation mode.

    `head`: a name of heads.HEADS, where the checkpoint's own is not transformers'. Raises CheckpointError; UndecidedHead where
    `head` is needed.
    """
    _refuse_labels(checkpoint)
    model, missing, mismatched, unexpected = _load(checkpoint)
    names = heads.fitting(unexpected)
    if head is not None and head not in names:
        raise CheckpointError(f"{checkpoint.name} has no head {head}; its keys fit {', '.join(names) or 'none that stapes knows'}")
    if len(names) > 1 and head is None:
        raise UndecidedHead(
            f"{checkpoint.name} keeps its head under {_listed(key for key in unexpected if key.startswith(HEAD))}, which is not "
            f"transformers' and is computed in one of several ways: choose --head {' or --head '.join(names)} (with --calibration DIR, one "
            "folder of clips a label, each is tried)",
            names,
        )
    if names:
        _put_head(model, checkpoint, head or names[0])
        missing, mismatched, unexpected = ({key for key in keys if not key.startswith(HEAD)} for keys in (missing, mismatched, unexpected))
    missing = {key for key in missing if not key.endswith(TRAINING_ONLY)}
    foreign = {key for key in unexpected if key.startswith(HEAD)}
    if any(key.startswith("age.") for key in foreign) and any(key.startswith("gender.") for key in foreign):
        raise CheckpointError(
            f"{checkpoint.name} has two heads, age (a number) and gender (three classes), with an activation each; stapes exports "
            "one list of labels with one activation"
        )
    if missing or mismatched or foreign:
        kinds = (("missing", missing), ("of another shape", mismatched), ("without a place", foreign))
        raise CheckpointError(
            f"{checkpoint.name} does not fill {type(model).__name__}, and transformers would go on with random numbers: "
            + "; ".join(f"{kind} {_listed(keys)}" for kind, keys in kinds if keys)
            + f". Use a checkpoint that was fine-tuned for {TASK} with this class"
        )
    return model.eval()


def _load(checkpoint: Checkpoint) -> tuple[PreTrainedModel, set[str], set[str], set[str]]:
    """The module, and its keys that are missing, of another shape, and without a place in it."""
    model_class = TasksManager.get_model_class_for_task(TASK, framework="pt")
    try:
        with _quiet():
            model, report = model_class.from_pretrained(
                checkpoint.path,
                attn_implementation="eager",  # under sdpa some families do not trace
                dtype=torch.float32,
                local_files_only=True,
                weights_only=True,  # a pickle must not run code
                ignore_mismatched_sizes=True,  # reported instead, with their keys
                output_loading_info=True,
            )
    except Exception as error:  # safetensors, pickle and the configuration classes raise their own kinds
        first = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise CheckpointError(f"transformers cannot load {checkpoint.name}: {first}") from error
    mismatched = {str(key[0]) for key in report["mismatched_keys"]}
    return model, set(report["missing_keys"]), mismatched, set(report["unexpected_keys"])


def _refuse_labels(checkpoint: Checkpoint) -> None:
    """transformers 4 believes id2label and 5 num_labels, renaming everything; neither can be right when they disagree."""
    count, names = checkpoint.config.get("num_labels"), checkpoint.config.get("id2label")
    if count is not None and names is not None and count != len(names):
        raise CheckpointError(
            f"config.json of {checkpoint.name} says num_labels {count} and names {len(names)} labels in id2label; correct it"
        )


def _put_head(model: PreTrainedModel, checkpoint: Checkpoint, name: str) -> None:
    pooling = checkpoint.config.get("pooling_mode", "mean")
    if pooling != "mean":
        raise CheckpointError(f"{checkpoint.name} has pooling_mode {pooling!r}; stapes exports heads behind the mean over time")
    if getattr(model.config, "use_weighted_layer_sum", False):
        raise CheckpointError(f"{checkpoint.name} has both a head of its own and a weighted layer sum, which no known code combines")
    model.projector = nn.Identity()
    model.classifier = heads.load(checkpoint, name, model.config.num_labels)


def _listed(keys: Iterable[str]) -> str:
    return ", ".join(sorted(keys))


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
