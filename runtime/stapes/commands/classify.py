"""stapes classify."""

import argparse
import contextlib
import os
import re
import sys
import tempfile
import traceback
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import TextIO, TypeVar

from stapes import plot
from stapes.ahead import ahead
from stapes.audio import Clip, Reading
from stapes.classifier import Classifier, load
from stapes.commands.arguments import Run, add_device, add_model, positive, positive_number, say
from stapes.commands.inputs import Input, inputs
from stapes.commands.journal import Journal
from stapes.commands.progress import Progress, clock
from stapes.errors import AudioError, InvalidOption, StapesError
from stapes.formats import FORMATS, Format, Result
from stapes.predictions import ACTIVATIONS
from stapes.resample import METHODS

T = TypeVar("T")


def command(parser: argparse.ArgumentParser) -> Run:
    """Print what is heard in each clip."""
    parser.add_argument("clips", nargs="+", metavar="CLIP", help="a file, a folder (all audio below it), an http(s) address, or -: stdin")
    add_model(parser)
    add_device(parser)

    answers = parser.add_argument_group("answers")
    answers.add_argument("--top-k", type=positive, metavar="K", help="labels a clip (default: 5), or a window (default: 1)")
    answers.add_argument("--threshold", type=float, metavar="X", help="leave out labels with a score below X (default: none is left out)")
    answers.add_argument("--function-to-apply", choices=ACTIVATIONS, help="instead of the model's own activation")
    answers.add_argument("--window", type=positive_number, metavar="S", help="hear the clip in windows of S seconds")
    answers.add_argument("--hop", type=positive_number, metavar="S", help="seconds from one window to the next (default: the window)")
    answers.add_argument("--merge", action="store_true", help="adjacent windows of one label become one segment")

    output = parser.add_argument_group("output")
    output.add_argument("--format", choices=FORMATS, default="table", help="default: table")
    output.add_argument("-o", "--out", metavar="OUT", help="write to a file, whole or not at all; to a folder, a file a clip")
    output.add_argument("--plot", type=Path, metavar="FILE", help="draw a clip's spectrogram and segments, as .png or .svg")
    output.add_argument("-q", "--quiet", action="store_true", help="nothing on stderr but warnings and errors")

    reading = parser.add_argument_group("reading")
    reading.add_argument("--downmix", type=_downmix, default="mean", metavar="HOW", help="mean, ffmpeg or a channel (default: mean)")
    reading.add_argument("--resampler", choices=METHODS, default="soxr", help="sinc-hann is torchaudio's (default: soxr)")
    reading.add_argument("--max-duration", type=positive_number, metavar="S", help="refuse clips that last longer than S seconds")
    reading.add_argument("--max-bytes", type=_size, metavar="N", help="refuse files larger than N bytes, or N K, M or G")
    reading.add_argument("--timeout", type=positive_number, default=10.0, metavar="S", help="seconds an address may take (default: 10)")

    work = parser.add_argument_group("work")
    work.add_argument("-b", "--batch-size", type=positive, metavar="N", help="clips (default: 1) or windows (default: 8) at once")
    work.add_argument("--jobs", type=positive, default=1, metavar="N", help="files worked on at once (default: 1)")
    work.add_argument("--resume", type=Path, metavar="FILE", help="keep a journal in FILE; the same command goes on where it was cut off")

    def run(options: argparse.Namespace) -> int:
        chosen = FORMATS[options.format]
        found = inputs(options.clips)
        _check(options, chosen, found)
        reading = Reading(
            options.downmix, options.resampler, max_duration=options.max_duration, max_bytes=options.max_bytes, timeout=options.timeout
        )
        threads = options.threads or (max(1, (os.cpu_count() or 1) // options.jobs) if options.jobs > 1 else None)
        classifier = load(
            options.model, options.device, threads, options.precision, reading, revision=options.revision, cache=options.cache
        )
        if options.device == "auto" and not options.quiet:
            say(f"device: {classifier.device} (auto)")
        with contextlib.ExitStack() as stack:
            journal = stack.enter_context(Journal(options.resume, _settings(classifier, options))) if options.resume else None
            progress = stack.enter_context(Progress(len(found), shown=not options.quiet))
            work = _Work(classifier, options, journal, progress)
            _write(work.results(found), chosen, options, found)
            if options.plot and not work.failed:
                assert work.last is not None
                plot.draw(classifier.stream(found[0].source), classifier.manifest.rate, work.last.timeline, options.plot, found[0].name)
        if (len(found) > 1 or os.path.isdir(options.clips[0])) and not options.quiet:
            say(work.summary(len(found)))
        return 1 if work.failed else 0

    return run


def _check(options: argparse.Namespace, chosen: Format, found: list[Input]) -> None:
    """Refuses options that do not go together."""
    if options.window is None and (options.hop is not None or options.merge):
        raise InvalidOption("--hop and --merge are for windows; add --window S")
    if not chosen.many and len(found) > 1 and not _is_folder(options.out):
        raise InvalidOption(f"{options.format} holds one clip a file and there are {len(found)}; write each to its own with -o FOLDER/")
    if options.plot and (len(found) > 1 or options.clips == ["-"]):
        raise InvalidOption("--plot draws one clip that can be read twice; give one file")
    if options.plot:
        plot.check(options.plot)


def _is_folder(out: str | None) -> bool:
    return out is not None and (out.endswith(("/", os.sep)) or os.path.isdir(out))


def _settings(classifier: Classifier, options: argparse.Namespace) -> dict[str, object]:
    """What answers depend on."""
    from hashlib import sha256  # here: without --resume nobody needs it

    names = ("top_k", "threshold", "function_to_apply", "window", "hop", "merge")
    return {
        "model": sha256(classifier.manifest.to_json().encode()).hexdigest(),
        "options": {name: getattr(options, name) for name in names},
        "reading": asdict(classifier.reading) | {"timeout": None},
    }


class _Work:
    """The results of all inputs, and what became of them."""

    def __init__(self, classifier: Classifier, options: argparse.Namespace, journal: Journal | None, progress: Progress) -> None:
        self._classifier, self._options, self._journal, self._progress = classifier, options, journal, progress
        self.failed = self.resumed = 0
        self.last: Result | None = None

    def results(self, found: list[Input]) -> Iterator[Result]:
        """A result an input, in order; errors are told as they come."""
        size = 1 if self._options.window else self._options.batch_size or 1
        jobs = self._options.jobs if self._options.jobs > 1 else 0
        for group in ahead(self._hear, _groups(found, size), jobs):
            for result, resumed in group:
                if result.error is not None:
                    self.failed += 1
                    self._progress.clear()
                    self._tell(result)
                elif self._journal and not resumed:
                    self._journal.keep(result)
                self.resumed += resumed
                self.last = result
                self._progress.finish()
                yield result

    def summary(self, files: int) -> str:
        """The run in one line."""
        seconds, elapsed = self._progress.seconds, self._progress.elapsed
        kept = f" ({self.resumed} from the journal)" if self.resumed else ""
        return (
            f"{files} file{'s' if files != 1 else ''}{kept}, {self.failed} failed, {clock(seconds)} of sound in {clock(elapsed)}, "
            f"{seconds / max(elapsed, 1e-9):.1f} times real time"
        )

    def _tell(self, result: Result) -> None:
        message = str(result.error)
        say(message if result.path in message else f"{result.path}: {message}")
        if self._options.debug:
            traceback.print_exception(result.error)

    def _hear(self, group: list[Input]) -> list[tuple[Result, bool]]:
        """The results of some inputs, and whether each was in the journal."""
        kept = {each.name: self._journal.find(each.name) for each in group} if self._journal else {}
        fresh = [each for each in group if kept.get(each.name) is None]
        made = iter([self._windows(each) for each in fresh] if self._options.window else self._clips(fresh))
        found: list[tuple[Result, bool]] = []
        for each in group:
            result = kept.get(each.name)
            found.append((next(made), False) if result is None else (result, True))
        return found

    def _clips(self, group: list[Input]) -> list[Result]:
        """Whole clips, in one batch."""
        options, classifier = self._options, self._classifier
        read: list[tuple[Input, Clip | Exception]] = []
        for each in group:
            try:
                if each.error:
                    raise each.error
                read.append((each, classifier.read(each.source)))
            except (StapesError, MemoryError) as error:
                read.append((each, _error(each.name, error)))
        clips = [clip for _, clip in read if not isinstance(clip, Exception)]
        try:
            answers = list(
                classifier.map(clips, options.top_k or 5, options.function_to_apply, batch_size=max(1, len(clips)), num_workers=0)
            )
        except (StapesError, MemoryError) as failure:
            return [Result(each.name, error=clip if isinstance(clip, Exception) else _error(each.name, failure)) for each, clip in read]
        results, left = [], iter(answers)
        for each, clip in read:
            if isinstance(clip, Exception):
                results.append(Result(each.name, error=clip))
                continue
            predictions = next(left)
            assert not isinstance(predictions, Exception)
            if options.threshold is not None:
                predictions = [found for found in predictions if found.score >= options.threshold]
            results.append(Result(each.name, clip.seconds, clip.rate, tuple(predictions)))
            self._progress.hear(clip.seconds)
        return results

    def _windows(self, each: Input) -> Result:
        """One long clip, block by block."""
        options, classifier = self._options, self._classifier
        samples, rate = 0, classifier.manifest.rate

        def counted() -> Iterator[object]:
            nonlocal samples
            for block in classifier.stream(each.source):
                samples += len(block)
                self._progress.hear(len(block) / rate)
                yield block

        try:
            if each.error:
                raise each.error
            segments = tuple(
                classifier.segments(
                    counted(),
                    options.window,
                    options.hop,
                    top_k=options.top_k or 1,
                    function_to_apply=options.function_to_apply,
                    threshold=options.threshold,
                    merge=options.merge,
                    batch_size=options.batch_size or 8,
                )
            )
        except (AudioError, MemoryError) as error:
            return Result(each.name, error=_error(each.name, error))
        return Result(each.name, samples / rate, rate, segments=segments)


def _error(name: str, error: Exception) -> Exception:
    if isinstance(error, MemoryError):
        return AudioError(f"{name} is too long for this machine's memory; hear it in windows, with --window S")
    return error


def _groups(items: Iterable[T], size: int) -> Iterator[list[T]]:
    left = iter(items)
    while group := list(islice(left, size)):
        yield group


def _write(results: Iterator[Result], chosen: Format, options: argparse.Namespace, found: list[Input]) -> None:
    if options.out is None:
        chosen.write(results, sys.stdout)
    elif _is_folder(options.out):
        for each, result in zip(found, results, strict=True):
            if result.error is None:
                with _whole(Path(options.out) / f"{each.below}{chosen.suffix}") as out:
                    chosen.write([result], out)
    else:
        with _whole(Path(options.out)) as out:
            chosen.write(results, out)


@contextlib.contextmanager
def _whole(path: Path) -> Iterator[TextIO]:
    """A file to write, which appears under its name when all is written."""
    draft = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, draft = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        with open(descriptor, "w", encoding="utf-8", errors="backslashreplace", newline="") as out:
            yield out
        os.chmod(draft, 0o666 & ~_umask())
        os.replace(draft, path)
    except OSError as error:
        raise InvalidOption(f"cannot write {path}: {error.strerror}; choose another place for -o") from error
    finally:
        if draft is not None:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(draft)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _downmix(text: str) -> str | int:
    return int(text) if text.isdecimal() else text


def _size(text: str) -> int:
    found = re.fullmatch(r"(\d+)([KMG]?)", text.upper())
    if not found or not int(found[1]):
        raise argparse.ArgumentTypeError(f"a number of bytes above 0, perhaps with K, M or G behind it, not {text!r}")
    return int(found[1]) << 10 * " KMG".index(found[2] or " ")
