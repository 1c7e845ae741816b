"""The house keeps its shape: what the design promises of the tree and of the wheel."""

import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def project(root: Path) -> dict:
    return tomllib.loads((root / "pyproject.toml").read_text())


def test_the_source_roots_are_no_packages(root: Path):
    for name in ("runtime", "export", "benchmarks", "tests"):
        assert (root / name).is_dir()
        assert not (root / name / "__init__.py").exists()


def test_gitignore_hides_neither_the_exporter_nor_models(root: Path):
    # hatchling leaves out what git ignores
    ignored = {line.strip("/") for line in (root / ".gitignore").read_text().splitlines()}
    assert not ignored & {"export", "*.onnx", "models"}


def test_no_module_carries_the_name_of_a_public_function(root: Path):
    import stapes

    functions = {name for name in stapes.__all__ if name[0].islower()}
    assert not functions & {path.stem for path in (root / "runtime" / "stapes").glob("*.py")}


def test_every_dependency_is_pinned_for_the_suite(root: Path, project: dict):
    def names(lines: list[str]) -> set[str]:
        return {re.split(r"[\[<>=]", line)[0].lower().replace("_", "-") for line in lines}

    extras = project["project"]["optional-dependencies"]
    used = [line for extra in ("cpu", "hub", "av", "plot", "export", "test") for line in extras[extra]]
    needed = names(project["project"]["dependencies"] + used)
    pinned = names([line for line in (root / "constraints.txt").read_text().splitlines() if not line.startswith("#")])
    assert needed == pinned


@pytest.fixture(scope="module")
def wheel(root: Path, tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    out = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), str(root)]
    subprocess.run(build, check=True, capture_output=True)
    (path,) = out.glob("*.whl")
    return zipfile.ZipFile(path)


def test_the_wheel_carries_the_packages_the_model_and_its_card(wheel: zipfile.ZipFile, root: Path):
    names = set(wheel.namelist())
    models = {"stapes/models/speech-commands.onnx", "stapes/models/speech-commands.md"}
    assert (
        models | {"stapes/py.typed", "stapes/frontend/steps.py", "stapes_export/families/wav2vec2.py", "stapes_bench/startup.py"} <= names
    )
    assert wheel.read("stapes/models/speech-commands.onnx") == (root / "runtime/stapes/models/speech-commands.onnx").read_bytes()
    assert {name.split("/")[0] for name in names} == {"stapes", "stapes_export", "stapes_bench", "stapes-0.1.0.dist-info"}


def test_the_wheel_states_both_licences_and_the_attribution(wheel: zipfile.ZipFile):
    metadata = wheel.read("stapes-0.1.0.dist-info/METADATA").decode()
    assert "License-Expression: Apache-2.0 AND CC-BY-4.0" in metadata
    notice = wheel.read("stapes-0.1.0.dist-info/licenses/NOTICE").decode()
    assert "CC BY 4.0" in notice
    assert "Warden" in notice
    assert "stapes-0.1.0.dist-info/licenses/LICENSE" in wheel.namelist()
    assert "CC BY 4.0" in wheel.read("stapes/models/speech-commands.md").decode()


def test_the_base_dependencies_are_light(project: dict):
    base = {re.split(r"[<>=]", line)[0] for line in project["project"]["dependencies"]}
    assert base == {"numpy", "soxr", "soundfile"}
    assert not any("onnxruntime" in line for line in project["project"]["optional-dependencies"]["export"])
