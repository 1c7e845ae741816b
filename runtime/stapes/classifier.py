"""A loaded model: clips in, the labels heard out; one clip, many, or a long one in windows."""

import math
import os
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from stapes import audio, hub, repository
from stapes.ahead import ahead
from stapes.audio import AS_IT_COMES, Clip, Reading, Source
from stapes.bundle import Activation, Manifest
from stapes.errors import AudioWarning, ClipTooShort, InvalidOption, ModelError, StapesError
from stapes.frontend import Frontend
from stapes.predictions import ACTIVATIONS, Prediction, Segment, activate, best, count_of
from stapes.segments import above, merged, windows
from stapes.session import Session, missing

Array = NDArray[Any]

DEFAULT_MODEL = Path(__file__).parent / "models" / "speech-commands.onnx"
"""The embedded model: twelve labels of spoken English commands, 16 kHz."""

FEATURES, MASK = ("input_values", "input_features"), "attention_mask"
"""What a graph without a frontend reads: features under one of two names, and perhaps which of their steps are real."""

FLOATS = ("fp32", "fp16")
"""Precisions whose rows see nothing of each other, whoever made the graph."""

OnError = Literal["raise", "skip", "return"]
"""What becomes of a clip that cannot be used among others: its error ends it all, is passed over, or stands in the answer's place."""


@dataclass(frozen=True)
class Origin:
    """What `load` was asked for: enough to load the same again, in another process."""

    path: str
    device: str
    threads: int | None
    precision: str | None
    cache: bool


