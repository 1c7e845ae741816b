"""The exporter's commands, registered under the entry-point group `stapes.commands`.

Nothing heavy is imported before a command runs: `stapes --help` works without the extra.
"""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from stapes.errors import AccuracyError, MissingExtra

HEADS = ("dense-tanh-out-proj", "dense-output", "dense-tanh-output")
LAYOUTS = ("file", "hub")
PRECISIONS = ("fp32", "fp16", "int8", "int8-portable")
TARGETS = ("c",)


def export(parser: argparse.ArgumentParser) -> Callable[[argparse.Namespace], int]:
    """Export a Hugging Face checkpoint to one self-contained ONNX file."""
    parser.add_argument("checkpoint", metavar="CHECKPOINT", help="a checkpoint's folder, or a hub id such as owner/name")
    parser.add_argument("-o", "--out", type=Path, required=True, metavar="OUT", help="the file to write; with --layout hub the directory")
    parser.add_argument(
        "--precision",
        choices=PRECISIONS,
        default="fp32",
        help="fp16 is for CUDA, int8 for CPUs with VNNI, AMX or the Arm dot product, int8-portable for every CPU (default: fp32)",
    )
    parser.add_argument(
        "--layout", choices=LAYOUTS, default="file", help="hub: the directory that optimum and transformers.js read (default: file)"
    )
    parser.add_argument("--revision", metavar="REV", help="branch, tag or commit on the hub (default: main)")
    parser.add_argument(
        "--calibration",
        type=Path,
        metavar="DIR",
        help="recordings to verify on: one folder a label, or a csv with the columns path and label (default: a test signal)",
    )
    parser.add_argument(
        "--max-drop",
        type=float,
        metavar="POINTS",
        help="points of accuracy on those recordings that the precision may lose (of agreement with fp32 where they have no labels); "
        "modules that cost too much stay in float, and nothing is written beyond it (default: what verification allows)",
    )
    parser.add_argument(
        "--fused-attention",
        action="store_true",
        help="attention as ONNX Runtime's own operator: faster from some 500 frames on, and no other runtime reads the file",
    )
    parser.add_argument(
        "--top-k",
        type=int,
        metavar="K",
        help="outputs beside the scores: top_scores, top_indices and top_labels, the K best of each clip, for hosts that read no metadata",
    )
    parser.add_argument(
        "--input-rate",
        type=int,
        metavar="HZ",
        help="take samples at this rate, such as 8000, 44100 or 48000, and resample them in the graph (default: the model's own rate)",
    )
    parser.add_argument("--external-data", action="store_true", help="weights beside the file, in OUT.data (always from 1.5 GB on)")
    parser.add_argument("--head", choices=HEADS, metavar="NAME", help=f"a head that is not transformers' own: {', '.join(HEADS)}")
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
        try:
            report = build(
                options.checkpoint,
                options.out,
                options.precision,
                revision=options.revision,
                calibration=options.calibration,
                layer_sum=options.layer_sum,
                head=options.head,
                external_data=options.external_data,
                layout=options.layout,
                max_drop=options.max_drop,
                fused_attention=options.fused_attention,
                top_k=options.top_k,
                input_rate=options.input_rate,
            )
        except AccuracyError as error:  # no mistake in what was typed
            print(f"stapes: {error}", file=sys.stderr)
            return 1
        parity = report.parity
        size = sum(file.stat().st_size for file in ([options.out] if options.out.is_file() else options.out.rglob("*.onnx")))
        print(
            f"{options.out}: {size / 1e6:.1f} MB; logits within {parity.max_difference:g} of the checkpoint's, "
            f"same top label on {parity.agreement:.1%} of {parity.clips} {parity.signal} clips",
            file=sys.stderr,
        )
        if report.verdict is not None:
            print(f"accuracy: {report.verdict}", file=sys.stderr)
            if report.verdict.kept:
                print(f"kept in float: {' '.join(report.verdict.kept)}", file=sys.stderr)
        return 0

    return run


