"""One checkpoint becomes one file: fetch, load, trace, run the recipe, verify, save. Read it top to bottom."""

import contextlib
import json
import os
import sys
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

import onnx_ir as ir
from tqdm import tqdm

from stapes.bundle import KEY, Activation, Golden, Manifest, Provenance
from stapes.errors import CheckpointError, ExportError
from stapes.frontend import RATES, Frontend, huggingface
from stapes.frontend.steps import LARGEST_KERNEL, Resample
from stapes_export import diagnose, lock, passes
from stapes_export.artifact import SCOPE, Artifact, with_kept
from stapes_export.calibrate import accuracy, check_lengths, recordings
from stapes_export.families import FAMILIES, Family
from stapes_export.fetch import Checkpoint, fetch, fetch_locked
from stapes_export.layer_sum import LayerSum
from stapes_export.layer_sum import differs as layer_sum_differs
from stapes_export.passes.attach_scores import attach_scores
from stapes_export.passes.attach_top import attach_top
from stapes_export.passes.fuse_attention import fuse_attention
from stapes_export.recipes import RECIPES
from stapes_export.sensitivity import modules_to_keep
from stapes_export.surgery.channels_last import keep_convolutions
from stapes_export.surgery.weight_norm import fold_weight_norm
from stapes_export.targets import hub
from stapes_export.trace import trace
from stapes_export.verify import Reference, Report, golden_clips, golden_logits, verify

GOLDEN_SECONDS = 1.0

Layout = Literal["file", "hub"]
"""One self-contained file, or the directory that optimum and transformers.js read; see targets/hub.py."""

