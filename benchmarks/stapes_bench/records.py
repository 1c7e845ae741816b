"""What a run leaves behind, one JSON object a line, in the order it was found: raw values, which every report is made from again."""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from stapes.errors import InvalidInput


@dataclass(frozen=True)
class Run:
    """The first line: what was asked for, and where."""

    subject: str
    """The checkpoint's name, or the model's."""
    reference: str
    """The contender whose answers and times the others are compared with."""
    host: dict[str, Any]
    """See host.fingerprint."""
    clips: str
    """`made` or `recorded`."""


@dataclass(frozen=True)
class Contender:
    """One that was measured, or could not be."""

    name: str
    says: str
    own: bool
    versions: dict[str, str]
    installed_mb: float | None = None
    """Its packages and all that they require, on disk."""
    model_mb: float | None = None
    absent: str = ""
    """Why it was not measured; empty where it was."""
    needs_met: bool = True
    """Whether this CPU has what its numbers take."""


@dataclass(frozen=True)
class Answers:
    """How its answers compare, for clips of one length, alone or in a batch; the fields of measure.Agreement."""

    name: str
    seconds: float
    threads: int
    batch: int
    agrees: bool
    why: str
    clips: int
    same_top: int
    noise: float
    score_difference: float


@dataclass(frozen=True)
class Times:
    """One turn: seconds of each call, a call being a batch of clips from samples to scores."""

    name: str
    seconds: float
    threads: int
    batch: int
    turn: int
    values: list[float]


@dataclass(frozen=True)
class Cold:
    """One process from its start to its first answer."""

    name: str
    seconds: float
    threads: int
    turn: int
    parts: dict[str, float]
    """Seconds of `process`, `import`, `load`, `first answer`; together the whole."""
    peak_mb: float


@dataclass(frozen=True)
class Stages:
    """A clip's way through our own runtime, taken apart: seconds of every repetition."""

    name: str
    seconds: float
    threads: int
    parts: dict[str, list[float]]


@dataclass(frozen=True)
class Failed:
    """A contender that stopped or refused."""

    name: str
    seconds: float
    threads: int
    batch: int
    why: str


Record = Run | Contender | Answers | Times | Cold | Stages | Failed

KINDS: dict[str, type[Any]] = {kind.__name__.lower(): kind for kind in (Run, Contender, Answers, Times, Cold, Stages, Failed)}


def to_line(record: Record) -> str:
    """The record as one line of JSON, `kind` first; what is no number is null."""
    data = {name: None if value != value else value for name, value in asdict(record).items()}
    return json.dumps({"kind": type(record).__name__.lower()} | data, ensure_ascii=False, allow_nan=False)


def from_line(line: str) -> Record:
    """The record that `to_line` wrote; ValueError for another line."""
    data = json.loads(line)
    kind = KINDS.get(data.pop("kind", "")) if isinstance(data, dict) else None
    if kind is None or set(data) - {entry.name for entry in fields(kind)}:
        raise ValueError("no record of stapes bench")
    if kind is Answers and data["noise"] is None:
        data["noise"] = float("nan")
    try:
        record: Record = kind(**data)
    except TypeError as error:
        raise ValueError(f"a record of stapes bench that lacks a field ({error})") from error
    return record


def read(path: Path) -> list[Record]:
    """The records of a file; InvalidInput where it holds anything else."""
    try:
        found = [from_line(line) for line in path.read_text(encoding="utf-8").splitlines()]
    except OSError as error:
        raise InvalidInput(f"cannot read {path}: {error.strerror}") from error
    except ValueError as error:
        raise InvalidInput(f"{path} is no file of stapes bench --json ({error})") from error
    if not found or not isinstance(found[0], Run):
        raise InvalidInput(f"{path} is no file of stapes bench --json: it does not begin with a run")
    return found


def subject(records: Iterable[Record]) -> Run:
    """The first line."""
    return next(record for record in records if isinstance(record, Run))
