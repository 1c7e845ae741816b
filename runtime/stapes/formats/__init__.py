"""How results are printed: one file a format, each a `write(results, out)`."""

from collections.abc import Callable, Iterable
from typing import TextIO

from stapes.formats import json, table
from stapes.formats.result import Result

FORMATS: dict[str, Callable[[Iterable[Result], TextIO], None]] = {"table": table.write, "json": json.write}

__all__ = ["FORMATS", "Result"]