INLINE_LIMIT = 1_500_000_000
"""Bytes of weights that stay in the file: protobuf ends at 2 GB, and mapped files load faster long before."""

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
    head: str | None = None,
    lock_file: Path = Path(lock.FILE),
    external_data: bool = False,
    layout: Layout = "file",
    max_drop: float | None = None,
    fused_attention: bool = False,
    top_k: int | None = None,
    input_rate: int | None = None,
) -> Report:
    """Export the checkpoint `source` (a name in `lock_file`, a folder or a hub id) to `out`; progress goes to stderr.

    `layout`: one self-contained file, or the directory of targets/hub.py, where fp32 stands beside `precision`.

    `calibration`: recordings that verification runs on, a folder or a csv, see calibrate.py; the golden signal where None. `max_drop`:
    points of accuracy on them (of agreement where they have no labels) that `precision` may lose; modules that cost too much keep their
    floats. `fused_attention`: see passes/fuse_attention.py. `layer_sum`: see layer_sum.py. `head`: a name of heads.HEADS.
    `top_k`: see passes/attach_top.py. `input_rate`: Hz of the samples that go in, which the graph resamples to the model's own; torch gets
    clips that the same filter resampled, in NumPy. `external_data`: weights beside the file in `out`.data, as happens from 1.5 GB on.

    The file appears whole or not at all. Raises ExportError: CheckpointError where the checkpoint is refused, ParityError where the
    artifact answers otherwise, AccuracyError where it loses more than `max_drop`.
    """
    recipe = RECIPES[precision]
    if layout == "hub":
        _check_hub(fused_attention, top_k, input_rate)
    if fused_attention:
        recipe = replace(recipe, passes=(fuse_attention, *recipe.passes))
    if top_k is not None:
        behind = recipe.passes.index(attach_scores) + 1
        recipe = replace(recipe, passes=(*recipe.passes[:behind], attach_top(top_k), *recipe.passes[behind:]))
    if max_drop is not None:
        _check_drop(max_drop, precision, calibration)
    if not out.parent.is_dir():
        raise ExportError(f"no folder {out.parent} to write {out.name} into; make it first")
    if layout == "hub":
        hub.check(out)
    with _stage("fetch"):
        entry = lock.read(lock_file).get(source)
        if entry is not None and revision not in (None, entry.revision):
            raise CheckpointError(f"{source} is pinned to {entry.revision or entry.source} by {lock_file}; leave --revision out")
        checkpoint = fetch_locked(entry, lock_file.parent) if entry else fetch(source, revision)
        family = _family(checkpoint)
    with _stage("load"):
        try:
            model = diagnose.load(checkpoint, head)
        except diagnose.UndecidedHead as error:
            raise _tried(checkpoint, error, calibration) from error
        options: dict[str, str] = {"layer_sum": layer_sum} if layer_sum_differs(model.config) else {}
        options |= {"head": head} if head else {}
        options |= {"top_k": str(top_k)} if top_k is not None else {}
        options |= {"input_rate": str(input_rate)} if input_rate is not None else {}
        manifest = _manifest(checkpoint, model.config, family, precision, options)
        if top_k is not None and not 1 <= top_k <= len(manifest.labels):
            raise ExportError(f"--top-k is a number of labels, from 1 to the {len(manifest.labels)} of {manifest.name}, not {top_k}")
        resample = None if input_rate is None else _resample(input_rate, manifest)
        if resample is not None:
            manifest = replace(manifest, rate=resample.from_rate, frontend=manifest.frontend.heard_at(resample.from_rate))
        # its own module, since tracing alters the other
        reference = Reference.of(checkpoint, diagnose.load(checkpoint, head), layer_sum, resample)
        if max_drop is not None and manifest.activation == "none":
            raise CheckpointError(f"{checkpoint.name} is a regression, which has no top label to be right or wrong; leave --max-drop out")
        clips = recordings(calibration, manifest.rate, manifest.labels) if calibration else golden_clips(manifest, GOLDEN_SECONDS)
        check_lengths(clips, manifest)
    with _stage("trace"):
        fold_weight_norm(model)
        shortest = manifest.frontend.length(manifest.frontend.min_samples)
        module = family.adapt(model, layer_sum)
        if recipe.keeps_convolutions:
            keep_convolutions(module)
        traced = Artifact(trace(module, family, model.config, shortest), manifest)
    expected = reference.every(_bar(clips, "original"))
    kept: tuple[str, ...] = ()
    if max_drop is not None:
        kept = modules_to_keep(traced, recipe, clips, expected, max_drop, lambda each, path: _save(each, path, external_data), _bar)
    if layout == "hub":
        return hub.build(
            out,
            traced,
            checkpoint,
            precision,
            extractor=reference.extractor.to_dict(),
            expected=expected,
            clips=clips,
            golden_seconds=GOLDEN_SECONDS,
            save=lambda artifact, path: _save(artifact, path, external_data, hub.DATA),
            progress=lambda each: _bar(each, "verify"),
            kept=kept,
            max_drop=max_drop,
        )
    with _stage(precision):
        artifact = passes.run(recipe.passes, with_kept(traced, kept))
    with tempfile.TemporaryDirectory(prefix="stapes-") as folder:
        draft = Path(folder) / "draft.onnx"
        _save(artifact, draft, external_data)
        logits = golden_logits(draft, GOLDEN_SECONDS)
        report = verify(draft, expected, recipe, clips, lambda each: _bar(each, "verify"), kept=kept, max_drop=max_drop)
    golden = Golden(GOLDEN_SECONDS, logits, recipe.golden_tolerance * max(1.0, *map(abs, logits)))
    with _stage("save"):
        final = replace(artifact, manifest=replace(artifact.manifest, golden=golden, parity=report.parity, verdict=report.verdict))
        _write(out, final, external_data)
    return report


def _check_hub(fused_attention: bool, top_k: int | None, input_rate: int | None) -> None:
    """Raises ExportError for what the hub's layout has no place for."""
    if fused_attention:
        raise ExportError("--layout hub keeps to standard operators, for hosts of every kind; leave --fused-attention out")
    if top_k is not None:
        raise ExportError("--layout hub ends in logits, as its hosts expect, and they rank them themselves; leave --top-k out")
    if input_rate is not None:
        raise ExportError("--layout hub begins with features, which its hosts make at the model's own rate; leave --input-rate out")


def _resample(input_rate: int, manifest: Manifest) -> Resample:
    """The step from that rate to the model's own; ExportError where there is none."""
    if input_rate not in RATES:
        raise ExportError(f"--input-rate is a whole number of Hz from {RATES[0]} to {RATES[-1]}, not {input_rate}")
    if input_rate == manifest.rate:
        raise ExportError(f"{manifest.name} takes {manifest.rate} Hz without resampling; leave --input-rate out")
    step = Resample(input_rate, manifest.rate)
    try:
        _ = step.kernel
    except ValueError as error:
        raise ExportError(f"{error}, more than {LARGEST_KERNEL}; name a usual --input-rate, such as 8000, 44100 or 48000") from error
    return step


