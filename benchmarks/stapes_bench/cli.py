"""The benchmark's command, registered under the entry-point group `stapes.commands`.

Nothing beyond the base dependencies is imported before a command runs: `stapes --help` works without the extra.
"""

import argparse
import contextlib
import math
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from stapes import repository
from stapes.errors import InvalidOption, MissingExtra, StapesError
from stapes_bench.peers import BY_NAME, PEERS, STAPES, Peer

ENVIRONMENTS = "STAPES_BENCH_ENVIRONMENTS"
"""The variable that names the folder of the peers' environments."""

DEFAULT_PEERS = "transformers,onnxruntime"


def bench(parser: argparse.ArgumentParser) -> Callable[[argparse.Namespace], int]:
    """Measure a model on this host, beside what it replaces, answers checked first."""
    parser.add_argument("models", nargs="*", metavar="MODEL", help="stapes files of one model, in one precision or several")
    parser.add_argument(
        "--checkpoint", type=Path, metavar="DIR", help="the Hugging Face checkpoint that they were made from; peers load it"
    )
    parser.add_argument(
        "--against",
        type=_peers,
        metavar="LIST",
        help=f"of {', '.join(BY_NAME)}, or all (default with --checkpoint: {DEFAULT_PEERS})",
    )
    parser.add_argument("--choose", action="store_true", help="compare the files with one another and say which to deploy here")

    size = parser.add_argument_group("what is timed")
    size.add_argument("--seconds", type=_numbers, default=(1.0, 10.0), metavar="LIST", help="lengths of the clips (default: 1,10)")
    size.add_argument("--threads", type=_counts, default=(1,), metavar="LIST", help="threads within an operator (default: 1)")
    size.add_argument("--batch", type=_counts, default=(1,), metavar="LIST", help="clips at once (default: 1)")
    size.add_argument("--rounds", type=_count, default=10, metavar="N", help="turns of every contender, 1 to 3 calls each (default: 10)")
    size.add_argument("--clips", type=Path, metavar="DIR", help="recordings to cut clips from (default: made signals, much like speech)")
    size.add_argument("--no-startup", action="store_true", help="leave out the cold starts")

    where = parser.add_argument_group("where the peers are")
    where.add_argument(
        "--environments",
        type=Path,
        metavar="DIR",
        default=os.environ.get(ENVIRONMENTS),
        help=f"folder of `python -m stapes_bench.environments` (default: ${ENVIRONMENTS}, else this environment)",
    )
    where.add_argument("--python", type=_pair, action="append", default=[], metavar="NAME=PATH", help="one library's interpreter")
    where.add_argument(
        "--work", type=Path, metavar="DIR", help="keep what peers make of the checkpoint there (default: made anew each time)"
    )

    output = parser.add_argument_group("output")
    output.add_argument("--from", dest="source", type=Path, metavar="FILE", help="measure nothing; report what --json wrote")
    output.add_argument("--json", type=Path, metavar="FILE", help="write raw values, one JSON object a line")
    output.add_argument("--html", type=Path, metavar="FILE", help="write one page with tables and plots, which loads nothing")
    output.add_argument("--png", type=Path, metavar="FILE", help="write the plot of the times as a picture")

    def run(options: argparse.Namespace) -> int:
        _check(options)
        try:
            import packaging  # noqa: F401 (the workers' footprint)

            from stapes_bench import page, picture, records, report
            from stapes_bench.run import run as measured
        except ModuleNotFoundError as error:
            raise MissingExtra(f"stapes bench needs {error.name}: pip install 'stapes[cpu,bench]'") from error
        if options.png:
            picture.check()
        if options.source:
            found = records.read(options.source)
        else:
            with _work(options.work) as work, _lines(options.json) as keep:
                found = [keep(record, records.to_line) for record in measured(_plan(options, work), _say)]
        print(report.table(found), end="")
        if options.html:
            _write(options.html, page.page(found).encode())
        if options.png:
            _write(options.png, picture.png(found))
        if options.choose:
            print(f"\n{report.choice(found)}")
        wrong = [row for row in report.rows(found) if row.own and row.figures is None]
        return 1 if wrong else 0

    return run


