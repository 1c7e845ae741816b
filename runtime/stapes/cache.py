"""Where things are kept between runs, and how a file gets there whole when two processes write it."""

import contextlib
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from stapes.errors import ModelError, StapesError

VARIABLE = "STAPES_CACHE"


def folder() -> Path:
    """The folder for what is kept: $STAPES_CACHE, else the platform's own place. It need not exist yet. Raises ModelError."""
    if named := os.environ.get(VARIABLE):
        return Path(named).expanduser().absolute()
    try:
        home = Path.home()
    except RuntimeError as error:  # a user id without an entry in the table of users, as containers have
        raise ModelError(f"this user has no home folder to keep models in; set {VARIABLE} to a folder") from error
    return usual(sys.platform, os.environ, home)


def usual(platform: str, environment: Mapping[str, str], home: Path) -> Path:
    """Where `platform` (as sys.platform says it) keeps what can be made again."""
    if platform == "darwin":
        return home / "Library" / "Caches" / "stapes"
    if platform == "win32":
        return Path(environment.get("LOCALAPPDATA") or home / "AppData" / "Local") / "stapes"
    named = Path(environment.get("XDG_CACHE_HOME", ""))
    return (named if named.is_absolute() else home / ".cache") / "stapes"  # the XDG specification: a relative path is to be ignored


@contextlib.contextmanager
def placing(path: Path) -> Iterator[Path]:
    """A path of the same name to write to, in a new folder beside `path`; when the block ends, the file replaces `path`.

    What else was written into that folder goes beside `path` before it, as the weights that a graph names. Where the block fails
    nothing is left. Of two processes the later one's file stays, and whoever reads gets one or the other. Raises ModelError.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent, ignore_cleanup_errors=True) as drafts:
            draft = Path(drafts) / path.name
            yield draft
            for file in sorted(Path(drafts).iterdir(), key=lambda file: (file == draft, file)):
                file.replace(path.with_name(file.name))
    except StapesError:
        raise  # some are an OSError too
    except OSError as error:
        raise ModelError(f"cannot keep {path}: {error.strerror}; set {VARIABLE} to a folder that can be written") from error


def link(source: Path, target: Path) -> None:
    """`target` becomes a second name of the file `source`, or a copy of it where they lie on different disks."""
    try:
        os.link(source.resolve(), target)
    except OSError:
        shutil.copyfile(source, target)
