"""The command `stapes`: parses, calls one function, prints. Results go to stdout, everything else to stderr.

Exit status: 0 done, 1 some input failed, 2 usage or no model. Further commands come in through the entry-point group
`stapes.commands`: listed from the table of entry points, loaded only when typed.
"""

import argparse
import contextlib
import json
import os
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import entry_points

from stapes import __version__, repository
from stapes.bundle import Manifest
from stapes.classifier import DEFAULT_MODEL, Classifier, load
from stapes.errors import AudioError, InvalidInput, StapesError
from stapes.formats import FORMATS, Result

Run = Callable[[argparse.Namespace], int]
Command = Callable[[argparse.ArgumentParser], Run]
"""Adds its arguments to the parser and gives what runs; the docstring's first line says what it does."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; the exit status."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    warnings.showwarning = lambda message, *_: _complain(f"warning: {message}")
    options = _parser(arguments).parse_args(arguments)
    try:
        status: int = options.run(options)
        sys.stdout.flush()
        return status
    except StapesError as error:
        _complain(str(error))
        return 2
    except BrokenPipeError:  # the reader of our output has gone, as `head` does: nothing is wrong
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        return 130


def _parser(arguments: Sequence[str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="stapes", description="Hugging Face audio classification without torch.")
    parser.add_argument("--version", action="version", version=f"stapes {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for name, command in COMMANDS.items():
        _add(commands, name, command)
    typed = next((word for word in arguments if not word.startswith("-")), None)
    if typed not in COMMANDS:
        for entry in sorted(entry_points(group="stapes.commands")):
            if entry.name == typed:
                _add(commands, entry.name, entry.load())
            else:
                commands.add_parser(entry.name, help=f"see stapes {entry.name} --help")
    return parser


def _add(commands: "argparse._SubParsersAction[argparse.ArgumentParser]", name: str, command: Command) -> None:
    summary = (command.__doc__ or "").splitlines()[0]
    parser = commands.add_parser(name, help=summary, description=summary)
    parser.set_defaults(run=command(parser))


def _classify(parser: argparse.ArgumentParser) -> Run:
    """Print what is heard in each clip."""
    parser.add_argument("clips", nargs="+", metavar="CLIP", help="an audio file; - reads one from standard input")
    parser.add_argument("-m", "--model", metavar="MODEL", help="a stapes file or a model directory (default: the embedded model)")
    _add_precision(parser)
    parser.add_argument("--top-k", type=_positive, default=5, metavar="K", help="labels a clip (default: 5)")
    parser.add_argument("--format", choices=FORMATS, default="table", help="default: table")
    parser.add_argument("--threads", type=_positive, metavar="N", help="threads within an operator (default: one a core)")
    parser.add_argument("--device", default="auto", metavar="D", help="auto, cpu, cuda or cuda:N (default: auto)")

    def run(options: argparse.Namespace) -> int:
        classifier = load(options.model, options.device, options.threads, options.precision)
        failed = 0

        def results() -> Iterator[Result]:
            nonlocal failed
            for path in options.clips:
                result = _result(classifier, path, options.top_k)
                if result.error is not None:
                    failed += 1
                    _complain(f"{path}: {result.error}")
                yield result

        FORMATS[options.format](results(), sys.stdout)
        return 1 if failed else 0

    return run


def _result(classifier: Classifier, path: str, top_k: int) -> Result:
    try:
        clip = classifier.read(sys.stdin.buffer.read() if path == "-" else path)
        return Result(path, clip.seconds, tuple(classifier(clip, top_k)))
    except (AudioError, InvalidInput) as error:
        return Result(path, error=error)


def _info(parser: argparse.ArgumentParser) -> Run:
    """Print what a model file says of itself."""
    parser.add_argument("model", nargs="?", default=DEFAULT_MODEL, metavar="MODEL", help="default: the embedded model")
    parser.add_argument("--json", action="store_true", help="the whole manifest as JSON")
    _add_precision(parser)

    def run(options: argparse.Namespace) -> int:
        found = repository.find(options.model, options.precision)
        manifest = found.manifest
        if options.json:
            print(json.dumps(json.loads(manifest.to_json()), ensure_ascii=False, indent=2))
            return 0
        rows = _describe(manifest) | {"size": f"{os.path.getsize(found.file) / 1e6:.1f} MB"}
        width = max(map(len, rows))
        for key, value in rows.items():
            print(f"{key:<{width}}  {value}")
        return 0

    return run


def _describe(manifest: Manifest) -> dict[str, str]:
    made, labels = manifest.provenance, manifest.labels
    rows = {
        "name": manifest.name,
        "labels": f"{len(labels)}: {' '.join(labels[:20])}{' …' if len(labels) > 20 else ''}",
        "activation": manifest.activation,
        "rate": f"{manifest.rate} Hz, {manifest.frontend.min_samples} samples at least",
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
    return rows


def _add_precision(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--precision", metavar="P", help="which graph of a model directory: fp32, int8, quantized, … (default: model.onnx)")


COMMANDS: dict[str, Command] = {"classify": _classify, "info": _info}


def _positive(text: str) -> int:
    with contextlib.suppress(ValueError):
        if int(text) > 0:
            return int(text)
    raise argparse.ArgumentTypeError(f"a whole number from 1 up, not {text!r}")


def _complain(message: str) -> None:
    print(f"stapes: {message}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
