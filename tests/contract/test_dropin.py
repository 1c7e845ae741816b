"""What transformers' pipeline does with every argument and input, and stapes.pipeline with the same: one table, run against both.

A row says what both must do. Where they differ on purpose it also says what stapes does, and names its line in docs/differences.md.
"""

import io
import itertools
import json
import os
import re
import shutil
import socket
import sys
import threading
import warnings
from collections import UserDict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cache, cached_property
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import made_checkpoints
import numpy as np
import onnxruntime
import original_torchaudio
import pytest
import soundfile
import torch
import transformers
from huggingface_hub.utils import httpx
from torch.utils.data import Dataset, IterableDataset
from transformers.pipelines.pt_utils import KeyDataset

import stapes
from stapes_export.build import export

RATE, LABELS = 16000, 12

SCORE = 1e-4  # the budget of a logit between the fp32 artifact and its checkpoint; measured below 1e-5 over these rows

TRAINED, FOLDER, LOUD, VALUE = "trained", "trained, as a directory", "multi-label, its clips not normalized", "regression of one label"
"""The models. LOUD hears how loud a clip is, so that it tells one downmix from another; VALUE has random weights."""

ALL = {"top_k": None}


# --- what the inputs are made from -------------------------------------------------------------------------------------------------------


@dataclass
class World:
    folder: Path
    """The working directory of every row."""
    flac: Path
    clips: dict[str, np.ndarray]
    address: str
    """Of a server that has /yes.flac, /moved to it, and answers 404 with audio (/lost.flac) or words (anything else)."""
    nobody: str
    """An address where nothing listens."""
    taken: int = 0
    """Items that `counted` has given."""
    opened: list[Any] = field(default_factory=list)

    @property
    def yes(self) -> np.ndarray:
        return self.clips["yes"]

    @property
    def no(self) -> np.ndarray:
        return self.clips["no"]

    def channels(self, count: int) -> np.ndarray:
        """Different sounds of one length, (n, count)."""
        samples = min(len(self.yes), len(self.no))
        return np.stack([np.roll((self.yes, self.no)[i % 2][:samples], 500 * i) for i in range(count)], axis=1)

    def counted(self, items: Iterable[Any]) -> Iterator[Any]:
        self.taken = 0

        def give() -> Iterator[Any]:
            for item in items:
                self.taken += 1
                yield item

        return give()

    def open(self, path: Path) -> Any:
        self.opened.append(path.open("rb"))
        return self.opened[-1]


def encoded(samples: np.ndarray, rate: int = RATE, **how: str) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, rate, **({"format": "WAV", "subtype": "FLOAT"} | how))
    return file.getvalue()


class Sequential:
    """A sequence, and neither a list nor a dataset."""

    def __init__(self, *items: Any) -> None:
        self.items = items

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> Any:
        return self.items[index]


class Clips(Sequential, Dataset):
    """Map-style, as torch's own documentation has it: no __iter__."""


class Unsized(Dataset):
    def __init__(self, *items: Any) -> None:
        self.items = items

    def __getitem__(self, index: int) -> Any:
        return self.items[index]


class Stream(IterableDataset):
    def __init__(self, *items: Any) -> None:
        self.items = items

    def __iter__(self) -> Iterator[Any]:
        return iter(self.items)


class Measured(Stream):
    def __len__(self) -> int:
        return len(self.items)


class Playlist(list):
    pass


class AudioDecoder:
    """torchcodec's, as far as a pipeline sees it."""

    def __init__(self, data: torch.Tensor, sample_rate: int = RATE) -> None:
        self.samples = SimpleNamespace(data=data, sample_rate=sample_rate)

    def get_all_samples(self) -> SimpleNamespace:
        return self.samples


def one(label: Any) -> Iterator[Any]:
    yield label


# --- a row, and what it may expect -------------------------------------------------------------------------------------------------------

Make = Callable[[World], Any]


@dataclass(frozen=True)
class Row:
    name: str
    clip: Make
    both: "Expect"
    """What both do; what the original does, where `ours` says otherwise."""
    ours: "Expect | None" = None
    warns: str = ""
    """Pattern of what stapes warns of; it must warn of nothing else."""
    differs: str = ""
    """The line in docs/differences.md, where stapes answers or warns otherwise."""
    given: Mapping[str, Any] | Callable[["Case"], Mapping[str, Any]] = field(default_factory=dict)
    """To the pipeline, at construction."""
    call: Mapping[str, Any] = field(default_factory=lambda: ALL)
    options: Mapping[str, Any] = field(default_factory=dict)
    """To stapes.pipeline alone, which makes it do as the original does."""
    method: str = "__call__"
    model: str = TRAINED
    needs: str = ""
    """What this host must have or lack; see `host`."""


@dataclass
class Case:
    """One row, to be asked of one library."""

    row: Row
    library: str
    bench: "Bench"

    @property
    def world(self) -> World:
        return self.bench.world

    @property
    def model(self) -> Path:
        return self.bench.model(self.library, self.row.model)

    @cached_property
    def pipe(self) -> Any:
        given = self.row.given(self) if callable(self.row.given) else self.row.given
        return self.bench.pipe(self.library, self.row.model, {**given, **(self.row.options if self.library == "stapes" else {})})

    @cached_property
    def clip(self) -> Any:
        return self.row.clip(self.world)

    def ask(self) -> Any:
        if self.row.needs == "torchaudio" and self.library == "transformers":
            answer = self.bench.elsewhere[self.row.name]
            if isinstance(answer, Exception):
                raise answer
            return answer
        return getattr(self.pipe, self.row.method)(self.clip, **self.row.call)

    def wanted(self, of: str | Make | None) -> Any:
        """All labels that the original gives: to the clip of that name, to what is made, or to this very row."""
        if of is None:
            asked = Case(replace(self.row, call={**self.row.call, **ALL}), "transformers", self.bench).ask()
            return asked if isinstance(asked, list) else list(asked)
        given = {} if callable(self.row.given) else self.row.given
        function = self.row.call.get("function_to_apply") or given.get("function_to_apply")
        if isinstance(of, str):
            return self.bench.alone(self.row.model, of, function)
        return self.bench.pipe("transformers", self.row.model, {})(of(self.world), top_k=None, function_to_apply=function)


