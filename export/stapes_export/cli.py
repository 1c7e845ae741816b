"""The exporter's commands, registered under the entry-point group `stapes.commands`.

Nothing heavy is imported before a command runs: `stapes --help` works without the extra.
"""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from stapes.errors import MissingExtra

PRECISIONS = ("fp32", "int8", "int8-portable")


def export(parser: argparse.ArgumentParser) -> Callable[[argparse.Namespace], int]:
    """Export a Hugging Face checkpoint to one self-contained ONNX file."""
    parser.add_argument("checkpoint", metavar="CHECKPOINT", help="a checkpoint's folder, or a hub id such as owner/name")
    parser.add_argument("-o", "--out", type=Path, required=True, metavar="OUT", help="the file to write")
    parser.add_argument(
        "--precision", choices=PRECISIONS, default="fp32", help="default: fp32; int8-portable is exact on every CPU, int8 needs VNNI"
    )
    parser.add_argument("--revision", metavar="REV", help="branch, tag or commit on the hub (default: main)")
    parser.add_argument(
        "--calibration", type=Path, metavar="DIR", help="recordings to verify on, one folder a label (default: a test signal)"
    )

    parser.add_argument(
        "--layer-sum",
        choices=("v4", "v5"),
        default="v4",
        help="weighted sum over layers of encoders that end in a layer norm: the last state behind that norm, as checkpoints were trained "
        "(v4, default), or before it, as transformers 5 computes it",
    )

    def run(options: argparse.Namespace) -> int:
        try:
            from stapes_export.build import export as build
        except ModuleNotFoundError as error:
            raise MissingExtra(f"stapes export needs {error.name}: pip install 'stapes[cpu,export]'") from error
        report = build(
            options.checkpoint,
            options.out,
            options.precision,
            revision=options.revision,
            calibration=options.calibration,
            layer_sum=options.layer_sum,
        )
        parity = report.parity
        print(
            f"{options.out}: {options.out.stat().st_size / 1e6:.1f} MB; logits within {parity.max_difference:g} of the checkpoint's, "
            f"same top label on {parity.agreement:.1%} of {parity.clips} {parity.signal} clips",
            file=sys.stderr,
        )
        if report.accuracy_before is not None and report.accuracy_after is not None:
            print(f"accuracy: {report.accuracy_before:.2%} before, {report.accuracy_after:.2%} after", file=sys.stderr)
        return 0

    return run
