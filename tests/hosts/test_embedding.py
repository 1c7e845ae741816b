"""docs/embedding.md says what is so: its names are the artifact's, and its table points at what is there."""

import re
from pathlib import Path

import pytest

INPUTS, OUTPUTS = {"waveform", "lengths"}, {"logits", "scores", "top_scores", "top_indices", "top_labels"}


@pytest.fixture(scope="module")
def page(root: Path) -> str:
    return (root / "docs" / "embedding.md").read_text()


def test_every_snippet_feeds_both_inputs_and_reads_outputs_there_are(page: str):
    snippets = re.findall(r"```(\w+)\n(.*?)```", page, re.DOTALL)
    assert {language for language, _ in snippets} == {"cpp", "rust", "java", "csharp", "swift"}
    for language, code in snippets:
        quoted = set(re.findall(r'"(\w+)"', code))
        assert quoted >= INPUTS, language
        assert quoted & OUTPUTS, language
        assert quoted <= INPUTS | OUTPUTS | {"labels"}, language
        assert len(code.strip().splitlines()) <= 12, language


def test_its_links_lead_somewhere(page: str, root: Path):
    links = re.findall(r"\]\(([^)#]+)\)", page)
    assert len(links) >= 4
    for link in links:
        assert (root / "docs" / link).exists(), link