Expect = Callable[[Case], None]


@dataclass(frozen=True)
class Raises:
    """This builtin error, or one that is also it; of a lazy answer by the time it ends."""

    kind: type[Exception]

    def __call__(self, case: Case) -> None:
        with pytest.raises(self.kind):
            list(case.ask())


@dataclass(frozen=True)
class Answer:
    """The original's `count` best labels and their scores, in its shape."""

    of: str | Make | None = None
    """The clip that it is the answer to; None: the row's own, so that this asks nothing of the original but an answer."""
    count: int = LABELS
    within: float = SCORE

    def __call__(self, case: Case) -> None:
        self.check(case.ask(), case.wanted(self.of))

    def check(self, answer: Any, wanted: list[dict[str, Any]]) -> None:
        assert type(answer) is list
        assert len(answer) == self.count
        assert all(list(entry) == ["score", "label"] for entry in answer)
        assert all(type(entry["score"]) is float and type(entry["label"]) is str for entry in answer)
        scores = {entry["label"]: entry["score"] for entry in answer}
        assert len(scores) == self.count
        assert list(scores.values()) == sorted(scores.values(), reverse=True)
        want = {entry["label"]: entry["score"] for entry in wanted}
        assert scores == pytest.approx({label: want[label] for label in scores}, rel=0, abs=self.within)
        passed_over = [score for label, score in want.items() if label not in scores]
        assert not answer or all(score <= answer[-1]["score"] + self.within for score in passed_over)


@dataclass(frozen=True)
class Answers:
    """An Answer to each of several clips: as a list, or lazily."""

    of: tuple[str, ...] | None = None
    lazy: bool = False
    length: int | None = None
    """What len() says of a lazy one; None: a TypeError."""

    def __call__(self, case: Case) -> None:
        answers = case.ask()
        if self.lazy:
            assert not isinstance(answers, list | tuple)
            assert hasattr(answers, "__next__")
            if self.length is None:
                with pytest.raises(TypeError):
                    len(answers)
            else:
                assert len(answers) == self.length
        else:
            assert type(answers) is list
        wanted = case.wanted(None) if self.of is None else [case.wanted(name) for name in self.of]
        for answer, want in zip(answers, wanted, strict=True):
            Answer().check(answer, want)


@dataclass(frozen=True)
class Holds:
    """What is true of the pipeline, the answer and the world once the row was asked."""

    law: Callable[[Any, Any, World], bool]

    def __call__(self, case: Case) -> None:
        answer = case.ask()
        assert self.law(case.pipe, answer, case.world)


@dataclass(frozen=True)
class First:
    """The first answers of what need not end."""

    of: tuple[str, ...]

    def __call__(self, case: Case) -> None:
        answers = iter(case.ask())
        for name in self.of:
            Answer().check(next(answers), case.wanted(name))


def untouched(case: Case) -> None:
    """The caller's dictionary is as it was."""
    before = dict(case.clip)
    case.ask()
    assert list(case.clip) == list(before)
    assert all(case.clip[key] is value for key, value in before.items())


def two_positional(case: Case) -> None:
    with pytest.raises(TypeError):
        case.pipe(case.clip, 5)


YES = Answer("yes")
BOTH = Answers(("yes", "no"))


# --- the table ---------------------------------------------------------------------------------------------------------------------------


def yes(world: World) -> np.ndarray:
    return world.yes


def no(world: World) -> np.ndarray:
    return world.no


def both(world: World) -> list[np.ndarray]:
    return [world.yes, world.no]


def short_first(world: World) -> list[np.ndarray]:
    return [world.clips["short"], world.no]


def clip(**changed: Any) -> Make:
    """A dictionary with a clip at the model's rate, changed; a function there makes its value."""
    return lambda world: {
        name: value(world) if callable(value) else value for name, value in {"array": yes, "sampling_rate": RATE, **changed}.items()
    }


def only(**keys: Any) -> Make:
    return lambda world: {name: value(world) if callable(value) else value for name, value in keys.items()}


def tensor(world: World) -> torch.Tensor:
    return torch.from_numpy(world.yes.copy())


def pcm16(world: World) -> np.ndarray:
    return (world.yes * 32767).astype(np.int16)


def extractor(**options: Any) -> Callable[[Case], Mapping[str, Any]]:
    return lambda case: {"feature_extractor": transformers.Wav2Vec2FeatureExtractor(**options)}


