"""Records -> one HTML page that loads nothing: the tables of report.py, and a plot beside each."""

from collections.abc import Sequence
from html import escape

from stapes_bench.records import Record, Stages, subject
from stapes_bench.report import (
    COLD,
    WARM,
    Row,
    Start,
    cold_cells,
    contenders,
    heading,
    lineup,
    number,
    rows,
    stage_cells,
    starts,
    warm_cells,
)

BAR, GAP, LABEL, WIDTH, TAIL = 18, 8, 190, 860, 130
"""Pixels: height of a bar, between two, of the names, of a plot, and behind the longest bar."""

PARTS = {"process": "p0", "import": "p1", "load": "p2", "first answer": "p3"}
"""A part of the cold start -> the class of its colour."""

STYLE = """
:root { color-scheme: light dark; --ink: #1c1e21; --soft: #6b7078; --line: #d9dce0; --paper: #fff; --own: #2a78b5; --other: #b4b9c0;
  --p0: #8c96a3; --p1: #e0a458; --p2: #5b9aa0; --p3: #b5566b }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e8ea; --soft: #9aa1a9; --line: #3a3f45; --paper: #16181b; --own: #5aa7e0;
  --other: #676d75 } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper); max-width: 1080px; margin: 2rem auto;
  padding: 0 1rem }
h1 { font-size: 1.4rem } h2 { font-size: 1.05rem; margin-top: 2.2rem } p { color: var(--soft); margin: .2rem 0 }
.wide { overflow-x: auto } table { border-collapse: collapse; font-size: 13px; font-variant-numeric: tabular-nums; margin: .8rem 0 }
th, td { padding: .25rem .6rem; text-align: right; border-bottom: 1px solid var(--line); white-space: nowrap }
th:first-child, td:first-child { text-align: left } td.why { text-align: left; color: var(--soft); font-style: italic }
.words td, .words th { text-align: left; white-space: normal }
tr.own td:first-child { color: var(--own); font-weight: 600 } svg { max-width: 100%; height: auto; font: 12px system-ui, sans-serif }
text { fill: var(--ink) } text.soft { fill: var(--soft); font-style: italic } .own rect, rect.own { fill: var(--own) }
rect.other { fill: var(--other) } line { stroke: var(--ink) } .p0 { fill: var(--p0) } .p1 { fill: var(--p1) } .p2 { fill: var(--p2) }
.p3 { fill: var(--p3) }
"""


def page(records: Sequence[Record]) -> str:
    """The whole page."""
    title = f"stapes bench: {subject(records).subject}"
    parts = [f"<h1>{escape(title)}</h1>", *(f"<p>{escape(line)}</p>" for line in heading(records))]
    found = rows(records)
    for case in dict.fromkeys(row.case for row in found):
        own = [row for row in found if row.case == case]
        parts += [f"<h2>{escape(str(case))}</h2>", _times(own), _table(WARM, [(warm_cells(row), row.own) for row in own])]
    if cold := starts(records):
        parts += ["<h2>cold start: a process from its start to its first answer</h2>", _starts(cold)]
        parts.append(_table(COLD, [(cold_cells(start), start.own) for start in cold]))
    if stages := [record for record in records if isinstance(record, Stages)]:
        names = list(dict.fromkeys(part for record in stages for part in record.parts))
        parts.append("<h2>a clip's way, from a 44.1 kHz stereo FLAC file on: median ms of each part</h2>")
        parts.append(_table(("", *names), [(stage_cells(record, names), True) for record in stages]))
    ours = {contender.name for contender in contenders(records) if contender.own}
    cells = [(each, each[0] in ours) for each in lineup(records)]
    parts += ["<h2>contenders</h2>", _table(("", "what runs", "versions"), cells).replace("<table>", '<table class="words">')]
    body = "\n".join(parts)
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n{body}\n</body>\n</html>\n"
    )


def _table(header: Sequence[str], lines: Sequence[tuple[Sequence[str], bool]]) -> str:
    head = "".join(f"<th>{escape(cell)}</th>" for cell in header)
    body = []
    for cells, own in lines:
        if len(cells) < len(header):
            filled = f'<td>{escape(cells[0])}</td><td class="why" colspan="{len(header) - 1}">{escape(cells[1])}</td>'
        else:
            filled = "".join(f"<td>{escape(cell)}</td>" for cell in cells)
        kind = "own" if own else "other"
        body.append(f'<tr class="{kind}">{filled}</tr>')
    return "\n".join(['<div class="wide"><table>', f"<tr>{head}</tr>", *body, "</table></div>"])


def _times(panel: Sequence[Row]) -> str:
    """Medians as bars, from min to max a line."""
    longest = max((row.figures.most for row in panel if row.figures), default=1.0)
    scale = (WIDTH - LABEL - TAIL) / longest
    out = []
    for place, row in enumerate(panel):
        top = place * (BAR + GAP)
        out.append(_text(0, top, row.name))
        if row.figures is None:
            out.append(_text(LABEL, top, row.why, "soft"))
            continue
        found, middle = row.figures, top + BAR / 2
        kind = "own" if row.own else "other"
        out.append(f'<rect class="{kind}" x="{LABEL}" y="{top}" width="{found.p50 * scale:.1f}" height="{BAR}"/>')
        ends = LABEL + found.least * scale, LABEL + found.most * scale
        out.append(f'<line x1="{ends[0]:.1f}" x2="{ends[1]:.1f}" y1="{middle}" y2="{middle}"/>')
        out.append(_text(ends[1] + 6, top, f"{number(1e3 * found.p50)} ms" + (f" ({row.ratio:.1f}x)" if row.ratio else "")))
    return _svg(out, len(panel))


def _starts(cold: Sequence[Start]) -> str:
    """Medians of the parts, one behind the other."""
    longest = max((sum(start.parts.values()) for start in cold), default=1.0)
    scale = (WIDTH - LABEL - TAIL) / max(longest, 1e-9)
    out = []
    for place, start in enumerate(cold):
        top, left = place * (BAR + GAP), float(LABEL)
        out.append(_text(0, top, start.name))
        if start.total is None:
            out.append(_text(LABEL, top, start.why, "soft"))
            continue
        for part, seconds in start.parts.items():
            shown = f"<title>{escape(part)} {seconds:.3f} s</title>"
            out.append(f'<rect class="{PARTS[part]}" x="{left:.1f}" y="{top}" width="{seconds * scale:.1f}" height="{BAR}">{shown}</rect>')
            left += seconds * scale
        out.append(_text(left + 6, top, f"{start.total.p50:.2f} s" + (f" ({start.ratio:.1f}x)" if start.ratio else "")))
    place = len(cold) * (BAR + GAP)
    for index, (part, kind) in enumerate(PARTS.items()):
        out.append(f'<rect class="{kind}" x="{LABEL + 130 * index}" y="{place + 3}" width="12" height="12"/>')
        out.append(_text(LABEL + 130 * index + 18, place, part))
    return _svg(out, len(cold) + 1)


def _text(x: float, top: float, text: str, kind: str = "plain") -> str:
    return f'<text class="{kind}" x="{x:.1f}" y="{top + BAR - 5}">{escape(text)}</text>'


def _svg(parts: Sequence[str], lines: int) -> str:
    height = lines * (BAR + GAP)
    return f'<svg viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" role="img">{"".join(parts)}</svg>'
