"""stapes.pipeline: what transformers.pipeline("audio-classification") is to its users, without torch.

docs/differences.md lists, a line each, where it does otherwise and why.
"""

import os
import warnings
from collections.abc import Iterable, Iterator, Mapping
from types import SimpleNamespace
from typing import Any

import numpy as np

from stapes.audio import Downmix, Reading, Source
from stapes.bundle import Activation
from stapes.classifier import Classifier, OnError, load
from stapes.errors import InvalidInput, InvalidOption, StapesError
from stapes.frontend import Frontend, huggingface
from stapes.predictions import Prediction
from stapes.repository import extractor_config
from stapes.resample import Method

TASK = "audio-classification"

Answer = list[dict[str, Any]]
"""[{"score": float, "label": str}, ...], best first."""

UNSET: Any = object()
"""Not given at the call: what was given at construction holds."""


class Answers:
    """The answers of a dataset or a generator, made as they are asked for; of a dataset there are as many as its length says."""

    def __init__(self, answers: Iterator[Any], source: Any) -> None:
        self._answers = answers
        self._source = source

    def __iter__(self) -> Iterator[Any]:
        return self._answers

    def __next__(self) -> Any:
        return next(self._answers)

    def __len__(self) -> int:
        try:
            return len(self._source)
        except (TypeError, NotImplementedError) as error:
            raise TypeError(f"a {type(self._source).__name__} does not say how many clips it has") from error


class AudioClassificationPipeline:
    """Call it with a clip, or with a list, tuple, dataset, iterator or generator of clips."""

    def __init__(
        self,
        classifier: Classifier,
        top_k: int | None = 5,
        function_to_apply: Activation | None = None,
        batch_size: int | None = None,
        num_workers: int | None = None,
        on_error: OnError = "raise",
    ) -> None:
        self.task = TASK
        self.classifier = classifier
        self.call_count = 0
        self._options: dict[str, Any] = {"top_k": top_k, "function_to_apply": function_to_apply, "on_error": on_error}
        self._batch_size = batch_size
        self._num_workers = num_workers
        classifier.map([], top_k, function_to_apply, **self._batching(None, None), on_error=on_error)  # refuses what makes no sense
        labels = classifier.manifest.labels
        self.model = SimpleNamespace(
            name_or_path=classifier.manifest.provenance.source,
            config=SimpleNamespace(
                id2label=dict(enumerate(labels)),
                label2id={label: index for index, label in enumerate(labels)},
                num_labels=len(labels),
                model_type=classifier.manifest.provenance.model_type,
            ),
        )
        self.feature_extractor = SimpleNamespace(sampling_rate=classifier.manifest.rate)

    @property
    def device(self) -> str:
        """Where the model runs: "cpu" or "cuda:N"."""
        return self.classifier.device

    def __call__(
        self,
        inputs: Source | Iterable[Source],
        *,
        top_k: int | None = UNSET,
        function_to_apply: Activation | None = None,
        batch_size: int | None = None,
        num_workers: int | None = None,
        on_error: OnError = UNSET,
        **ignored: Any,
    ) -> Any:
        """The labels of one clip; of each clip of a list or tuple, as a list; of a dataset or iterator, as they are asked for.

        What is given here wins over what was given to the pipeline. `on_error`: what becomes of a clip that cannot be used among others:
        its error is raised ("raise"), the clip passed over ("skip"), or its error put in the answer's place ("return").
        """
        _ignore(ignored)
        self.call_count += 1
        given = {"top_k": top_k, "function_to_apply": UNSET if function_to_apply is None else function_to_apply, "on_error": on_error}
        options = self._options | {name: value for name, value in given.items() if value is not UNSET}
        several = _several(inputs)
        if several is None:
            return _answer(self.classifier(inputs, options["top_k"], options["function_to_apply"]))
        found = self.classifier.map(several, **options, **self._batching(batch_size, num_workers))
        answers = (each if isinstance(each, StapesError) else _answer(each) for each in found)
        return list(answers) if isinstance(inputs, list | tuple) else Answers(answers, inputs)

    transform = predict = __call__

    def __repr__(self) -> str:
        return f"<AudioClassificationPipeline {self.classifier!r}>"

    def _batching(self, batch_size: int | None, num_workers: int | None) -> dict[str, Any]:
        chosen = {"batch_size": (batch_size, self._batch_size), "num_workers": (num_workers, self._num_workers)}
        numbers = {name: next((value for value in values if value is not None), 1) for name, values in chosen.items()}
        size = numbers["batch_size"]
        if isinstance(size, bool) or not isinstance(size, int | np.integer):
            # no TypeError: the original passes it on to torch's DataLoader, which raises ValueError
            raise InvalidOption(f"batch_size is a whole number from 1 up, not {size!r}")
        return numbers