CONSTRUCTION = [
    Row("no feature_extractor", yes, YES, given={"feature_extractor": None}),
    Row("the model's own feature_extractor", yes, YES, given=extractor(return_attention_mask=False)),
    Row("its folder", yes, YES, given=lambda case: {"feature_extractor": str(case.bench.checkpoint(TRAINED))}),
    Row("another feature_extractor", yes, Answer(), Raises(ValueError), differs="another-extractor", given=extractor(do_normalize=False)),
    Row("another feature_extractor of a directory", yes, Answer(), given=extractor(do_normalize=False), model=FOLDER),
    Row(
        "a feature_extractor that is none",
        yes,
        Raises(AttributeError),
        Raises(TypeError),
        differs="extractor-kind",
        given={"feature_extractor": 5},
    ),
    Row("a feature_extractor that is not there", yes, Raises(OSError), given={"feature_extractor": "./gone"}),
    Row("modelcard", yes, YES, given={"modelcard": "a card"}),
    Row("framework pt", yes, YES, given={"framework": "pt"}),
    Row("framework None", yes, YES, given={"framework": None}),
    Row("framework tf", yes, YES, Raises(ValueError), differs="framework", given={"framework": "tf"}),
    *(
        Row(f"device {device!r}", yes, YES, given={"device": device}, needs="no accelerator")
        for device in (None, -1, -2, "cpu", "cpu:0", torch.device("cpu"), torch.device("cpu", 0))
    ),
    Row("device 0 where there is none", yes, YES, Raises(RuntimeError), differs="no-gpu", given={"device": 0}, needs="no accelerator"),
    Row(
        "device cuda where there is none",
        yes,
        Raises(AssertionError),
        Raises(RuntimeError),
        differs="no-gpu",
        given={"device": "cuda"},
        needs="no accelerator",
    ),
    *(Row(f"device {name}", yes, Raises(RuntimeError), given={"device": name}, needs="no accelerator") for name in ("mps", "abacus")),
    *(
        Row(f"{name} {dtype}", yes, YES, given={name: dtype})
        for name in ("dtype", "torch_dtype")
        for dtype in ("auto", "float32", torch.float32, None)
    ),
    *(
        Row(
            f"{name} {dtype}", yes, Answer("yes", within=1e-3), warns="precision is decided at export", differs="dtype", given={name: dtype}
        )
        for name in ("dtype", "torch_dtype")
        for dtype in ("float16", torch.float16)
    ),
    Row("dtype bfloat16", yes, Answer(), YES, warns="precision is decided", differs="dtype", given={"dtype": torch.bfloat16}),
    Row("dtype float64", yes, YES, Raises(ValueError), differs="dtype", given={"dtype": torch.float64}),
    Row("dtype unheard of", yes, Raises(AttributeError), Raises(ValueError), differs="dtype", given={"dtype": "float7"}),
    Row("binary_output", yes, YES, given={"binary_output": True}),
    Row("args_parser", yes, YES, given={"args_parser": object()}),
    Row("an unknown argument", yes, YES, warns=r"^wine: no argument", differs="unknown-arguments", given={"wine": "red"}),
    Row(
        "arguments for other tasks",
        yes,
        YES,
        warns=r"^config, image_processor, tokenizer, use_fast: no argument",
        differs="unknown-arguments",
        given={"config": None, "tokenizer": None, "image_processor": None, "use_fast": True},
    ),
    Row("no task", yes, Raises(RuntimeError), YES, differs="task", given={"task": None}),
    Row("a task that nobody knows", yes, Raises(KeyError), Raises(ValueError), differs="task", given={"task": "wine-tasting"}),
    Row("another task", yes, Raises(ValueError), given={"task": "image-classification"}),
    Row(
        "neither task nor model",
        yes,
        Raises(RuntimeError),
        Answer("yes", count=5, within=0.02),
        differs="default-model",
        given={"task": None, "model": None},
        call={},
    ),
    Row("a model that is not there", yes, Raises(OSError), given=lambda case: {"model": str(case.world.folder / "gone")}),
    Row("a model as Path", yes, YES, given=lambda case: {"model": case.model}),
    Row("token and revision None", yes, YES, given={"token": None, "revision": None}),
]

FILES = [
    Row("a path", lambda w: str(w.flac), YES, needs="ffmpeg"),
    Row("a missing path", lambda w: "gone.wav", Raises(FileNotFoundError)),
    Row("an empty path", lambda w: "", Raises(FileNotFoundError)),
    Row("a directory", lambda w: str(w.folder), Raises(IsADirectoryError)),
    Row("a path with a null byte", lambda w: "a\0b", Raises(ValueError)),
    Row("file://", lambda w: w.flac.as_uri(), Raises(FileNotFoundError)),
    Row("ftp://", lambda w: "ftp://127.0.0.1/yes.flac", Raises(FileNotFoundError)),
    Row("a path that begins like an address", lambda w: "http_yes.flac", YES, needs="ffmpeg"),
    Row("an address", lambda w: f"{w.address}/yes.flac", YES, needs="ffmpeg"),
    Row("an address in capitals", lambda w: f"{w.address}/yes.flac".upper(), Raises(FileNotFoundError)),
    Row("an address that redirects", lambda w: f"{w.address}/moved", YES, needs="ffmpeg"),
    Row("404 and words", lambda w: f"{w.address}/gone", Raises(ValueError), needs="ffmpeg"),
    Row("404 and audio", lambda w: f"{w.address}/lost.flac", YES, Raises(ConnectionError), differs="http-status", needs="ffmpeg"),
    Row("a refused connection", lambda w: w.nobody, Raises(httpx.ConnectError), Raises(ConnectionError), differs="connections"),
    Row(
        "an address without a host", lambda w: "http://", Raises(httpx.UnsupportedProtocol), Raises(ConnectionError), differs="connections"
    ),
    Row("a Path", lambda w: w.flac, Raises(TypeError), YES, differs="paths"),
    Row("bytes", lambda w: w.flac.read_bytes(), YES, needs="ffmpeg"),
    Row("a bytearray", lambda w: bytearray(w.flac.read_bytes()), Raises(TypeError), YES, differs="buffers"),
    Row("a memoryview", lambda w: memoryview(w.flac.read_bytes()), Raises(TypeError), YES, differs="buffers"),
    Row("an open file", lambda w: w.open(w.flac), Raises(TypeError), YES, differs="buffers"),
    Row("a file in memory", lambda w: io.BytesIO(w.flac.read_bytes()), Raises(TypeError), YES, differs="buffers"),
    Row("no bytes", lambda w: b"", Raises(ValueError), needs="ffmpeg"),
    Row("bytes that are no audio", lambda w: b"words " * 100, Raises(ValueError), needs="ffmpeg"),
    Row("a header without samples", lambda w: encoded(w.yes[:0]), Raises(ValueError), needs="ffmpeg"),
    Row("a truncated file", lambda w: encoded(w.yes)[:20000], Answer(), warns="breaks off", differs="truncated", needs="ffmpeg"),
    Row("a file of one sample", lambda w: encoded(w.yes[:1]), Raises(RuntimeError), needs="ffmpeg"),
    *(
        Row(
            f"{kind} {subtype}",
            lambda w, kind=kind, subtype=subtype: encoded(w.yes, format=kind, subtype=subtype),
            Answer(),
            needs="ffmpeg",
        )
        for kind, subtype in (
            *(("WAV", name) for name in ("PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ULAW", "ALAW", "IMA_ADPCM")),
            *(("FLAC", "PCM_16"), ("FLAC", "PCM_24"), ("AIFF", "PCM_16"), ("OGG", "VORBIS")),
        )
    ),
    Row("CAF", lambda w: encoded(w.yes, format="CAF"), Raises(ValueError), YES, differs="pipes", needs="ffmpeg"),
    *(
        Row(
            f"{count} channels, as ffmpeg mixes them",
            lambda w, count=count: encoded(w.channels(count)),
            Answer(),
            options={"downmix": "ffmpeg"},
            model=LOUD,
            needs="ffmpeg",
        )
        for count in (2, 3, 4, 5, 6, 8)
    ),
    Row(
        "two channels",
        lambda w: encoded(w.channels(2)),
        Answer(),
        Answer(lambda w: w.channels(2).mean(axis=1)),
        differs="downmix",
        model=LOUD,
        needs="ffmpeg",
    ),
    *(
        Row(
            f"a file at {rate} Hz",
            lambda w, rate=rate: encoded(w.yes, rate),
            Answer(),
            Answer(within=0.01),
            differs="resampling-of-files",
            needs="ffmpeg",
        )
        for rate in (8000, 44100)
    ),
]

