"""Brings the READMEs up to date: python docs/refresh.py runs their commands and writes output and figures in place.

Commands stand in ```console blocks behind "$ ", Python in ```python blocks whose output follows in a ```text block; figures stand
between <!-- figures: NAME --> and <!-- end -->. A test compares what stands there with what the commands print.
"""

import json
import re
import subprocess
import sys
from pathlib import Path
from statistics import median

from stapes_bench import records, report
from stapes_bench.host import describe

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results"
FULL_RUNS = ("wav2vec2-base", "ast-base", "whisper-base")
READMES = ("README.md", "README.zh-CN.md")
INSTALL = re.compile(r"^pip install [^&]*(&&\s*(pytest$)?)?")  # done before: this environment is its result, this test one of the suite

CONSOLE = re.compile(r"```console\n(.*?)```", re.DOTALL)
PYTHON = re.compile(r"```python\n(.*?)```(?:\n\n```text\n(.*?)```)?", re.DOTALL)
FIGURES = re.compile(r"<!-- figures: ([\w.]+) -->\n(.*?)<!-- end -->", re.DOTALL)


def run(command: str) -> str:
    """What a shell command prints, from the checkout, with this environment's programs first."""
    path = f"PATH={Path(sys.executable).parent}:$PATH"
    done = subprocess.run(["bash", "-c", f"export {path}; {command}"], cwd=ROOT, capture_output=True, text=True, timeout=600)
    if done.returncode:
        raise RuntimeError(f"{command}: exit status {done.returncode}\n{done.stderr}")
    return done.stdout


def console(block: str) -> str:
    """A console block with the output of its commands; a command that only installs keeps none."""
    lines = []
    for line in block.splitlines():
        if line.startswith("$ "):
            lines.append(line + "\n")
            if command := INSTALL.sub("", line[2:]):
                lines.append(run(command))
    return "".join(lines)


def python(program: str) -> str:
    """What a program prints."""
    return run(f"python - <<'PROGRAM'\n{program}PROGRAM")


def figures(name: str) -> str:
    """The table of a committed measurement."""
    name, _, language = name.partition(".")
    return {"startup": startup, "speed": speed}[name](WORDS[language or "en"])


WORDS = {
    "en": {
        "installed": "installed, MB",
        "cpu": " (torch for CPU)",
        "seconds": "process start to first answer, s",
        "classify": "whole process of `stapes classify`, s",
        "peak": "peak memory, MB",
        "note": "Medians of {rounds} interleaved runs, one clip, the same checkpoint, answers compared first; {host}. "
        "`import stapes` costs {extra:.0f} ms more than `import numpy`. Measured by `python -m stapes_bench.startup`.",
        "differ": "answers differ",
        "speed": "Median ms from samples to scores on one thread, and times faster than the transformers pipeline; rounds interleaved, "
        "answers checked first, and none timed that differ; {host}. Made checkpoints of the published sizes. Raw values, two threads, "
        "cold starts, memory and sizes: [benchmarks/results](benchmarks/results).",
    },
    "zh": {
        "installed": "安装体积，MB",
        "cpu": "（CPU 版 torch）",
        "seconds": "从进程启动到首个结果，秒",
        "classify": "`stapes classify` 整个进程，秒",
        "peak": "内存峰值，MB",
        "note": "{rounds} 轮交错运行的中位数，同一片段、同一检查点，先核对结果再计时；{host}。"
        "`import stapes` 比 `import numpy` 多用 {extra:.0f} 毫秒。由 `python -m stapes_bench.startup` 测得。",
        "differ": "结果不符",
        "speed": "单线程下从样本到分数的毫秒数（中位数），以及比 transformers pipeline 快多少倍；各轮交错，先核对结果，"
        "结果不符者不计时；{host}。"
        "检查点按公布的配置制作。原始数据、双线程、冷启动、内存与体积见 [benchmarks/results](benchmarks/results)。",
    },
}
"""What the table of figures says, by the language of the page."""


def speed(words: dict[str, str]) -> str:
    """Every contender on one thread in every full run: median ms, and how many times faster than transformers."""
    columns = {}
    for name in FULL_RUNS:
        run = records.read(RESULTS / f"{name}.jsonl")
        for row in report.rows(run):
            if (row.case.threads, row.case.batch) == (1, 1):
                columns.setdefault(f"{records.subject(run).subject}, {row.case.seconds:g} s", {})[row.name] = row
    found = {row.name: row for column in columns.values() for row in column.values()}
    lines = [("", *columns), ("---",) * (1 + len(columns))]
    for name, row in sorted(found.items(), key=lambda item: not item[1].own):
        cells = [_cell(column.get(name), words) for column in columns.values()]
        lines.append((f"**{name}**" if row.own else name, *cells))
    host = describe(records.subject(run).host)
    return "".join(f"| {' | '.join(line)} |\n" for line in lines) + "\n" + words["speed"].format(host=host) + "\n"


def _cell(row: report.Row | None, words: dict[str, str]) -> str:
    if row is None or row.figures is None:
        return words["differ"] if row is not None and row.why.startswith("answers differ") else "—"
    return f"{report.number(1e3 * row.figures.p50)}{f' ({row.ratio:.1f}x)' if row.ratio is not None else ''}"


def startup(words: dict[str, str]) -> str:
    measured = json.loads((RESULTS / "startup.json").read_text())
    seconds = {name: median(values) for name, values in measured["seconds"].items()}
    peak = {name: median(values) for name, values in measured["peak_mb"].items()}
    installed = measured["installed_mb"]
    rows = [
        ("", "transformers", "stapes"),
        ("---", "---", "---"),
        (words["installed"], f"{installed['transformers']:.0f}{words['cpu']}", f"{installed['stapes']:.0f}"),
        (words["seconds"], f"{seconds['transformers']:.2f}", f"{seconds['stapes']:.2f}"),
        (words["classify"], "—", f"{seconds['stapes classify']:.2f} ({seconds['transformers'] / seconds['stapes classify']:.0f}x)"),
        (words["peak"], f"{peak['transformers']:.0f}", f"{peak['stapes']:.0f}"),
    ]
    table = "".join(f"| {' | '.join(row)} |\n" for row in rows)
    extra_ms = 1e3 * (seconds["import stapes"] - seconds["import numpy"])
    note = words["note"].format(rounds=len(measured["seconds"]["stapes"]), host=describe(measured["host"]), extra=extra_ms)
    return f"{table}\n{note}\n"


def refreshed(text: str) -> str:
    """The README with every output and figure as they are now."""

    def python_block(found: re.Match[str]) -> str:
        if found[2] is None:
            return found[0]
        return f"```python\n{found[1]}```\n\n```text\n{python(found[1])}```"

    text = CONSOLE.sub(lambda found: f"```console\n{console(found[1])}```", text)
    text = PYTHON.sub(python_block, text)
    return FIGURES.sub(lambda found: f"<!-- figures: {found[1]} -->\n{figures(found[1])}<!-- end -->", text)


if __name__ == "__main__":
    for name in READMES:
        readme = ROOT / name
        readme.write_text(refreshed(readme.read_text(encoding="utf-8")), encoding="utf-8")
