"""A model as users name it, a file or a Hugging Face directory with ONNX files -> its manifest and the file to run.

optimum and transformers.js read such directories: config.json, preprocessor_config.json, and graphs from features to logits in onnx/ or
beside the configs. The frontend is in none of them, so the NumPy one does the work.
"""

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import Any

from stapes.bundle import LONGEST_TEXT, MOST_ITEMS, Activation, Manifest, Provenance, find_manifest, read_manifest
from stapes.errors import ModelError, ModelNotFound
from stapes.frontend import MOST, Frontend, huggingface

CONFIG = "config.json"
EXTRACTORS = ("preprocessor_config.json", "processor_config.json")
"""Where the feature extractor may be described, best first; in the second it is nested under `feature_extractor`."""

FOLDERS = ("onnx", "")
"""Where the graphs may lie, best first: as transformers.js keeps them, and beside the configs as optimum does."""

ARTIFACT = ".stapes.onnx"
"""How the name of a file of ours may end where others look for their graphs too."""

SUFFIXES = {"fp32": ("", "fp32"), "q8": ("quantized",), "quantized": ("quantized",)}
"""precision -> what may stand behind `model_`, best first; any other precision is the suffix itself."""

UNASKED = ("", "quantized", "int8")
"""Suffixes to try where no precision is asked for: the plain model.onnx, then what transformers.js runs by default, then int8."""

LARGEST_CONFIG = 2**26
"""Bytes of a config that is read; 4000 labels take half a million, a vocabulary that someone left in it some more."""

MOST_LAYERS = 64
"""Convolutions before a model's first frame; SEW has 13."""

Config = Mapping[str, Any]


@dataclass(frozen=True)
class Found:
    """A model on this disk."""

    manifest: Manifest
    file: Path
    """The ONNX file."""


def find(path: str | os.PathLike[str], precision: str | None = None) -> Found:
    """The model at `path`: a stapes file, or a directory of whose graphs `precision` picks one ("fp32", "int8", "quantized", "fp16", …).

    A directory without `precision` gives model.onnx, else model_quantized.onnx, else model_int8.onnx, else its only graph; onnx/ before
    the directory itself. Of a file, `precision` is what it must have. Raises ModelNotFound or ModelError.
    """
    path = Path(path)
    if path.is_dir():
        return _directory(path, precision)
    manifest = read_manifest(path)
    if precision not in (None, manifest.provenance.precision):
        raise ModelError(
            f"{path} is one file and keeps the precision it was exported with, {manifest.provenance.precision}, not {precision}; "
            "precision picks a graph of a directory"
        )
    return Found(manifest, path)


def graphs(names: Iterable[str]) -> dict[str, str]:
    """The graphs among the files of a directory by their suffixes: {"": "onnx/model.onnx", "int8": "onnx/model_int8.onnx"}.

    `names`: paths from the directory, with slashes.
    """
    ordered = sorted(name for name in names if name.endswith(".onnx") and not name.endswith(ARTIFACT))
    found: dict[str, str] = {}
    for place in FOLDERS:
        for name in ordered:
            folder, _, file = name.rpartition("/")
            stem = file.removesuffix(".onnx")
            if folder == place and (stem == "model" or stem.startswith("model_")):
                found.setdefault(stem.removeprefix("model").removeprefix("_"), name)
    return found


def choose(there: Mapping[str, str], precision: str | None, where: str) -> str:
    """The suffix of the graph that `precision` picks; see `find`. `where`: what has these graphs, for the sentence of an error."""
    wanted = UNASKED if precision is None else SUFFIXES.get(precision, (precision,))
    for suffix in wanted:
        if suffix in there:
            return suffix
    if precision is None and len(there) == 1:
        return next(iter(there))
    names = ", ".join(there.values())
    if precision is None:
        raise ModelError(f"{where} has several graphs and no model.onnx; name one by its precision: {names}")
    raise ModelNotFound(f"{where} has no graph of precision {precision!r} (model_{wanted[-1]}.onnx); it has {names}")


def _directory(folder: Path, precision: str | None) -> Found:
    config = _json(folder / CONFIG)
    frontend = _frontend(folder)
    there = graphs(path.relative_to(folder).as_posix() for place in FOLDERS for path in (folder / place).glob("*.onnx"))
    if not there:
        raise ModelNotFound(
            f"no ONNX graph in {folder}, neither onnx/model*.onnx nor model*.onnx; from a checkpoint "
            f"`stapes export {folder} -o OUT --layout hub` makes a directory with one"
        )
    suffix = choose(there, precision, str(folder))
    file = folder / there[suffix]
    name, revision = _origin(folder)
    manifest = Manifest(
        name=name,
        rate=frontend.rate,
        labels=_labels(config, folder),
        activation=_activation(config),
        frontend=replace(frontend, min_samples=max(frontend.min_samples, _shortest(config, folder))),
        frontend_in_graph=False,
        needs=(),
        provenance=Provenance(
            source=name if revision else str(folder),
            revision=revision,
            files={},
            model_type=str(config.get("model_type")),
            precision=suffix or "fp32",
            passes=(),
            tools={},
        ),
    )
    own = find_manifest(file)
    if own is None:  # made by others
        return Found(manifest, file)
    if own.frontend_in_graph:
        raise ModelError(f"{file} has its frontend inside, so it is no graph for a directory; load the file itself")
    told = replace(
        manifest,
        name=own.name,
        needs=own.needs,
        provenance=own.provenance,
        golden=own.golden,
        parity=own.parity,
        verdict=own.verdict,
    )
    return Found(told, file)


