"""The checkpoint in torch against the artifact on ONNX Runtime, run through stapes.Classifier: exactly what a user will run."""

import math
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import AutoFeatureExtractor, PreTrainedModel

from stapes.audio import Clip
from stapes.bundle import Manifest, Parity, Verdict, golden_signal
from stapes.classifier import Classifier, load
from stapes.errors import AccuracyError, ExportError, ParityError
from stapes.frontend.steps import Resample
from stapes.session import missing
from stapes_export.calibrate import Recording, verdict
from stapes_export.fetch import Checkpoint
from stapes_export.layer_sum import LayerSum
from stapes_export.layer_sum import differs as layer_sum_differs
from stapes_export.recipes import Recipe

Logits = NDArray[np.float32]

BATCH = 8
"""Clips a batch when rows are compared with single runs."""

GOLDEN = "golden signal"
"""What the names of clips begin with that stand in for recordings."""

Progress = Callable[[Iterable[Recording]], Iterable[Recording]]
"""Hands clips on and shows how far it is."""


@dataclass(frozen=True)
class Reference:
    """The original: transformers' own extractor and module, one clip at a time."""

    model: PreTrainedModel
    extractor: Any
    layer_sum: LayerSum = "v4"
    resample: Resample | None = None
    """What clips at another rate than the extractor's go through first, in NumPy: what the filter does to them is no error of the graph."""

    @classmethod
    def of(
        cls, checkpoint: Checkpoint, model: PreTrainedModel, layer_sum: LayerSum = "v4", resample: Resample | None = None
    ) -> "Reference":
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "At least one mel filter")  # said of AST's own defaults
            return cls(model, AutoFeatureExtractor.from_pretrained(checkpoint.path, local_files_only=True), layer_sum, resample)

    def __call__(self, samples: NDArray[np.float32]) -> Logits:
        """The logits of one clip, (labels,)."""
        if self.resample is not None:
            samples = self.resample(samples.astype(np.float64)).astype(np.float32)
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what the original remarks on its own ways is nothing that our user can mend
            features = self.extractor(samples, sampling_rate=self.extractor.sampling_rate, return_tensors="pt")
            if self.layer_sum == "v4" and layer_sum_differs(self.model.config):
                logits = self._sum_behind_norm(features)
            else:
                logits = self.model(**features).logits
        found: Logits = logits[0].numpy()
        return found

    def every(self, clips: Iterable[Recording]) -> Logits:
        """The logits of each clip, (clips, labels)."""
        return np.stack([self(clip.samples) for clip in clips])

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
    """What verification found: the figures for the manifest."""

    parity: Parity
    verdict: Verdict | None
    """None where no recordings were given."""


