"""Records -> the tables that a person reads: every contender has its row in each, with figures or with the reason why there are none."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import geometric_mean, median

from stapes_bench.host import describe
from stapes_bench.measure import Figures, figures, ratio, real_time_factor, throughput
from stapes_bench.records import Answers, Cold, Contender, Failed, Record, Stages, Times, subject


@dataclass(frozen=True, order=True)
class Case:
    """What was timed alike."""

    threads: int
    seconds: float
    batch: int

    def __str__(self) -> str:
        return f"{self.seconds:g} s, {threads_of(self.threads)}, batch {self.batch}"


@dataclass(frozen=True)
class Row:
    """One contender in one case."""

    name: str
    own: bool
    case: Case
    figures: Figures | None
    """In seconds; None where there is no speed to report."""
    ratio: float | None
    """How many times faster than the reference."""
    answers: Answers | None
    why: str
    """Why there is no speed; empty where there is."""

    @property
    def real_time(self) -> float | None:
        """Seconds of sound a second."""
        return real_time_factor(self.figures.p50, self.case.seconds * self.case.batch) if self.figures else None

    @property
    def clips_a_second(self) -> float | None:
        return throughput(self.figures.p50, self.case.batch) if self.figures else None


@dataclass(frozen=True)
class Start:
    """One contender's cold start; medians."""

    name: str
    own: bool
    parts: dict[str, float]
    """Seconds; empty where there are none."""
    total: Figures | None
    """In seconds."""
    ratio: float | None
    peak_mb: float | None
    installed_mb: float | None
    model_mb: float | None
    why: str


def threads_of(count: int) -> str:
    return "1 thread" if count == 1 else f"{count} threads"


def contenders(records: Iterable[Record]) -> list[Contender]:
    return [record for record in records if isinstance(record, Contender)]


def rows(records: Sequence[Record]) -> list[Row]:
    """Every contender in every case, a case at a time; in each the fastest first, then those without a speed."""
    run = subject(records)
    times: dict[tuple[str, Case], list[float]] = {}
    answers: dict[tuple[str, Case], Answers] = {}
    failed: dict[tuple[str, Case], str] = {}
    unloaded: dict[tuple[str, int], str] = {}
    for record in records:
        if isinstance(record, Failed) and record.batch == 0:
            unloaded[record.name, record.threads] = record.why
        elif isinstance(record, Times | Answers | Failed):
            key = record.name, Case(record.threads, record.seconds, record.batch)
            if isinstance(record, Times):
                times.setdefault(key, []).extend(record.values)
            elif isinstance(record, Answers):
                answers[key] = record
            else:
                failed[key] = record.why
    found = []
    for case in sorted({case for _, case in answers}):
        base = times.get((run.reference, case))
        some = []
        for contender in contenders(records):
            key = contender.name, case
            answer = answers.get(key)
            if contender.absent:
                why = contender.absent
            elif answer is not None and not answer.agrees:
                why = f"answers differ ({answer.why})"
            else:
                why = failed.get(key) or unloaded.get((contender.name, case.threads), "")
            values = [] if why else times.get(key, [])
            if not values:
                some.append(Row(contender.name, contender.own, case, None, None, answer, why or "not timed"))
            else:
                some.append(Row(contender.name, contender.own, case, figures(values), ratio(values, base) if base else None, answer, ""))
        found += sorted(some, key=lambda row: row.figures.p50 if row.figures else float("inf"))
    return found


def starts(records: Sequence[Record]) -> list[Start]:
    """Every contender's cold start, the fastest first; none where none was measured."""
    run = subject(records)
    colds = [record for record in records if isinstance(record, Cold)]
    if not colds:
        return []
    failed = {record.name: record.why for record in records if isinstance(record, Failed)}
    totals: dict[str, list[float]] = {}
    for cold in colds:
        totals.setdefault(cold.name, []).append(sum(cold.parts.values()))
    base = totals.get(run.reference)
    found = []
    for contender in contenders(records):
        name, sizes = contender.name, (contender.installed_mb, contender.model_mb)
        if name not in totals:
            found.append(Start(name, contender.own, {}, None, None, None, *sizes, contender.absent or failed.get(name, "not measured")))
            continue
        own = [cold for cold in colds if cold.name == name]
        parts = {part: median(cold.parts[part] for cold in own) for part in own[0].parts}
        against = ratio(totals[name], base) if base else None
        peak = median(cold.peak_mb for cold in own)
        found.append(Start(name, contender.own, parts, figures(totals[name]), against, peak, *sizes, ""))
    return sorted(found, key=lambda start: start.total.p50 if start.total else float("inf"))


def heading(records: Sequence[Record]) -> list[str]:
    """What the figures belong to, in a few lines."""
    run = subject(records)
    counted = next((record.clips for record in records if isinstance(record, Answers)), 0)
    return [
        f"{run.subject} on {describe(run.host)}",
        f"answers compared with {run.reference} on {counted} {run.clips} clips of each length; "
        "what differs is not timed (see stapes_bench/measure.py)",
    ]


WARM = ("", "p50 ms", "p90", "p99", "min", "max", "times faster", "x real time", "clips/s", "noise", "same top", "score moves")
COLD = (
    "",
    "s to first answer",
    "process",
    "import",
    "load",
    "first answer",
    "min",
    "max",
    "times faster",
    "peak MB",
    "installed MB",
    "model MB",
)


