"""stapes.pipeline: what transformers.pipeline("audio-classification") is to its users, without torch."""

import os
from typing import Any, Literal, overload

from stapes.audio import Source
from stapes.bundle import Activation
from stapes.classifier import Classifier, load

Answer = list[dict[str, Any]]
"""[{"score": float, "label": str}, ...], best first."""


class AudioClassificationPipeline:
    """Call it with a clip, or with a list of clips."""

    def __init__(self, classifier: Classifier, top_k: int | None = 5, function_to_apply: Activation | None = None) -> None:
        self.task = "audio-classification"
        self.classifier = classifier
        self._top_k = top_k
        self._function_to_apply = function_to_apply

    @overload
    def __call__(self, inputs: list[Source], **options: Any) -> list[Answer]: ...
    @overload
    def __call__(self, inputs: Source, **options: Any) -> Answer: ...
    def __call__(self, inputs: Source | list[Source], **options: Any) -> Answer | list[Answer]:
        """The labels of one clip, or of each clip of a list. `top_k` and `function_to_apply` given here win over the pipeline's."""
        if unknown := options.keys() - {"top_k", "function_to_apply"}:
            raise TypeError(f"a call takes top_k and function_to_apply, not {', '.join(sorted(unknown))}")
        if isinstance(inputs, list):
            return [self._classify(clip, **options) for clip in inputs]
        return self._classify(inputs, **options)

    def _classify(self, clip: Source, **options: Any) -> Answer:
        chosen = {"top_k": self._top_k, "function_to_apply": self._function_to_apply} | options
        return [{"score": found.score, "label": found.label} for found in self.classifier(clip, **chosen)]


def pipeline(
    task: Literal["audio-classification"] = "audio-classification",
    model: str | os.PathLike[str] | Classifier | None = None,
    *,
    device: str = "auto",
    threads: int | None = None,
    top_k: int | None = 5,
    function_to_apply: Activation | None = None,
) -> AudioClassificationPipeline:
    """A pipeline around the stapes file at `model`, the embedded default where None. Other arguments as for `load` and `Classifier`."""
    if task != "audio-classification":
        raise ValueError(f"stapes does audio-classification and nothing else; no task {task!r}")
    classifier = model if isinstance(model, Classifier) else load(model, device, threads)
    return AudioClassificationPipeline(classifier, top_k, function_to_apply)
