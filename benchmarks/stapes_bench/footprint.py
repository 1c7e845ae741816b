"""What an installation weighs: the files of a distribution and of everything it requires."""

import sys
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path


def closure(names: Iterable[str], extras: Iterable[str] = ()) -> set[str]:
    """The distributions that `names` (with `extras`) bring, by name; those that are not installed here are left out."""
    from packaging.requirements import Requirement

    found: set[str] = set()
    waiting = [(name, extra) for name in names for extra in ("", *extras)]
    while waiting:
        name, extra = waiting.pop()
        try:
            required = distribution(name).requires or ()
        except PackageNotFoundError:
            continue  # a requirement of another platform or Python
        found.add(name.lower().replace("_", "-"))
        for line in required:
            needed = Requirement(line)
            if needed.marker is None or needed.marker.evaluate({"extra": extra}):
                known = needed.name.lower().replace("_", "-") in found
                waiting += [] if known else [(needed.name, each) for each in ("", *needed.extras)]
    return found


def installed_bytes(names: Iterable[str]) -> int:
    """Bytes on disk of these distributions' files, without compiled bytecode."""
    files = {Path(str(file.locate())).resolve() for name in names for file in distribution(name).files or ()}
    return sum(file.stat().st_size for file in files if file.suffix != ".pyc" and file.is_file())


if __name__ == "__main__":
    print(installed_bytes(closure(sys.argv[1:])))
