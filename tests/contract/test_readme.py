"""What the README shows is what its commands print here."""

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest

import stapes

SCORE = 0.01  # another CPU may round int8 otherwise; scores below this may change their order
VERSIONS = "made by"  # the line that names them is this environment's business


@pytest.fixture(scope="module")
def refresh(root: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("refresh", root / "docs" / "refresh.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def comparable(text: str) -> list[tuple[str, list[float]]]:
    """Each line as its words and its numbers, without lines of scores too small to be told apart."""
    lines = []
    for line in text.splitlines():
        numbers = [float(number) for number in re.findall(r"\d+\.\d+(?:e-?\d+)?", line)]
        if line.startswith(VERSIONS) or (line.startswith("  ") and len(numbers) == 1 and numbers[0] < SCORE):
            continue
        lines.append((re.sub(r"\d+\.\d+(?:e-?\d+)?|█", "", line).rstrip(), numbers))
    return lines


def assert_same(shown: str, printed: str) -> None:
    want, got = comparable(shown), comparable(printed)
    assert [words for words, _ in want] == [words for words, _ in got]
    for (_, a), (_, b) in zip(want, got, strict=True):
        assert a == pytest.approx(b, abs=SCORE)


def test_every_command_prints_what_the_readme_shows(root: Path, refresh: ModuleType):
    blocks = refresh.CONSOLE.findall((root / "README.md").read_text())
    assert len(blocks) >= 3
    for block in blocks:
        assert_same(block, refresh.console(block))


def test_every_program_prints_what_the_readme_shows(root: Path, refresh: ModuleType):
    programs = refresh.PYTHON.findall((root / "README.md").read_text())
    assert len(programs) >= 2
    for program, shown in programs:
        assert_same(re.sub(r"'label': '\w+'}]", "", shown), re.sub(r"'label': '\w+'}]", "", refresh.python(program)))


def test_every_language_shows_the_same_commands_and_programs(root: Path, refresh: ModuleType):
    english, *others = [(root / name).read_text(encoding="utf-8") for name in refresh.READMES]
    assert others
    for other in others:
        assert refresh.CONSOLE.findall(other) == refresh.CONSOLE.findall(english)
        assert refresh.PYTHON.findall(other) == refresh.PYTHON.findall(english)
        assert other.count("\n## ") == english.count("\n## ")
        assert re.findall(r"\]\((?!README)[^)]*\)", other) == re.findall(r"\]\((?!README)[^)]*\)", english)


@pytest.mark.parametrize("page", ["README.md", "README.zh-CN.md"])
def test_every_figure_is_that_of_the_committed_measurement(page: str, root: Path, refresh: ModuleType):
    found = refresh.FIGURES.findall((root / page).read_text(encoding="utf-8"))
    assert found
    for name, table in found:
        assert table == refresh.figures(name), "run python docs/refresh.py"


HOSTS = re.compile(r"^\| \[[^]]+\]\((examples/hosts/[\w-]+)\)[^|]*\|([^|]+)\| `(\w+) ([\d.]+)` \|$", re.MULTILINE)


def test_the_table_of_hosts_shows_what_the_model_answers(root: Path, refresh: ModuleType):
    """That each host prints it is the business of tests/hosts; here the table is held against Python."""
    best = stapes.load(device="cpu")(root / "examples" / "yes.wav")[0]
    for page in refresh.READMES:
        rows = HOSTS.findall((root / page).read_text(encoding="utf-8"))
        assert len(rows) == 4
        for folder, commands, label, score in rows:
            assert (root / folder).is_dir()
            assert label == best.label
            assert float(score) == pytest.approx(best.score, abs=SCORE)
            for path in re.findall(r"examples/[\w./-]+\.\w+", commands):
                assert (root / path).exists(), path


def test_ci_calls_the_readmes_test_command(root: Path, refresh: ModuleType):
    command = next(line[2:] for line in (root / "README.md").read_text().splitlines() if line.endswith("&& pytest"))
    install, _, suite = command.partition(" && ")
    script = (root / ".ci" / "run").read_text().splitlines()
    assert install.replace("pip install", "pip install --quiet") in script
    assert suite in script
