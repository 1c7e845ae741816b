"""What every test may ask for. Nothing heavy is imported here: tests/runtime runs where torch is not installed."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--full", action="store_true", help="run the slow tests too")


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
