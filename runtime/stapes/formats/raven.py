"""A selection table of Raven Pro: a row for each label of each segment, over the whole band that the model hears.

Raven opens several files as one sequence: Begin Time and End Time count from the beginning of the first file, File Offset from the
beginning of the row's own. For a single clip they agree.
"""

from collections.abc import Iterable
from typing import TextIO

from stapes.formats.result import Result
from stapes.formats.text import decimal, printable

HEADER = (
    "Selection",
    "View",
    "Channel",
    "Begin Time (s)",
    "End Time (s)",
    "Low Freq (Hz)",
    "High Freq (Hz)",
    "Begin Path",
    "File Offset (s)",
    "Label",
    "Score",
)


def write(results: Iterable[Result], out: TextIO) -> None:
    out.write("\t".join(HEADER) + "\n")
    selection, before = 0, 0.0
    for result in results:
        for segment in result.timeline:
            times = decimal(before + segment.start), decimal(before + segment.end)
            where = "0.0", f"{result.rate / 2:.1f}", printable(result.path), decimal(segment.start)
            for found in segment.predictions:
                selection += 1
                row = str(selection), "Spectrogram 1", "1", *times, *where, printable(found.label), decimal(found.score)
                out.write("\t".join(row) + "\n")
        before += result.duration
        out.flush()
