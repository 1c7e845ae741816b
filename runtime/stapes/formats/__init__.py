"""How results are printed: one file a format, each a `write(results, out)`."""

from collections.abc import Mapping

from stapes.formats import audacity, csv, json, jsonl, raven, srt, table, vtt
from stapes.formats.format import Format
from stapes.formats.result import Result

FORMATS: Mapping[str, Format] = {
    "table": Format(table.write, ".txt", many=True),
    "json": Format(json.write, ".json", many=True),
    "jsonl": Format(jsonl.write, ".jsonl", many=True),
    "csv": Format(csv.write, ".csv", many=True),
    "audacity": Format(audacity.write, ".txt", many=False),
    "raven": Format(raven.write, ".selections.txt", many=True),
    "srt": Format(srt.write, ".srt", many=False),
    "vtt": Format(vtt.write, ".vtt", many=False),
}

__all__ = ["FORMATS", "Format", "Result"]
