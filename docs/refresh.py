"""Brings the README up to date: python docs/refresh.py runs its commands and writes their output and its figures in place.

Commands stand in ```console blocks behind "$ ", Python in ```python blocks whose output follows in a ```text block; figures stand
between <!-- figures: NAME --> and <!-- end -->. A test compares what stands there with what the commands print.
"""

import json
import re
import subprocess
import sys
from pathlib import Path
from statistics import median

from stapes_bench.host import describe

ROOT = Path(__file__).parent.parent
INSTALL = re.compile(r"^pip install [^&]*(&&\s*(pytest$)?)?")  # done before: this environment is its result, this test one of the suite

CONSOLE = re.compile(r"```console\n(.*?)```", re.DOTALL)
PYTHON = re.compile(r"```python\n(.*?)```(?:\n\n```text\n(.*?)```)?", re.DOTALL)
FIGURES = re.compile(r"<!-- figures: (\w+) -->\n(.*?)<!-- end -->", re.DOTALL)


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
    return {"startup": startup}[name](json.loads((ROOT / "benchmarks" / "results" / f"{name}.json").read_text()))


def startup(measured: dict) -> str:
    seconds = {name: median(values) for name, values in measured["seconds"].items()}
    peak = {name: median(values) for name, values in measured["peak_mb"].items()}
    installed = measured["installed_mb"]
    rows = [
        ("", "transformers", "stapes"),
        ("---", "---", "---"),
        ("installed, MB", f"{installed['transformers']:.0f} (torch for CPU)", f"{installed['stapes']:.0f}"),
        ("process start to first answer, s", f"{seconds['transformers']:.2f}", f"{seconds['stapes']:.2f}"),
        ("peak memory, MB", f"{peak['transformers']:.0f}", f"{peak['stapes']:.0f}"),
    ]
    table = "".join(f"| {' | '.join(row)} |\n" for row in rows)
    extra_ms = 1e3 * (seconds["import stapes"] - seconds["import numpy"])
    return (
        f"{table}\nMedians of {len(measured['seconds']['stapes'])} interleaved runs, one clip, the same checkpoint, "
        f"answers compared first; {describe(measured['host'])}. `import stapes` costs {extra_ms:.0f} ms more than `import numpy`. "
        "Measured by `python -m stapes_bench.startup`.\n"
    )


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
    readme = ROOT / "README.md"
    readme.write_text(refreshed(readme.read_text()))