def _check_drop(max_drop: float, precision: str, calibration: Path | None) -> None:
    """Raises ExportError where a budget makes no sense."""
    if not 0 <= max_drop <= 100:
        raise ExportError(f"--max-drop is in points of accuracy, from 0 to 100, not {max_drop:g}")
    if precision == "fp32":
        raise ExportError("fp32 keeps every float, so nothing drops; leave --max-drop out, or name another --precision")
    if calibration is None:
        raise ExportError("--max-drop needs recordings to count on; give them with --calibration, a folder or a csv with path and label")


def _bar(items: Iterable[Any], name: str) -> Iterable[Any]:
    bar: Iterable[Any] = tqdm(items, name, file=sys.stderr)
    return bar


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


def _tried(checkpoint: Checkpoint, error: diagnose.UndecidedHead, calibration: Path | None) -> CheckpointError:
    """The error, with each head's accuracy where there are labelled clips to try them on."""
    if calibration is None:
        return error
    accuracies = {}
    for name in error.names:
        reference = Reference.of(checkpoint, diagnose.load(checkpoint, name))
        config: Any = reference.model.config
        labels = tuple(str(config.id2label[index]) for index in range(config.num_labels))
        clips = recordings(calibration, reference.extractor.sampling_rate, labels)
        right = accuracy(reference.every(clips), clips, labels)
        if right is None:
            return CheckpointError(f"{error}; no clip of {calibration} has one of its labels")
        accuracies[name] = f"{name} is right on {right:.1%} of {sum(clip.label is not None for clip in clips)} labelled clips"
    return CheckpointError(f"{error}. Tried here: {'; '.join(accuracies.values())}")


def _manifest(checkpoint: Checkpoint, config: Any, family: Family, precision: str, options: dict[str, str]) -> Manifest:
    frontend = huggingface.build(checkpoint.preprocessor)
    shortest = max(frontend.min_samples, family.min_samples(config))
    frontend = Frontend(frontend.rate, shortest, frontend.steps)
    return Manifest(
        name=checkpoint.name,
        rate=frontend.rate,
        labels=tuple(str(config.id2label[index]) for index in range(config.num_labels)),
        activation=_activation(config.problem_type, checkpoint.config.get("finetuning_task")),
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


def _activation(problem_type: str | None, finetuning_task: str | None) -> Activation:
    if problem_type == "regression" or finetuning_task == "wav2vec2_reg":  # the second is how the code before transformers' own said it
        return "none"
    return "sigmoid" if problem_type == "multi_label_classification" else "softmax"


def _save(artifact: Artifact, path: Path, external_data: bool, suffix: str = ".data") -> list[Path]:
    """Write the artifact to `path`; its files. Weights of INLINE_LIMIT bytes or more go to a file beside it, which hosts map."""
    manifest, model = artifact.manifest, artifact.model
    for node in model.graph.all_nodes():
        node.metadata_props.pop(SCOPE, None)  # it has served
    model.producer_name, model.producer_version = "stapes", version("stapes")
    model.metadata_props.update(
        {
            KEY: manifest.to_json(),
            "labels": json.dumps(manifest.labels, ensure_ascii=False),  # for hosts that read no manifest
            "sampling_rate": str(manifest.rate),
        }
    )
    weights = sum(value.const_value.nbytes for value in model.graph.initializers.values() if value.const_value is not None)
    if external_data or weights >= INLINE_LIMIT:
        data = path.with_name(path.name + suffix)
        ir.save(model, path, external_data=data.name, size_threshold_bytes=1024)
        return [data, path]
    path.write_bytes(ir.to_proto(model).SerializeToString(deterministic=True))
    return [path]


def _write(out: Path, artifact: Artifact, external_data: bool) -> None:
    """All of it or nothing, under that name: a killed export leaves no half file. The data comes before the graph that names it."""
    try:
        with tempfile.TemporaryDirectory(prefix=f".{out.name}.", dir=out.parent) as folder:
            for file in _save(artifact, Path(folder) / out.name, external_data):
                with file.open("rb") as written:
                    os.fsync(written.fileno())
                file.replace(out.with_name(file.name))
    except OSError as error:
        raise ExportError(f"cannot write {out}: {error.strerror}") from error