def pipeline(
    task: str | None = None,
    model: str | os.PathLike[str] | Classifier | None = None,
    *,
    feature_extractor: Any = None,
    modelcard: Any = None,
    framework: str | None = None,
    revision: str | None = None,
    token: str | bool | None = None,
    device: Any = None,
    dtype: Any = None,
    torch_dtype: Any = None,
    batch_size: int | None = None,
    num_workers: int | None = None,
    binary_output: bool = False,
    args_parser: Any = None,
    top_k: int | None = 5,
    function_to_apply: Activation | None = None,
    on_error: OnError = "raise",
    threads: int | None = None,
    precision: str | None = None,
    downmix: Downmix = "mean",
    resampler: Method = "soxr",
    channel_axis: int | None = None,
    max_duration: float | None = None,
    max_bytes: int | None = None,
    timeout: float = 10.0,
    **ignored: Any,
) -> AudioClassificationPipeline:
    """A pipeline around `model`: a stapes file, a directory, a hub id or a Classifier; the embedded default where None.

    `device`: as the original has it (None, -1, a number, a name, a torch.device) or as `load` has it. `feature_extractor`: the model's own
    is used; one that is given (an object of transformers, or a folder) must equal it, or the model be a directory, whose features are
    made here. `dtype` was decided at export. `modelcard`, `binary_output` and `args_parser` change nothing, as in the original. The
    others: see `load`, `Reading` and `Classifier.map`. Raises as those do.
    """
    if task not in (None, TASK):
        raise InvalidOption(f"stapes does {TASK} and nothing else; no task {task!r}")
    if framework not in (None, "pt"):
        raise InvalidOption(f"framework is 'pt' or None, as the answers are PyTorch's; not {framework!r}")
    _ignore(ignored)
    reading = Reading(downmix, resampler, channel_axis, max_duration, max_bytes, timeout)
    if isinstance(model, Classifier):
        classifier = model if reading == Reading() else model.with_reading(reading)
    else:
        _check_dtype(torch_dtype if dtype is None else dtype)
        classifier = load(model, _device(device), threads, precision, reading, revision=revision, token=token)
    if feature_extractor is not None:
        classifier = _with_extractor(classifier, feature_extractor)
    return AudioClassificationPipeline(classifier, top_k, function_to_apply, batch_size, num_workers, on_error)


def _several(inputs: Any) -> Iterable[Any] | None:
    """The clips in a collection of them; None for what is one clip, or none at all."""
    if isinstance(inputs, list | tuple | Iterator):
        return inputs if not hasattr(inputs, "read") else None  # an open file iterates over lines
    if isinstance(inputs, str | bytes | bytearray | memoryview | os.PathLike | Mapping) or hasattr(inputs, "__array__"):
        return None
    if hasattr(inputs, "read") or hasattr(inputs, "get_all_samples"):
        return None
    if isinstance(inputs, Iterable):
        return iter(inputs)
    if hasattr(inputs, "__getitem__") and hasattr(inputs, "__len__"):  # a dataset as torch has it, which need not iterate
        return (inputs[index] for index in range(len(inputs)))
    return iter(inputs) if hasattr(inputs, "__getitem__") else None  # one without a length: to its IndexError


def _answer(found: list[Prediction]) -> Answer:
    return [{"score": each.score, "label": each.label} for each in found]


def _ignore(arguments: Mapping[str, Any]) -> None:
    if arguments:
        warnings.warn(f"{', '.join(sorted(arguments))}: no argument of stapes.pipeline, so it changes nothing", stacklevel=3)


def _device(device: Any) -> str:
    """The original's words for a device in ours."""
    if device is None:
        return "auto"
    if isinstance(device, int) and not isinstance(device, bool):
        return "cpu" if device < 0 else f"cuda:{device}"
    name = str(device)  # a name, or a torch.device, which prints as one
    return "cpu" if name == "cpu:0" else name


def _check_dtype(dtype: Any) -> None:
    name = str(dtype).removeprefix("torch.")
    if name in ("float16", "half", "bfloat16"):
        warnings.warn(f"dtype {name} changes nothing: a model's precision is decided at export (precision= picks a graph)", stacklevel=3)
    elif name not in ("None", "auto", "float32", "float"):
        raise InvalidOption(f"dtype is 'auto', 'float32', 'float16' or 'bfloat16', not {dtype!r}")


def _with_extractor(classifier: Classifier, extractor: Any) -> Classifier:
    """The classifier with the features of `extractor`, which only a graph without its own frontend can have."""
    config = extractor.to_dict() if hasattr(extractor, "to_dict") else None
    if config is None and isinstance(extractor, str | os.PathLike):
        config = extractor_config(extractor)
    if config is None:
        kind = type(extractor).__name__
        raise InvalidInput(f"feature_extractor is an extractor of transformers or a folder with its config, not a {kind}")
    built, own = huggingface.build(config), classifier.manifest.frontend
    if (built.rate, built.steps) == (own.rate, own.steps):
        return classifier
    return classifier.with_frontend(Frontend(built.rate, max(built.min_samples, own.min_samples), built.steps))
