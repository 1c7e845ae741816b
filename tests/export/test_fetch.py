"""A checkpoint from a folder or from a hub: the real client against a small local server, each case in a process of its own."""

import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hub_server import Hub, serve

from stapes.errors import CheckpointError
from stapes_export.fetch import fetch, sha256

FETCH = """
import json, sys
from stapes.errors import CheckpointError
from stapes_export.fetch import fetch
try:
    found = fetch(sys.argv[1], sys.argv[2] or None)
except CheckpointError as error:
    print(json.dumps({"error": str(error)}))
else:
    print(json.dumps({"name": found.name, "revision": found.revision, "sha256": dict(found.sha256)}))
"""


@pytest.fixture
def hub(checkpoint: Path) -> Iterator[Hub]:
    with serve(Hub(checkpoint)) as running:
        yield running


@pytest.fixture
def fetched(hub: Hub, tmp_path: Path) -> Callable[..., dict]:
    """fetched("owner/model", revision, VARIABLE=value): what fetch gave, with the hub at HF_ENDPOINT and an empty cache."""
    import json
    import os

    def run(source: str, revision: str = "", **variables: str) -> dict:
        unset = {"HF_TOKEN", "HF_HUB_OFFLINE", "HF_ENDPOINT", "HF_HOME"}
        env = {k: v for k, v in os.environ.items() if k not in unset}
        env |= {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "home"), "HF_HUB_DISABLE_XET": "1", **variables}
        done = subprocess.run([sys.executable, "-c", FETCH, source, revision], env=env, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return run


def test_a_folder_is_taken_as_it_is(checkpoint: Path):
    found = fetch(str(checkpoint))
    assert (found.name, found.revision) == ("wav2vec2-ks12", None)
    assert found.files == ("config.json", "model.safetensors", "preprocessor_config.json")
    assert found.sha256["config.json"] == sha256(checkpoint / "config.json")


def test_a_folder_has_no_revision(checkpoint: Path):
    with pytest.raises(CheckpointError, match="no revisions"):
        fetch(str(checkpoint), "main")


@pytest.mark.parametrize("source", ["./gone", "a/b/c", "/gone", "m.safetensors"])
def test_what_looks_like_a_path_is_not_asked_of_a_hub(source: str):
    with pytest.raises(CheckpointError, match="no folder"):
        fetch(source)


def test_a_hub_id_is_downloaded_at_one_commit(hub: Hub, fetched, checkpoint: Path):
    found = fetched("owner/model")
    assert (found["name"], found["revision"]) == ("owner/model", hub.commit)
    assert found["sha256"] == dict(fetch(str(checkpoint)).sha256)
    assert f"GET /owner/model/resolve/{hub.commit}/model.safetensors" in hub.requests
    assert not any("pytorch_model" in line for line in hub.requests)


def test_a_hub_id_may_have_dots(hub: Hub, fetched):
    hub.repo = "owner/model-10-10-0.4593"
    assert fetched(hub.repo)["revision"] == hub.commit


def test_a_revision_is_asked_for(hub: Hub, fetched):
    assert fetched("owner/model", "v1")["revision"] == hub.commit
    assert any("/resolve/v1/config.json" in line for line in hub.requests)
    assert "no revision v2" in fetched("owner/model", "v2")["error"]


def test_what_was_fetched_serves_offline(hub: Hub, fetched):
    assert "HF_HUB_OFFLINE" in fetched("owner/model", HF_HUB_OFFLINE="1")["error"]
    online = fetched("owner/model")
    asked = len(hub.requests)
    assert fetched("owner/model", HF_HUB_OFFLINE="1") == online
    assert len(hub.requests) == asked


def test_a_private_repository_needs_the_token(hub: Hub, fetched):
    hub.token = "hf_secret"
    assert "HF_TOKEN" in fetched("owner/model")["error"]
    assert fetched("owner/model", HF_TOKEN="hf_secret")["revision"] == hub.commit


def test_a_gated_repository_says_so(hub: Hub, fetched):
    hub.gated = True
    assert "gated" in fetched("owner/model")["error"]


def test_an_unknown_repository_says_so(fetched):
    assert "neither a folder here nor a repository on the hub" in fetched("owner/other")["error"]


def test_a_repository_without_a_checkpoint_says_what_it_lacks(hub: Hub, fetched, tmp_path: Path, checkpoint: Path):
    hub.folder = tmp_path / "files"
    hub.folder.mkdir()
    assert "config.json" in fetched("owner/model")["error"]
    for name in ("config.json", "preprocessor_config.json"):
        shutil.copy(checkpoint / name, hub.folder)
    assert "no model.safetensors" in fetched("owner/model")["error"]


def test_a_connection_that_drops_gives_an_error_and_no_checkpoint(hub: Hub, fetched):
    hub.broken_after = 100
    assert "owner/model" in fetched("owner/model")["error"]
    hub.broken_after = None
    assert fetched("owner/model")["revision"] == hub.commit


def test_a_hub_that_is_not_there_says_so(fetched):
    error = fetched("owner/model", HF_ENDPOINT="http://127.0.0.1:9")["error"]
    assert "cannot be reached" in error or "cannot fetch" in error
