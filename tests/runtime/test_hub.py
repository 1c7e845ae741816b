"""A hub id as a model: the real client against a small local server, each case in a process of its own."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hub_server import Hub, serve
from onnx_wire import GRAPH, field, model_with, varint

import stapes
from stapes import bundle, hub, repository
from stapes.classifier import DEFAULT_MODEL
from stapes.errors import InvalidOption, ModelError

COMMIT = "0123456789abcdef0123456789abcdef01234567"
CONFIGS = {
    "config.json": {"model_type": "wav2vec2", "id2label": {"0": "yes", "1": "no"}},
    "preprocessor_config.json": {"feature_extractor_type": "Wav2Vec2FeatureExtractor", "sampling_rate": 16000, "do_normalize": False},
}

FETCH = """
import json, sys
from stapes import hub
from stapes.errors import StapesError
without, options = json.loads(sys.argv[1]), json.loads(sys.argv[2])
sys.modules.update(dict.fromkeys(without))  # None there: importing it fails
try:
    path = hub.fetch(**options)
except StapesError as error:
    print(json.dumps({"error": str(error), "kind": type(error).__name__}))
else:
    print(json.dumps({"path": str(path), "heavy": [name for name in ("torch", "transformers", "onnx") if sys.modules.get(name)]}))
"""

EXPORTER = ["stapes_export"]  # without it nothing is exported: these tests run where torch is not installed, and where it is


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Hub]:
    """A hub with one repository of configs and a README."""
    folder = tmp_path / "repository"
    folder.mkdir()
    for name, content in CONFIGS.items():
        (folder / name).write_text(json.dumps(content))
    (folder / "README.md").write_text("# words")
    with serve(Hub(folder, commit=COMMIT)) as running:
        yield running


@pytest.fixture
def fetched(server: Hub, tmp_path: Path) -> Callable[..., dict]:
    """fetched(precision="int8", VARIABLE=value): what fetch gave for owner/model, with the hub at HF_ENDPOINT and empty caches."""
    pytest.importorskip("huggingface_hub", reason="huggingface_hub (the extra hub) is not installed")

    def run(without: list[str] | None = None, **options: str | None) -> dict:
        variables = {name: options.pop(name) for name in list(options) if name.isupper()}
        unset = {"HF_TOKEN", "HF_HUB_OFFLINE", "HF_ENDPOINT", "HF_HOME"}
        env = {name: value for name, value in os.environ.items() if name not in unset}
        env |= {"HF_ENDPOINT": server.url, "HF_HOME": str(tmp_path / "home"), "HF_HUB_DISABLE_XET": "1", "HF_HUB_ETAG_TIMEOUT": "5"}
        env |= {"STAPES_CACHE": str(tmp_path / "kept"), **variables}
        arguments = [json.dumps(EXPORTER if without is None else without), json.dumps({"repo": "owner/model"} | options)]
        done = subprocess.run([sys.executable, "-c", FETCH, *arguments], env=env, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
        found = json.loads(done.stdout)
        assert found.get("heavy", []) == []
        return found

    return run


def put(server: Hub, *names: str, content: bytes | None = None) -> None:
    """Files of that content; without one, graphs that nobody runs, each with its name inside: the client downloads equal files once."""
    for name in names:
        (server.folder / name).parent.mkdir(exist_ok=True)
        (server.folder / name).write_bytes(GRAPH + field(2, name.encode()) if content is None else content)


def downloaded(server: Hub) -> list[str]:
    """The files that were asked for, by name."""
    return sorted(
        line.partition(f"/{COMMIT}/")[2] or line.partition("/main/")[2] for line in server.requests if "GET /owner/model/" in line
    )


@pytest.mark.parametrize("name", ["owner/name", "o/n", "some-one/ast-10-10-0.4593", "Some_1/x_y.z", "1/2"])
def test_owner_and_name_are_an_id(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    assert hub.is_id(name)


NO_IDS = (
    *("", "name", "a/b/c", "/name", "owner/", "./name", "../name", "~/name", "-a/b", "a/b-", "a/b--c", "a..b/c", "a/" + "b" * 97),
    *("a/b.onnx", "a/b.ONNX", "a/b.git", "a b/c", "a\\b/c", "C:/name", "é/name", "a/b\n"),
)


@pytest.mark.parametrize("name", NO_IDS)
def test_anything_else_is_none(name: str):
    assert not hub.is_id(name)


def test_a_path_that_is_there_is_no_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    Path("owner").mkdir()
    assert hub.is_id("owner/name")
    Path("owner/name").mkdir()
    assert not hub.is_id("owner/name")


def test_what_cannot_be_an_id_or_a_precision_is_refused_before_anything_is_asked():
    with pytest.raises(ModelError, match="owner/name"):
        hub.fetch("../owner/name")
    with pytest.raises(InvalidOption, match="int8-portable"):
        hub.fetch("owner/name", precision="../int8")


def test_without_the_client_the_error_names_the_extra():
    code = "import sys; sys.modules['huggingface_hub'] = None; from stapes import hub; hub.fetch('owner/name')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert done.stderr.splitlines()[-1].endswith("MissingExtra: a model from a hub needs huggingface_hub: pip install 'stapes[hub]'")


def test_an_artifact_in_the_repository_is_the_model(server: Hub, fetched):
    put(server, "words.stapes.onnx", content=DEFAULT_MODEL.read_bytes())
    put(server, "onnx/model.onnx", "model.safetensors")
    path = Path(fetched()["path"])
    assert path.read_bytes() == DEFAULT_MODEL.read_bytes()
    assert downloaded(server) == ["words.stapes.onnx"]
    assert stapes.load(path).manifest.name
    precision = bundle.read_manifest(DEFAULT_MODEL).provenance.precision
    assert repository.find(fetched(precision=precision)["path"], precision).file == path


def artifact(precision: str) -> bytes:
    manifest = bundle.read_manifest(DEFAULT_MODEL)
    return model_with(replace(manifest, provenance=replace(manifest.provenance, precision=precision)).to_json())


ARTIFACTS = {"model.stapes.onnx": "fp32", "model.int8.stapes.onnx": "int8", "words-int8-portable.stapes.onnx": "int8-portable"}


@pytest.mark.parametrize("precision", [None, "fp32", "int8", "int8-portable"])
def test_a_precision_picks_among_artifacts_by_their_names(precision: str | None, server: Hub, fetched):
    for name, kept in ARTIFACTS.items():
        put(server, name, content=artifact(kept))
    path = Path(fetched(precision=precision)["path"])
    assert ARTIFACTS[path.name] == repository.find(path, precision).manifest.provenance.precision == (precision or "fp32")
    assert downloaded(server) == [path.name]


def test_artifacts_that_leave_the_choice_open_are_listed(server: Hub, fetched):
    put(server, "words-int8.stapes.onnx", "words.fp16.stapes.onnx")
    assert "name one by its precision: words-int8.stapes.onnx, words.fp16.stapes.onnx" in fetched()["error"]
    assert "no model of precision 'fp32'; it has words-int8.stapes.onnx, words.fp16" in fetched(precision="fp32")["error"]
    put(server, "a.stapes.onnx", "b.stapes.onnx")
    assert "name one by its precision: a.stapes.onnx, b.stapes.onnx" in fetched()["error"]


def test_the_weights_beside_an_artifact_come_with_it(server: Hub, fetched):
    put(server, "words.stapes.onnx", "words.stapes.onnx.data", "other.data")
    path = Path(fetched()["path"])
    assert path.with_name("words.stapes.onnx.data").is_file()
    assert downloaded(server) == ["words.stapes.onnx", "words.stapes.onnx.data"]


GRAPHS = ("onnx/model.onnx", "onnx/model_int8.onnx", "onnx/model_quantized.onnx", "onnx/model_q4.onnx", "model_fp16.onnx")


@pytest.mark.parametrize("precision", [None, "fp32", "int8", "q8", "q4", "fp16"])
def test_one_graph_is_downloaded_the_one_that_a_directory_gives(precision: str | None, server: Hub, fetched):
    put(server, *GRAPHS, "onnx/model_int8.onnx_data", "model.safetensors", "processor_config.json")
    chosen = repository.find(server.folder, precision).file.relative_to(server.folder).as_posix()
    companions = ["onnx/model_int8.onnx_data"] if chosen == "onnx/model_int8.onnx" else []
    folder = Path(fetched(precision=precision)["path"])
    assert downloaded(server) == sorted(["config.json", "preprocessor_config.json", chosen, *companions])
    assert repository.find(folder, precision).file == folder / chosen


def test_graphs_that_were_downloaded_before_do_not_change_the_choice(server: Hub, fetched):
    put(server, *GRAPHS)
    for precision in ("q8", "fp16", "int8", None, "q8"):
        folder = Path(fetched(precision=precision)["path"])
        chosen = repository.find(server.folder, precision).file.relative_to(server.folder)
        assert repository.find(folder, precision).file == folder / chosen
        assert repository.find(folder, precision).manifest.name == "owner/model"


def test_a_precision_that_the_graphs_lack_is_an_error_that_lists_them(server: Hub, fetched):
    put(server, "onnx/model.onnx", "onnx/model_q4.onnx")
    assert fetched(precision="int8") == {
        "error": "owner/model has no graph of precision 'int8' (model_int8.onnx); it has onnx/model.onnx, onnx/model_q4.onnx",
        "kind": "ModelNotFound",
    }


def test_the_extractor_of_a_processor_serves(server: Hub, fetched):
    described = json.loads((server.folder / "preprocessor_config.json").read_text())
    (server.folder / "preprocessor_config.json").unlink()
    (server.folder / "processor_config.json").write_text(json.dumps({"feature_extractor": described}))
    put(server, "model.onnx")
    assert repository.find(fetched()["path"]).manifest.rate == 16000
    assert downloaded(server) == ["config.json", "model.onnx", "processor_config.json"]


def number(tag: int, value: int) -> bytes:
    return varint(tag << 3) + varint(value)


def tensor_type(*shape: str | int) -> bytes:
    sizes = b"".join(field(1, field(2, size.encode()) if isinstance(size, str) else number(1, size)) for size in shape)
    return field(2, field(1, number(1, 1) + field(2, sizes)))


def graph_with_weights_in(data: str) -> bytes:
    """logits = mean of input_values + two numbers that lie in the file `data`; the fields of onnx.proto by hand."""
    mean = field(1, b"input_values") + field(2, b"mean") + field(4, b"ReduceMean")
    mean += field(5, field(1, b"axes") + number(20, 7) + number(8, 1))
    add = field(1, b"mean") + field(1, b"weights") + field(2, b"logits") + field(4, b"Add")
    place = field(13, field(1, b"location") + field(2, data.encode()))
    weights = number(1, 1) + number(1, 2) + number(2, 1) + field(8, b"weights") + place + number(14, 1)
    graph = field(1, mean) + field(1, add) + field(2, b"g") + field(5, weights)
    graph += field(11, field(1, b"input_values") + tensor_type("batch", "samples"))
    graph += field(12, field(1, b"logits") + tensor_type("batch", 2))
    return number(1, 8) + field(7, graph) + field(8, field(1, b"") + number(2, 13))


def logits_of_ones(path: Path | str) -> list[float]:
    return stapes.load(path, device="cpu").logits([np.ones(100, np.float32)])[0].tolist()


@pytest.fixture
def weighted(server: Hub) -> Hub:
    """The hub with a graph whose weights, 3 and 5, lie beside it."""
    put(server, "onnx/model.onnx", content=graph_with_weights_in("model.onnx_data"))
    put(server, "onnx/model.onnx_data", content=np.array([3, 5], "<f4").tobytes())
    return server


def test_weights_beside_a_graph_are_found_through_the_links_of_the_client(weighted: Hub, fetched):
    put(weighted, "onnx/model.onnx_data_1", "onnx/model.onnx.data")
    assert logits_of_ones(fetched()["path"]) == [4, 6]
    assert [name for name in downloaded(weighted) if "data" in name] == [f"onnx/model.onnx{end}" for end in (".data", "_data", "_data_1")]


def share_blobs(folder: Path) -> None:
    """What the client does with large files that repositories have in common: each in a folder of its own, a link in its old place."""
    for blob in (folder.parent.parent / "blobs").iterdir():
        store = folder.parent.parent.parent / "blobs" / blob.name[:2] / blob.name
        store.parent.mkdir(parents=True, exist_ok=True)
        blob.rename(store)
        blob.symlink_to(os.path.relpath(store, blob.parent))


@pytest.mark.skipif(sys.platform == "win32", reason="the client makes no links there")
def test_weights_are_found_where_the_client_shares_files_between_repositories(weighted: Hub, fetched, tmp_path: Path):
    folder = Path(fetched()["path"])
    share_blobs(folder)
    beside = fetched()["path"]
    assert logits_of_ones(beside) == [4, 6]
    assert repository.find(beside).manifest.name == "owner/model"
    assert beside == fetched(HF_HUB_OFFLINE="1")["path"]
    assert Path(beside).is_relative_to(tmp_path / "kept")
    assert (Path(beside) / "onnx/model.onnx_data").samefile(folder / "onnx/model.onnx_data")  # no second copy of them


@pytest.mark.skipif(sys.platform == "win32", reason="the client makes no links there")
def test_a_cache_that_cannot_be_written_says_so(weighted: Hub, fetched, tmp_path: Path):
    share_blobs(Path(fetched()["path"]))
    (tmp_path / "file").write_text("")
    assert "set STAPES_CACHE to a folder" in fetched(STAPES_CACHE=str(tmp_path / "file"))["error"]


def test_a_revision_is_asked_for(server: Hub, fetched):
    put(server, "model.onnx")
    assert Path(fetched(revision="v1")["path"]).name == COMMIT
    assert "GET /api/models/owner/model/revision/v1" in server.requests
    assert fetched(revision=COMMIT) == fetched()
    assert fetched(revision="v2") == {"error": "owner/model has no revision v2", "kind": "ModelNotFound"}


def test_a_branch_that_moves_meanwhile_still_gives_one_commit(server: Hub, fetched):
    put(server, "model.onnx")
    server.listed = "f" * 40
    folder = Path(fetched()["path"])
    assert folder.name == COMMIT
    assert repository.find(folder).file == folder / "model.onnx"
    assert [each.name for each in folder.parent.iterdir()] == [COMMIT]


def test_a_private_repository_needs_the_token(server: Hub, fetched):
    put(server, "model.onnx")
    server.token = "hf_secret"
    assert "HF_TOKEN" in fetched()["error"]
    assert fetched(token="hf_wrong")["error"] == "the hub refuses owner/model to this token; check HF_TOKEN"
    assert fetched(HF_TOKEN="hf_secret") == fetched(token="hf_secret")


def test_a_gated_repository_says_so(server: Hub, fetched):
    put(server, "model.onnx")
    server.gated = True
    assert fetched()["error"] == "owner/model is gated: accept its terms on the hub and set HF_TOKEN"


def test_an_unknown_repository_says_so(fetched):
    found = fetched(repo="owner/other")
    assert found["kind"] == "ModelNotFound"
    assert "neither a model here nor a repository on the hub" in found["error"]


def test_a_connection_that_drops_gives_an_error_and_no_model(server: Hub, fetched):
    put(server, "model.onnx", content=GRAPH * 10)
    server.broken_after = 100
    assert "owner/model" in fetched()["error"]
    server.broken_after = None
    folder = Path(fetched()["path"])
    assert (folder / "model.onnx").read_bytes() == GRAPH * 10


def test_a_hub_that_is_not_there_says_so(fetched):
    found = fetched(HF_ENDPOINT="http://127.0.0.1:9")
    assert found["error"].startswith("cannot fetch owner/model from http://127.0.0.1:9: ")
    assert "\n" not in found["error"]


def test_a_hub_that_is_down_says_so(server: Hub, fetched):
    server.down = True
    assert "503" in fetched()["error"]


def test_an_endpoint_that_is_no_hub_says_so(server: Hub, fetched):
    put(server, "model.onnx")
    server.listed = ""
    server.commit = ""
    assert fetched()["error"].endswith("the answer names no commit")


def test_what_was_fetched_serves_offline_and_where_the_hub_is_gone(server: Hub, fetched):
    put(server, "model.onnx", "model_int8.onnx")
    assert "HF_HUB_OFFLINE is set" in fetched(HF_HUB_OFFLINE="1")["error"]
    online = fetched(precision="int8")
    asked = len(server.requests)
    for revision in (None, COMMIT):
        assert fetched(precision="int8", revision=revision, HF_HUB_OFFLINE="1") == online
        assert fetched(precision="int8", revision=revision, HF_ENDPOINT="http://127.0.0.1:9") == online
    assert len(server.requests) == asked
    server.down = True
    assert fetched(precision="int8") == online
    assert "in the local cache has no graph of precision 'fp16'" in fetched(precision="fp16", HF_HUB_OFFLINE="1")["error"]
    assert "HF_HUB_OFFLINE is set" in fetched(revision="v1", HF_HUB_OFFLINE="1")["error"]


def test_a_no_of_the_hub_counts_whatever_is_in_the_cache(server: Hub, fetched):
    put(server, "model.onnx")
    fetched()
    server.token = "hf_secret"
    assert "HF_TOKEN" in fetched()["error"]


def test_a_checkpoint_where_nothing_can_export_it_gives_the_command(server: Hub, fetched):
    put(server, "model.safetensors")
    error = fetched()["error"]
    assert f"`stapes export owner/model --revision {COMMIT} -o model.onnx` elsewhere and load model.onnx by its path" in error
    assert f"--revision {COMMIT} --precision int8 -o model.onnx`" in fetched(precision="int8")["error"]


def test_a_repository_without_a_model_says_so(server: Hub, fetched):
    (server.folder / "config.json").unlink()
    assert fetched()["error"] == "owner/model has neither an ONNX graph nor a config.json, so it is no audio classifier"


def kept(tmp_path: Path, precision: str) -> Path:
    """An export as an earlier one left it."""
    path = tmp_path / "kept/exports/owner--model" / COMMIT / f"{precision}.onnx"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(artifact(precision))
    return path


def test_an_export_that_is_there_needs_no_exporter(server: Hub, fetched, tmp_path: Path):
    paths = {precision: kept(tmp_path, precision) for precision in ("fp32", "int8")}
    assert fetched()["path"] == str(paths["fp32"])
    assert fetched(precision="int8")["path"] == str(paths["int8"])
    assert repository.find(paths["int8"], "int8").file == paths["int8"]
    assert {line for line in server.requests if "owner/model" in line} == {"GET /api/models/owner/model/revision/main"}


def test_an_export_that_is_there_serves_offline(server: Hub, fetched, tmp_path: Path):
    path = kept(tmp_path, "fp32")
    assert "HF_HUB_OFFLINE is set" in fetched(HF_HUB_OFFLINE="1")["error"]  # of which commit main is, nobody has said yet
    assert fetched(revision=COMMIT, HF_HUB_OFFLINE="1", without=[*EXPORTER, "huggingface_hub"])["path"] == str(path)
    assert fetched()["path"] == str(path)
    shutil.rmtree(tmp_path / "home", ignore_errors=True)
    assert fetched(HF_HUB_OFFLINE="1")["path"] == str(path)
    assert fetched(HF_ENDPOINT="http://127.0.0.1:9")["path"] == str(path)