def package(parser: argparse.ArgumentParser) -> Callable[[argparse.Namespace], int]:
    """Write the directory that a program needs to embed a model."""
    parser.add_argument("model", type=Path, metavar="MODEL", help="a file of stapes export")
    parser.add_argument(
        "--for",
        dest="target",
        choices=TARGETS,
        required=True,
        help="c: the model, stapes.h, a program over it, a Makefile and a CMakeLists.txt, test vectors, a README",
    )
    parser.add_argument("-o", "--out", type=Path, required=True, metavar="DIR", help="a new directory, or an earlier package to replace")

    def run(options: argparse.Namespace) -> int:
        from stapes_export.targets import c

        files = c.package(options.model, options.out)
        print(f"{options.out}: {len(files)} files, {sum(file.stat().st_size for file in files) / 1e6:.1f} MB", file=sys.stderr)
        return 0

    return run


def lock(parser: argparse.ArgumentParser) -> Callable[[argparse.Namespace], int]:
    """Pin checkpoints and the artifacts made from them in models.lock."""
    actions = parser.add_subparsers(metavar="ACTION", required=True)
    parser.add_argument("--lock", type=Path, default=Path("models.lock"), metavar="FILE", help="default: models.lock here")

    add = actions.add_parser("add", help="pin a checkpoint's files")
    add.add_argument("source", metavar="SOURCE[@REVISION]", help="a hub id, or a folder beside the lock file")
    add.add_argument("--name", help="default: the last part of the id")
    add.add_argument("--precision", choices=PRECISIONS, default="fp32", help="of the artifact that -o names (default: fp32)")
    add.add_argument("-o", "--out", metavar="OUT", help="an artifact that stapes lock sync makes, relative to the lock file")
    add.set_defaults(action=_lock_add)
    for action, summary, function in (
        ("verify", "check every pinned file at both ends", _lock_verify),
        ("sync", "make the artifacts that are not what the lock says", _lock_sync),
        ("list", "print what is pinned", _lock_list),
    ):
        one = actions.add_parser(action, help=summary)
        one.add_argument("names", nargs="*", metavar="NAME", help="default: all")
        one.set_defaults(action=function)

    def run(options: argparse.Namespace) -> int:
        try:
            import stapes_export.pinning  # noqa: F401 (whether the extra is there)
        except ModuleNotFoundError as error:
            raise MissingExtra(f"stapes lock needs {error.name}: pip install 'stapes[cpu,export]'") from error
        status: int = options.action(options)
        return status

    return run


def _lock_add(options: argparse.Namespace) -> int:
    from stapes_export import pinning
    from stapes_export.lock import LockedArtifact

    source, _, revision = options.source.partition("@")
    artifacts = [LockedArtifact(options.out, options.precision)] if options.out else []
    entry = pinning.add(options.lock, source, revision or None, options.name, artifacts)
    print(f"{entry.name}: {entry.source}{f' at {entry.revision}' if entry.revision else ''}, {len(entry.files)} files", file=sys.stderr)
    return 0


def _lock_verify(options: argparse.Namespace) -> int:
    from stapes_export import pinning

    wrong = 0
    for name, problem in pinning.verify(options.lock, options.names):
        wrong += problem is not None
        print(f"{name}  {problem or 'as pinned'}", file=sys.stderr if problem else sys.stdout)
    return 1 if wrong else 0


def _lock_sync(options: argparse.Namespace) -> int:
    from stapes_export import pinning

    for path in pinning.sync(options.lock, options.names):
        print(path)
    return 0


def _lock_list(options: argparse.Namespace) -> int:
    from stapes_export.lock import read

    for entry in read(options.lock).values():
        if not options.names or entry.name in options.names:
            size = sum(pin.size for pin in entry.files.values()) / 1e6
            print(f"{entry.name}  {entry.source}{f'@{entry.revision}' if entry.revision else ''}  {size:.1f} MB")
            for one in entry.artifacts:
                print(f"  {one.path}  {one.precision}  {f'{one.pin.size / 1e6:.1f} MB' if one.pin else 'not made yet'}")
    return 0
