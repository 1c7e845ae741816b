"""A picture of a long clip: its spectrogram, and beneath it on the same time axis what is heard when."""

import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from stapes.errors import InvalidOption, MissingExtra
from stapes.formats.text import printable
from stapes.predictions import Segment

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SUFFIXES = (".png", ".svg")

WINDOW, HOP = 512, 256
"""Samples of a Hann window, and from one to the next."""

PIECE = 500 * HOP
"""Samples that are transformed at once."""

COLUMNS = 2000
"""Time steps of a picture at most, however long the clip; even, so that neighbours merge in pairs."""

FLOOR_DB = -80.0
"""The quietest shade, below the loudest."""

ROWS = 20
"""Labels with a row of their own; the others share one more."""

LABEL_LENGTH, TITLE_LENGTH = 40, 110
"""Characters that are drawn of a label and of the title."""

WIDTH, DPI = 12.0, 100
"""Inches, and pixels in each."""

TICKS = (5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200, 86400)
"""Seconds between ticks of a time axis longer than a minute."""

FONTS = (
    "DejaVu Sans",
    "Noto Sans CJK SC",
    "Noto Sans CJK JP",
    "Source Han Sans SC",
    "WenQuanYi Micro Hei",
    "Microsoft YaHei",
    "PingFang SC",
    "Hiragino Sans",
    "Arial Unicode MS",
)
"""Matplotlib's own, then those that know the letters it lacks: the first that is installed and has a letter draws it."""

STYLE: Any = {  # matplotlib 3.11 types the names, older versions take any
    "text.parse_math": False,  # a label may hold dollar signs
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "stapes",  # the same picture is the same file
    "figure.constrained_layout.w_pad": 0.1,
    "font.size": 9.5,
    "axes.edgecolor": "#9a9a9a",
    "axes.linewidth": 0.8,
    "axes.labelcolor": "#444444",
    "xtick.color": "#9a9a9a",
    "ytick.color": "#9a9a9a",
    "xtick.labelcolor": "#444444",
    "ytick.labelcolor": "#444444",
}


@dataclass(frozen=True)
class Spectrogram:
    """Mean power over frequency and time, at most COLUMNS wide."""

    power: NDArray[np.float64]
    """(WINDOW // 2 + 1, columns); row k is at k * rate / WINDOW Hz."""
    column: int
    """Samples of a column."""
    samples: int
    """Of the clip; the last column may reach beyond."""


def check(out: Path) -> None:
    """Refuses what `draw` would refuse, before the work: InvalidOption for the file's name or folder, MissingExtra without matplotlib."""
    if out.suffix.lower() not in SUFFIXES:
        raise InvalidOption(f"{out} is no name for a picture: it ends in {' or '.join(SUFFIXES)}")
    if not out.parent.is_dir():
        raise InvalidOption(f"cannot write {out}: there is no folder {out.parent}")
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise MissingExtra("a picture needs matplotlib, which is not installed: pip install 'stapes[plot]'") from error


