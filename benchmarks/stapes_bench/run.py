"""The measurement: contenders are prepared, their answers checked, and only then timed, in turns.

A shared machine drifts by a third within minutes, so every contender has a process of its own that stays, and they are timed one after
the other in every round: what disturbs one disturbs all. Only one computes at a time. Read `run` from top to bottom.
"""

import contextlib
import hashlib
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

from stapes import repository
from stapes.bundle import Manifest
from stapes.errors import InvalidOption, StapesError
from stapes.session import missing
from stapes_bench import clips
from stapes_bench.host import fingerprint
from stapes_bench.measure import agreement
from stapes_bench.peers import STAPES, Job, Peer
from stapes_bench.records import Answers, Cold, Contender, Failed, Record, Run, Stages, Times
from stapes_bench.workers import Absent, Worker, WorkerError

CLIPS = 8
"""Of each length, for the answers; a timed call takes the next of them."""

CALIBRATION, CALIBRATION_S = 16, 4.0
"""Clips for the peers that quantize, and their seconds; none is classified."""

CALLS, BUDGET_S = 3, 1.0
"""Timed calls in a turn: so many, or what fits into so many seconds, and always one."""

COLD_ROUNDS = 5

FILE_RATE = 44_100
"""Of the stereo FLAC file that stages begin with."""

REFERENCE = "transformers"


@dataclass(frozen=True)
class Plan:
    """What to measure."""

    models: tuple[Path, ...]
    checkpoint: Path | None
    peers: tuple[Peer, ...]
    work: Path
    """Where what peers make is kept."""
    seconds: tuple[float, ...] = (1.0, 10.0)
    threads: tuple[int, ...] = (1,)
    batches: tuple[int, ...] = (1,)
    rounds: int = 10
    clips: Path | None = None
    """Recordings; made signals where None."""
    environments: Mapping[str, str] | None = None
    """See workers.Worker."""
    startup: bool = True
    """Whether cold starts are measured."""


@dataclass(frozen=True)
class Entrant:
    """A contender and how its worker is started."""

    name: str
    says: str
    library: str
    job: Job
    model: Path | None = None
    """What its size is the size of."""
    needs_met: bool = True

    @property
    def own(self) -> bool:
        return self.library == STAPES


Say = Callable[[str], None]


def run(plan: Plan, say: Say) -> Iterator[Record]:
    """Every record of the plan, as it is found; `say` is told how far it has come. Raises InvalidOption or StapesError."""
    manifests = [repository.find(path, None).manifest for path in plan.models]
    entrants = _own(plan, manifests)
    rate, activation = manifests[0].rate, manifests[0].activation
    reference = REFERENCE if plan.checkpoint else _first_float(entrants, manifests)
    subject = plan.checkpoint.resolve().name if plan.checkpoint else manifests[0].name
    yield Run(subject, reference, fingerprint(), "recorded" if plan.clips else "made")

    sounds = _Sounds(plan, rate)
    absent: dict[str, str] = {}
    for peer in plan.peers:
        say(f"prepare {peer.name}")
        try:
            entrants.append(_prepared(plan, peer, sounds))
        except (Absent, WorkerError) as error:
            yield Contender(peer.name, peer.says, False, {}, absent=str(error))
    entrants.sort(key=lambda entrant: entrant.name != reference)  # its answers are needed first
    for entrant in list(entrants):
        say(f"look at {entrant.name}")
        found = _examined(plan, entrant)
        yield found
        if found.absent:
            absent[entrant.name] = found.absent
            entrants.remove(entrant)
    if reference in absent or reference not in {entrant.name for entrant in entrants}:
        raise StapesError(
            f"there is no reference to compare with: {reference} cannot run here ({absent.get(reference, 'not prepared')}); "
            "install it (pip install 'stapes[export]'), or leave --checkpoint out"
        )

    if plan.startup:
        yield from _cold_starts(plan, entrants, sounds, say)
    for threads in plan.threads:
        yield from _warm(plan, entrants, threads, sounds, activation, say)


