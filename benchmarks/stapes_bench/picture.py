"""The plot of the times as a PNG, for pages that take pictures alone."""

import io
from collections.abc import Sequence

from stapes.errors import MissingExtra
from stapes_bench.host import describe
from stapes_bench.records import Record, subject
from stapes_bench.report import Row, number, rows

OWN, OTHER = "#2a78b5", "#b9bdc4"
"""Colours of our bars and of the others'."""


def check() -> None:
    """MissingExtra where there is no matplotlib."""
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise MissingExtra("a picture needs matplotlib: pip install 'stapes[plot]'") from error


def png(records: Sequence[Record]) -> bytes:
    """A panel for every length, at the first number of threads and single clips: medians as bars, from min to max a line."""
    check()
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    panels = panels_of(rows(records))
    tallest = max(len(panel) for panel in panels)
    figure = Figure(figsize=(4.8 * len(panels), 0.9 + 0.36 * tallest), layout="constrained", dpi=150)
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, len(panels), squeeze=False)[0]
    for axis, panel in zip(axes, panels, strict=True):
        _bars(axis, panel)
    run = subject(records)
    figure.suptitle(f"{run.subject}: from samples to scores", fontsize=11)
    figure.supxlabel(describe(run.host), fontsize=7, color="#666666")
    out = io.BytesIO()
    figure.savefig(out, format="png", metadata={"Software": ""})
    return out.getvalue()


def panels_of(found: Sequence[Row]) -> list[list[Row]]:
    """The rows with a speed for every length, at the fewest threads and the smallest batch."""
    first = min(row.case for row in found)
    alike = [row for row in found if (row.case.threads, row.case.batch) == (first.threads, first.batch)]
    return [[row for row in alike if row.case == case] for case in dict.fromkeys(row.case for row in alike)]


def _bars(axis: object, panel: Sequence[Row]) -> None:
    from matplotlib.axes import Axes

    assert isinstance(axis, Axes)
    longest = max((1e3 * row.figures.most for row in panel if row.figures), default=1.0)
    for place, row in enumerate(panel):
        if row.figures is None:
            axis.text(0.01 * longest, place, row.why, va="center", fontsize=6.5, color="#888888", style="italic")
            continue
        p50, least, most = (1e3 * value for value in (row.figures.p50, row.figures.least, row.figures.most))
        axis.barh(place, p50, color=OWN if row.own else OTHER, height=0.7)
        axis.plot([least, most], [place, place], color="#444444", linewidth=0.8)
        times = f"  {number(p50)} ms" + (f" ({row.ratio:.1f}x)" if row.ratio else "")
        axis.text(max(p50, most), place, times, va="center", fontsize=7)
    axis.set_yticks(range(len(panel)), [row.name for row in panel], fontsize=8)
    axis.set_ylim(len(panel) - 0.5, -0.5)
    axis.set_xlim(0, 1.3 * longest)
    axis.tick_params(axis="x", labelsize=7)
    axis.set_title(f"{panel[0].case}: median ms, min to max", fontsize=8)
    axis.spines[["top", "right"]].set_visible(False)
