"""The layout that optimum and transformers.js read: graphs from features to logits beside the configs of their checkpoint.

    config.json   preprocessor_config.json   onnx/model.onnx   onnx/model_int8.onnx   onnx/model_quantized.onnx

The frontend stays outside, since those hosts bring their own. The last two files are the same bytes under the names that are asked for:
transformers.js wants model_quantized.onnx where it runs in WebAssembly.
"""

import contextlib
import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from stapes.bundle import Golden
from stapes.errors import ExportError
from stapes_export import passes
from stapes_export.artifact import Artifact, with_kept
from stapes_export.calibrate import Recording
from stapes_export.fetch import CONFIG, EXTRACTORS, Checkpoint
from stapes_export.passes import Pass
from stapes_export.passes.attach_frontend import attach_frontend
from stapes_export.passes.attach_scores import attach_scores
from stapes_export.passes.hub_inputs import hub_inputs
from stapes_export.recipes import RECIPES
from stapes_export.targets import directory
from stapes_export.verify import Logits, Progress, Report, golden_logits, verify

FOLDER = "onnx"

DATA = "_data"
"""What stands behind a graph's name where its weights lie beside it: model.onnx_data, as transformers.js expects."""

SUFFIXES: dict[str, tuple[str, ...]] = {
    "fp32": ("",),
    "fp16": ("_fp16",),
    "int8": ("_int8", "_quantized"),
    "int8-portable": ("_int8", "_quantized"),
}
"""precision -> what stands behind `model` in the names of its files."""

INPUTS: dict[str, Callable[[Mapping[str, Any]], tuple[str, bool]]] = {
    "ASTFeatureExtractor": lambda config: ("input_values", False),
    "SeamlessM4TFeatureExtractor": lambda config: ("input_features", True),
    "Wav2Vec2FeatureExtractor": lambda config: ("input_values", bool(config.get("return_attention_mask", False))),
    "WhisperFeatureExtractor": lambda config: ("input_features", False),  # it may return a mask of samples, which its model ignores
}
"""feature_extractor_type -> the name under which it gives the features, and whether a mask for the model comes with them."""


def build(
    out: Path,
    traced: Artifact,
    checkpoint: Checkpoint,
    precision: str,
    *,
    extractor: Mapping[str, Any],
    expected: Logits,
    clips: list[Recording],
    golden_seconds: float,
    save: Callable[[Artifact, Path], object],
    progress: Progress = iter,
    kept: tuple[str, ...] = (),
    max_drop: float | None = None,
) -> Report:
    """Write the directory `out` with the graph in fp32 and, where `precision` is another, in that; the report on `precision`.

    Each graph is verified through stapes.load of the directory, which appears whole or not at all. `extractor`: its whole description, by
    transformers. `expected`: the checkpoint's logits. `save` writes an artifact under a name. `kept`, `max_drop`: the modules that
    `precision` leaves in float, and the points that it may lose. Raises ExportError, ParityError.
    """
    kind = checkpoint.preprocessor["feature_extractor_type"]
    inputs = hub_inputs(*INPUTS[kind](checkpoint.preprocessor))
    reports: list[Report] = []
    with replacing(out) as part:
        for name, content in _configs(checkpoint, extractor).items():
            (part / name).write_bytes(content)
        for name in dict.fromkeys(("fp32", precision)):
            recipe, (file, *aliases) = RECIPES[name], [part / graph for graph in _graphs(name)]
            provenance = replace(traced.manifest.provenance, precision=name)
            own, allowed = (kept, max_drop) if name == precision else ((), None)
            copy = with_kept(replace(traced, manifest=replace(traced.manifest, provenance=provenance)), own)  # passes alter what they get
            artifact = passes.run(_passes(recipe.passes, inputs), copy)
            save(artifact, file)
            suffix = SUFFIXES[name][0].removeprefix("_") or "fp32"
            logits = golden_logits(part, golden_seconds, suffix)
            report = verify(part, expected, recipe, clips, progress, suffix, kept=own, max_drop=allowed)
            golden = Golden(golden_seconds, logits, recipe.golden_tolerance * max(1.0, *map(abs, logits)))
            told = replace(artifact.manifest, golden=golden, parity=report.parity, verdict=report.verdict)
            save(replace(artifact, manifest=told), file)
            for alias in aliases:
                shutil.copyfile(file, alias)
            reports.append(report)
    return reports[-1]


def check(out: Path) -> None:
    """Raises ExportError where `out` is something that must not be replaced: only an empty folder or an earlier hub layout may be."""
    if not out.exists():
        return
    if not out.is_dir():
        raise ExportError(f"{out} is a file; --layout hub writes a directory: name another")
    graphs = {graph for precision in SUFFIXES for graph in _graphs(precision)}
    known = {CONFIG, EXTRACTORS[0], FOLDER} | graphs | {f"{graph}.data" for graph in graphs}
    found = {path.relative_to(out).as_posix() for path in out.rglob("*")}
    if foreign := sorted(found - known):
        raise ExportError(f"{out} holds {foreign[0]}, which is no part of a hub layout; name a new or an empty directory")
    if found and FOLDER not in found:
        raise ExportError(f"{out} holds {min(found)} and no graphs, so it is no earlier hub layout; name a new or an empty directory")


@contextlib.contextmanager
def replacing(out: Path) -> Iterator[Path]:
    """A new directory with an empty onnx/, which becomes `out` when the block ends, and nothing where it fails. Raises ExportError."""
    check(out)
    with directory.replacing(out) as part:
        (part / FOLDER).mkdir()
        yield part


def _passes(recipe: Iterable[Pass], inputs: Pass) -> list[Pass]:
    """The recipe for features instead of samples, and without scores, which those hosts compute themselves."""
    return [inputs if rewrite is attach_frontend else rewrite for rewrite in recipe if rewrite is not attach_scores]


def _graphs(precision: str) -> list[str]:
    """The names of the files of one precision, the same bytes in each."""
    return [f"{FOLDER}/model{suffix}.onnx" for suffix in SUFFIXES[precision]]


def _configs(checkpoint: Checkpoint, extractor: Mapping[str, Any]) -> dict[str, bytes]:
    """The checkpoint's configs; what its extractor's leaves out is filled in, since transformers.js knows no defaults.

    `extractor`: the whole description, by transformers.
    """
    complete = {**extractor, **checkpoint.preprocessor}
    if EXTRACTORS[0] in checkpoint.files and complete == checkpoint.preprocessor:
        described = (checkpoint.path / EXTRACTORS[0]).read_bytes()
    else:
        described = (json.dumps(complete, indent=2, sort_keys=True) + "\n").encode()
    return {CONFIG: (checkpoint.path / CONFIG).read_bytes(), EXTRACTORS[0]: described}
