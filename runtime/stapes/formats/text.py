"""How text and numbers are spelled in the formats that are read line by line."""

import re
import unicodedata

from stapes.formats.result import DIGITS

UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff\ufffe\uffff]")
"""Control characters (category Cc), line and paragraph separators, and what no UTF-8 or XML can hold."""


def printable(text: str) -> str:
    """The text with U+FFFD where it would break a line or steer a terminal: labels and paths come from strangers."""
    return UNPRINTABLE.sub("\ufffd", text)


def escaped(line: str) -> str:
    """A line of JSON with those characters as escapes, so that nothing is lost."""
    return UNPRINTABLE.sub(lambda found: f"\\u{ord(found[0]):04x}", line)


def decimal(number: float) -> str:
    """The number with DIGITS decimals."""
    return f"{number:.{DIGITS}f}"


def clock(seconds: float, point: str) -> str:
    """The time as subtitles write it, HH:MM:SS and milliseconds after `point`."""
    rest, milliseconds = divmod(round(seconds * 1000), 1000)
    minutes, second = divmod(rest, 60)
    hour, minute = divmod(minutes, 60)
    return f"{hour:02d}:{minute:02d}:{second:02d}{point}{milliseconds:03d}"


def columns(text: str) -> int:
    """The columns of a terminal that the text takes: two for each wide character, none for a mark over another."""
    return sum(0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)