def draw(blocks: Iterable[NDArray[np.float32]], rate: int, segments: Sequence[Segment], out: Path, title: str) -> None:
    """Writes the picture of one clip to `out`, a .png or .svg: whole, or not at all.

    `blocks` are the clip's samples in consecutive pieces, mono, at `rate` Hz; they are read once and not kept. Labels are in the order
    in which they are first heard. Raises InvalidOption where `out` cannot be written, MissingExtra without matplotlib.
    """
    check(out)
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    found = spectrogram(blocks)
    seconds = max([max(found.samples, 1) / rate, *(segment.end for segment in segments)])
    rows = _rows(segments)
    with rc_context(STYLE | {"font.family": _fonts()}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph|Matplotlib currently does not support", UserWarning)  # a box is drawn, and that is all
        height = 0.24 * min(max(len(rows), 3), ROWS + 1)
        figure = Figure(figsize=(WIDTH, height + 3.6), dpi=DPI, layout="constrained")
        upper, lower = figure.subplots(2, sharex=True, height_ratios=(2.6, height))
        _draw_spectrogram(figure, upper, found, rate)
        _draw_segments(figure, lower, rows, segments, seconds)
        _draw_time(lower, seconds)
        upper.set_title(_title(title), loc="left", fontsize=11, color="#222222")
        _write(figure, out)


def spectrogram(blocks: Iterable[NDArray[np.float32]]) -> Spectrogram:
    """Power of a Hann window of WINDOW samples every HOP, centred on its hop; silence is assumed around the clip.

    A column is the mean over `column` // HOP hops. Where the clip outgrows COLUMNS, neighbours merge in pairs, so that memory does not
    grow with it, and the blocks' lengths change nothing.
    """
    sums = np.zeros((COLUMNS, WINDOW // 2 + 1))
    hops, merged, samples = 0, 1, 0
    window = np.hanning(WINDOW + 1)[:-1]
    for frames, read in _frames(blocks):
        power = np.abs(np.fft.rfft(frames * window)) ** 2
        while hops + len(power) > COLUMNS * merged:
            sums[: COLUMNS // 2] = sums[::2] + sums[1::2]
            sums[COLUMNS // 2 :] = 0
            merged *= 2
        columns, firsts = np.unique(np.arange(hops, hops + len(power)) // merged, return_index=True)
        sums[columns] += np.add.reduceat(power, firsts)
        hops, samples = hops + len(power), read
    width = -(-hops // merged)
    counts = np.minimum(merged, hops - merged * np.arange(width))
    return Spectrogram((sums[:width] / counts[:, None]).T, merged * HOP, samples)


def _frames(blocks: Iterable[NDArray[np.float32]]) -> Iterator[tuple[NDArray[np.float32], int]]:
    """Windows of the clip, (n, WINDOW), a few at a time, and how many samples have been read so far; one window at least."""
    pending = np.zeros((WINDOW - HOP) // 2, np.float32)
    samples = hops = 0
    for block in blocks:
        for piece in np.split(block, range(PIECE, len(block), PIECE)):
            samples += len(piece)
            pending = np.concatenate([pending, piece])
            if len(pending) >= WINDOW:
                frames = sliding_window_view(pending, WINDOW)[::HOP]
                yield frames, samples
                hops += len(frames)
                pending = pending[len(frames) * HOP :]
    last = max(-(-samples // HOP), 1) - hops
    pending = np.pad(pending, (0, (last - 1) * HOP + WINDOW - len(pending)))
    yield sliding_window_view(pending, WINDOW)[::HOP], samples


def _rows(segments: Sequence[Segment]) -> dict[str, int]:
    """The row of each label, in order of first appearance; those beyond ROWS share the last."""
    labels = dict.fromkeys(found.label for segment in segments for found in segment.predictions)
    return {label: min(row, ROWS) for row, label in enumerate(labels)}


def _heard(rows: dict[str, int], segments: Sequence[Segment], seconds: float) -> NDArray[np.float64]:
    """The highest score by row and time step, (rows, COLUMNS); -inf where the row's labels are not heard. No segment is too short."""
    heard = np.full((max(rows.values(), default=-1) + 1, COLUMNS), -np.inf)
    for segment in segments:
        first = min(int(segment.start / seconds * COLUMNS), COLUMNS - 1)
        last = max(round(segment.end / seconds * COLUMNS), first + 1)
        for found in segment.predictions:
            steps = heard[rows[found.label], first:last]
            np.maximum(steps, found.score, out=steps)
    return heard


def _draw_spectrogram(figure: "Figure", axes: "Axes", found: Spectrogram, rate: int) -> None:
    loudest = found.power.max() or 1.0
    db = 10 * np.log10(np.maximum(found.power / loudest, 10 ** (FLOOR_DB / 10)))
    khz = np.array([-0.5, len(found.power) - 0.5]) * rate / WINDOW / 1e3
    extent = (0, found.power.shape[1] * found.column / rate, *khz)
    image = axes.imshow(db, cmap="magma", vmin=FLOOR_DB, vmax=0, origin="lower", aspect="auto", extent=extent)
    axes.set_ylim(0, rate / 2e3)
    axes.locator_params(axis="y", nbins=4)
    axes.set_ylabel("kHz")
    figure.colorbar(image, ax=axes, label="dB", pad=0.01, aspect=25, ticks=[FLOOR_DB, FLOOR_DB / 2, 0]).outline.set_visible(False)


def _draw_segments(figure: "Figure", axes: "Axes", rows: dict[str, int], segments: Sequence[Segment], seconds: float) -> None:
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import LinearSegmentedColormap, Normalize

    heard = _heard(rows, segments, seconds)
    scores = [found.score for segment in segments for found in segment.predictions]
    # the upper panel's colours, light to dark
    colours = LinearSegmentedColormap.from_list("score", ["#fdf3ec", "#fcb49a", "#e05a63", "#8c2981", "#3b0f70"])
    shade = ScalarMappable(Normalize(min([0.0, *scores]), max([1.0, *scores])), colours)
    for row, line in enumerate(heard):
        edges = [0, *(np.flatnonzero(line[1:] != line[:-1]) + 1), COLUMNS]
        bars = [(first, last) for first, last in pairwise(edges) if line[first] > -np.inf]
        spans = [(first * seconds / COLUMNS, (last - first) * seconds / COLUMNS) for first, last in bars]
        axes.broken_barh(spans, (row - 0.4, 0.8), facecolors=shade.to_rgba(line[[first for first, _ in bars]]), linewidth=0)
    names = [_name(label) for label in rows][:ROWS]
    if len(rows) > ROWS:
        names.append(f"{len(rows) - ROWS} more label{'s' if len(rows) > ROWS + 1 else ''}")
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(max(len(names), 1) - 0.5, -0.5)
    if not names:
        axes.text(0.5, 0.5, "no label", transform=axes.transAxes, ha="center", va="center", color="#777777")
    axes.set_yticks(np.arange(len(names) - 1) + 0.5, minor=True)
    axes.grid(axis="y", which="minor", color="#ececec", linewidth=0.8)
    axes.grid(axis="x", color="#ececec", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(axis="y", which="both", length=0)
    figure.colorbar(shade, ax=axes, label="score", pad=0.01, aspect=25).outline.set_visible(False)


def _draw_time(axes: "Axes", seconds: float) -> None:
    """A time axis whose unit fits the clip: seconds, minutes or hours."""
    from matplotlib.ticker import FuncFormatter, MultipleLocator

    axes.set_xlim(0, seconds)
    if seconds <= 60:
        axes.set_xlabel("seconds")
        return
    axes.xaxis.set_major_locator(MultipleLocator(next((step for step in TICKS if seconds <= 14 * step), seconds / 10)))
    unit, name = (60, "hours:minutes") if seconds > 3600 else (1, "minutes:seconds")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda time, _: "{}:{:02d}".format(*divmod(round(time / unit), 60))))
    axes.set_xlabel(name)


def _write(figure: "Figure", out: Path) -> None:
    suffix = out.suffix.lower()
    part = out.with_name(f".{out.name}.part")
    try:
        try:
            figure.savefig(part, format=suffix[1:], metadata={"Date": None} if suffix == ".svg" else None)  # no date: the same bytes again
            part.replace(out)
        finally:
            part.unlink(missing_ok=True)
    except OSError as error:
        raise InvalidOption(f"cannot write {out}: {error.strerror or error}") from error


def _fonts() -> list[str]:
    """Those of FONTS that are installed: matplotlib complains of others."""
    from matplotlib.font_manager import get_font_names

    installed = set(get_font_names())
    return [font for font in FONTS if font in installed]


def _name(label: str) -> str:
    text = printable(label)
    return text if len(text) <= LABEL_LENGTH else text[: LABEL_LENGTH - 1] + "…"


def _title(title: str) -> str:
    """The title; of a long one its end, where a path has its name."""
    text = printable(title)
    return text if len(text) <= TITLE_LENGTH else "…" + text[1 - TITLE_LENGTH :]