def _own(plan: Plan, manifests: list[Manifest]) -> list[Entrant]:
    """A contender for each model, called by its precision and its attention, and by its file where two have the same."""
    if len({(manifest.rate, manifest.labels) for manifest in manifests}) > 1:
        raise InvalidOption(
            f"{', '.join(path.name for path in plan.models)} answer with other labels or rates: give the files of one model"
        )
    kinds = [_kind(manifest) for manifest in manifests]
    found = []
    for path, manifest, kind in zip(plan.models, manifests, kinds, strict=True):
        name = f"stapes {kind}" if kinds.count(kind) == 1 else f"stapes {kind} ({path.stem})"
        job = Job("", 1, model=str(path.absolute()), rate=manifest.rate)
        found.append(Entrant(name, f"stapes, {path.name}", STAPES, job, path, not missing(manifest.needs)))
    if len({entrant.name for entrant in found}) < len(found):
        raise InvalidOption(f"two of {', '.join(map(str, plan.models))} have one name and one precision: rename a file")
    return found


def _kind(manifest: Manifest) -> str:
    attention = manifest.provenance.options.get("attention")  # as passes/fuse_attention.py of the exporter says it
    return f"{manifest.provenance.precision}{f', {attention} attention' if attention else ''}"


def _first_float(entrants: list[Entrant], manifests: list[Manifest]) -> str:
    """The fp32 file, whose answers are the checkpoint's; without one the first."""
    pairs = zip(entrants, manifests, strict=True)
    return next((entrant.name for entrant, manifest in pairs if manifest.provenance.precision == "fp32"), entrants[0].name)


class _Sounds:
    """Clips as files that workers of any language read."""

    def __init__(self, plan: Plan, rate: int) -> None:
        self._plan, self.rate = plan, rate
        self._folder = plan.work / "clips"
        self._folder.mkdir(parents=True, exist_ok=True)
        self._written: dict[float, list[str]] = {}

    def of(self, seconds: float) -> list[str]:
        """The CLIPS clips of that length."""
        if seconds not in self._written:
            self._written[seconds] = self._write(f"{seconds:g}", self._heard(CLIPS, seconds))
        return self._written[seconds]

    def calibration(self) -> list[str]:
        """Other clips than those: of recordings what comes behind the longest of them, else of other speakers."""
        longest = max(self._plan.seconds)
        if self._plan.clips is None:
            heard = [clips.speech(CALIBRATION_S, self.rate, 1000 + index) for index in range(CALIBRATION)]
        else:
            heard = clips.recorded(self._plan.clips, CALIBRATION, CALIBRATION_S, self.rate, skip=round(CLIPS * longest * self.rate))
        return self._write("calibration", heard)

    def file(self, seconds: float) -> str:
        """A stereo FLAC file of that length at FILE_RATE."""
        path = self._folder / f"{seconds:g}.flac"
        mono = soxr.resample(np.fromfile(self.of(seconds)[0], np.float32), self.rate, FILE_RATE)
        soundfile.write(path, np.stack([mono, mono], axis=1), FILE_RATE)
        return str(path)

    def _heard(self, count: int, seconds: float) -> list[NDArray[np.float32]]:
        if self._plan.clips is None:
            return clips.made(count, seconds, self.rate)
        return clips.recorded(self._plan.clips, count, seconds, self.rate)

    def _write(self, name: str, heard: list[NDArray[np.float32]]) -> list[str]:
        paths = [self._folder / f"{name}-{index}.f32" for index in range(len(heard))]
        for path, samples in zip(paths, heard, strict=True):
            samples.astype("<f4").tofile(path)
        return list(map(str, paths))


