"""The commands of `stapes lock`: pin checkpoints, check both ends, make what is missing."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from stapes.bundle import read_manifest
from stapes.errors import CheckpointError
from stapes_export import lock
from stapes_export.build import export
from stapes_export.fetch import fetch, fetch_locked, pin
from stapes_export.layer_sum import LayerSum
from stapes_export.lock import LockedArtifact, LockEntry


def add(path: Path, source: str, revision: str | None, name: str | None, artifacts: list[LockedArtifact]) -> LockEntry:
    """Pin the checkpoint `source` under `name` (the last part of its id where None); its artifacts are made by `sync`."""
    entries = lock.read(path)
    checkpoint = fetch(source, revision)
    name = name or checkpoint.name.rpartition("/")[2]
    where = source if checkpoint.revision else _relative(Path(source), path.parent)
    files = {file: pin(checkpoint.path / file) for file in checkpoint.files}
    known = entries[name].artifacts if name in entries else ()
    kept = tuple(one for one in known if one.path not in {new.path for new in artifacts})
    entry = LockEntry(name, where, checkpoint.revision, files, (*kept, *artifacts))
    lock.write(path, entries | {name: entry})
    return entry


def verify(path: Path, names: list[str]) -> Iterator[tuple[str, str | None]]:
    """For each file of the named entries (all where none is named): the file, and what is wrong with it or None."""
    for entry in _chosen(path, names):
        try:
            fetch_locked(entry, path.parent)
        except CheckpointError as error:
            yield entry.name, str(error)
        else:
            yield from ((f"{entry.name}: {file}", None) for file in sorted(entry.files))
        for one in entry.artifacts:
            yield f"{entry.name}: {one.path}", _wrong(path.parent / one.path, one)


def sync(path: Path, names: list[str]) -> list[str]:
    """Make every artifact of the named entries that is not what the lock says, and pin what was made; their paths."""
    made = []
    for entry in _chosen(path, names):
        artifacts = []
        for one in entry.artifacts:
            out = path.parent / one.path
            if _wrong(out, one) is not None:
                options = dict(one.options)
                export(entry.name, out, one.precision, lock_file=path, head=options.get("head"), layer_sum=_layer_sum(options))
                one = replace(one, pin=pin(out), tools=dict(read_manifest(out).provenance.tools))
                made.append(one.path)
            artifacts.append(one)
        lock.write(path, lock.read(path) | {entry.name: replace(entry, artifacts=tuple(artifacts))})
    return made


def _layer_sum(options: dict[str, str]) -> LayerSum:
    return "v5" if options.get("layer_sum") == "v5" else "v4"


def _wrong(file: Path, artifact: LockedArtifact) -> str | None:
    if artifact.pin is None:
        return "not made yet; run stapes lock sync"
    if not file.is_file():
        return "no such file; run stapes lock sync"
    return None if pin(file) == artifact.pin else "not the file that the lock pins; take it from version control, or run stapes lock sync"


def _chosen(path: Path, names: list[str]) -> list[LockEntry]:
    entries = lock.read(path)
    if not entries:
        raise CheckpointError(f"no lock file at {path}, or an empty one; stapes lock add SOURCE begins one")
    if unknown := set(names) - entries.keys():
        raise CheckpointError(f"{path} has no {', '.join(sorted(unknown))}; it has {', '.join(sorted(entries))}")
    return [entries[name] for name in names or entries]


def _relative(folder: Path, root: Path) -> str:
    try:
        return folder.resolve().relative_to(root.resolve()).as_posix()
    except ValueError as error:
        raise CheckpointError(f"{folder} lies outside {root.resolve()}, so a lock file there cannot name it for others") from error
