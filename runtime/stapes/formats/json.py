"""One JSON list, an object a clip, in input order; written as the clips are done."""

import json
from collections.abc import Iterable
from typing import TextIO

from stapes.formats.result import Result
from stapes.formats.text import escaped


def write(results: Iterable[Result], out: TextIO) -> None:
    before = "["
    for result in results:
        out.write(f"{before}\n  {encode(result)}")
        out.flush()
        before = ","
    out.write("[]\n" if before == "[" else "\n]\n")


def encode(result: Result) -> str:
    """The result as one line of JSON; characters that a line or a terminal cannot hold are escaped, so that nothing is lost."""
    return escaped(json.dumps(result.to_dict(), ensure_ascii=False))
