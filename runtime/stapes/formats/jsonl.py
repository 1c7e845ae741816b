"""JSON Lines: a line a clip, the objects of the json format; written as the clips are done."""

from collections.abc import Iterable
from typing import TextIO

from stapes.formats.json import encode
from stapes.formats.result import Result


def write(results: Iterable[Result], out: TextIO) -> None:
    for result in results:
        out.write(encode(result) + "\n")
        out.flush()