def _prepared(plan: Plan, peer: Peer, sounds: _Sounds) -> Entrant:
    """The peer, ready to be loaded. What it loads is made where it is not there yet, by whoever makes it, in one move."""
    assert plan.checkpoint is not None
    job = Job(peer.variant, 1, checkpoint=str(plan.checkpoint.absolute()), rate=sounds.rate)
    if not peer.prepared_by:
        return Entrant(peer.name, peer.says, peer.library, job)
    clip_key = str(plan.clips.absolute()) if plan.clips else "made"
    folder = plan.work / _key(plan.checkpoint, clip_key) / "-".join(filter(None, (peer.prepared_by, peer.prepared_as)))
    if not folder.is_dir():
        draft = folder.with_name(f".{folder.name}.draft")
        _remove(draft)
        draft.mkdir(parents=True)
        calibration = sounds.calibration() if "int8" in peer.prepared_as else []
        with Worker(peer.prepared_by, plan.environments or {}, threads=max(plan.threads)) as worker:
            worker.ask("prepare", job=vars(replace(job, variant=peer.prepared_as, prepared=str(draft.absolute()), calibration=calibration)))
        draft.replace(folder)
    return Entrant(peer.name, peer.says, peer.library, replace(job, prepared=str(folder.absolute())), folder)


def _key(checkpoint: Path, clip_key: str) -> str:
    """A name for what is made of this checkpoint: another checkpoint, other clips, another name."""
    digest = hashlib.sha256(clip_key.encode())
    for path in sorted(checkpoint.iterdir()):
        if path.is_file():
            with path.open("rb") as file:
                digest.update(path.name.encode() + hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:12]


def _remove(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)


def _examined(plan: Plan, entrant: Entrant) -> Contender:
    """What it is made of and what it weighs; why it is absent, if it is."""
    found = Contender(entrant.name, entrant.says, entrant.own, {}, needs_met=entrant.needs_met)
    try:
        with Worker(entrant.library, plan.environments or {}, threads=1) as worker:
            versions = worker.load(entrant.job)["versions"]
            installed = worker.ask("installed")["bytes"] / 1e6
    except (Absent, WorkerError) as error:
        return replace(found, absent=str(error))
    return replace(found, versions=versions, installed_mb=round(installed, 1), model_mb=_size_mb(plan, entrant))


def _size_mb(plan: Plan, entrant: Entrant) -> float:
    where = entrant.model or plan.checkpoint
    assert where is not None
    files = [path for path in where.rglob("*") if path.is_file()] if where.is_dir() else [where, where.with_name(where.name + ".data")]
    return round(sum(path.stat().st_size for path in files if path.is_file()) / 1e6, 1)


def _cold_starts(plan: Plan, entrants: list[Entrant], sounds: _Sounds, say: Say) -> Iterator[Record]:
    seconds, threads = plan.seconds[0], plan.threads[0]
    clip = sounds.of(seconds)[0]
    for turn in range(min(plan.rounds, COLD_ROUNDS)):
        say(f"cold starts, round {turn + 1} of {min(plan.rounds, COLD_ROUNDS)}")
        for entrant in entrants:
            try:
                with Worker(entrant.library, plan.environments or {}, threads) as worker:
                    loaded = worker.load(replace(entrant.job, threads=threads))
                    first = worker.ask("first", clip=clip)
            except (Absent, WorkerError) as error:
                yield Failed(entrant.name, seconds, threads, 1, str(error))
                continue
            marks = [worker.begun, loaded["started"], loaded["imported"], loaded["loaded"], first["answered"]]
            names = ("process", "import", "load", "first answer")
            parts = {name: round(end - start, 5) for name, start, end in zip(names, marks, marks[1:], strict=False)}
            yield Cold(entrant.name, seconds, threads, turn, parts, round(first["peak_mb"], 1))