def _frontend(folder: Path) -> Frontend:
    try:
        frontend = huggingface.build(extractor_config(folder))
        frontend.check()
    except ModelError:
        raise
    except (TypeError, ValueError, ArithmeticError, MemoryError) as error:  # MemoryError: a text times a number
        raise ModelError(f"what the feature extractor in {folder} is made of makes no sense: {error!s:.200}") from error
    return frontend


def _json(path: Path) -> Config:
    try:
        if path.stat().st_size > LARGEST_CONFIG:
            raise ModelError(f"{path} is larger than the {LARGEST_CONFIG} bytes that a config may have")
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ModelNotFound(f"no {path.name} in {path.parent}, so it is no model directory") from error
    except OSError as error:
        raise ModelError(f"cannot read {path}: {error.strerror}") from error
    except ModelError:
        raise
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{path} is not JSON ({error!s:.200})") from error
    if not isinstance(content, dict):
        raise ModelError(f"{path} holds no JSON object")
    return content


def extractor_config(folder: str | os.PathLike[str]) -> Config:
    """What describes the feature extractor in a model directory."""
    folder = Path(folder)
    name = next((name for name in EXTRACTORS if (folder / name).is_file()), EXTRACTORS[0])
    content = _json(folder / name)
    if name == EXTRACTORS[0]:
        return content
    nested = content.get("feature_extractor")
    return nested if isinstance(nested, dict) else {}


def _origin(folder: Path) -> tuple[str, str | None]:
    """The hub id and the commit of a folder models--owner--name/snapshots/commit, as the hub's client keeps it; else its name and None."""
    folder = folder.resolve()
    repo = folder.parent.parent.name
    if folder.parent.name == "snapshots" and repo.startswith("models--"):
        return repo.removeprefix("models--").replace("--", "/"), folder.name
    return folder.name, None


def _labels(config: Config, folder: Path) -> tuple[str, ...]:
    count, names = config.get("num_labels"), config.get("id2label")
    if names is None:
        count = 2 if count is None else count  # transformers' own default
        if not isinstance(count, int) or not 1 <= count <= MOST_ITEMS:
            raise ModelError(f"num_labels in {folder / CONFIG} is a number from 1 up to {MOST_ITEMS}, not {count!r:.80}")
        return tuple(f"LABEL_{index}" for index in range(count))
    try:
        by_index = {int(index): str(name) for index, name in names.items()}
    except (AttributeError, TypeError, ValueError) as error:
        raise ModelError(f"id2label in {folder / CONFIG} maps numbers to names, unlike {names!r:.80}") from error
    if len(by_index) > MOST_ITEMS or any(len(name) > LONGEST_TEXT for name in by_index.values()):
        raise ModelError(f"id2label in {folder / CONFIG} has more than {MOST_ITEMS} names, or longer ones than {LONGEST_TEXT} characters")
    if not by_index or sorted(by_index) != list(range(len(by_index))):
        raise ModelError(f"id2label in {folder / CONFIG} does not number its labels 0 to {len(by_index) - 1}: {sorted(by_index)!s:.80}")
    if count is not None and count != len(by_index):
        # transformers 4 believes the names, transformers 5 the number
        raise ModelError(
            f"{folder / CONFIG} contradicts itself: num_labels is {count!s:.80}, but id2label has {len(by_index)} names; correct one"
        )
    return tuple(by_index[index] for index in range(len(by_index)))


def _activation(config: Config) -> Activation:
    problem = config.get("problem_type")
    if problem == "regression" or config.get("finetuning_task") == "wav2vec2_reg":  # the second is older than transformers' own word
        return "none"
    return "sigmoid" if problem == "multi_label_classification" else "softmax"


def _shortest(config: Config, folder: Path) -> int:
    """Samples behind one frame of the convolutions that the config names; 1 where it names none.

    1 + sum_i (k_i - 1) s_0 … s_(i-1); a squeeze_factor is one more layer whose kernel and stride it is.
    """
    kernels, strides, squeeze = config.get("conv_kernel"), config.get("conv_stride"), config.get("squeeze_factor", 1)
    if kernels is None or strides is None:
        return 1
    try:
        layers = [(int(kernel), int(stride)) for kernel, stride in zip([*kernels, squeeze], [*strides, squeeze], strict=True)]
    except (TypeError, ValueError, OverflowError) as error:
        raise ModelError(f"conv_kernel and conv_stride in {folder / CONFIG} are lists of whole numbers, equally long") from error
    sensible = len(layers) <= MOST_LAYERS and all(1 <= number <= MOST["size"] for layer in layers for number in layer)
    shortest = 1 + sum((kernel - 1) * prod(stride for _, stride in layers[:i]) for i, (kernel, _) in enumerate(layers)) if sensible else 0
    if not 1 <= shortest <= MOST["size"]:
        raise ModelError(f"conv_kernel and conv_stride in {folder / CONFIG} make no sense: more than {MOST['size']} samples a frame")
    return shortest