class Classifier:
    """A loaded model: call it with a clip.

    Many threads may call it at once. It pickles as what `load` was asked for, not as weights. In a child made by fork it opens its
    file anew at the first call; on CUDA that is an error, as CUDA itself has it: start such workers by spawn.
    """

    def __init__(self, manifest: Manifest, session: Session, reading: Reading = AS_IT_COMES, origin: Origin | None = None) -> None:
        self.manifest = manifest
        self.reading = reading
        self._session = session
        self._origin = origin

    @property
    def device(self) -> str:
        """Where the model runs: "cpu" or "cuda:N"."""
        return self._session.device

    def __repr__(self) -> str:
        return f"<Classifier {self.manifest.name}: {len(self.manifest.labels)} labels, {self.manifest.rate} Hz, on {self.device}>"

    def __reduce__(self) -> tuple[Any, ...]:
        if self._origin is None:
            raise TypeError("a Classifier that was not made by stapes.load has no path to be pickled as")
        return _reload, (self._origin, self.reading)

    def warm_up(self, seconds: float = 1.0) -> None:
        """Answer a tone of `seconds` and forget it, so that the next answer comes at full speed.

        What a first answer waits for: memory for its length, pages of mapped weights, the threads, and on CUDA the kernels' code, for
        seconds. Shorter or longer than the model reads is cut to what it does.
        """
        frontend, rate = self.manifest.frontend, self.manifest.rate
        samples = max(_samples("seconds", seconds, rate), frontend.min_samples)
        samples = samples if frontend.max_samples is None else min(samples, frontend.max_samples)
        self._logits([0.1 * np.sin(0.1 * np.arange(samples, dtype=np.float32))])

    def with_reading(self, reading: Reading) -> "Classifier":
        """The same model, its clips read another way."""
        return Classifier(self.manifest, self._session, reading, self._origin)

    def with_frontend(self, frontend: Frontend) -> "Classifier":
        """The same graph with other features, which only a graph without its own frontend can have. It no longer pickles."""
        if self.manifest.frontend_in_graph:
            raise ModelError(f"the frontend of {self.manifest.name} is inside its graph and cannot be changed; export the checkpoint again")
        return Classifier(replace(self.manifest, frontend=frontend), self._session, self.reading)

    def __call__(self, clip: Source, top_k: int | None = 5, function_to_apply: Activation | None = None) -> list[Prediction]:
        """The `top_k` labels of one clip, best first; None for all. Equal scores keep the model's order.

        `function_to_apply` replaces the model's own activation. Raises InvalidInput or AudioError for a clip that cannot be used,
        InvalidOption for the other arguments.
        """
        count, activation = self._choices(top_k, function_to_apply)
        return self._predictions(self.logits([clip]), count, activation)[0]

    def map(
        self,
        clips: Iterable[Source],
        top_k: int | None = 5,
        function_to_apply: Activation | None = None,
        *,
        batch_size: int = 1,
        num_workers: int = 1,
        on_error: OnError = "raise",
    ) -> Iterator[list[Prediction] | StapesError]:
        """The labels of every clip, in order and as they are asked for.

        `batch_size` clips go through the model at once, of whatever lengths: an answer does not depend on the others. `num_workers` threads
        decode ahead (0: none), and no further than the next batch, so that a generator may be endless. `on_error`: see OnError; only
        "return" gives errors.
        """
        count, activation = self._choices(top_k, function_to_apply)
        _check_number("batch_size", batch_size, 1)
        _check_number("num_workers", num_workers, 0)
        if on_error not in ("raise", "skip", "return"):
            raise InvalidOption(f"on_error is raise, skip or return, not {on_error!r}")
        return self._map(clips, count, activation, batch_size, num_workers, on_error)

    def segments(
        self,
        clip: Source | Iterator[Array],
        window: float,
        hop: float | None = None,
        *,
        top_k: int | None = 1,
        function_to_apply: Activation | None = None,
        threshold: float | None = None,
        merge: bool = False,
        batch_size: int = 8,
    ) -> Iterator[Segment]:
        """What is heard in each `window` seconds of a clip, every `hop` seconds (a window where None), as it is decoded.

        The last window ends with the clip. `threshold` leaves out labels below that score, and windows without any; `merge` makes the
        adjacent windows of one label one segment of a MergedPrediction. Memory does not grow with the clip, which may also be an iterator
        of consecutive blocks (n,) at `manifest.rate`, and endless.
        """
        count, activation = self._choices(top_k, function_to_apply)
        _check_number("batch_size", batch_size, 1)
        rate = self.manifest.rate
        size, step = (_samples(name, value, rate) for name, value in (("window", window), ("hop", window if hop is None else hop)))
        shortest, longest = self.manifest.frontend.min_samples, self.manifest.frontend.max_samples
        if size < shortest:
            raise InvalidOption(
                f"a window of {window:g} s has {size} samples; {self.manifest.name} needs {shortest} ({shortest / rate:g} s)"
            )
        if longest is not None and size > longest:
            warnings.warn(
                f"{self.manifest.name} reads {longest / rate:g} s at most: of each window of {window:g} s the rest is dropped; "
                f"choose a window of {math.floor(longest / rate * 100) / 100:.2f} s (window, --window)",
                AudioWarning,
                stacklevel=2,
            )
        blocks = clip if isinstance(clip, Iterator) else self.stream(clip)
        heard = self._segments(blocks, size, step, count, activation, batch_size)
        heard = heard if threshold is None else above(heard, threshold)
        heard = merged(heard) if merge else heard
        return heard if threshold is None else (segment for segment in heard if segment.predictions)

    def read(self, clip: Source) -> Clip:
        """The clip as the model gets it: at `manifest.rate`, and long enough. What was read so is given back as it is.

        Sound that a model of fixed length will cut is told by an AudioWarning.
        """
        name, rate, longest = audio.name_of(clip), self.manifest.rate, self.manifest.frontend.max_samples
        if isinstance(clip, Clip) and clip.rate == rate:
            self._check_length(len(clip.samples), name)
            return clip
        ready = audio.read(clip, rate, self.reading)
        self._check_length(len(ready.samples), name)
        if longest is not None and len(ready.samples) > longest:
            most = math.floor(longest / rate * 100) / 100
            warnings.warn(
                f"{name} lasts {ready.seconds:.2f} s and {self.manifest.name} reads the first {most:.2f} s; the rest was dropped: hear all "
                f"of it in windows, with segments(clip, {most:.2f}) or --window {most:.2f}",
                AudioWarning,
                stacklevel=2,
            )
        return ready

    def stream(self, clip: Source) -> Iterator[Array]:
        """The clip as consecutive blocks (n,) float32 at `manifest.rate`, decoded as they are asked for."""
        return audio.stream(clip, self.manifest.rate, self.reading)

    def logits(self, clips: Sequence[Source]) -> NDArray[np.float32]:
        """The model's raw outputs for a batch of clips of any lengths, (clips, labels) float32.

        A clip's row does not depend on the others.
        """
        return self._logits([self.read(clip).samples for clip in clips])

    def _choices(self, top_k: int | None, function_to_apply: Activation | None) -> tuple[int, Activation]:
        if function_to_apply is not None and function_to_apply not in ACTIVATIONS:
            raise InvalidOption(f"no function_to_apply {function_to_apply!r}: softmax, sigmoid or none")
        return count_of(top_k, len(self.manifest.labels)), function_to_apply or self.manifest.activation

    def _predictions(self, logits: Array, count: int, activation: Activation) -> list[list[Prediction]]:
        return [best(row, self.manifest.labels, count) for row in activate(logits, activation)]

    def _check_length(self, samples: int, name: str) -> None:
        shortest, rate = self.manifest.frontend.min_samples, self.manifest.rate
        if samples < shortest:
            raise ClipTooShort(
                f"{name} has {samples} samples ({samples / rate * 1e3:.1f} ms); {self.manifest.name} needs "
                f"{shortest} ({shortest / rate * 1e3:.1f} ms) at {rate} Hz: give a longer clip"
            )

    def _map(
        self, clips: Iterable[Source], count: int, activation: Activation, batch_size: int, num_workers: int, on_error: OnError
    ) -> Iterator[list[Prediction] | StapesError]:
        decoded = ahead(self._read_or_error, clips, num_workers, held=batch_size)
        while batch := list(islice(decoded, batch_size)):
            rows = [clip.samples for clip in batch if isinstance(clip, Clip)]
            answers = iter(self._predictions(self._logits(rows), count, activation))
            for clip in batch:
                if isinstance(clip, Clip):
                    yield next(answers)
                elif on_error == "raise":
                    raise clip
                elif on_error == "return":
                    yield clip

    def _read_or_error(self, clip: Source) -> Clip | StapesError:
        try:
            return self.read(clip)
        except StapesError as error:
            return error

    def _segments(
        self, blocks: Iterable[Array], size: int, hop: int, count: int, activation: Activation, batch_size: int
    ) -> Iterator[Segment]:
        rate = self.manifest.rate
        cut = windows(blocks, size, hop)
        while batch := list(islice(cut, batch_size)):
            self._check_length(len(batch[0][1]), "the clip")  # shorter than a window: then it is the only one
            found = self._predictions(self._logits([samples for _, samples in batch]), count, activation)
            for (start, samples), predictions in zip(batch, found, strict=True):
                yield Segment(start / rate, (start + len(samples)) / rate, tuple(predictions))

    def _logits(self, rows: Sequence[Array]) -> NDArray[np.float32]:
        if not rows:
            return np.empty((0, len(self.manifest.labels)), np.float32)
        if not self.manifest.frontend_in_graph:
            return self._logits_of_features(rows)
        lengths = np.array([len(row) for row in rows], np.int64)
        waveform = np.zeros((len(rows), int(lengths.max())), np.float32)
        for into, row in zip(waveform, rows, strict=True):
            into[: len(row)] = row
        return self._run({"waveform": waveform, "lengths": lengths}, len(rows))

    def _logits_of_features(self, rows: Sequence[Array]) -> NDArray[np.float32]:
        """The frontend in NumPy, a clip at a time. Those of one shape share a batch: a foreign graph may not ignore padding."""
        frontend, session, made = self.manifest.frontend, self._session, self.manifest.provenance
        # others quantize with one scale for the whole batch, so that there a row would depend on its neighbours
        together = session.batches and (bool(made.passes) or made.precision in FLOATS)
        features = [frontend(row) for row in rows]
        lengths = [frontend.length(len(row)) for row in rows]
        batches: dict[tuple[int, ...], list[int]] = {}
        for index, (feature, length) in enumerate(zip(features, lengths, strict=True)):
            batches.setdefault((*feature.shape, length, 0 if together else index), []).append(index)
        logits = np.empty((len(rows), len(self.manifest.labels)), np.float32)
        for batch in batches.values():
            stacked = np.stack([features[index] for index in batch])
            real = np.arange(stacked.shape[1]) < lengths[batch[0]]
            mask = np.repeat(real[None], len(batch), axis=0)
            feeds = {name: mask if name == MASK else stacked for name in session.inputs}
            feeds = {name: value.astype(session.dtypes.get(name, value.dtype), copy=False) for name, value in feeds.items()}
            logits[batch] = self._run(feeds, len(batch))
        return logits

    def _run(self, feeds: Mapping[str, Array], clips: int) -> Array:
        """The graph's logits, (clips, labels) of some float type."""
        logits, labels = self._session.run(["logits"], feeds)[0], len(self.manifest.labels)
        if np.shape(logits) != (clips, labels) or logits.dtype.kind != "f":
            kind = getattr(logits, "dtype", type(logits).__name__)
            raise ModelError(f"the graph's logits are {np.shape(logits)} {kind} for {clips} clips and {labels} labels")
        return logits