def _warm(plan: Plan, entrants: list[Entrant], threads: int, sounds: _Sounds, activation: str, say: Say) -> Iterator[Record]:
    """Every contender loaded at once; answers and times of every length and batch."""
    with contextlib.ExitStack() as stack:
        loaded: dict[str, Worker] = {}
        for entrant in entrants:
            say(f"threads {threads}: load {entrant.name}")
            worker = stack.enter_context(Worker(entrant.library, plan.environments or {}, threads))
            try:
                worker.load(replace(entrant.job, threads=threads))
            except (Absent, WorkerError) as error:
                yield Failed(entrant.name, 0.0, threads, 0, str(error))
            else:
                loaded[entrant.name] = worker
        if entrants[0].name not in loaded:
            raise StapesError(f"the reference, {entrants[0].name}, does not load with threads={threads}, so nothing can be compared")
        for seconds in plan.seconds:
            files = sounds.of(seconds)
            try:
                reference = _logits(loaded[entrants[0].name], files, 1)
            except WorkerError as error:
                raise StapesError(f"the reference, {entrants[0].name}, fails on clips of {seconds:g} s: {error}") from error
            for batch in plan.batches:
                case = _Case(seconds, threads, batch)
                right = []
                for name, worker in loaded.items():
                    say(f"{case}: answers of {name}")
                    found = _compared(worker, name, case, files, reference, activation)
                    yield found
                    if isinstance(found, Answers) and found.agrees:
                        right.append(name)
                calls = _calls(files, batch)
                for turn in range(plan.rounds):
                    say(f"{case}: round {turn + 1} of {plan.rounds}")
                    order = calls[turn % len(calls) :] + calls[: turn % len(calls)]
                    for name in list(right):
                        try:
                            values = loaded[name].ask("time", batches=order, calls=CALLS, budget_s=BUDGET_S)["seconds"]
                        except (Absent, WorkerError) as error:
                            right.remove(name)
                            yield Failed(name, seconds, threads, batch, str(error))
                        else:
                            yield Times(name, seconds, threads, batch, turn, [round(value, 6) for value in values])
            for entrant in entrants:
                if entrant.own and entrant.name in loaded:
                    say(f"{seconds:g} s, threads {threads}: the parts of {entrant.name}")
                    parts = loaded[entrant.name].ask("stages", clip=files[0], file=sounds.file(seconds))["stages"]
                    yield Stages(entrant.name, seconds, threads, {part: [round(each, 6) for each in some] for part, some in parts.items()})


@dataclass(frozen=True)
class _Case:
    seconds: float
    threads: int
    batch: int

    def __str__(self) -> str:
        return f"{self.seconds:g} s, threads {self.threads}, batch {self.batch}"


def _compared(
    worker: Worker, name: str, case: _Case, files: list[str], reference: NDArray[np.float32], activation: str
) -> Answers | Failed:
    try:
        found = agreement(reference, _logits(worker, files, case.batch), activation)
    except (Absent, WorkerError, ValueError) as error:
        return Failed(name, case.seconds, case.threads, case.batch, str(error))
    return Answers(
        name=name,
        seconds=case.seconds,
        threads=case.threads,
        batch=case.batch,
        agrees=found.agrees,
        why=found.why,
        clips=found.clips,
        same_top=found.same_top,
        noise=found.noise,
        score_difference=found.score_difference,
    )


def _logits(worker: Worker, files: list[str], batch: int) -> NDArray[np.float32]:
    """(clips, labels), `batch` clips at a time; the last batch is filled from the beginning."""
    rows: list[list[float]] = []
    for first in range(0, len(files), batch):
        chunk = [files[(first + index) % len(files)] for index in range(batch)]
        rows += [[np.nan if value is None else value for value in row] for row in worker.ask("logits", batch=chunk)["logits"]]
    return np.array(rows[: len(files)], np.float32)


def _calls(files: list[str], batch: int) -> list[list[str]]:
    """A call for every clip: that clip and those behind it."""
    return [[files[(first + index) % len(files)] for index in range(batch)] for first in range(len(files))]
