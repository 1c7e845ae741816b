"""One checkpoint becomes one file: fetch, load, trace, run the recipe, verify, save. Read it top to bottom."""

import contextlib
import json
import os
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import onnx_ir as ir
from tqdm import tqdm

from stapes.bundle import KEY, Activation, Golden, Manifest, Provenance
from stapes.errors import CheckpointError, ExportError
from stapes.frontend import Frontend, huggingface
from stapes_export import diagnose, passes
from stapes_export.artifact import Artifact
from stapes_export.calibrate import recordings
from stapes_export.families import FAMILIES, Family
from stapes_export.fetch import Checkpoint, fetch
from stapes_export.layer_sum import LayerSum
from stapes_export.layer_sum import differs as layer_sum_differs
from stapes_export.recipes import RECIPES
from stapes_export.surgery.weight_norm import fold_weight_norm
from stapes_export.trace import trace
from stapes_export.verify import Reference, Report, golden_clips, golden_logits, verify

GOLDEN_SECONDS = 1.0

TOOLS = ("stapes", "torch", "transformers", "onnx", "onnx_ir", "onnxscript", "onnxruntime", "numpy")
"""What the bytes of an artifact depend on."""


def export(
    source: str,
    out: Path,
    precision: str = "fp32",
    *,
    revision: str | None = None,
    calibration: Path | None = None,
    layer_sum: LayerSum = "v4",
) -> Report:
    """Export the checkpoint `source` (a folder or a hub id) to the file `out`; progress goes to stderr.

    `calibration`: a folder of recordings that verification runs on; the golden signal where None. `layer_sum`: see layer_sum.py. The
    file appears whole or not at all. Raises ExportError: CheckpointError where the checkpoint is refused, ParityError where the
    artifact answers otherwise.
    """
    recipe = RECIPES[precision]
    if not out.parent.is_dir():
        raise ExportError(f"no folder {out.parent} to write {out.name} into; make it first")
    with _stage("fetch"):
        checkpoint = fetch(source, revision)
        family = _family(checkpoint)
    with _stage("load"):
        model = diagnose.load(checkpoint)
        reference = Reference.of(checkpoint, diagnose.load(checkpoint), layer_sum)  # its own module: tracing alters the other
        options: dict[str, str] = {"layer_sum": layer_sum} if layer_sum_differs(model.config) else {}
        manifest = _manifest(checkpoint, model.config, family, precision, options)
        clips = recordings(calibration, manifest.rate, manifest.labels) if calibration else golden_clips(manifest, GOLDEN_SECONDS)
    with _stage("trace"):
        fold_weight_norm(model)
        shortest = manifest.frontend.length(manifest.frontend.min_samples)
        traced = trace(family.adapt(model, layer_sum), family, model.config, shortest)
    with _stage(precision):
        artifact = passes.run(recipe.passes, Artifact(traced, manifest))
    with tempfile.TemporaryDirectory(prefix="stapes-") as folder:
        draft = Path(folder) / "draft.onnx"
        draft.write_bytes(_bytes(artifact))
        logits = golden_logits(draft, GOLDEN_SECONDS)
        report = verify(draft, reference, recipe, clips, lambda each: tqdm(each, "verify", file=sys.stderr))
    golden = Golden(GOLDEN_SECONDS, logits, recipe.golden_tolerance * max(1.0, *map(abs, logits)))
    with _stage("save"):
        final = replace(artifact, manifest=replace(artifact.manifest, golden=golden, parity=report.parity))
        _write(out, _bytes(final))
    return report


@contextlib.contextmanager
def _stage(name: str) -> Iterator[None]:
    with tqdm(total=1, desc=name, file=sys.stderr, bar_format="{desc:<14} {percentage:3.0f}% [{elapsed}]") as bar:
        yield
        bar.update()


def _family(checkpoint: Checkpoint) -> Family:
    model_type = checkpoint.config.get("model_type")
    for family in FAMILIES:
        if family.model_type == model_type:
            return family
    known = ", ".join(family.model_type for family in FAMILIES)
    raise CheckpointError(f"{checkpoint.name} has model_type {model_type!r}; stapes exports {known}")


def _manifest(checkpoint: Checkpoint, config: Any, family: Family, precision: str, options: dict[str, str]) -> Manifest:
    frontend = huggingface.build(checkpoint.preprocessor)
    shortest = max(frontend.min_samples, family.min_samples(config))
    frontend = Frontend(frontend.rate, shortest, frontend.steps)
    return Manifest(
        name=checkpoint.name,
        rate=frontend.rate,
        labels=tuple(str(config.id2label[index]) for index in range(config.num_labels)),
        activation=_activation(config.problem_type),
        frontend=frontend,
        frontend_in_graph=False,
        needs=(),
        provenance=Provenance(
            source=checkpoint.name,
            revision=checkpoint.revision,
            files=checkpoint.sha256,
            model_type=family.model_type,
            precision=precision,
            passes=(),
            tools={tool: _version(tool) for tool in TOOLS},
            options=options,
        ),
    )


def _version(tool: str) -> str:
    try:
        return version(tool)
    except PackageNotFoundError:
        return version(f"{tool}-gpu")  # ONNX Runtime with CUDA is a distribution of its own


def _activation(problem_type: str | None) -> Activation:
    if problem_type == "regression":
        return "none"
    return "sigmoid" if problem_type == "multi_label_classification" else "softmax"


def _bytes(artifact: Artifact) -> bytes:
    manifest = artifact.manifest
    model = artifact.model
    model.producer_name, model.producer_version = "stapes", version("stapes")
    model.metadata_props.update(
        {
            KEY: manifest.to_json(),
            "labels": json.dumps(manifest.labels, ensure_ascii=False),  # for hosts that read no manifest
            "sampling_rate": str(manifest.rate),
        }
    )
    content: bytes = ir.to_proto(model).SerializeToString(deterministic=True)
    return content


def _write(out: Path, content: bytes) -> None:
    """All of it or nothing, under that name: a killed export leaves no half file."""
    part = out.with_name(f".{out.name}.{os.getpid()}.part")
    try:
        with part.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        part.replace(out)
    except OSError as error:
        raise ExportError(f"cannot write {out}: {error.strerror}") from error
    finally:
        part.unlink(missing_ok=True)
