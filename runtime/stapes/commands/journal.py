"""What was done, kept line by line, so that a run that was killed goes on where it was.

The first line says what the answers depend on; each other is one finished input. A line that was cut off is not believed.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from stapes.commands.inputs import STANDARD_INPUT
from stapes.errors import InvalidOption
from stapes.formats import Result
from stapes.predictions import MergedPrediction, Prediction, Segment

KEY, VERSION = "stapes_journal", 1


class Journal:
    """The results in the file at `path`, and a pen to add to them.

    `settings`: what the answers depend on, as JSON knows it. Raises InvalidOption where the file is no journal, was kept for other
    settings, or is being written by another run.
    """

    def __init__(self, path: Path, settings: Mapping[str, Any]) -> None:
        self.path = path
        self._kept: dict[str, tuple[Any, Result]] = {}
        header = json.loads(json.dumps({KEY: VERSION, **settings}))
        try:
            self._file = path.open("a+b")
            _lock(self._file.fileno())
            self._file.seek(0)
            *lines, cut_off = self._file.read().split(b"\n")
            whole = sum(len(line) + 1 for line in lines)
            if lines:
                self._believe(header, lines)
            elif not _line(header).startswith(cut_off):  # something else, and not ours to overwrite
                raise self._foreign()
            self._file.truncate(whole)
            if not lines:
                self._write(header)
        except BlockingIOError as error:
            raise InvalidOption(f"{path} is being written by another run; wait for it, or choose another file for --resume") from error
        except OSError as error:
            raise InvalidOption(f"cannot keep a journal in {path}: {error.strerror}; choose another file for --resume") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._file.close()

    def find(self, name: str) -> Result | None:
        """The result of an input that was finished before and is the same file as then."""
        state, result = self._kept.get(name, (None, None))
        return result if result is not None and state == _state(name) else None

    def keep(self, result: Result) -> None:
        """Add a finished input. Those that failed are not kept: they are tried again."""
        if result.error is None and result.path != STANDARD_INPUT:
            self._write({"state": _state(result.path), "result": _to_json(result)})

    def _write(self, entry: Mapping[str, Any]) -> None:
        self._file.write(_line(entry))
        self._file.flush()

    def _believe(self, header: Mapping[str, Any], lines: list[bytes]) -> None:
        try:
            first, *entries = [json.loads(line) for line in lines]
            if KEY not in first:
                raise self._foreign()
            self._kept = {entry["result"]["path"]: (entry["state"], _from_json(entry["result"])) for entry in entries}
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise self._foreign() from error
        if different := sorted(name for name in first.keys() | header.keys() if first.get(name) != header.get(name)):
            raise InvalidOption(
                f"{self.path} was kept for another {' and '.join(different)}; go on with the same, or choose another file for --resume"
            )

    def _foreign(self) -> InvalidOption:
        return InvalidOption(f"{self.path} is no journal of stapes classify; choose another file for --resume")


def _line(entry: Mapping[str, Any]) -> bytes:
    return json.dumps(entry).encode() + b"\n"


def _lock(descriptor: int) -> None:
    """Keep other runs from the file until this process ends, where the system can do it."""
    try:
        import fcntl
    except ImportError:  # Windows
        return
    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _state(name: str) -> list[int] | None:
    """What tells one version of a file from another: size and time of its last change; None for an address."""
    try:
        found = os.stat(name)
    except (OSError, ValueError):
        return None
    return [found.st_size, found.st_mtime_ns]


def _to_json(result: Result) -> dict[str, Any]:
    return {
        "path": result.path,
        "duration": result.duration,
        "rate": result.rate,
        "predictions": [_row(found) for found in result.predictions],
        "segments": None
        if result.segments is None
        else [[segment.start, segment.end, [_row(found) for found in segment.predictions]] for segment in result.segments],
    }


def _row(found: Prediction) -> list[Any]:
    row = [found.label, found.score, found.index]
    return [*row, found.max_score] if isinstance(found, MergedPrediction) else row


def _from_json(data: Mapping[str, Any]) -> Result:
    segments = data["segments"]
    return Result(
        data["path"],
        data["duration"],
        data["rate"],
        tuple(map(_prediction, data["predictions"])),
        None if segments is None else tuple(Segment(start, end, tuple(map(_prediction, rows))) for start, end, rows in segments),
    )


def _prediction(row: list[Any]) -> Prediction:
    return MergedPrediction(*row) if len(row) == 4 else Prediction(*row)