def golden_clips(manifest: Manifest, seconds: float) -> list[Recording]:
    """The golden signal whole, in part and backwards: clips for a checkpoint without recordings."""
    whole = golden_signal(seconds, manifest.rate)
    shortest = manifest.frontend.min_samples
    cuts = {"whole": whole, "backwards": whole[::-1], "first part": whole[: max(shortest, len(whole) * 3 // 5)]}
    return [Recording(f"{GOLDEN}, {name}", np.ascontiguousarray(samples)) for name, samples in cuts.items()]


def golden_logits(path: Path, seconds: float, precision: str | None = None) -> tuple[float, ...]:
    """The logits of the golden signal from the artifact at `path` on one thread, rounded to six digits: what other hosts must find."""
    classifier = _load(path, precision, threads=1)
    signal = golden_signal(seconds, classifier.manifest.rate)
    logits = classifier.logits([Clip(signal, classifier.manifest.rate)])[0]
    return tuple(float(f"{value:.6g}") for value in logits)


def answers(path: Path, clips: Iterable[Recording]) -> Logits:
    """The logits of the artifact at `path` for each clip alone, (clips, labels)."""
    return _alone(_load(path, None), clips)


def far(expected: Logits, found: Logits) -> NDArray[np.float32]:
    """The largest difference of a logit in each clip, in units of max(1, the clip's largest expected logit), (clips,)."""
    difference: NDArray[np.float32] = np.abs(found - expected).max(axis=1) / _unit(expected)
    return np.nan_to_num(difference, nan=np.inf)


def verify(
    path: Path,
    expected: Logits,
    recipe: Recipe,
    clips: list[Recording],
    progress: Progress = iter,
    precision: str | None = None,
    *,
    kept: tuple[str, ...] = (),
    max_drop: float | None = None,
) -> Report:
    """Compare the artifact at `path` with what the checkpoint gave, `expected` (clips, labels), for every clip alone and in ragged batches.

    `precision`: which graph, where `path` is a directory. `kept`: the modules that the artifact keeps in float. Raises ParityError naming
    the worst clip where a difference is beyond the recipe's budget, AccuracyError where more than `max_drop` points are lost.
    """
    classifier = _load(path, precision)
    made, labels, activation = classifier.manifest.provenance.precision, classifier.manifest.labels, classifier.manifest.activation
    got = _alone(classifier, progress(clips))
    recorded = not clips[0].name.startswith(GOLDEN)
    found = verdict(expected, got, clips, labels, activation) if recorded else None
    if found is not None and max_drop is not None and found.drop > max_drop:
        raise AccuracyError(_too_much(found, made, kept, max_drop))
    difference = _worst(far(expected, got))
    if not difference.value <= recipe.max_difference:
        raise ParityError(
            f"the artifact's logits are off by {difference.value:.2g} x max(1, largest logit) on {clips[difference.index].name}, "
            f"more than the {recipe.max_difference:g} that this precision may cost; nothing was written"
        )
    batched = np.concatenate([_batch(classifier, clips[i : i + BATCH]) for i in range(0, len(clips), BATCH)])
    neighbours = _worst(np.nan_to_num(np.abs(batched - got).max(axis=1) / _unit(expected), nan=np.inf))
    if not neighbours.value <= recipe.batch_difference:
        raise ParityError(
            f"in a batch the artifact's logits move by {neighbours.value:.2g} x max(1, largest logit) on "
            f"{clips[neighbours.index].name}, more than {recipe.batch_difference:g}; nothing was written"
        )
    parity = Parity(
        clips=len(clips),
        signal="recorded" if recorded else "golden",
        max_difference=round_up(difference.value),
        rms_difference=round_up(float(np.sqrt(np.mean((got - expected) ** 2)) / max(expected.std(), 1e-12))),
        agreement=round(float(np.mean(got.argmax(axis=1) == expected.argmax(axis=1))), 4),
        batch_difference=round_up(neighbours.value),
    )
    return Report(parity, None if found is None else _rounded(replace(found, kept=kept, max_drop=max_drop)))


def _too_much(found: Verdict, precision: str, kept: tuple[str, ...], max_drop: float) -> str:
    if found.accuracy_before is None or found.accuracy_after is None:
        lost = f"agreement with fp32 ({found.agreement:.2%} of {found.clips} unlabelled clips keep their top label)"
    else:
        lost = f"accuracy ({found.accuracy_before:.2%} before, {found.accuracy_after:.2%} after on {found.labelled} labelled clips)"
    float_too = f"even with {len(kept)} module{'s' if len(kept) > 1 else ''} in float" if kept else "and no module in float mends it"
    return (
        f"{precision} loses {found.drop:.2f} points of {lost}, {float_too}, where --max-drop allows {max_drop:g}; allow more, or choose "
        "another --precision; nothing was written"
    )


def _rounded(found: Verdict) -> Verdict:
    """What rests on logits rounded up, so that a second run of the same export writes the same bytes."""
    divergence = None if found.divergence is None else round_up(found.divergence)
    return replace(found, divergence=divergence, max_score_change=round_up(found.max_score_change))


def _unit(expected: Logits) -> NDArray[np.float32]:
    unit: NDArray[np.float32] = np.maximum(1.0, np.abs(expected).max(axis=1))
    return unit


def _alone(classifier: Classifier, clips: Iterable[Recording]) -> Logits:
    return np.stack([classifier.logits([_clip(clip, classifier)])[0] for clip in clips])


def _load(path: Path, precision: str | None, threads: int | None = None) -> Classifier:
    """The artifact on this CPU; ExportError where this CPU lacks what its numbers need, so that nothing true could be said of them."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what load warns of is refused here
        classifier = load(path, device="cpu", threads=threads, precision=precision, cache=False)  # a draft is loaded once
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
    index = int(np.argmax(differences))
    return _Worst(float(differences[index]), index)


def _clip(clip: Recording, classifier: Classifier) -> Clip:
    return Clip(clip.samples, classifier.manifest.rate)


def _batch(classifier: Classifier, clips: list[Recording]) -> Logits:
    return classifier.logits([_clip(clip, classifier) for clip in clips])
