"""A checkpoint on a hub becomes a model on this disk: exported once, by a process of its own, and found again."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hub_server import Hub, serve

import stapes
from stapes import repository

TOKEN = "hf_secret"

FETCH = """
import json, sys
from stapes import hub
from stapes.errors import StapesError
without, options = json.loads(sys.argv[1]), json.loads(sys.argv[2])
sys.modules.update(dict.fromkeys(without))  # None there: importing it fails
try:
    path = hub.fetch("owner/model", **options)
except StapesError as error:
    print(json.dumps({"error": str(error), "kind": type(error).__name__}))
else:
    print(json.dumps({"path": str(path), "heavy": [name for name in ("torch", "transformers", "onnx") if sys.modules.get(name)]}))
"""


def start(hub: Hub, home: Path, without: tuple[str, ...] = (), **options: str) -> "subprocess.Popen[str]":
    """A process that fetches owner/model from the hub, with its caches in `home`; options in capitals are its environment."""
    variables = {name: options.pop(name) for name in list(options) if name.isupper()}
    unset = {"HF_TOKEN", "HF_HUB_OFFLINE", "HF_ENDPOINT", "HF_HOME"}
    env = {name: value for name, value in os.environ.items() if name not in unset}
    env |= {"HF_ENDPOINT": hub.url, "HF_HOME": str(home / "home"), "HF_HUB_DISABLE_XET": "1", "STAPES_CACHE": str(home / "kept")}
    arguments = [json.dumps(without), json.dumps(options)]
    return subprocess.Popen(
        [sys.executable, "-c", FETCH, *arguments], env=env | variables, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def answer(process: "subprocess.Popen[str]") -> tuple[dict, str]:
    """What fetch gave, and what it wrote to standard error."""
    out, err = process.communicate(timeout=600)
    assert process.returncode == 0, err
    return json.loads(out), err


@pytest.fixture(scope="module")
def hub(checkpoint: Path) -> Iterator[Hub]:
    """A private repository with the trained checkpoint."""
    with serve(Hub(checkpoint, token=TOKEN)) as running:
        yield running


@pytest.fixture(scope="module")
def first(hub: Hub, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict, str]:
    """Where the first fetch kept its things, what it gave and what it said."""
    home = tmp_path_factory.mktemp("first")
    return home, *answer(start(hub, home, token=TOKEN))


def test_the_first_fetch_exports_and_says_where_to(first: tuple[Path, dict, str], hub: Hub):
    home, found, said = first
    path = home / "kept/exports/owner--model" / hub.commit / "fp32.onnx"
    assert found["path"] == str(path)
    assert said.startswith(f"stapes: owner/model has no ONNX graph; exporting it once, to {path}\n")
    assert "same top label on 100.0%" in said  # the exporter speaks too
    assert [entry.name for entry in path.parent.iterdir()] == ["fp32.onnx"]


def test_torch_never_enters_the_process_that_asks(first: tuple[Path, dict, str]):
    assert first[1]["heavy"] == []


def test_the_model_is_what_a_direct_export_gives(first, hub: Hub, stapes_command, checkpoint: Path, root: Path, tmp_path: Path):
    done = stapes_command("export", checkpoint, "-o", tmp_path / "direct.onnx")  # a process too: torch's threads alter the last bits
    assert done.returncode == 0, done.stderr
    clips = sorted((root / "examples").glob("*.flac"))
    direct, fetched = stapes.load(tmp_path / "direct.onnx", device="cpu"), stapes.load(first[1]["path"], device="cpu")
    assert clips
    np.testing.assert_array_equal(fetched.logits(clips), direct.logits(clips))
    made = fetched.manifest.provenance
    assert (made.source, made.revision, made.precision) == ("owner/model", hub.commit, "fp32")
    assert repository.find(first[1]["path"], "fp32").manifest == fetched.manifest


def test_the_second_fetch_exports_nothing(first: tuple[Path, dict, str], hub: Hub):
    home, found, _ = first
    before = len(hub.requests)
    assert answer(start(hub, home, token=TOKEN)) == (found, "")
    assert answer(start(hub, home, token=TOKEN, precision="fp32", revision="v1")) == (found, "")
    asked = {line for line in hub.requests[before:] if "owner/model" in line}
    assert asked == {f"GET /api/models/owner/model/revision/{revision}" for revision in ("main", "v1")}


@pytest.mark.parametrize("revision", ["main", "0123456789abcdef0123456789abcdef01234567"])
def test_without_network_and_exporter_the_kept_one_serves(revision: str, first: tuple[Path, dict, str], hub: Hub, tmp_path: Path):
    home, found, _ = first
    without = ("stapes_export", "torch", "transformers", "onnx")
    before = len(hub.requests)
    assert answer(start(hub, home, without, revision=revision, HF_HUB_OFFLINE="1")) == (found, "")
    assert answer(start(hub, home, without, revision=revision, HF_HUB_OFFLINE="1", HF_HOME=str(tmp_path))) == (found, "")
    assert len(hub.requests) == before


def test_a_checkpoint_that_was_fetched_is_exported_offline(first: tuple[Path, dict, str], hub: Hub, tmp_path: Path):
    home = first[0]
    shutil.copytree(home / "kept/exports/owner--model/refs", tmp_path / "exports/owner--model/refs")
    found, _ = answer(start(hub, home, precision="int8-portable", HF_HUB_OFFLINE="1", STAPES_CACHE=str(tmp_path)))
    path = tmp_path / "exports/owner--model" / hub.commit / "int8-portable.onnx"
    assert found["path"] == str(path)
    assert repository.find(path, "int8-portable").manifest.provenance.revision == hub.commit


def test_two_processes_at_once_both_end_with_the_model(first: tuple[Path, dict, str], hub: Hub, tmp_path: Path):
    both = [start(hub, tmp_path, token=TOKEN) for _ in range(2)]
    (one, _), (other, _) = [answer(process) for process in both]
    assert one == other
    path = Path(one["path"])
    assert [entry.name for entry in path.parent.iterdir()] == ["fp32.onnx"]
    assert path.read_bytes() == Path(first[1]["path"]).read_bytes()


def test_an_export_that_fails_gives_its_last_line_and_leaves_nothing(checkpoint: Path, tmp_path: Path):
    folder = tmp_path / "repository"
    shutil.copytree(checkpoint, folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"auto_map": {"AutoModel": "code.Model"}}))
    with serve(Hub(folder)) as hub:
        found, said = answer(start(hub, tmp_path))
        assert found["kind"] == "ModelError"
        assert found["error"].startswith("the export of owner/model failed: owner/model brings its own model code (auto_map")
        assert found["error"].removeprefix("the export of owner/model failed: ") in said
        found, _ = answer(start(hub, tmp_path, precision="q4"))
        assert "invalid choice: 'q4'" in found["error"]
    assert list((tmp_path / "kept/exports/owner--model" / hub.commit).iterdir()) == []