def _check(options: argparse.Namespace) -> None:
    """What argparse cannot see; InvalidOption."""
    if bool(options.source) == bool(options.models):
        raise InvalidOption("give the stapes files to measure, or --from FILE with what was measured before; not both")
    if options.source:
        return
    if options.against and options.checkpoint is None:
        raise InvalidOption(
            f"{', '.join(peer.name for peer in options.against)} load the Hugging Face checkpoint: name it with --checkpoint DIR"
        )
    if options.checkpoint is not None and not (options.checkpoint / "config.json").is_file():
        raise InvalidOption(f"{options.checkpoint} is no folder of a checkpoint: it has no config.json")
    if options.choose and (options.checkpoint or len(options.models) < 2):
        raise InvalidOption(
            "--choose compares the files of one model in several precisions, fp32 among them: give two or more, no checkpoint"
        )
    if options.choose and "fp32" not in (
        precisions := [repository.find(path, None).manifest.provenance.precision for path in options.models]
    ):
        raise InvalidOption(f"--choose compares with the model in fp32, and these are {', '.join(precisions)}: give that file too")
    for name, path in options.python:
        if name not in {peer.library for peer in PEERS} | {STAPES}:
            raise InvalidOption(f"--python {name}={path}: no peer runs on {name}; it is one of {', '.join(_libraries())}")
    for out in filter(None, (options.json, options.html, options.png)):
        if not out.absolute().parent.is_dir():
            raise InvalidOption(f"no folder {out.parent} to write {out.name} into; make it first")


def _plan(options: argparse.Namespace, work: Path) -> Any:
    from stapes_bench.run import Plan

    peers = options.against or (_peers(DEFAULT_PEERS) if options.checkpoint else ())
    if options.checkpoint and BY_NAME["transformers"] not in peers:
        peers = (BY_NAME["transformers"], *peers)  # the reference
    return Plan(
        models=tuple(map(Path, options.models)),
        checkpoint=options.checkpoint,
        peers=peers,
        work=work,
        seconds=options.seconds,
        threads=options.threads,
        batches=options.batch,
        rounds=options.rounds,
        clips=options.clips,
        environments=_environments(options.environments) | dict(options.python),
        startup=not options.no_startup,
    )


def _environments(folder: Path | str | None) -> dict[str, str]:
    """Library -> its interpreter, or Node's folder, for every environment that lies in `folder` under the library's name."""
    if folder is None:
        return {}
    places = {library: Path(folder).absolute() / library for library in _libraries()}
    return {
        library: str(place if (place / "node_modules").is_dir() else place / "bin" / "python")
        for library, place in places.items()
        if place.is_dir()
    }


def _libraries() -> tuple[str, ...]:
    return tuple(dict.fromkeys(peer.library for peer in PEERS))


@contextlib.contextmanager
def _work(folder: Path | None) -> Iterator[Path]:
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        yield folder
        return
    with tempfile.TemporaryDirectory(prefix="stapes-bench-") as temporary:
        yield Path(temporary)


@contextlib.contextmanager
def _lines(path: Path | None) -> Iterator[Callable[[Any, Callable[[Any], str]], Any]]:
    """Something to keep records with: each is written at once beside `path`, which appears when all is done."""
    if path is None:
        yield lambda record, _: record
        return
    draft = path.with_name(f"{path.name}.part")
    with draft.open("w", encoding="utf-8") as file:

        def keep(record: Any, to_line: Callable[[Any], str]) -> Any:
            print(to_line(record), file=file, flush=True)
            return record

        try:
            yield keep
        except BaseException:
            _say(f"stopped; what was measured so far is in {draft}")
            raise
    draft.replace(path)


def _write(path: Path, content: bytes) -> None:
    """All of it or nothing."""
    draft = path.with_name(f".{path.name}.part")
    try:
        draft.write_bytes(content)
        draft.replace(path)
    except OSError as error:
        raise StapesError(f"cannot write {path}: {error.strerror}") from error


def _say(message: str) -> None:
    print(f"stapes: {message}", file=sys.stderr, flush=True)


def _peers(text: str) -> tuple[Peer, ...]:
    names = list(BY_NAME) if text == "all" else list(dict.fromkeys(filter(None, text.split(","))))
    unknown = [name for name in names if name not in BY_NAME]
    if unknown or not names:
        raise argparse.ArgumentTypeError(f"no peer {', '.join(unknown) or repr(text)}: {', '.join(BY_NAME)}, or all")
    return tuple(BY_NAME[name] for name in names)


def _numbers(text: str) -> tuple[float, ...]:
    with contextlib.suppress(ValueError):
        values = tuple(float(part) for part in text.split(","))
        if all(0 < value < math.inf for value in values):
            return tuple(dict.fromkeys(values))
    raise argparse.ArgumentTypeError(f"numbers above 0 with commas between them, not {text!r}")


def _counts(text: str) -> tuple[int, ...]:
    with contextlib.suppress(ValueError):
        values = tuple(int(part) for part in text.split(","))
        if all(value > 0 for value in values):
            return tuple(dict.fromkeys(values))
    raise argparse.ArgumentTypeError(f"whole numbers from 1 up with commas between them, not {text!r}")


def _count(text: str) -> int:
    (value, *others) = _counts(text)
    if others:
        raise argparse.ArgumentTypeError(f"a whole number from 1 up, not {text!r}")
    return value


def _pair(text: str) -> tuple[str, str]:
    name, _, path = text.partition("=")
    if not name or not path:
        raise argparse.ArgumentTypeError(f"NAME=PATH, not {text!r}")
    return name, path
