"""One JSON list, an object a clip, in input order; written as the clips are done."""

import json
from collections.abc import Iterable
from typing import TextIO

from stapes.formats.result import Result


def write(results: Iterable[Result], out: TextIO) -> None:
    before = "["
    for result in results:
        out.write(f"{before}\n  {json.dumps(result.to_dict(), ensure_ascii=False)}")
        out.flush()
        before = ","
    out.write("[]\n" if before == "[" else "\n]\n")
