"""transformers' own feature extractor and activation, for the peers that run a graph of the model alone.

torch is kept away from transformers where wav2vec2's extractor, which needs none, is all that is asked, so that it costs these peers
neither start nor memory. Whisper's is faster with it than without, and AST's refuses to go without.
"""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stapes_bench.peers import Job


def imports(job: Job) -> None:
    """What a user's program would import at its top; the worker counts it as that."""
    _extractors(job.checkpoint)


class Features:
    """Clips in, features out, as `transformers.pipeline` makes them."""

    def __init__(self, checkpoint: str, rate: int) -> None:
        self._extractor: Any = _extractors(checkpoint).from_pretrained(checkpoint)
        self._rate = rate

    def __call__(self, clips: list[NDArray[np.float32]]) -> dict[str, NDArray[Any]]:
        return dict(self._extractor(clips, sampling_rate=self._rate, return_tensors="np"))


def _extractors(checkpoint: str) -> Any:
    described = json.loads((Path(checkpoint) / "preprocessor_config.json").read_text())
    if described.get("feature_extractor_type") == "Wav2Vec2FeatureExtractor":
        sys.modules.setdefault("torch", None)  # type: ignore[arg-type]  # importing it fails from here on, unless it was before
    from transformers import AutoFeatureExtractor

    return AutoFeatureExtractor


class Scores:
    """Logits in, scores by label out, best first, by what config.json says."""

    def __init__(self, checkpoint: str) -> None:
        config = json.loads((Path(checkpoint) / "config.json").read_text())
        self._labels = {int(index): label for index, label in config["id2label"].items()}
        self._problem = config.get("problem_type")

    def __call__(self, logits: NDArray[np.float32], top_k: int = 5) -> list[list[tuple[str, float]]]:
        scores: NDArray[Any]
        if self._problem == "multi_label_classification":
            scores = 1 / (1 + np.exp(-logits))
        elif self._problem == "regression":
            scores = logits
        else:
            grown = np.exp(logits - logits.max(axis=1, keepdims=True))
            scores = grown / grown.sum(axis=1, keepdims=True)
        order = np.argsort(-scores, axis=1)[:, :top_k]
        return [[(self._labels[int(i)], float(row[i])) for i in best] for row, best in zip(scores, order, strict=True)]
