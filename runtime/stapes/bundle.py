"""The treaty between exporter and runtime: what an artifact says of itself, and where in the file it says so.

An artifact is an ONNX file whose `metadata_props` hold the manifest as JSON under the key `stapes`. Reading it takes no ONNX
library: metadata is a top-level field of the protobuf message, so the weights are skipped and never read. The file is a stranger's:
what it says is bounded and checked before anyone relies on it.
"""

import io
import json
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from stapes.errors import ModelError, ModelNotFound
from stapes.frontend import RATES, Frontend

SCHEMA = 1
"""The newest manifest this version reads; raised when a reader of the last one could misunderstand the next."""

KEY = "stapes"
"""Where the manifest lies in `metadata_props`."""

MOST_ITEMS = 100_000
"""Labels, or entries of another list: AudioSet has 527, language identification 4000."""

LONGEST_TEXT = 4096
"""Characters of a label or another text: the longest labels are sentences, the longest sources paths."""

LARGEST_METADATA = 2**25
"""Bytes of an entry of `metadata_props`, which are read before anything in them is believed; 4000 labels take a hundredth of that."""

Activation = Literal["softmax", "sigmoid", "none"]


@dataclass(frozen=True)
class Provenance:
    """What the artifact was made from, and by what: enough to make it again."""

    source: str
    """Hub id, or the folder's name."""
    revision: str | None
    """40 hexadecimal digits of the hub's commit; None for a local folder."""
    files: Mapping[str, str]
    """sha256 of every file of the checkpoint that was used, by name."""
    model_type: str
    precision: str
    passes: tuple[str, ...]
    """The graph rewrites, in the order they ran."""
    tools: Mapping[str, str]
    """Versions of the packages that made the file."""
    options: Mapping[str, str] = field(default_factory=dict)
    """Choices of the export that change answers, such as the layer sum or a head's name."""


@dataclass(frozen=True)
class Golden:
    """A test signal made by a formula and the logits the exporter computed for it: the self-test on a host.

    The signal of n = seconds * rate samples at times t = i / rate, plain enough for any language:

        x[i] = 0.4 sin(2 pi (100 t + (3400 - 100) t^2 / (2 seconds))) (0.5 - 0.5 cos(2 pi 4 t)) + 0.1 u[i]

    a sweep from 100 to 3400 Hz in four swells a second, and noise u from the integers s[i] = (1664525 s[i-1] + 1013904223) mod 2^32,
    s[-1] = 1, as u[i] = s[i] / 2^31 - 1.
    """

    seconds: float
    logits: tuple[float, ...]
    tolerance: float
    """Largest difference of a logit that rounding on another CPU explains."""

    def signal(self, rate: int) -> NDArray[np.float32]:
        """The signal at `rate` Hz, (seconds * rate,) float32."""
        return golden_signal(self.seconds, rate)


def golden_signal(seconds: float, rate: int) -> NDArray[np.float32]:
    """The formula of `Golden`, (seconds * rate,) float32."""
    n = round(seconds * rate)
    t = np.arange(n) / rate
    sweep = np.sin(2 * np.pi * (100 * t + (3400 - 100) * t * t / (2 * seconds)))
    swell = 0.5 - 0.5 * np.cos(2 * np.pi * 4 * t)
    state, noise = 1, np.empty(n)
    for i in range(n):
        state = (1664525 * state + 1013904223) % 2**32
        noise[i] = state / 2**31 - 1
    return (0.4 * sweep * swell + 0.1 * noise).astype(np.float32)


@dataclass(frozen=True)
class Parity:
    """How the artifact's answers compared with the checkpoint's in torch when it was made."""

    clips: int
    signal: str
    """`golden` or `recorded`."""
    max_difference: float
    """Largest difference of a logit, in units of max(1, largest logit)."""
    rms_difference: float
    """Root mean square of the differences over the spread of the checkpoint's logits."""
    agreement: float
    """Fraction of the clips with the same top label."""
    batch_difference: float
    """Largest difference between a clip alone and in a batch, in units of max(1, largest logit)."""


