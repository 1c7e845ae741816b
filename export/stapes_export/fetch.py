"""CHECKPOINT, a folder or a hub id -> its files on this disk, hashed."""

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from stapes.errors import CheckpointError
from stapes_export.lock import FILE, LockEntry, Pin

CONFIG = "config.json"
EXTRACTORS = ("preprocessor_config.json", "processor_config.json")
"""Where the feature extractor may be described, best first; in the second it is nested under `feature_extractor`."""
WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")
"""Where weights may lie, best first; an index names the shards beside it."""

MODEL_SUFFIXES = (".safetensors", ".bin", ".pt", ".onnx")
"""What a file is called that someone gives in place of its folder. Names on a hub have dots too."""


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint's files in one folder."""

    path: Path
    name: str
    """The hub id, or the folder's name."""
    revision: str | None
    """The hub's commit, 40 hexadecimal digits; None for a local folder."""
    files: tuple[str, ...]
    """The files that make the model, sorted."""

    @cached_property
    def config(self) -> Mapping[str, Any]:
        """config.json."""
        return _json(self.path / CONFIG)

    @cached_property
    def preprocessor(self) -> Mapping[str, Any]:
        """The feature extractor's description."""
        name = next(name for name in EXTRACTORS if name in self.files)
        content = _json(self.path / name)
        return content if name == EXTRACTORS[0] else content.get("feature_extractor", {})

    @cached_property
    def sha256(self) -> Mapping[str, str]:
        """Hash of every file, by name."""
        return {name: sha256(self.path / name) for name in self.files}


def fetch(source: str, revision: str | None = None) -> Checkpoint:
    """The checkpoint in the folder `source`, or else of that id on the hub, at `revision` (a branch, tag or commit).

    The hub is reached as huggingface_hub does it: HF_ENDPOINT, HF_HOME, HF_HUB_OFFLINE and HF_TOKEN hold. Raises CheckpointError.
    """
    folder = Path(source)
    if folder.is_dir():
        if revision is not None:
            raise CheckpointError(f"{source} is a folder, which has no revisions; leave --revision out")
        return Checkpoint(folder, folder.resolve().name, None, _files(folder, source))
    if source.count("/") > 1 or source.startswith((".", "/", "~")) or folder.suffix in MODEL_SUFFIXES or folder.exists():
        raise CheckpointError(f"no folder {source}; give a checkpoint's folder, or a hub id such as owner/name")
    return _download(source, revision)


def fetch_locked(entry: LockEntry, root: Path) -> Checkpoint:
    """Exactly the files that the lock pins; `root`: the folder of the lock file. CheckpointError names a file that differs."""
    source = entry.source if entry.revision else str(root / entry.source)
    checkpoint = fetch(source, entry.revision)
    for name, pinned in sorted(entry.files.items()):
        path = checkpoint.path / name
        if not path.is_file():
            raise CheckpointError(f"{entry.source} has no {name}, which {FILE} pins for {entry.name}")
        found = pin(path)
        if found != pinned:
            raise CheckpointError(
                f"{name} of {entry.source} is not the file that {FILE} pins for {entry.name}: sha256 {found.sha256} instead of "
                f"{pinned.sha256}; fetch it anew, or pin this one with stapes lock add"
            )
    return replace(checkpoint, files=tuple(sorted(entry.files)))


def pin(path: Path) -> Pin:
    """What a lock says of this file."""
    return Pin(sha256(path), path.stat().st_size)


