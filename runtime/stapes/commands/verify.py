"""stapes verify."""

import argparse
import json
import math

from stapes import golden
from stapes.classifier import DEFAULT_MODEL, load
from stapes.commands.arguments import Run, add_device, add_precision
from stapes.formats.text import escaped, printable


def command(parser: argparse.ArgumentParser) -> Run:
    """Run a model's self-test on this host."""
    parser.add_argument("model", nargs="?", default=DEFAULT_MODEL, metavar="MODEL", help="default: the embedded model")
    add_precision(parser)
    add_device(parser)
    parser.add_argument("--json", action="store_true", help="one JSON object")

    def run(options: argparse.Namespace) -> int:
        outcome = golden.check(load(options.model, options.device, options.threads, options.precision, cache=options.cache))
        if options.json:
            print(escaped(json.dumps(_object(outcome), ensure_ascii=False)))
        else:
            print(printable(f"{outcome}; {outcome.remedy}" if outcome.remedy else str(outcome)))
        return 0 if outcome.passed else 1

    return run


def _object(outcome: golden.Outcome) -> dict[str, object]:
    """`difference` is null where it is no number, which JSON cannot say."""
    return {
        "model": outcome.name,
        "device": outcome.device,
        "passed": outcome.passed,
        "difference": outcome.difference if math.isfinite(outcome.difference) else None,
        "tolerance": outcome.tolerance,
        "seconds": round(outcome.seconds, 6),
        "remedy": outcome.remedy,
    }