def load(
    path: str | os.PathLike[str] | None = None,
    device: str = "auto",
    threads: int | None = None,
    precision: str | None = None,
    reading: Reading = AS_IT_COMES,
    *,
    revision: str | None = None,
    token: str | bool | None = None,
    cache: bool = True,
) -> Classifier:
    """The model at `path` (the embedded default where None), ready on `device`: "auto", "cpu", "cuda" or "cuda:N".

    `path` is a stapes file, a directory as optimum and transformers.js read it, of whose graphs `precision` picks one (see
    repository.find), or a hub id (see hub.fetch for `revision` and `token`). `reading`: how its clips are read. `cache`: keep the optimized
    graph of a large model in $STAPES_CACHE, so that the next start is several times as fast (see optimized); answers are the same. Raises
    ModelError or ModelNotFound for the file, MissingExtra or DeviceError for the host.
    """
    if isinstance(path, str) and hub.is_id(path):
        path = hub.fetch(path, revision, token, precision)
    elif revision is not None:
        raise ModelError(f"{path or 'the embedded model'} is no hub id, and only those have revisions; leave revision out")
    path = DEFAULT_MODEL if path is None else path
    return _open(path, Origin(os.path.abspath(path), device, threads, precision, cache), reading)


def _reload(origin: Origin, reading: Reading) -> Classifier:
    return _open(origin.path, origin, reading)