@dataclass(frozen=True)
class Verdict:
    """What the artifact's precision cost on recorded clips, against the checkpoint in fp32."""

    clips: int
    labelled: int
    """How many of the clips came with a label; accuracy counts these alone."""
    accuracy_before: float | None
    """Fraction of the labelled clips whose top label is theirs, by the checkpoint; None where no clip is labelled."""
    accuracy_after: float | None
    """The same by the artifact."""
    agreement: float
    """Fraction of all clips with the same top label before and after."""
    divergence: float | None
    """Kullback-Leibler divergence of the scores after from those before, in nats, mean over the clips; None where scores are no
    probabilities."""
    max_score_change: float
    """Largest change of a score."""
    kept: tuple[str, ...] = ()
    """Dotted paths of the modules whose products kept their floats, the costliest first."""
    max_drop: float | None = None
    """Points that the drop was allowed to have; None where nothing was asked."""

    @property
    def drop(self) -> float:
        """Points lost: of accuracy where clips are labelled, otherwise of agreement."""
        if self.accuracy_before is None or self.accuracy_after is None:
            return round(100 - 100 * self.agreement, 6)
        return round(100 * (self.accuracy_before - self.accuracy_after), 6)  # a budget of 0.5 holds for 1 of 200, whatever floats say

    def __str__(self) -> str:
        if self.accuracy_before is None or self.accuracy_after is None:
            found = f"unknown: {self.clips} clips without labels"
        else:
            found = f"{self.accuracy_before:.2%} before, {self.accuracy_after:.2%} after on {self.labelled} labelled clips"
        divergence = "" if self.divergence is None else f", KL divergence {self.divergence:g}"
        return f"{found}; same top label on {self.agreement:.1%} of {self.clips}{divergence}, scores within {self.max_score_change:g}"


