"""SubRip subtitles: a cue a segment, its labels and scores as lines."""

from collections.abc import Iterable
from typing import TextIO

from stapes.formats.result import Result
from stapes.formats.text import clock, printable


def write(results: Iterable[Result], out: TextIO) -> None:
    number = 0
    for result in results:
        for segment in result.timeline:
            if segment.predictions:
                number += 1
                out.write(f"{number}\n{clock(segment.start, ',')} --> {clock(segment.end, ',')}\n")
                out.writelines(f"{printable(found.label)} {found.score:.2f}\n" for found in segment.predictions)
                out.write("\n")
        out.flush()
