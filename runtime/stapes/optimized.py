"""Optimized graphs of large models, kept between runs: a second start skips what ONNX Runtime worked out at the first.

Such a graph holds ops of one ONNX Runtime, and weights in the layout that one kind of CPU multiplies fastest, which are mapped from the
file instead of copied. So it never leaves this cache, and its key says all of that. In cache.folder() lie

    optimized/<key>/                 a graph, its weights, and whole.json, which says how they were when all was written
    optimized/seen/<path>.json       what a model's file looked like when its sha256 was taken, so that it is read once

Names are digests alone: no model chooses one. A cache must never break a load: here nothing but the block of `filling` raises.
"""

import contextlib
import json
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from stapes import cache
from stapes.bundle import check_external_data
from stapes.errors import ModelError

SMALLEST = 2**24
"""Bytes of a model from which on an entry is worth its disk: below, a start gains less than 50 ms."""

TIMES = 3
"""Bytes that must be free for each of the model's before an entry is written; it takes up to two, since ONNX Runtime keeps both layouts."""

MOST = 4 * 10**9
"""Bytes that all entries may have; those unused for longest go first. 95 million parameters take 0.7e9 in float, 0.2e9 in int8."""

DAY_S = 86_400
UNUSED_S = 30 * DAY_S
"""How long an entry, or a remembered file, is kept that nobody uses."""

FILLING_S = 600
"""How long another process may take to write an entry. While it does no second one begins, or eight workers would write it eight times."""

SETTLED_S = 2
"""A file younger than this may change again without a change of its times, which are as coarse as some ticks of the system's clock."""

GRAPH, WEIGHTS, WHOLE, SEEN = "graph.onnx", "graph.onnx.data", "whole.json", "seen"


@dataclass(frozen=True)
class Entry:
    """The place of one model's optimized graph, there or not."""

    folder: Path
    model: Path
    stat: tuple[int, ...]
    """What the model's file looked like when the key was made."""
    build: str
    """The ONNX Runtime that the graph belongs to."""

    @property
    def graph(self) -> Path:
        return self.folder / GRAPH

    def whole(self) -> bool:
        """Whether all of it is there, as it was written. What alters weights and not their time, as a failing disk, is not noticed: to read
        them all would take as long as it saves."""
        try:
            return bool(_whole(self.folder)["files"] == _state(self.folder))
        except (OSError, ValueError, LookupError, TypeError):
            return False

    def used(self) -> None:
        """Remember that it is still of use."""
        with contextlib.suppress(OSError):
            os.utime(self.folder / WHOLE)

    def give_up(self) -> None:
        """Whole as it is it does not work: the next one makes it anew."""
        with contextlib.suppress(OSError):
            (self.folder / WHOLE).unlink()

    @contextlib.contextmanager
    def filling(self) -> Iterator[Path]:
        """A folder for GRAPH and WEIGHTS; when the block ends it becomes the entry, if nothing is against it.

        Of two processes the first one's stays. An entry that is not whole makes room. Raises OSError where there can be no folder.
        """
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        for left in self.folder.parent.glob(".*"):  # by a process that was killed
            if _unused_s(left) > FILLING_S:
                shutil.rmtree(left, ignore_errors=True)
        with tempfile.TemporaryDirectory(prefix=f".{self.folder.name}.", dir=self.folder.parent, ignore_cleanup_errors=True) as drafts:
            draft = Path(drafts) / self.folder.name
            draft.mkdir()
            yield draft
            with contextlib.suppress(OSError):
                if _stat(self.model) == self.stat and not self.whole():  # a file that changed meanwhile may be half one, half the other
                    _declare_whole(draft, self.build)
                    if self.folder.exists():
                        self.folder.rename(Path(drafts) / "broken")
                    draft.rename(self.folder)
                    _make_room(self.folder.parent, self)


def is_large(model: Path) -> bool:
    """Whether an entry for the file would be worth its disk, and within the bounds."""
    return SMALLEST <= model.stat().st_size <= MOST // 2


def find(model: Path, build: str, cpu: str) -> Entry | None:
    """The place for the graph at `model` as an ONNX Runtime `build` optimizes it on `cpu`; None where none can be kept.

    That is for models with weights in further files, where there is no folder for a cache, or no room in it, and while another process
    writes the entry.
    """
    try:
        stat = _stat(model)
        place = cache.folder() / "optimized"
        digest = _remembered(place, model, stat) or _digest(place, model, stat)
        key = _sha256(json.dumps([digest, build, cpu]).encode())
        entry = Entry(place / key, model, stat, build)
        if entry.folder.exists():
            return entry
        being_filled = any(_unused_s(draft) < FILLING_S for draft in place.glob(f".{key}.*"))
        return None if being_filled or _free(place) < TIMES * stat[0] else entry
    except (OSError, ModelError):
        return None


