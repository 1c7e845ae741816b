"""CHECKPOINT, a folder or a hub id -> its files on this disk, hashed."""

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from stapes.errors import CheckpointError

CONFIGS = ("config.json", "preprocessor_config.json")
WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")
"""Where weights may lie, best first; an index names the shards beside it."""


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
        return _json(self.path / "config.json")

    @cached_property
    def preprocessor(self) -> Mapping[str, Any]:
        """preprocessor_config.json."""
        return _json(self.path / "preprocessor_config.json")

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
    if source.count("/") > 1 or source.startswith((".", "/", "~")) or folder.suffix or folder.exists():
        raise CheckpointError(f"no folder {source}; give a checkpoint's folder, or a hub id such as owner/name")
    return _download(source, revision)


def sha256(path: Path) -> str:
    """The file's SHA-256, 64 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _files(folder: Path, source: str) -> tuple[str, ...]:
    weights = next((name for name in WEIGHTS if (folder / name).is_file()), None)
    absent = [name for name in CONFIGS if not (folder / name).is_file()]
    if weights is None:
        absent.append(WEIGHTS[0])
    if weights is None or absent:
        raise CheckpointError(f"{source} is no checkpoint of an audio classifier: it has no {', no '.join(absent)}")
    return tuple(sorted({*CONFIGS, weights, *_shards(folder / weights)}))


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

    try:
        config = get("config.json", revision)
        commit = config.parent.name  # the cache keeps a folder a commit: every other file comes from the same one
        for name in CONFIGS[1:]:
            get(name, commit)
        for name in WEIGHTS:
            try:
                weights = get(name, commit)
            except errors.RemoteEntryNotFoundError:
                continue
            except errors.LocalEntryNotFoundError:
                if not hub.constants.HF_HUB_OFFLINE:
                    raise  # the connection broke: another name would not mend it
                continue
            for shard in sorted(_shards(weights)):
                get(shard, commit)
            break
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