@dataclass(frozen=True)
class Manifest:
    """Everything a host must know to run the file, and everything a person may want to."""

    name: str
    rate: int
    """Hz of the samples that go in."""
    labels: tuple[str, ...]
    activation: Activation
    frontend: Frontend
    frontend_in_graph: bool
    needs: tuple[str, ...]
    """CPU abilities without which the numbers are wrong, as alternatives: any one of them serves."""
    provenance: Provenance
    golden: Golden | None = None
    parity: Parity | None = None
    verdict: Verdict | None = None
    schema: int = field(default=SCHEMA)

    def to_json(self) -> str:
        """The manifest as one JSON object, keys sorted, in the labels' own script."""
        data = asdict(self) | {"frontend": self.frontend.to_dict()}
        return json.dumps(data, ensure_ascii=False, sort_keys=True, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> "Manifest":
        """The manifest that `to_json` wrote; a ModelError says what is newer, missing or of the wrong kind."""
        try:
            data = json.loads(text, object_pairs_hook=_unambiguous)
        except (ValueError, RecursionError) as error:
            raise ModelError(f"the manifest is not JSON ({error!s:.200}); the file is damaged: export the model again") from error
        if not isinstance(data, dict) or not _is(data.get("schema"), int):
            raise ModelError("the manifest is no object with a schema number; the file is damaged: export the model again")
        if data["schema"] > SCHEMA:
            raise ModelError(f"the model has manifest schema {data['schema']!s:.20} and this stapes reads up to {SCHEMA}; upgrade stapes")
        manifest = cls(
            name=_get(data, "name", str),
            rate=_get(data, "rate", int),
            labels=tuple(_items(data, "labels", str)),
            activation=_get(data, "activation", str),
            frontend=Frontend.from_dict(_get(data, "frontend", dict)),
            frontend_in_graph=_get(data, "frontend_in_graph", bool),
            needs=tuple(_items(data, "needs", str)),
            provenance=_provenance(_get(data, "provenance", dict)),
            golden=None if data.get("golden") is None else _golden(_get(data, "golden", dict)),
            parity=None if data.get("parity") is None else _parity(_get(data, "parity", dict)),
            verdict=None if data.get("verdict") is None else _verdict(_get(data, "verdict", dict)),
            schema=data["schema"],
        )
        rates = manifest.rate in RATES and manifest.rate == manifest.frontend.rate
        if manifest.schema < 1 or not rates or not manifest.labels or manifest.activation not in get_args(Activation):
            raise ModelError(
                f"the manifest makes no sense: schema {manifest.schema!s:.20}, rate {manifest.rate!s:.20} (the frontend's: "
                f"{manifest.frontend.rate}), {len(manifest.labels)} labels, activation {manifest.activation!r:.20}; export the model again"
            )
        return manifest


def _unambiguous(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """The object, where no key comes twice: readers disagree about which one counts."""
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key comes twice in one object")
    return found


def _is(value: object, kind: type) -> bool:
    if kind is float:
        # neither NaN nor infinite, nor one of JSON's whole numbers that no float can hold
        return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max
    return isinstance(value, kind) and (kind is bool or not isinstance(value, bool))


def _get(data: Mapping[str, Any], key: str, kind: type) -> Any:
    if key not in data:
        raise ModelError(f"the manifest has no {key!r}; the file is damaged: export the model again")
    value = data[key]
    if not _is(value, kind):
        raise ModelError(f"the manifest's {key!r:.80} should be of type {kind.__name__}; the file is damaged: export the model again")
    limit = LONGEST_TEXT if kind is str else MOST_ITEMS
    if isinstance(value, str | list | dict) and len(value) > limit:
        raise ModelError(f"the manifest's {key!r:.80} has a length of {len(value)}, more than {limit}; export the model again")
    return value


def _items(data: Mapping[str, Any], key: str, kind: type) -> list[Any]:
    values: list[Any] = _get(data, key, list)
    return [_get({key: value}, key, kind) for value in values]


def _table(data: Mapping[str, Any], key: str) -> dict[str, str]:
    values: dict[str, Any] = _get(data, key, dict)
    return {name: _get(values, name, str) for name in values}


def _provenance(data: Mapping[str, Any]) -> Provenance:
    return Provenance(
        source=_get(data, "source", str),
        revision=None if data.get("revision") is None else _get(data, "revision", str),
        files=_table(data, "files"),
        model_type=_get(data, "model_type", str),
        precision=_get(data, "precision", str),
        passes=tuple(_items(data, "passes", str)),
        tools=_table(data, "tools"),
        options=_table(data, "options"),
    )


def _golden(data: Mapping[str, Any]) -> Golden:
    return Golden(_get(data, "seconds", float), tuple(_items(data, "logits", float)), _get(data, "tolerance", float))


def _parity(data: Mapping[str, Any]) -> Parity:
    return Parity(
        clips=_get(data, "clips", int),
        signal=_get(data, "signal", str),
        max_difference=_get(data, "max_difference", float),
        rms_difference=_get(data, "rms_difference", float),
        agreement=_get(data, "agreement", float),
        batch_difference=_get(data, "batch_difference", float),
    )


def _verdict(data: Mapping[str, Any]) -> Verdict:
    verdict = Verdict(
        clips=_get(data, "clips", int),
        labelled=_get(data, "labelled", int),
        accuracy_before=_maybe(data, "accuracy_before"),
        accuracy_after=_maybe(data, "accuracy_after"),
        agreement=_get(data, "agreement", float),
        divergence=_maybe(data, "divergence"),
        max_score_change=_get(data, "max_score_change", float),
        kept=tuple(_items(data, "kept", str)),
        max_drop=_maybe(data, "max_drop"),
    )
    fractions = [value for value in (verdict.accuracy_before, verdict.accuracy_after, verdict.agreement) if value is not None]
    if not 0 <= verdict.labelled <= verdict.clips or not all(0 <= value <= 1 for value in fractions):
        raise ModelError(
            f"the manifest's 'verdict' makes no sense: {verdict.labelled!s:.20} of {verdict.clips!s:.20} clips labelled, fractions "
            f"{', '.join(f'{value!s:.20}' for value in fractions)}; export the model again"
        )
    return verdict


def _maybe(data: Mapping[str, Any], key: str) -> float | None:
    """The number, or None where it is null: the key itself has to be there."""
    return None if key in data and data[key] is None else _get(data, key, float)


def read_manifest(path: str | os.PathLike[str]) -> Manifest:
    """The manifest of the artifact at `path`, without loading the model.

    Raises ModelNotFound where there is no such file, ModelError where it is not an artifact of stapes.
    """
    manifest = find_manifest(path)
    if manifest is None:
        raise ModelError(
            f"{path} is an ONNX file without a stapes manifest; make one with `stapes export` from the checkpoint it came from"
        )
    return manifest


def find_manifest(path: str | os.PathLike[str]) -> Manifest | None:
    """The manifest in the ONNX file at `path`; None where others made the file. Raises as `read_manifest` does."""
    path = Path(path)
    with _opened(path) as file:
        metadata = _metadata_props(file)
    if KEY not in metadata:
        return None
    try:
        return Manifest.from_json(metadata[KEY])
    except ModelError as error:
        raise ModelError(f"{path}: {error}") from error


def check_external_data(path: str | os.PathLike[str]) -> None:
    """Raises ModelError where the graph at `path` keeps weights in a file that is not there or lies outside of the model's folder.

    ONNX Runtime before 1.24 follows any path, and any address in memory. Where the model is a link, as in the hub's cache, the folder
    of what it leads to counts as well.
    """
    path = Path(path)
    locations = external_data(path)
    folders = {path.parent.resolve(), path.resolve().parent}
    for location in locations:
        try:
            weights = (path.parent / location).resolve()
            there = weights.is_file()
        except (OSError, ValueError):  # no path at all
            weights, there = path.parent.resolve(), False
        if os.path.isabs(location) or "*" in location or not any(weights.is_relative_to(folder) for folder in folders):
            raise ModelError(
                f"{path} asks for weights outside of its own folder ({location!r:.200}), which is refused; put the file itself "
                "beside the model, and save the model with its bare name"
            )
        if not there:
            raise ModelError(f"{path} keeps its weights in {location!r:.200}, which is not beside it; copy both files together")


def external_data(path: str | os.PathLike[str]) -> list[str]:
    """Where the graph at `path` says that weights outside of it lie, each place once: a stranger's word, see check_external_data."""
    with _opened(Path(path)) as file:
        return sorted(set(_locations(file, os.fstat(file.fileno()).st_size, "model")))


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    """The file of a model, and what can go wrong with it as a ModelError."""
    try:
        if path.exists() and not path.is_file():
            raise ModelError(f"{path} is no regular file, which a model has to be")  # for a pipe's other end one could wait for ever
        with path.open("rb") as file:
            yield file
    except FileNotFoundError as error:
        raise ModelNotFound(f"no model at {path}; `stapes export CHECKPOINT -o {path}` makes one") from error
    except OSError as error:
        raise ModelError(f"cannot read a model from {path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        if isinstance(error, ModelError):
            raise
        raise ModelError(f"cannot load {path}: it is not an ONNX file, or a truncated one ({error})") from error


# ModelProto in protobuf's wire format: each field is a varint tag (number << 3 | wire type), then its value.
_GRAPH, _METADATA_PROPS = 7, 14  # field numbers in onnx.proto
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5  # wire types

_INSIDE: dict[str, dict[int, str]] = {
    "model": {_GRAPH: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "function": {7: "node", 11: "attribute"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "tensor": {13: "external_data"},
}
"""Message -> field number -> the message in that field, for every way to a tensor's `external_data` in onnx.proto."""

_SMALL = 2**16
"""Bytes of a message that are read to see whether it is worth a closer look."""

_MOST_FIELDS = 1_000_000
"""In one message; the largest graphs have some ten thousand nodes, and a file of nothing but empty fields would take hours."""


def _metadata_props(file: BinaryIO) -> dict[str, str]:
    metadata: dict[str, str] = {}
    graphs = 0
    for number, size in _fields(file, os.fstat(file.fileno()).st_size):
        if number == _METADATA_PROPS:
            if size > LARGEST_METADATA:
                raise ValueError(f"metadata of {size} bytes")
            key, value = _string_pair(file.read(size))
            metadata[key] = value
        graphs += number == _GRAPH
    if graphs != 1:
        raise ValueError(f"{graphs} graphs in it")
    return metadata


def _locations(file: BinaryIO, end: int, message: str) -> Iterator[str]:
    """Where the tensors in the message, which goes on to `end`, say that their values lie."""
    for number, size in _fields(file, end):
        inner = _INSIDE[message].get(number)
        if inner is None:
            continue
        begin = file.tell()
        if size <= _SMALL:
            if b"location" not in file.read(size):
                continue
            file.seek(begin)
        if inner == "external_data":
            key, value = _string_pair(file.read(size))
            if key == "location":
                yield value
        else:
            yield from _locations(file, begin + size, inner)


def _fields(file: BinaryIO, end: int) -> Iterator[tuple[int, int]]:
    """Number and size of each field with content up to `end`, the file at its content; what of it is not read is passed over."""
    seen = 0
    while file.tell() < end:
        number, wire = divmod(_varint(file), 8)
        seen += 1
        if not 0 < number < 2**29 or seen > _MOST_FIELDS:  # protobuf's own limit: beyond it readers disagree about the number
            raise ValueError(f"field {number}" if seen <= _MOST_FIELDS else f"more than {_MOST_FIELDS} fields")
        if wire == _BYTES:
            size = _varint(file)
            behind = file.tell() + size
            if behind > end:
                raise ValueError(f"field {number} ends behind the end of the file")
            yield number, size
            file.seek(behind)
        elif wire == _VARINT:
            _varint(file)
        elif wire in (_FIXED32, _FIXED64):
            file.seek(4 if wire == _FIXED32 else 8, os.SEEK_CUR)
        else:
            raise ValueError(f"wire type {wire}")


def _varint(file: BinaryIO) -> int:
    value = shift = 0
    while True:
        byte = file.read(1)
        if not byte or shift > 63:
            raise ValueError("a number without an end")
        value |= (byte[0] & 0x7F) << shift
        shift += 7
        if byte[0] < 0x80:
            return value


def _string_pair(entry: bytes) -> tuple[str, str]:
    """StringStringEntryProto: key is field 1, value is field 2, both strings."""
    pair = {1: "", 2: ""}
    file = io.BytesIO(entry)
    while file.tell() < len(entry):
        number, wire = divmod(_varint(file), 8)
        if wire != _BYTES or number not in pair:
            raise ValueError("metadata that is no pair of strings")
        pair[number] = file.read(_varint(file)).decode()
    return pair[1], pair[2]