def _open(path: str | os.PathLike[str], origin: Origin, reading: Reading) -> Classifier:
    found = repository.find(path, origin.precision)
    manifest, path = found.manifest, found.file
    if missing(manifest.needs):
        warnings.warn(
            f"{manifest.name} needs a CPU with {' or '.join(manifest.needs)}; here its scores may be wrong without a sign: "
            "export it with --precision int8-portable",
            stacklevel=3,  # the caller of load
        )
    session = Session(path, origin.device, origin.threads, origin.cache)
    if manifest.frontend_in_graph and session.inputs != ("waveform", "lengths"):
        raise ModelError(f"{path} takes {', '.join(session.inputs)} instead of waveform and lengths; export it again")
    if not manifest.frontend_in_graph:
        _check_features(path, session)
    _check_logits(path, session, len(manifest.labels))
    return Classifier(manifest, session, reading, origin)


def _check_features(path: Path, session: Session) -> None:
    """Refuses a graph whose inputs no feature extractor makes."""
    if set(session.inputs) - {MASK} not in ({name} for name in FEATURES):
        raise ModelError(f"{path} takes {', '.join(session.inputs)}; an audio classifier takes {' or '.join(FEATURES)}, and perhaps {MASK}")


def _check_logits(path: Path, session: Session, labels: int) -> None:
    """Refuses a graph that gives no logits, or another number of them than there are labels, where it says so."""
    if "logits" not in session.outputs:
        raise ModelError(f"{path} gives {', '.join(session.outputs)} and no logits, so it is no classifier")
    width = session.widths["logits"]
    if isinstance(width, int) and width != labels:
        raise ModelError(f"{path} gives {width} logits, but {labels} labels are named; its labels are another model's: export it again")


def _check_number(name: str, value: Any, lowest: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise TypeError(f"{name} is a whole number, not {value!r}")
    if value < lowest:
        raise InvalidOption(f"{name} is a number from {lowest} up, not {value}")


def _samples(name: str, seconds: float, rate: int) -> int:
    if not 0 < seconds * rate < 2**53 or round(seconds * rate) < 1:
        raise InvalidOption(f"{name} is a number of seconds above 0, not {seconds!r}")
    return round(seconds * rate)
