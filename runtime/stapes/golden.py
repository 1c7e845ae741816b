"""The self-test on a host: the golden signal through this CPU or GPU and this ONNX Runtime, against the exporter's logits."""

import time
from dataclasses import dataclass

import numpy as np

from stapes.audio import Clip
from stapes.bundle import Golden, Manifest
from stapes.classifier import Classifier
from stapes.errors import ModelError

LONGEST_S = 60
LONGEST_SAMPLES = LONGEST_S * 48_000
"""The manifest is a stranger's and the signal is made sample by sample: 3 s of work at most."""


@dataclass(frozen=True)
class Outcome:
    """What the self-test found."""

    name: str
    """The model's."""
    device: str
    difference: float
    """Largest difference of a logit; NaN where one is no number."""
    tolerance: float
    seconds: float
    """Of the model's run."""
    needs: tuple[str, ...]
    """CPU abilities, any one of which these numbers take; empty on another device."""

    @property
    def passed(self) -> bool:
        return self.difference <= self.tolerance  # NaN is not

    @property
    def remedy(self) -> str | None:
        """What to do where it failed."""
        if self.passed:
            return None
        if self.needs:
            return f"on a CPU without {' or '.join(self.needs)} int8 saturates: export with --precision int8-portable"
        if self.device != "cpu":
            return "where --device cpu passes the driver or its libraries are at fault: stapes doctor looks at them"
        return "try another version of onnxruntime; if it stays, report it with the output of stapes doctor"

    def __str__(self) -> str:
        if self.passed:
            return f"{self.name}: logits within {self.difference:.2g} of the exporter's (tolerance {self.tolerance:.2g}) on {self.device}"
        return f"{self.name}: logits off by {self.difference:.3g} from the exporter's (tolerance {self.tolerance:.2g}) on {self.device}"


def check(classifier: Classifier) -> Outcome:
    """The classifier's golden signal through it, alone in its batch.

    Raises ModelError where the model has none, or one that makes no sense.
    """
    manifest = classifier.manifest
    golden = _golden(manifest)
    clip = Clip(golden.signal(manifest.rate), manifest.rate)
    start = time.perf_counter()
    logits = classifier.logits([clip])
    seconds = time.perf_counter() - start
    if logits.shape != (1, len(golden.logits)):
        raise ModelError(
            f"{manifest.name} gives logits of shape {logits.shape} where its golden test expects (1, {len(golden.logits)}); "
            "the file is damaged: export the model again"
        )
    return Outcome(
        name=manifest.name,
        device=classifier.device,
        difference=float(np.abs(logits[0] - np.array(golden.logits)).max()),
        tolerance=golden.tolerance,
        seconds=seconds,
        needs=manifest.needs if classifier.device == "cpu" else (),
    )


def _golden(manifest: Manifest) -> Golden:
    golden = manifest.golden
    if golden is None:
        raise ModelError(
            f"{manifest.name} has no golden test, as models made by other tools; `stapes export` from its checkpoint makes a model with one"
        )
    samples = golden.seconds * manifest.rate
    if not golden.seconds <= LONGEST_S or not samples <= LONGEST_SAMPLES:
        raise ModelError(
            f"{manifest.name} has a golden test of {golden.seconds:g} s at {manifest.rate} Hz, longer than the {LONGEST_S} s at 48 kHz "
            "that a test may take; export the model again"
        )
    shortest = max(1, manifest.frontend.min_samples)
    if round(samples) < shortest:
        raise ModelError(
            f"{manifest.name} has a golden test of {samples:g} samples and needs {shortest}; the file is damaged: export the model again"
        )
    return golden