def holdings() -> tuple[int, int]:
    """How many entries there are, and their bytes on disk. Raises ModelError where there is no place for a cache."""
    entries = _entries(cache.folder() / "optimized")
    return len(entries), sum(map(_size, entries))


def _sha256(content: bytes | Path) -> str:
    """Of bytes, or of a file."""
    import hashlib  # here: small models do without, and it takes longer to load than this module

    if isinstance(content, bytes):
        return hashlib.sha256(content).hexdigest()
    with content.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _stat(path: Path) -> tuple[int, ...]:
    """What tells that a file is still the same, its size first. A program can set the time of the last change, but not that of the last
    change to its entry."""
    found = path.stat()
    return found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino, found.st_dev


def _memory(place: Path, model: Path) -> Path:
    return place / SEEN / f"{_sha256(os.fsencode(model.absolute()))}.json"


def _remembered(place: Path, model: Path, stat: tuple[int, ...]) -> str | None:
    """The file's sha256 as taken before, where it is still the file that it was."""
    try:
        seen = json.loads(_memory(place, model).read_text())
        return str(seen["sha256"]) if tuple(seen["stat"]) == stat else None
    except (OSError, ValueError, LookupError, TypeError):
        return None


def _digest(place: Path, model: Path, stat: tuple[int, ...]) -> str:
    """The file's sha256, remembered for the next time. Raises ModelError for a graph whose weights are not all in the file."""
    with tempfile.TemporaryDirectory() as alone:
        (Path(alone) / model.name).symlink_to(model.resolve())
        check_external_data(Path(alone) / model.name)  # here no further file is beside it
    digest = _sha256(model)
    if time.time() - max(stat[1:3]) / 1e9 > SETTLED_S and _stat(model) == stat:
        with contextlib.suppress(ModelError), cache.placing(_memory(place, model)) as draft:
            draft.write_text(json.dumps({"stat": stat, "sha256": digest}))
    return digest


def _free(place: Path) -> int:
    return shutil.disk_usage(next(folder for folder in (place, *place.parents) if folder.exists())).free


def _whole(folder: Path) -> dict[str, object]:
    found = json.loads((folder / WHOLE).read_text())
    if not isinstance(found, dict):
        raise ValueError(f"{folder / WHOLE} holds no object")
    return found


def _state(folder: Path) -> dict[str, list[object]]:
    """Of every file its size and time, of the graph its sha256 too."""
    files: dict[str, list[object]] = {}
    for path in folder.iterdir():
        if path.name != WHOLE:
            stat = path.stat()
            files[path.name] = [stat.st_size, stat.st_mtime_ns]
    files[GRAPH].append(_sha256(folder / GRAPH))
    return files


def _declare_whole(folder: Path, build: str) -> None:
    """Not synced to the disk, which takes seconds: file systems write a file's data before its size, and the size is looked at."""
    now = int(time.time())
    for path in folder.iterdir():
        os.utime(path, (now, now))  # whole seconds: archives, and so the layers of a container's image, keep no more
    (folder / WHOLE).write_text(json.dumps({"build": build, "files": _state(folder)}))


def _entries(place: Path) -> list[Path]:
    try:
        return [path for path in place.iterdir() if re.fullmatch("[0-9a-f]{64}", path.name)]
    except OSError:
        return []


def _size(entry: Path) -> int:
    with contextlib.suppress(OSError):
        return sum(path.stat().st_size for path in entry.iterdir())
    return 0


def _unused_s(entry: Path) -> float:
    """Seconds since an entry was used, or since any other path was written."""
    with contextlib.suppress(OSError):
        return time.time() - (entry / WHOLE).stat().st_mtime
    with contextlib.suppress(OSError):
        return time.time() - entry.stat().st_mtime
    return 0.0


def _of_build(entry: Path, build: str) -> bool:
    with contextlib.suppress(OSError, ValueError):
        return _whole(entry).get("build") == build
    return False


def _make_room(place: Path, new: Entry) -> None:
    """Removes what is no longer used, other builds' entries a day after their last use, and what is too much."""
    left = [path for path in (place / SEEN).glob("*") if _unused_s(path) > UNUSED_S]
    room = MOST - _size(new.folder)
    for entry in sorted((entry for entry in _entries(place) if entry != new.folder), key=_unused_s):
        room -= _size(entry)
        if room < 0 or _unused_s(entry) > (UNUSED_S if _of_build(entry, new.build) else DAY_S):
            left.append(entry)
    for path in left:
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
