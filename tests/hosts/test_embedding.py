"""docs/embedding.md: its programs name what a real file has, are as short as it says, and parse where a parser is at hand."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import onnx
import pytest

LANGUAGES = {"C++": "cpp", "Rust": "rust", "Java": "java", "C#": "csharp", "Swift": "swift"}
TOP_K = {"top_labels", "top_scores"}
"""Outputs of an export with --top-k, which this file was not made with."""


@pytest.fixture(scope="module")
def text(root: Path) -> str:
    return (root / "docs" / "embedding.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def programs(text: str) -> dict[str, str]:
    return dict(re.findall(r"```(\w+)\n(.*?)```", text, re.DOTALL))


def test_every_language_has_a_program_of_about_ten_lines(text: str, programs: dict[str, str]) -> None:
    assert re.findall(r"^## (.+)$", text, re.MULTILINE) == list(LANGUAGES)
    assert list(programs) == list(LANGUAGES.values())
    for name, program in programs.items():
        assert 8 <= len(re.findall(r"\S.*\n", program)) <= 12, name


def test_programs_name_what_the_file_has(programs: dict[str, str], int8_model: Path) -> None:
    model = onnx.load(int8_model)
    inputs = {value.name for value in model.graph.input}
    outputs = {value.name for value in model.graph.output} | TOP_K
    metadata = {entry.key for entry in model.metadata_props}
    for name, program in programs.items():
        named = set(re.findall(r'"(\w+)"', program))
        assert inputs <= named, name
        assert named & outputs, name
        assert named <= inputs | outputs | metadata, name


def test_the_contract_is_the_files(text: str, int8_model: Path) -> None:
    model = onnx.load(int8_model)
    tensor = onnx.TensorProto
    types = {value.name: value.type.tensor_type.elem_type for value in [*model.graph.input, *model.graph.output]}
    assert types["waveform"] == types["scores"] == tensor.FLOAT
    assert types["lengths"] == tensor.INT64
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    manifest = json.loads(metadata["stapes"])
    assert json.loads(metadata["labels"]) == manifest["labels"]
    assert int(metadata["sampling_rate"]) == manifest["rate"]
    assert manifest["frontend"]["min_samples"] > 0
    for word in ("`waveform`", "`lengths`", "`scores`", "`sampling_rate`", "`labels`", "`frontend.min_samples`", "`stapes`"):
        assert word in text


def test_the_table_says_of_every_program_that_it_was_not_run(text: str) -> None:
    for name in LANGUAGES:
        assert re.search(rf"^\| {re.escape(name)}(?:,[^|]*)? \|[^|]*\| \*\*not run\*\*", text, re.MULTILINE), name


def test_rust_parses(programs: dict[str, str], tmp_path: Path) -> None:
    if shutil.which("rustfmt") is None:
        pytest.skip("rustfmt is not installed")
    source = tmp_path / "classify.rs"
    source.write_text(programs["rust"])
    done = subprocess.run(["rustfmt", "--edition", "2021", source], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


UNKNOWN = {"compiler.err.doesnt.exist", "compiler.err.cant.resolve.location"}
"""What javac may miss: the binding, and its classes."""


def test_java_parses(programs: dict[str, str], tmp_path: Path) -> None:
    if shutil.which("javac") is None:
        pytest.skip("javac is not installed")
    source = tmp_path / "Classify.java"
    body = f"class Classify {{ static void classify(float[] samples) throws Exception {{\n{programs['java']}}} }}"
    source.write_text(f"import ai.onnxruntime.*;\nimport java.nio.*;\nimport java.util.*;\n{body}")
    done = subprocess.run(["javac", "-XDrawDiagnostics", "-d", tmp_path, source], capture_output=True, text=True, timeout=120)
    found = set(re.findall(r"compiler\.err\.[\w.]+", done.stderr))
    assert found <= UNKNOWN, done.stderr
    assert found or done.returncode == 0, done.stderr
