"""WebVTT, the subtitles of browsers: a cue a segment, its labels and scores as lines."""

from collections.abc import Iterable
from typing import TextIO

from stapes.formats.result import Result
from stapes.formats.text import clock, printable

ESCAPES = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;"})
"""Else a label could open a tag, or be read as an arrow between times."""


def write(results: Iterable[Result], out: TextIO) -> None:
    out.write("WEBVTT\n\n")
    for result in results:
        for segment in result.timeline:
            if segment.predictions:
                out.write(f"{clock(segment.start, '.')} --> {clock(segment.end, '.')}\n")
                out.writelines(f"{printable(found.label).translate(ESCAPES)} {found.score:.2f}\n" for found in segment.predictions)
                out.write("\n")
        out.flush()
