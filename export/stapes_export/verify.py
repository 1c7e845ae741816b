"""The checkpoint in torch against the artifact on ONNX Runtime, run through stapes.Classifier: exactly what a user will run."""

import math
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import AutoFeatureExtractor, PreTrainedModel

from stapes.audio import Clip
from stapes.bundle import Manifest, Parity, golden_signal
from stapes.classifier import Classifier, load
from stapes.errors import ExportError, ParityError
from stapes.session import missing
from stapes_export.calibrate import Recording, accuracy
from stapes_export.fetch import Checkpoint
from stapes_export.layer_sum import LayerSum
from stapes_export.layer_sum import differs as layer_sum_differs
from stapes_export.recipes import Recipe

Logits = NDArray[np.float32]

BATCH = 8
"""Clips a batch when rows are compared with single runs."""


@dataclass(frozen=True)
class Reference:
    """The original: transformers' own extractor and module, one clip at a time."""

    model: PreTrainedModel
    extractor: Any
    layer_sum: LayerSum = "v4"

    @classmethod
    def of(cls, checkpoint: Checkpoint, model: PreTrainedModel, layer_sum: LayerSum = "v4") -> "Reference":
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "At least one mel filter")  # said of AST's own defaults
            return cls(model, AutoFeatureExtractor.from_pretrained(checkpoint.path, local_files_only=True), layer_sum)

    def __call__(self, samples: NDArray[np.float32]) -> Logits:
        """The logits of one clip, (labels,)."""
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what the original remarks on its own ways is nothing that our user can mend
            features = self.extractor(samples, sampling_rate=self.extractor.sampling_rate, return_tensors="pt")
            if self.layer_sum == "v4" and layer_sum_differs(self.model.config):
                logits = self._sum_behind_norm(features)
            else:
                logits = self.model(**features).logits
        found: Logits = logits[0].numpy()
        return found

    def _sum_behind_norm(self, features: Any) -> torch.Tensor:
        """transformers' own states, the last one as transformers 4 gave it, through the model's own head."""
        model: Any = self.model
        found = model.base_model(**features, output_hidden_states=True)
        states = torch.stack([*found.hidden_states[:-1], found.last_hidden_state])
        weights = torch.softmax(model.layer_weights, 0)[:, None, None, None]
        logits: torch.Tensor = model.classifier(model.projector((weights * states).sum(0)).mean(1))
        return logits


@dataclass(frozen=True)
class Report:
    """What verification found: the figures for the manifest, and the accuracies where clips are labelled."""

    parity: Parity
    accuracy_before: float | None
    accuracy_after: float | None


def golden_clips(manifest: Manifest, seconds: float) -> list[Recording]:
    """The golden signal whole, in part and backwards: clips for a checkpoint without recordings."""
    whole = golden_signal(seconds, manifest.rate)
    shortest = manifest.frontend.min_samples
    cuts = {"whole": whole, "backwards": whole[::-1], "first part": whole[: max(shortest, len(whole) * 3 // 5)]}
    return [Recording(f"golden signal, {name}", np.ascontiguousarray(samples)) for name, samples in cuts.items()]


def golden_logits(path: Path, seconds: float, precision: str | None = None) -> tuple[float, ...]:
    """The logits of the golden signal from the artifact at `path` on one thread, rounded to six digits: what other hosts must find."""
    classifier = _load(path, precision, threads=1)
    signal = golden_signal(seconds, classifier.manifest.rate)
    logits = classifier.logits([Clip(signal, classifier.manifest.rate)])[0]
    return tuple(float(f"{value:.6g}") for value in logits)


def verify(
    path: Path,
    reference: Reference,
    recipe: Recipe,
    clips: list[Recording],
    progress: Callable[[Iterable[Recording]], Iterable[Recording]] = iter,
    precision: str | None = None,
) -> Report:
    """Compare the artifact at `path` with the checkpoint on every clip, alone and in ragged batches.

    `precision`: which graph, where `path` is a directory. Raises ParityError naming the worst clip where a difference is beyond the
    recipe's budget.
    """
    classifier = _load(path, precision)
    expected: list[Logits] = []
    single: list[Logits] = []
    for clip in progress(clips):
        expected.append(reference(clip.samples))
        single.append(classifier.logits([_clip(clip, classifier)])[0])
    want, got = np.stack(expected), np.stack(single)
    unit = np.maximum(1.0, np.abs(want).max(axis=1))
    difference = _worst(np.abs(got - want).max(axis=1) / unit)
    if not difference.value <= recipe.max_difference:
        raise ParityError(
            f"the artifact's logits are off by {difference.value:.2g} x max(1, largest logit) on {clips[difference.index].name}, "
            f"more than the {recipe.max_difference:g} that this precision may cost; nothing was written"
        )
    batched = np.concatenate([_batch(classifier, clips[i : i + BATCH]) for i in range(0, len(clips), BATCH)])
    neighbours = _worst(np.abs(batched - got).max(axis=1) / unit)
    if not neighbours.value <= recipe.batch_difference:
        raise ParityError(
            f"in a batch the artifact's logits move by {neighbours.value:.2g} x max(1, largest logit) on "
            f"{clips[neighbours.index].name}, more than {recipe.batch_difference:g}; nothing was written"
        )
    labels = classifier.manifest.labels
    return Report(
        Parity(
            clips=len(clips),
            signal="golden" if clips[0].name.startswith("golden signal") else "recorded",
            max_difference=round_up(difference.value),
            rms_difference=round_up(float(np.sqrt(np.mean((got - want) ** 2)) / max(want.std(), 1e-12))),
            agreement=round(float(np.mean(got.argmax(axis=1) == want.argmax(axis=1))), 4),
            batch_difference=round_up(neighbours.value),
        ),
        accuracy(want, clips, labels),
        accuracy(got, clips, labels),
    )


def _load(path: Path, precision: str | None, threads: int | None = None) -> Classifier:
    """The artifact on this CPU; ExportError where this CPU lacks what its numbers need, so that nothing true could be said of them."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what load warns of is refused here
        classifier = load(path, device="cpu", threads=threads, precision=precision)
    needs = classifier.manifest.needs
    if missing(needs):
        made = classifier.manifest.provenance.precision
        raise ExportError(
            f"{made} cannot be verified on this CPU, which lacks {' or '.join(needs)}; export on a host that has one, or with "
            f"--precision {made}-portable"
        )
    return classifier


def round_up(value: float) -> float:
    """The value rounded up to one digit, so that a second run of the same export writes the same bytes."""
    if value <= 0:
        return 0.0
    exponent = math.floor(math.log10(value))
    return float(f"{math.ceil(round(value / 10**exponent, 6))}e{exponent}")


@dataclass(frozen=True)
class _Worst:
    value: float
    index: int


def _worst(differences: NDArray[np.float32]) -> _Worst:
    index = int(np.argmax(np.nan_to_num(differences, nan=np.inf)))
    return _Worst(float(differences[index]), index)


def _clip(clip: Recording, classifier: Classifier) -> Clip:
    return Clip(clip.samples, classifier.manifest.rate)


def _batch(classifier: Classifier, clips: list[Recording]) -> Logits:
    return classifier.logits([_clip(clip, classifier) for clip in clips])
