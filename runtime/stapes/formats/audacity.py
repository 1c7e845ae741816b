"""A label track of Audacity: a line for each label of each segment, start, end and label between tabs.

Source: the Audacity manual, Importing and Exporting Labels, standard format.
"""

from collections.abc import Iterable
from typing import TextIO

from stapes.formats.result import Result
from stapes.formats.text import decimal, printable


def write(results: Iterable[Result], out: TextIO) -> None:
    for result in results:
        for segment in result.timeline:
            times = f"{decimal(segment.start)}\t{decimal(segment.end)}"
            out.writelines(f"{times}\t{printable(found.label)}\n" for found in segment.predictions)
        out.flush()