def sha256(path: Path) -> str:
    """The file's SHA-256, 64 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _files(folder: Path, source: str) -> tuple[str, ...]:
    if (folder / CONFIG).is_file():
        _refuse_foreign(_json(folder / CONFIG), source)
    if (folder / "hyperparams.yaml").is_file():
        raise CheckpointError(SPEECHBRAIN.format(source))
    found = {first: _first(folder, names) for first, names in ((CONFIG, (CONFIG,)), (EXTRACTORS[0], EXTRACTORS), (WEIGHTS[0], WEIGHTS))}
    if absent := [first for first, name in found.items() if name is None]:
        raise CheckpointError(f"{source} is no checkpoint of an audio classifier: it has no {', no '.join(absent)}")
    names = {name for name in found.values() if name is not None}
    shards = {shard for name in names if name in WEIGHTS for shard in _shards(folder / name)}
    if lost := sorted(shard for shard in shards if not (folder / shard).is_file()):
        raise CheckpointError(f"{source} lacks {', '.join(lost)}, which its index names")
    return tuple(sorted(names | shards))


SPEECHBRAIN = "{} is a SpeechBrain model (hyperparams.yaml), not one of transformers; stapes exports transformers' audio classifiers"


def _refuse_foreign(config: Mapping[str, Any], source: str) -> None:
    if "speechbrain_interface" in config:
        raise CheckpointError(SPEECHBRAIN.format(source))
    if "auto_map" in config:
        raise CheckpointError(f"{source} brings its own model code (auto_map in config.json), which stapes does not run")
    if not config.get("model_type"):
        raise CheckpointError(f"config.json of {source} has no model_type, so nothing says which architecture it is")


def _first(folder: Path, names: Iterable[str]) -> str | None:
    return next((name for name in names if (folder / name).is_file()), None)


def _shards(weights: Path) -> set[str]:
    return set(_json(weights)["weight_map"].values()) if weights.suffix == ".json" else set()


def _json(path: Path) -> Mapping[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CheckpointError(f"{path.name} is not JSON ({error}); the checkpoint is damaged") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path.name} holds no JSON object; the checkpoint is damaged")
    return content


def _download(repo: str, revision: str | None) -> Checkpoint:
    import huggingface_hub as hub
    from huggingface_hub import errors

    asked = ""

    def get(name: str, at: str | None) -> Path:
        nonlocal asked
        asked = name
        return Path(hub.hf_hub_download(repo, name, revision=at))

    def get_first(names: Iterable[str], at: str) -> Path | None:
        for name in names:
            try:
                return get(name, at)
            except errors.RemoteEntryNotFoundError:
                continue
            except errors.LocalEntryNotFoundError:
                if not hub.constants.HF_HUB_OFFLINE:
                    raise  # the connection broke: another name would not mend it
        return None

    try:
        config = get(CONFIG, revision)
        _refuse_foreign(_json(config), repo)
        commit = config.parent.name  # the cache keeps a folder a commit: every other file comes from the same one
        get_first(EXTRACTORS, commit)
        weights = get_first(WEIGHTS, commit)
        for shard in sorted(_shards(weights)) if weights else ():
            get(shard, commit)
    except CheckpointError:
        raise
    except errors.GatedRepoError as error:
        raise CheckpointError(f"{repo} is gated: accept its terms on the hub and set HF_TOKEN") from error
    except errors.RepositoryNotFoundError as error:
        raise CheckpointError(f"{repo}: neither a folder here nor a repository on the hub (a private one needs HF_TOKEN)") from error
    except errors.RevisionNotFoundError as error:
        raise CheckpointError(f"{repo} has no revision {revision}") from error
    except errors.RemoteEntryNotFoundError as error:
        raise CheckpointError(f"{repo} is no checkpoint of an audio classifier: it has no {asked}") from error
    except errors.LocalEntryNotFoundError as error:
        why = "HF_HUB_OFFLINE is set" if hub.constants.HF_HUB_OFFLINE else "the hub cannot be reached"
        raise CheckpointError(f"{repo} is not in the local cache and {why}; see HF_ENDPOINT and HF_HOME") from error
    except Exception as error:  # the client also lets the errors of its HTTP library through, which share no base with its own
        endpoint = os.environ.get("HF_ENDPOINT")
        raise CheckpointError(f"cannot fetch {asked} of {repo}{f' from {endpoint}' if endpoint else ''}: {_first_line(error)}") from error
    folder = config.parent
    return Checkpoint(folder, repo, commit, _files(folder, repo))


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