def table(records: Sequence[Record]) -> str:
    """All of it as text in columns."""
    lines = heading(records)
    found = rows(records)
    for case in dict.fromkeys(row.case for row in found):
        lines += ["", str(case), *_columns([WARM, *(warm_cells(row) for row in found if row.case == case)])]
    if cold := starts(records):
        first = next(record for record in records if isinstance(record, Cold))
        about = f"cold start, {Case(first.threads, first.seconds, 1)}: a process from its start to its first answer"
        lines += ["", about, *_columns([COLD, *(cold_cells(start) for start in cold)])]
    stages = [record for record in records if isinstance(record, Stages)]
    if stages:
        parts = list(dict.fromkeys(part for record in stages for part in record.parts))
        header = ("median ms of each part, from a 44.1 kHz stereo FLAC file on", *parts)
        lines += ["", *_columns([header, *(stage_cells(record, parts) for record in stages)])]
    lines += ["", *(f"{name}: {says} ({versions})" for name, says, versions in lineup(records))]
    return "\n".join(lines) + "\n"


def lineup(records: Sequence[Record]) -> list[tuple[str, str, str]]:
    """Every contender: its name, what runs, and the versions that it ran with."""
    return [
        (each.name, each.says, ", ".join(f"{name} {version}" for name, version in each.versions.items()) or each.absent)
        for each in contenders(records)
    ]


def warm_cells(row: Row) -> tuple[str, ...]:
    """A row of WARM; two cells where there is no speed."""
    if row.figures is None:
        return (row.name, row.why)
    found, answers = row.figures, row.answers
    speeds = [number(1e3 * value) for value in (found.p50, found.p90, found.p99, found.least, found.most)]
    known = [number(value) if value is not None else "" for value in (row.ratio, row.real_time, row.clips_a_second)]
    if answers is None:
        return (row.name, *speeds, *known, "", "", "")
    return (row.name, *speeds, *known, f"{answers.noise:.1e}", f"{answers.same_top}/{answers.clips}", f"{answers.score_difference:.1e}")


def cold_cells(start: Start) -> tuple[str, ...]:
    """A row of COLD; two cells where there is nothing to report."""
    if start.total is None:
        return (start.name, start.why)
    seconds = [number(value) for value in (start.total.p50, *start.parts.values(), start.total.least, start.total.most)]
    known = [number(value) if value is not None else "" for value in (start.ratio, start.peak_mb, start.installed_mb, start.model_mb)]
    return (start.name, *seconds, *known)


def stage_cells(record: Stages, parts: Sequence[str]) -> tuple[str, ...]:
    case = f"{record.name}, {record.seconds:g} s, {threads_of(record.threads)}"
    return (case, *(number(1e3 * median(record.parts[part])) if part in record.parts else "in the model" for part in parts))


def choice(records: Sequence[Record]) -> str:
    """Which of the measured files to deploy on this host, and why, in a sentence or two.

    In every case the times are weighed alike: the file is chosen whose mean ratio to the reference is best, of those that answer as the
    reference does in every case and whose needs this CPU meets.
    """
    run = subject(records)
    found = rows(records)
    cases = list(dict.fromkeys(row.case for row in found))
    unmet = {contender.name for contender in contenders(records) if not contender.needs_met}
    ratios: dict[str, list[float]] = {}
    out = []
    for contender in contenders(records):
        own = [row for row in found if row.name == contender.name]
        wrong = next((row for row in own if row.ratio is None), None)
        if contender.name in unmet:
            out.append(f"{contender.name} needs what this CPU lacks")
        elif wrong is not None:
            out.append(f"{contender.name}: {wrong.why} at {wrong.case}")
        else:
            ratios[contender.name] = [row.ratio for row in own if row.ratio is not None]
    if not ratios:
        return f"none: {'; '.join(out)}"
    speed = {name: geometric_mean(values) for name, values in ratios.items()}
    best = max(speed, key=lambda name: speed[name])
    file = next(contender.says for contender in contenders(records) if contender.name == best).removeprefix("stapes, ")
    others = ", ".join(f"{name} {value:.2f}x" for name, value in speed.items() if name != best)
    clips = next(record.clips for record in records if isinstance(record, Answers))
    gain = f"{speed[best]:.2f} times as fast as {run.reference}" if best != run.reference else "none of the others is faster"
    extent = f"over {len(cases)} {'case' if len(cases) == 1 else 'cases'}, with answers that agree on {clips} clips"
    return "; ".join([f"deploy {file} ({best}): {gain} {extent}", *([f"the others: {others}"] if others else []), *out])


def number(value: float) -> str:
    """Three digits that say something, and no more."""
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}" if value >= 0.1 else f"{value:.3f}"


def _columns(cells: Sequence[Sequence[str]]) -> list[str]:
    """Lines with the first column to the left and the others to the right; a row of two cells where there are more is a remark."""
    count = max(map(len, cells))
    whole = [row for row in cells if len(row) == count]
    widths = [max(len(row[column]) for row in whole) for column in range(count)]
    widths[0] = max(len(row[0]) for row in cells)
    lines = []
    for row in cells:
        if len(row) < count:
            lines.append(f"{row[0]:<{widths[0]}}  {row[1]}")
        else:
            rest = [f"{cell:>{width}}" for cell, width in zip(row[1:], widths[1:], strict=True)]
            lines.append("  ".join([f"{row[0]:<{widths[0]}}", *rest]).rstrip())
    return lines
