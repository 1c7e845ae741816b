"""models.lock <-> LockEntry: every pinned checkpoint and every artifact made from it, each file with its sha256 and size."""

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tomli_w

from stapes.errors import CheckpointError

FILE = "models.lock"

HEADER = "# Pinned checkpoints and the artifacts made from them. Written by `stapes lock`; paths are relative to this file.\n\n"


@dataclass(frozen=True)
class Pin:
    """One file's content."""

    sha256: str
    size: int
    """Bytes."""


@dataclass(frozen=True)
class LockedArtifact:
    """A file to make from a checkpoint, and what it was when it was made; no pin where it has not been made yet."""

    path: str
    precision: str
    options: Mapping[str, str] = field(default_factory=dict)
    pin: Pin | None = None
    tools: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class LockEntry:
    """A checkpoint: where it comes from, its files, and the artifacts made from it."""

    name: str
    source: str
    """A hub id, or a folder relative to the lock file."""
    revision: str | None
    """40 hexadecimal digits; None for a folder."""
    files: Mapping[str, Pin]
    artifacts: tuple[LockedArtifact, ...] = ()


def read(path: Path) -> dict[str, LockEntry]:
    """The entries of the lock file, by name; none where there is no such file. Raises CheckpointError for a damaged one."""
    if not path.is_file():
        return {}
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
        return {name: _entry(name, table) for name, table in data.items()}
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise CheckpointError(f"{path} is no lock file of stapes ({error}); mend it, or take it from version control") from error


def write(path: Path, entries: Mapping[str, LockEntry]) -> None:
    """Replace the lock file, whole or not at all; entries and files in the order of their names."""
    text = HEADER + tomli_w.dumps({name: _table(entries[name]) for name in sorted(entries)})
    part = path.with_name(f".{path.name}.part")
    part.write_text(text, encoding="utf-8")
    part.replace(path)


def _entry(name: str, table: Mapping[str, Any]) -> LockEntry:
    revision = table.get("revision")
    if revision is not None and not re.fullmatch("[0-9a-f]{40}", revision):
        raise ValueError(f"{name}: a revision is a commit of 40 hexadecimal digits, not {revision!r}")
    artifacts = tuple(
        LockedArtifact(one["path"], one["precision"], one.get("options", {}), _pin(one) if "sha256" in one else None, one.get("tools", {}))
        for one in table.get("artifacts", ())
    )
    return LockEntry(name, table["source"], revision, {file: _pin(pin) for file, pin in table["files"].items()}, artifacts)


def _pin(table: Mapping[str, Any]) -> Pin:
    return Pin(table["sha256"], table["size"])


def _table(entry: LockEntry) -> dict[str, Any]:
    table: dict[str, Any] = {"source": entry.source}
    if entry.revision:
        table["revision"] = entry.revision
    table["files"] = {name: vars(entry.files[name]) for name in sorted(entry.files)}
    artifacts = []
    for one in sorted(entry.artifacts, key=lambda one: one.path):
        artifact: dict[str, Any] = {"path": one.path, "precision": one.precision}
        if one.pin:
            artifact |= vars(one.pin)
        artifacts.append(artifact | {key: dict(sorted(value.items())) for key, value in _maps(one).items() if value})
    return table | ({"artifacts": artifacts} if artifacts else {})


def _maps(artifact: LockedArtifact) -> dict[str, Mapping[str, str]]:
    return {"options": artifact.options, "tools": artifact.tools}
