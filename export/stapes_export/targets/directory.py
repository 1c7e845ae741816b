"""A directory that appears whole or not at all."""

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from stapes.errors import ExportError, StapesError


@contextlib.contextmanager
def replacing(out: Path) -> Iterator[Path]:
    """A new and empty directory, which becomes `out` when the block ends, and nothing where it fails. Raises ExportError.

    What stands at `out` is replaced: whether it may be is for the caller to check.
    """
    out = out.resolve()
    part, old = (out.with_name(f".{out.name}.{os.getpid()}.{end}") for end in ("part", "old"))
    try:
        part.mkdir(parents=True)
        yield part
        for path in part.rglob("*"):
            if path.is_file():
                with path.open("rb") as file:
                    os.fsync(file.fileno())
        if out.exists():
            out.rename(old)  # a directory with files in it cannot be replaced in one step
        try:
            part.rename(out)
        except OSError:
            if old.exists():
                old.rename(out)
            raise
    except StapesError:
        raise  # some are an OSError too
    except OSError as error:
        raise ExportError(f"cannot write {out}: {error.strerror}") from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)
