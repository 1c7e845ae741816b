"""Comma-separated values for spreadsheets and data frames: a row, and a line, for each label of each segment."""

import csv
from collections.abc import Iterable
from typing import TextIO

from stapes.formats.result import Result
from stapes.formats.text import decimal, printable
from stapes.predictions import MergedPrediction

HEADER = ("path", "start", "end", "label", "score", "max_score", "index")
"""The same columns always; max_score is empty where no windows were merged."""


def write(results: Iterable[Result], out: TextIO) -> None:
    table = csv.writer(out, lineterminator="\n")
    table.writerow(HEADER)
    for result in results:
        path = printable(result.path)
        for segment in result.timeline:
            times = decimal(segment.start), decimal(segment.end)
            for found in segment.predictions:
                max_score = decimal(found.max_score) if isinstance(found, MergedPrediction) else ""
                table.writerow((path, *times, printable(found.label), decimal(found.score), max_score, found.index))
        out.flush()
