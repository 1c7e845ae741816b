"""stapes info."""

import argparse
import json
import os

from stapes import repository
from stapes.bundle import Manifest
from stapes.classifier import DEFAULT_MODEL
from stapes.commands.arguments import Run, add_precision
from stapes.formats.text import escaped, printable
from stapes.frontend.steps import Resample


def command(parser: argparse.ArgumentParser) -> Run:
    """Print what a model file says of itself."""
    parser.add_argument("model", nargs="?", default=DEFAULT_MODEL, metavar="MODEL", help="default: the embedded model")
    parser.add_argument("--json", action="store_true", help="the whole manifest as JSON")
    add_precision(parser)

    def run(options: argparse.Namespace) -> int:
        found = repository.find(options.model, options.precision)
        manifest = found.manifest
        if options.json:
            lines = json.dumps(json.loads(manifest.to_json()), ensure_ascii=False, indent=2).split("\n")
            print(*map(escaped, lines), sep="\n")
            return 0
        rows = _describe(manifest) | {"size": f"{os.path.getsize(found.file) / 1e6:.1f} MB"}
        width = max(map(len, rows))
        for key, value in rows.items():
            print(f"{key:<{width}}  {printable(value)}")
        return 0

    return run


def _resampled(manifest: Manifest) -> str:
    first = manifest.frontend.steps[:1]
    return "".join(f"; the graph resamples them to {step.to_rate} Hz" for step in first if isinstance(step, Resample))


def _describe(manifest: Manifest) -> dict[str, str]:
    made, labels = manifest.provenance, manifest.labels
    rows = {
        "name": manifest.name,
        "labels": f"{len(labels)}: {' '.join(labels[:20])}{' …' if len(labels) > 20 else ''}",
        "activation": manifest.activation,
        "rate": f"{manifest.rate} Hz, {manifest.frontend.min_samples} samples at least{_resampled(manifest)}",
        "frontend": " > ".join(map(str, manifest.frontend.steps)) or "none: the model reads samples",
        "precision": made.precision,
        "needs": " or ".join(manifest.needs) or "any CPU",
        "source": f"{made.source} ({made.model_type}){f' at {made.revision}' if made.revision else ''}",
        "made by": " ".join(f"{tool} {number}" for tool, number in made.tools.items()) or "not stated",
    }
    if made.options:
        rows["options"] = " ".join(f"{name}={value}" for name, value in made.options.items())
    if parity := manifest.parity:
        rows["parity"] = (
            f"logits within {parity.max_difference:g} of the checkpoint's, same top label on {parity.agreement:.1%} of "
            f"{parity.clips} {parity.signal} clip{'s' if parity.clips > 1 else ''}"
        )
    if verdict := manifest.verdict:
        allowed = "" if verdict.max_drop is None else f"; {verdict.drop:.2f} points lost of {verdict.max_drop:g} allowed"
        rows["accuracy"] = f"{verdict}{allowed}"
        if verdict.kept:
            rows["in float"] = f"{len(verdict.kept)}: {' '.join(verdict.kept[:20])}{' …' if len(verdict.kept) > 20 else ''}"
    return rows