ARRAYS = [
    Row("float32", yes, YES),
    *(Row(f"array of {name}", lambda w, name=name: w.yes.astype(name), YES) for name in ("float64", "float16", ">f4")),
    Row("an array with gaps", lambda w: np.repeat(w.yes, 2)[::2], YES),
    Row("a read-only array", lambda w: np.frombuffer(w.yes.tobytes(), np.float32), YES),
    Row("int16", pcm16, YES),
    Row("int32", lambda w: (w.yes * (2**31 - 1)).astype(np.int32), YES),
    Row("uint8", lambda w: (w.yes * 127 + 128).astype(np.uint8), Answer()),
    Row("int16 where loudness counts", pcm16, Raises(RuntimeError), Answer("yes", within=1e-3), differs="integers", model=LOUD),
    Row("int64", lambda w: pcm16(w).astype(np.int64), YES, Raises(ValueError), differs="integers"),
    Row("bool", lambda w: w.yes > 0, Answer(), Raises(ValueError), differs="integers"),
    Row("complex64", lambda w: w.yes.astype(np.complex64), Raises(RuntimeError), Raises(ValueError), differs="array-types"),
    Row("text", lambda w: np.array(["a", "b"]), Raises(TypeError), Raises(ValueError), differs="array-types"),
    Row("longdouble", lambda w: w.yes.astype(np.longdouble), Raises(ValueError), YES, differs="array-types", needs="longdouble"),
    Row("objects", lambda w: w.yes.astype(object), Raises(ValueError)),
    *(
        Row(f"an array {name}", lambda w, shape=shape: w.yes[: len(w.yes) // 2 * 2].reshape(shape), Raises(ValueError))
        for name, shape in {"(1, n)": (1, -1), "(n, 1)": (-1, 1), "(2, n)": (2, -1), "(n, 2)": (-1, 2), "(1, 1, n)": (1, 1, -1)}.items()
    ),
    Row("an array without an axis", lambda w: np.array(0.5, np.float32), Raises(ValueError)),
    Row("silence", lambda w: np.zeros(RATE, np.float32), Answer()),
    *(
        Row(
            f"{value} in it",
            lambda w, value=value: np.where(np.arange(len(w.yes)) == 9, np.float32(value), w.yes),
            Holds(lambda pipe, answer, w: all(np.isnan(entry["score"]) for entry in answer)),
            Raises(ValueError),
            differs="nan",
        )
        for value in ("nan", "inf")
    ),
    *(Row(f"{count} samples", lambda w, count=count: w.yes[:count], Raises(RuntimeError)) for count in (0, 1, 1039)),
    Row("the fewest samples that the model takes", lambda w: w.yes[:1040], Answer()),
    Row("a tensor", tensor, YES),
    *(Row(f"a tensor of {name}", lambda w, name=name: tensor(w).to(getattr(torch, name)), YES) for name in ("float64", "float16")),
    Row("a tensor of int16", lambda w: torch.from_numpy(pcm16(w)), YES),
    Row("a tensor (1, n)", lambda w: tensor(w)[None], Raises(ValueError)),
    Row("a tensor in training", lambda w: tensor(w).requires_grad_(), Raises(RuntimeError), YES, differs="tensors"),
    Row("a parameter", lambda w: torch.nn.Parameter(tensor(w)), Raises(RuntimeError), YES, differs="tensors"),
    Row("a tensor of bfloat16", lambda w: tensor(w).bfloat16(), Raises(TypeError), Answer("yes", within=1e-3), differs="tensors"),
    *(
        Row(
            f"a torchcodec decoder of {name}",
            lambda w, make=make: AudioDecoder(make(tensor(w))),
            Raises(TypeError),
            YES,
            differs="torchcodec",
            needs="torchcodec",
        )
        for name, make in {"(n,)": lambda t: t, "(1, n)": lambda t: t[None], "(2, n)": lambda t: torch.stack([t, t])}.items()
    ),
    *(Row(f"{value!r}", lambda w, value=value: value, Raises(TypeError)) for value in (None, 5, 0.5, True, np.float32(0.5), len)),
]

DICTIONARIES = [
    Row("array and rate", clip(), YES),
    Row("raw and rate", only(raw=yes, sampling_rate=RATE), YES),
    Row("raw before array", clip(raw=yes, array=no), YES),
    Row("raw that is None", clip(raw=None), YES),
    Row("a path beside the array", clip(path="gone.wav"), YES),
    Row("other keys", clip(sentence="yes", id=3), YES),
    Row("a rate in float", clip(sampling_rate=16000.0), YES),
    Row("a rate of NumPy", clip(sampling_rate=np.int64(RATE)), YES),
    Row("float64 in it", clip(array=lambda w: w.yes.astype(np.float64)), YES),
    Row("int16 in it", clip(array=pcm16), YES),
    Row("the dictionary afterwards", clip(path=None), untouched),
    Row("no rate", only(array=yes), Raises(ValueError)),
    Row("nothing but a rate", only(sampling_rate=RATE), Raises(ValueError)),
    Row("an empty dictionary", only(), Raises(ValueError)),
    Row("bytes and path", only(bytes=b"", path="yes.flac"), Raises(ValueError)),
    Row("path and rate", only(path="yes.flac", sampling_rate=RATE), Raises(ValueError)),
    Row("role and content", only(role="user", content="yes"), Raises(ValueError)),
    Row("raw and array that are None", clip(raw=None, array=None), Raises(TypeError)),
    Row("a list in it", clip(array=lambda w: w.yes.tolist()), Raises(TypeError)),
    Row("a path in it", clip(array="yes.flac"), Raises(TypeError)),
    Row("an array (1, n) in it", clip(array=lambda w: w.yes[None]), Raises(ValueError)),
    Row("a tensor in it", clip(array=tensor), Raises(TypeError), YES, differs="tensors-in-dictionaries"),
    Row("a mapping that is no dict", lambda w: UserDict(clip()(w)), Raises(TypeError), YES, differs="mappings"),
    Row(
        "another rate without torchaudio",
        clip(sampling_rate=8000),
        Raises(ImportError),
        Holds(lambda pipe, answer, w: len(answer) == LABELS),
        differs="torchaudio",
        needs="no torchaudio",
    ),
    *(
        Row(f"{rate!r} Hz", clip(sampling_rate=rate), Answer(), options={"resampler": "sinc-hann"}, needs="torchaudio")
        for rate in (8000, 8000.0, np.int64(8000), 11025, 22050, 24000, 32000, 44100, 48000)
    ),
    *(
        Row(f"{name} at 8000 Hz", clip(array=make, sampling_rate=8000), Answer(), options={"resampler": "sinc-hann"}, needs="torchaudio")
        for name, make in {"a tensor": tensor, "float64": lambda w: w.yes.astype(np.float64)}.items()
    ),
    *(
        Row(
            f"{rate} Hz by the default",
            clip(sampling_rate=rate),
            Answer(),
            Answer(within=0.05),
            differs="resampling-of-dictionaries",
            needs="torchaudio",
        )
        for rate in (8000, 44100)
    ),
    *(Row(f"a rate of {rate} Hz", clip(sampling_rate=rate), Raises(ValueError), needs="torchaudio") for rate in (0, -1, float("nan"))),
    Row("half a Hz", clip(sampling_rate=8000.5), Raises(Exception), needs="torchaudio"),
    *(
        Row(
            f"a rate that is {rate!r}",
            clip(sampling_rate=rate),
            Raises(TypeError),
            Raises(ValueError),
            differs="rate-kind",
            needs="torchaudio",
        )
        for rate in (None, "16000")
    ),
    Row(
        "an array (2, n) at 8000 Hz",
        clip(array=lambda w: w.channels(2).T.copy(), sampling_rate=8000),
        Raises(ValueError),
        needs="torchaudio",
    ),
    Row(
        "int16 at 8000 Hz",
        clip(array=pcm16, sampling_rate=8000),
        Raises(TypeError),
        Holds(lambda pipe, answer, w: len(answer) == LABELS),
        differs="integers",
        needs="torchaudio",
    ),
    Row(
        "no samples at 8000 Hz",
        clip(array=lambda w: w.yes[:0], sampling_rate=8000),
        Raises(RuntimeError),
        needs="torchaudio",
    ),
    Row(
        "a list at 8000 Hz",
        clip(array=lambda w: w.yes.tolist(), sampling_rate=8000),
        Raises(AttributeError),
        Raises(TypeError),
        differs="lists-in-dictionaries",
        needs="torchaudio",
    ),
]

TOP_K = [
    Row("top_k left out", yes, YES, Answer("yes", count=5), differs="top_k-default", call={}),
    *(
        Row(f"top_k {k!r}", yes, Answer("yes", count=count), call={"top_k": k})
        for k, count in ((None, 12), (0, 0), (1, 1), (3, 3), (12, 12), (13, 12), (100, 12), (10**30, 12), (np.int64(3), 3))
    ),
    Row("top_k -1", yes, Raises(RuntimeError), call={"top_k": -1}),
    *(Row(f"top_k {k!r}", yes, Raises(TypeError), call={"top_k": k}) for k in (2.0, 1.5, True, False, "3", [1])),
    *(
        Row(f"top_k {k} at construction", yes, YES, Answer("yes", count=k), differs="top_k-at-construction", given={"top_k": k}, call={})
        for k in (0, 1, 3)
    ),
    *(Row(f"top_k {k} at construction", yes, YES, given={"top_k": k}, call={}) for k in (None, 12, 100)),
    *(
        Row(f"top_k {k!r} at construction", yes, YES, Raises(kind), differs="top_k-at-construction", given={"top_k": k}, call={})
        for k, kind in ((-1, RuntimeError), (2.0, TypeError), (True, TypeError))
    ),
    Row("top_k '3' at construction", yes, Raises(TypeError), given={"top_k": "3"}, call={}),
    Row("top_k at both", yes, Answer("yes", count=2), given={"top_k": 3}, call={"top_k": 2}),
    Row("top_k None after 3", yes, YES, given={"top_k": 3}, call={"top_k": None}),
]

FUNCTIONS = [
    *(Row(f"{name} at the call", yes, YES, call={**ALL, "function_to_apply": name}) for name in ("softmax", "sigmoid", "none", None)),
    *(Row(f"{name} at construction", yes, YES, given={"function_to_apply": name}) for name in ("softmax", "sigmoid", "none", None)),
    *(
        Row(f"function {name!r} at the call", yes, Raises(ValueError), call={**ALL, "function_to_apply": name})
        for name in ("Softmax", "tanh", "", 1, ["softmax"], len)
    ),
    *(
        Row(f"function {name!r} at construction", yes, Raises(ValueError), given={"function_to_apply": name})
        for name in ("Softmax", "tanh", "", 1, ["softmax"], len)
    ),
    Row("the call's function wins", yes, YES, given={"function_to_apply": "none"}, call={**ALL, "function_to_apply": "sigmoid"}),
    Row(
        "a function of None leaves that of construction",
        yes,
        YES,
        given={"function_to_apply": "none"},
        call={**ALL, "function_to_apply": None},
    ),
    Row("multi-label: sigmoid", yes, Answer(), model=LOUD),
    Row("multi-label: softmax", yes, Answer(), model=LOUD, call={**ALL, "function_to_apply": "softmax"}),
    Row("regression: none", yes, Answer(count=1), model=VALUE),
    Row(
        "softmax of one label",
        yes,
        Holds(lambda pipe, answer, w: [entry["score"] for entry in answer] == [1.0]),
        model=VALUE,
        call={**ALL, "function_to_apply": "softmax"},
    ),
]

CONTAINERS = [
    Row("a list", both, BOTH),
    Row("a list of one", lambda w: [w.yes], Answers(("yes",))),
    Row("a class of list", lambda w: Playlist(both(w)), BOTH),
    Row("a list of all kinds", lambda w: [w.yes, str(w.flac), w.flac.read_bytes(), clip()(w)], Answers(("yes",) * 4), needs="ffmpeg"),
    Row("an empty list", lambda w: [], Raises(IndexError), Answers(()), differs="empty-list"),
    Row("an empty tuple", lambda w: (), Raises(IndexError), Answers(()), differs="empty-list"),
    Row(
        "an empty KeyDataset", lambda w: KeyDataset([], "audio"), Raises(IndexError), Answers((), lazy=True, length=0), differs="empty-list"
    ),
    Row("a tuple", lambda w: tuple(both(w)), Raises(TypeError), BOTH, differs="tuple"),
    Row("an iterator", lambda w: iter(both(w)), Raises(TypeError), Answers(("yes", "no"), lazy=True), differs="iterables"),
    Row("a map", lambda w: map(np.copy, both(w)), Raises(TypeError), Answers(("yes", "no"), lazy=True), differs="iterables"),
    Row("a deque", lambda w: deque(both(w)), Raises(TypeError), Answers(("yes", "no"), lazy=True, length=2), differs="iterables"),
    Row("a sequence", lambda w: Sequential(*both(w)), Raises(TypeError), Answers(("yes", "no"), lazy=True, length=2), differs="iterables"),
    Row("a range", lambda w: range(3), Raises(TypeError)),
    Row("a set of numbers", lambda w: {1, 2}, Raises(TypeError)),
    Row("a generator", lambda w: (each for each in both(w)), Answers(("yes", "no"), lazy=True)),
    Row("a generator without an end", lambda w: (w.yes for _ in itertools.count()), First(("yes", "yes", "yes"))),
    Row("an empty generator", lambda w: (each for each in ()), Answers(()), Answers((), lazy=True), differs="empty-generator"),
    Row(
        "what a call takes from a generator",
        lambda w: w.counted(both(w)),
        Holds(lambda pipe, answer, w: w.taken == 1),
        Holds(lambda pipe, answer, w: w.taken == 0),
        differs="generator-first-item",
    ),
    Row("a dataset", lambda w: Clips(*both(w)), Answers(("yes", "no"), lazy=True, length=2)),
    Row("an empty dataset", lambda w: Clips(), Answers((), lazy=True, length=0)),
    Row("a dataset without a length", lambda w: Unsized(*both(w)), Answers(("yes", "no"), lazy=True)),
    Row("a dataset of dictionaries", lambda w: Clips(clip(id=1)(w)), Answers(("yes",), lazy=True, length=1)),
    Row("a dataset of rows", lambda w: Clips({"audio": clip()(w), "label": 1}), Raises(ValueError)),
    Row(
        "a KeyDataset",
        lambda w: KeyDataset([{"audio": each, "label": 1} for each in both(w)], "audio"),
        Answers(("yes", "no"), lazy=True, length=2),
    ),
    Row("an IterableDataset", lambda w: Stream(*both(w)), Answers(("yes", "no"), lazy=True)),
    Row(
        "an IterableDataset with a length",
        lambda w: Measured(*both(w)),
        Raises(NotImplementedError),
        Answers(("yes", "no"), lazy=True, length=2),
        differs="iterables",
    ),
    Row(
        "the length of a batched dataset",
        lambda w: Clips(w.yes, w.yes, w.yes),
        Answers(("yes",) * 3, lazy=True, length=2),
        Answers(("yes",) * 3, lazy=True, length=3),
        differs="length",
        call={**ALL, "batch_size": 2},
    ),
    Row("a list of chats", lambda w: [only(role="user", content="yes")(w)], Raises(TypeError), Raises(ValueError), differs="chats"),
    Row(
        "clips that look like chats", lambda w: [clip(role="user", content="yes")(w)], Raises(TypeError), Answers(("yes",)), differs="chats"
    ),
    Row("a list with a missing file", lambda w: [w.yes, "gone.wav", w.no], Raises(FileNotFoundError)),
    Row("a list with None", lambda w: [w.yes, None], Raises(TypeError)),
    Row("a list of numbers", lambda w: w.yes[:9].tolist(), Raises(TypeError)),
    Row("a list in a list", lambda w: [[w.yes]], Raises(TypeError)),
    Row("a generator with None", lambda w: (each for each in (w.yes, None)), Raises(TypeError)),
]

BATCHES = [
    *(Row(f"batches of {size}", both, BOTH, call={**ALL, "batch_size": size}) for size in (None, 1)),
    *(
        Row(f"clips of one length in batches of {size}", lambda w: [w.yes] * 5, Answers(("yes",) * 5), call={**ALL, "batch_size": size})
        for size in (2, 3, 8)
    ),
    Row("batches from construction", lambda w: [w.yes] * 3, Answers(("yes",) * 3), given={"batch_size": 2}),
    Row(
        "clips of two lengths in a batch",
        short_first,
        Answers(),
        Answers(("short", "no")),
        differs="batching",
        call={**ALL, "batch_size": 2},
    ),
    *(
        Row(f"a list in batches of {size!r}", both, Raises(ValueError), call={**ALL, "batch_size": size})
        for size in (0, -1, 2.0, True, "2")
    ),
    Row("a generator in batches of 0", lambda w: one(w.yes), Raises(ValueError), call={**ALL, "batch_size": 0}),
    Row("a clip in batches of 0", yes, YES, call={**ALL, "batch_size": 0}),
    Row(
        "a clip in batches of 0 from construction", yes, YES, Raises(ValueError), differs="numbers-at-construction", given={"batch_size": 0}
    ),
    Row("batches of NumPy's two", both, Raises(ValueError), BOTH, differs="numpy-batch-size", call={**ALL, "batch_size": np.int64(2)}),
    *(Row(f"{count} workers", both, BOTH, call={**ALL, "num_workers": count}) for count in (None, 0, 1)),
    Row("workers from construction", both, BOTH, given={"num_workers": 0}),
    Row(
        "a generator and two workers",
        lambda w: (each for each in both(w)),
        Answers(("yes", "no"), lazy=True),
        call={**ALL, "num_workers": 2},
    ),
    Row("-1 workers", both, Raises(ValueError), call={**ALL, "num_workers": -1}),
    *(Row(f"{count!r} workers", both, Raises(TypeError), call={**ALL, "num_workers": count}) for count in (1.5, "1")),
    Row("a clip and -1 workers", yes, YES, call={**ALL, "num_workers": -1}),
    Row(
        "a clip and -1 workers from construction",
        yes,
        YES,
        Raises(ValueError),
        differs="numbers-at-construction",
        given={"num_workers": -1},
    ),
]

CALLS = [
    *(Row(method, yes, YES, method=method, given={"top_k": LABELS}, call={}) for method in ("transform", "predict")),
    Row("a second positional argument", yes, two_positional),
    Row("an unknown argument of the call", yes, YES, warns=r"^wine: no argument", differs="unknown-arguments", call={**ALL, "wine": "red"}),
    *(
        Row(f".{name}", yes, Holds(lambda pipe, answer, w, law=law: law(pipe)), given={"batch_size": 3, "num_workers": 2})
        for name, law in {
            "task": lambda pipe: pipe.task == "audio-classification",
            "call_count": lambda pipe: pipe.call_count == 1,
            "_batch_size": lambda pipe: pipe._batch_size == 3,
            "_num_workers": lambda pipe: pipe._num_workers == 2,
            "device": lambda pipe: str(pipe.device) == "cpu",
            "feature_extractor.sampling_rate": lambda pipe: pipe.feature_extractor.sampling_rate == RATE,
            "model.config.num_labels": lambda pipe: pipe.model.config.num_labels == LABELS,
            "model.config.model_type": lambda pipe: pipe.model.config.model_type == "wav2vec2",
            "model.config.id2label": lambda pipe: pipe.model.config.id2label[0] == "yes" and len(pipe.model.config.id2label) == LABELS,
            "model.config.label2id": lambda pipe: pipe.model.config.label2id == {v: k for k, v in pipe.model.config.id2label.items()},
            "__class__.__name__": lambda pipe: type(pipe).__name__ == "AudioClassificationPipeline" and type(pipe).__name__ in repr(pipe),
        }.items()
    ),
    Row(
        ".device.type",
        yes,
        Holds(lambda pipe, answer, w: pipe.device.type == "cpu"),
        Holds(lambda pipe, answer, w: pipe.device == "cpu"),
        differs="device-attribute",
    ),
]

ROWS = [*CONSTRUCTION, *FILES, *ARRAYS, *DICTIONARIES, *TOP_K, *FUNCTIONS, *CONTAINERS, *BATCHES, *CALLS]


# --- the bench ---------------------------------------------------------------------------------------------------------------------------


class Bench:
    """The two libraries, with the same models."""

    def __init__(self, world: World, trained: Path, folder: Path) -> None:
        self.world = world
        self._trained = trained
        self._folder = folder
        self.checkpoint = cache(self._checkpoint)
        self.artifact = cache(self._artifact)
        self.alone = cache(self._alone)
        self._plain = cache(self._pipe)

    def model(self, library: str, kind: str) -> Path:
        return self.checkpoint(kind) if library == "transformers" else self.artifact(kind)

    def pipe(self, library: str, kind: str, given: Mapping[str, Any]) -> Any:
        return self._pipe(library, kind, **given) if given else self._plain(library, kind)

    @cached_property
    def elsewhere(self) -> dict[str, Any]:
        """What the original with torchaudio does with the rows that need it."""
        rows = [row for row in ROWS if row.needs == "torchaudio"]
        answers = original_torchaudio.classified(self._trained, [(row.clip(self.world), dict(row.call)) for row in rows])
        return {row.name: answer for row, answer in zip(rows, answers, strict=True)}

    def _pipe(self, library: str, kind: str, **given: Any) -> Any:
        make = transformers.pipeline if library == "transformers" else stapes.pipeline
        arguments = {"task": "audio-classification", "device": "cpu", **given}
        if "model" not in given:
            arguments["model"] = str(self.model(library, kind))
        return make(**arguments)

    def _checkpoint(self, kind: str) -> Path:
        if kind in (TRAINED, FOLDER):
            return self._trained
        folder = self._folder / kind
        if kind == VALUE:
            folder.mkdir()
            return made_checkpoints.make(folder, "wav2vec2", ("value",), problem_type="regression")
        shutil.copytree(self._trained, folder)
        for name, change in {
            "config.json": {"problem_type": "multi_label_classification"},
            "preprocessor_config.json": {"do_normalize": False},
        }.items():
            path = folder / name
            path.write_text(json.dumps(json.loads(path.read_text()) | change))
        return folder

    def _artifact(self, kind: str) -> Path:
        out = self._folder / (kind if kind == FOLDER else f"{kind}.onnx")
        export(str(self.checkpoint(kind)), out, "fp32", layout="hub" if kind == FOLDER else "file")
        return out

    def _alone(self, kind: str, name: str, function: str | None) -> Any:
        return self.pipe("transformers", kind, {})(self.world.clips[name], top_k=None, function_to_apply=function)


def handler(flac: Path) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            audio = self.path in ("/yes.flac", "/lost.flac")
            body = flac.read_bytes() if audio else b"no such thing"
            self.send_response({"/yes.flac": 200, "/moved": 302}.get(self.path, 404))
            self.send_header("Location", "/yes.flac")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    return Handler


@pytest.fixture(scope="module")
def world(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("world")
    flac = root / "examples" / "yes.flac"
    shutil.copy(flac, folder / "http_yes.flac")
    clips = {name: soundfile.read(root / "examples" / f"{name}.flac", dtype="float32")[0] for name in ("yes", "no")}
    clips["short"] = clips["yes"][3000:7000].copy()
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler(flac))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # and never listens
        there, nowhere = (f"http://127.0.0.1:{port}" for port in (server.server_address[1], unused.getsockname()[1]))
        made = World(folder, flac, clips, there, nowhere)
        yield made
    for file in made.opened:
        file.close()
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture(scope="module")
def bench(world: World, checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return Bench(world, checkpoint, tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def ffmpeg(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """An ffmpeg on PATH, without which the original reads no file."""
    carried = pytest.importorskip("imageio_ffmpeg", reason="the original needs an ffmpeg; imageio-ffmpeg carries one")
    folder = tmp_path_factory.mktemp("bin")
    (folder / "ffmpeg").symlink_to(carried.get_ffmpeg_exe())
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
        yield


@pytest.fixture
def host(request: pytest.FixtureRequest, row: Row, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """This host as the row needs it, or a reason to skip."""
    monkeypatch.chdir(world.folder)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    if row.needs == "ffmpeg":
        request.getfixturevalue("ffmpeg")
    elif row.needs == "torchcodec":
        codec = ModuleType("torchcodec")
        codec.decoders = SimpleNamespace(AudioDecoder=AudioDecoder)  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "torchcodec", codec)
    elif row.needs == "torchaudio" and not original_torchaudio.there():
        pytest.skip(original_torchaudio.ABSENT)
    elif row.needs == "no torchaudio" and find_spec("torchaudio"):
        pytest.skip("torchaudio is installed: the row says what the original does without it")
    elif row.needs == "longdouble" and np.longdouble == np.float64:
        pytest.skip("longdouble is float64 here")
    elif row.needs == "no accelerator" and (
        torch.accelerator.is_available() or "CUDAExecutionProvider" in onnxruntime.get_available_providers()
    ):
        pytest.skip("there is an accelerator: the row says what happens without one")


@pytest.fixture(params=["transformers", "stapes"])
def case(request: pytest.FixtureRequest, row: Row, bench: Bench) -> Case:
    return Case(row, request.param, bench)


# --- the tests ---------------------------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("host")
@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_both_do_what_the_row_says(row: Row, case: Case):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")  # the original's warnings are its own business
        if case.library == "transformers":
            row.both(case)
            return
        (row.ours or row.both)(case)
        said = [str(warning.message) for warning in caught]
        assert bool(said) == bool(row.warns)
        assert all(re.search(row.warns, message) for message in said)
        assert not row.ours or not meets(row.both, replace(case)), "they do the same: the row names a difference that is none"


def meets(expect: Expect, case: Case) -> bool:
    try:
        expect(case)
    except (Exception, pytest.fail.Exception):
        return False
    return True


def test_every_row_has_a_name_of_its_own():
    names = [row.name for row in ROWS]
    assert sorted(set(names)) == sorted(names)


def test_every_difference_has_its_line_and_every_line_its_rows(root: Path):
    tested, others = re.split(r"^## .*$", (root / "docs" / "differences.md").read_text(), flags=re.MULTILINE)[1:]
    lines = re.findall(r"^\| `([\w-]+)` \|", tested, re.MULTILINE)
    assert len(set(lines)) == len(lines)
    assert set(lines) == {row.differs for row in ROWS if row.differs}
    assert all(bool(row.differs) == bool(row.ours or row.warns) for row in ROWS)
    untested = re.findall(r"^\| `([\w-]+)` \|.*\| ([^|]+) \|$", others, re.MULTILINE)
    assert untested
    assert all(reason.strip() for _, reason in untested)
    assert not set(lines) & {name for name, _ in untested}
