"""What several commands share: arguments, kinds of numbers, and how they speak to the person at the terminal."""

import argparse
import contextlib
import math
import sys
from collections.abc import Callable

from stapes.formats.text import printable

Run = Callable[[argparse.Namespace], int]
Command = Callable[[argparse.ArgumentParser], Run]
"""Adds its arguments to the parser and gives what runs; the docstring's first line says what it does."""


def add_precision(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--precision", metavar="P", help="which graph of a model directory: fp32, int8, quantized, … (default: model.onnx)")


def add_model(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-m", "--model", metavar="MODEL", help="a stapes file, a model directory or a hub id (default: the embedded model)")
    add_precision(parser)
    parser.add_argument("--revision", metavar="REV", help="branch, tag or commit of a hub id (default: main)")


def add_device(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--threads", type=positive, metavar="N", help="threads within an operator (default: one a core)")
    parser.add_argument("--device", default="auto", metavar="D", help="auto, cpu, cuda or cuda:N (default: auto)")
    parser.add_argument("--no-cache", dest="cache", action="store_false", help="keep no optimized graph of a large model, and use none")


def positive(text: str) -> int:
    """A whole number from 1 up."""
    with contextlib.suppress(ValueError):
        if int(text) > 0:
            return int(text)
    raise argparse.ArgumentTypeError(f"a whole number from 1 up, not {text!r}")


def positive_number(text: str) -> float:
    """A number above 0."""
    with contextlib.suppress(ValueError):
        if 0 < float(text) < math.inf:
            return float(text)
    raise argparse.ArgumentTypeError(f"a number above 0, not {text!r}")


def say(message: str) -> None:
    """One line to standard error, whatever a stranger's file is called."""
    print(f"stapes: {printable(message)}", file=sys.stderr)
