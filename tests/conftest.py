"""What every test may ask for. Nothing heavy is imported here: tests/runtime runs where torch is not installed."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--full", action="store_true", help="run the slow tests too, and the whole product of the matrix")
    parser.addoption("--picture", type=Path, metavar="FILE", help="write a picture of the browser example while it listens")
    parser.addoption("--parity", type=Path, metavar="FILE", help="write the matrix's largest differences as a table")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not config.getoption("--full"):
        for item in items:
            if item.get_closest_marker("slow"):
                item.add_marker(pytest.mark.skip(reason="takes minutes: run pytest --full"))


@pytest.fixture(scope="session")
def root() -> Path:
    """The checkout."""
    return ROOT


@pytest.fixture(scope="session")
def shared() -> Path:
    """Recorded clips and trained checkpoints beside the checkout; not part of the repository."""
    folder = ROOT.parent / "shared"
    if not folder.is_dir():
        pytest.skip("../shared (recorded clips, trained checkpoints) is not on this machine")
    return folder


@pytest.fixture(scope="session")
def checkpoint() -> Path:
    """The trained checkpoint that the embedded model was made from."""
    return ROOT / "tests" / "checkpoints" / "wav2vec2-ks12"


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    passed = terminalreporter.getreports("passed")
    cells = [value for report in passed for name, value in report.user_properties if name == "parity"]
    path = config.getoption("--parity") or (ROOT / "docs" / "parity.md" if config.getoption("--full") else None)
    if path and cells:
        path.write_text(parity_table(cells, whole=config.getoption("--full")))


def parity_table(cells: list[dict[str, Any]], whole: bool) -> str:
    """The largest differences of the matrix by architecture and option, as a page of documentation."""
    rows = []
    for model_type in sorted({cell["model_type"] for cell in cells}):
        own = [cell for cell in cells if cell["model_type"] == model_type]
        rows.append((f"**{model_type}**", f"all {len(own)} cells", own))
        values = sorted({(name, str(value)) for cell in own for name, value in cell["cell"].items()})
        rows += [("", f"{name} = {value}", [c for c in own if str(c["cell"][name]) == value]) for name, value in values]
    table = "".join(
        f"| {model} | {option} | {max(c['difference'] for c in own):.1e} | {max(c['neighbours'] for c in own):.1e} |\n"
        for model, option, own in rows
    )
    extent = "the whole product of the options" if whole else "a pairwise cover: every pair of option values meets at least once"
    return f"""# Parity with transformers

Largest difference of a logit between the fp32 artifact and transformers in torch, in units of max(1, largest logit of the clip), over
clips of {{minimum, minimum + 1, 16000, 16122, 80000}} samples of noise and random weights; and between a clip alone and in a ragged batch
of three with NaN behind each row. The budgets are 1e-4 and 1e-5. {len(cells)} cells, {extent}.

Made by `pytest tests/export/test_matrix.py --parity docs/parity.md`; `pytest tests/export/test_matrix.py --full` runs the whole product.

| architecture | option | against transformers | alone against batched |
|---|---|---|---|
{table}"""


Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session")
def stapes_command() -> Run:
    """Runs the command line in a process of its own: stapes_command("info", without=["torch"]) blocks imports of torch."""

    def run(*arguments: str | Path, without: tuple[str, ...] = (), env: dict[str, str] | None = None, **options: object):
        blocked = f"import sys; sys.modules.update(dict.fromkeys({list(without)!r})); "  # None there: importing it fails
        code = blocked + "from stapes.cli import main; sys.exit(main())"
        return subprocess.run(
            [sys.executable, "-c", code, *map(str, arguments)],
            capture_output=True,
            text=True,
            cwd=ROOT,
            env={**os.environ, **(env or {})},
            timeout=300,
            **options,
        )

    return run
