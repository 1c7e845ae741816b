"""docs/artifact.md and docs/manifest.schema.json against the code, and against files that were just made."""

import copy
import dataclasses
import json
import math
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, get_args

import int8_here
import jsonschema
import made_checkpoints
import numpy as np
import onnx
import onnxruntime
import pytest
import soundfile
import torch

from stapes import bundle
from stapes.bundle import LONGEST_TEXT, MOST_ITEMS, SCHEMA, Activation, Manifest, read_manifest
from stapes.classifier import DEFAULT_MODEL
from stapes.errors import ModelError
from stapes.frontend import MOST, MOST_STEPS, RATES, Frontend
from stapes.frontend.steps import STEPS
from stapes.session import CPU_FLAGS
from stapes_export.build import INLINE_LIMIT, export

torch.set_num_threads(1)  # the suite runs a worker a core


@pytest.fixture(scope="module")
def schema(root: Path) -> dict[str, Any]:
    return json.loads((root / "docs" / "manifest.schema.json").read_text())


@pytest.fixture(scope="module")
def page(root: Path) -> str:
    return (root / "docs" / "artifact.md").read_text()


@pytest.fixture(scope="module")
def valid(schema: dict[str, Any]) -> Callable[[Any], bool]:
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema).is_valid


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Files that were just made, one of each kind of manifest: every kind of frontend, with and without each option."""
    folder = tmp_path_factory.mktemp("artifacts")
    noise = np.random.default_rng(0)
    for label in ("one", "two"):
        (folder / "clips" / label).mkdir(parents=True)
        soundfile.write(folder / "clips" / label / "noise.wav", 0.1 * noise.standard_normal(16000), 16000)
    made = {}
    for name, precision, model_type, options in (
        ("fp32", "fp32", "wav2vec2", {}),
        ("a verdict", int8_here.INT8, "wav2vec2", {"calibration": folder / "clips", "max_drop": 100.0}),
        ("top and rate", int8_here.INT8, "wav2vec2", {"top_k": 2, "input_rate": 44100}),
        ("ast", "fp32", "audio-spectrogram-transformer", {"top_k": 2}),
        ("seamless", "fp32", "wav2vec2-bert", {}),
        ("whisper", "fp32", "whisper", {"input_rate": 8000}),
    ):
        checkpoint = folder / model_type
        if not checkpoint.exists():
            made_checkpoints.make(checkpoint, model_type)
        made[name] = folder / f"{name}.onnx"
        export(str(checkpoint), made[name], precision, **options)
    return made


def told(path: Path) -> dict[str, Any]:
    """The manifest as it lies in the file."""
    return json.loads({entry.key: entry.value for entry in onnx.load(path).metadata_props}["stapes"])


# The schema against manifests


def test_the_embedded_models_manifest_is_valid(valid: Callable[[Any], bool]):
    assert valid(told(DEFAULT_MODEL))


def test_every_manifest_that_was_just_made_is_valid(artifacts: dict[str, Path], schema: dict[str, Any]):
    for name, path in artifacts.items():
        errors = [f"{error.json_path}: {error.message}" for error in jsonschema.Draft202012Validator(schema).iter_errors(told(path))]
        assert not errors, name
    assert told(artifacts["a verdict"])["verdict"]["kept"] == []
    assert told(artifacts["top and rate"])["provenance"]["options"] == {"top_k": "2", "input_rate": "44100"}
    steps = {step["step"] for path in artifacts.values() for step in told(path)["frontend"]["steps"]}
    assert steps == STEPS.keys(), "every step is met"


def required(tree: Any, schema: dict[str, Any], node: dict[str, Any], place: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The place of every key that the schema asks for, in a manifest that has it."""
    while "$ref" in node:
        node = schema["$defs"][node["$ref"].rsplit("/", 1)[1]]
    for choice in node.get("anyOf", []):
        if tree is not None and choice != {"type": "null"}:
            yield from required(tree, schema, choice, place)
    if isinstance(tree, dict):
        for choice in node.get("oneOf", []):
            if choice["properties"]["step"]["const"] == tree.get("step"):
                yield from required(tree, schema, choice, place)
        for key in node.get("required", []):
            yield (*place, key)
        for key, inner in node.get("properties", {}).items():
            if key in tree:
                yield from required(tree[key], schema, inner, (*place, key))
    if isinstance(tree, list) and isinstance(node.get("items"), dict):
        for index, item in enumerate(tree):
            yield from required(item, schema, node["items"], (*place, index))


MISSING = object()


def changed(tree: dict[str, Any], place: tuple[Any, ...], value: Any) -> dict[str, Any]:
    """A copy with another value there, or with nothing where that is MISSING."""
    tree = copy.deepcopy(tree)
    inner: Any = tree
    for key in place[:-1]:
        inner = inner[key]
    if value is MISSING:
        del inner[place[-1]]
    else:
        inner[place[-1]] = value
    return tree


def both(valid: Callable[[Any], bool], tree: Any) -> tuple[bool, bool]:
    """Whether the schema takes it, and whether the runtime does."""
    try:
        Manifest.from_json(json.dumps(tree))
    except ModelError:
        return valid(tree), False
    return valid(tree), True


def test_without_any_required_key_a_manifest_is_refused_by_both(
    artifacts: dict[str, Path], schema: dict[str, Any], valid: Callable[[Any], bool]
):
    for name, path in artifacts.items():
        tree = told(path)
        places = list(required(tree, schema, schema))
        assert len(places) > 20, name
        for place in places:
            assert both(valid, changed(tree, place, MISSING)) == (False, False), (name, place)


def test_what_is_not_required_may_be_missing_in_both(artifacts: dict[str, Path], valid: Callable[[Any], bool]):
    tree = told(artifacts["a verdict"])
    for place in (("golden",), ("parity",), ("verdict",), ("provenance", "revision"), ("verdict", "labelled")):
        expected = place != ("verdict", "labelled")
        assert both(valid, changed(tree, place, MISSING)) == (expected, expected), place
    assert both(valid, tree | {"a key of a newer writer": {"x": 1}}) == (True, True)


OTHER_TYPES: tuple[Any, ...] = (None, True, -7, 0.5, "text", ["text", 1], {"a": 1})


def test_a_value_of_another_type_is_refused_by_both_or_by_none(
    artifacts: dict[str, Path], schema: dict[str, Any], valid: Callable[[Any], bool]
):
    """The schema and the runtime agree about every type at every place, of all values that the one or the other could mistake."""
    refused = taken = 0
    for name, path in artifacts.items():
        tree = told(path)
        for place in set(required(tree, schema, schema)):
            for value in OTHER_TYPES:
                by_schema, by_runtime = both(valid, changed(tree, place, value))
                assert by_schema == by_runtime, (name, place, value)
                refused, taken = refused + (not by_schema), taken + by_schema
    assert refused > 1000
    assert taken > 50  # a name may be any text, a tolerance any number


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("schema",), SCHEMA + 1),
        (("schema",), 0),
        (("rate",), 99),
        (("rate",), 16000.5),
        (("labels",), []),
        (("labels",), ["x"] * (MOST_ITEMS + 1)),
        (("labels", 0), "x" * (LONGEST_TEXT + 1)),
        (("labels", 0), 5),
        (("activation",), "tanh"),
        (("provenance", "files"), {"config.json": 5}),
        (("provenance", "options", "top_k"), 3),
        (("frontend", "min_samples"), 0),
        (("frontend", "min_samples"), MOST["size"] + 1),
        (("frontend", "steps"), [{"step": "Exec", "command": "rm"}]),
        (("frontend", "steps"), [{"step": "Scale", "factor": 1.0, "by": 2}]),
        (("frontend", "steps"), [{"step": "Frames", "size": 400, "hop": 0}]),
        (("frontend", "steps"), [{"step": "Log", "floor": 1e-3, "base": "2"}]),
        (("frontend", "steps"), [{"step": "Scale", "factor": 1.0}] * (MOST_STEPS + 1)),
        (("frontend", "steps"), [{"step": "Resample", "from_rate": 0, "to_rate": 16000}]),
        (("golden", "logits"), ["1.0"]),
        (("verdict", "agreement"), 1.5),
        (("verdict", "accuracy_after"), -0.5),
        (("verdict", "kept"), [1]),
    ],
)
def test_a_mutated_manifest_is_refused_by_both(
    place: tuple[Any, ...], value: Any, artifacts: dict[str, Path], valid: Callable[[Any], bool]
):
    tree = told(artifacts["a verdict"])
    assert both(valid, tree) == (True, True)
    assert both(valid, changed(tree, place, value)) == (False, False)


def test_a_newer_schema_is_refused_with_a_sentence_that_says_so(artifacts: dict[str, Path]):
    with pytest.raises(ModelError, match=f"manifest schema {SCHEMA + 1} and this stapes reads up to {SCHEMA}; upgrade stapes"):
        Manifest.from_json(json.dumps(told(artifacts["fp32"]) | {"schema": SCHEMA + 1}))


# The schema against the code

CLASSES = {None: Manifest, "frontend": Frontend, "provenance": bundle.Provenance, "golden": bundle.Golden} | {
    "parity": bundle.Parity,
    "verdict": bundle.Verdict,
}


@pytest.mark.parametrize("name", CLASSES)
def test_the_schemas_keys_are_the_dataclasses(name: str | None, schema: dict[str, Any]):
    node = schema["$defs"][name] if name else schema
    assert set(node["properties"]) == {field.name for field in dataclasses.fields(CLASSES[name])}
    assert set(node["required"]) <= set(node["properties"])


def test_no_dataclass_of_the_manifest_is_forgotten(schema: dict[str, Any]):
    here = {kind for kind in vars(bundle).values() if dataclasses.is_dataclass(kind) and kind.__module__ == bundle.__name__}
    assert here | {Frontend} == set(CLASSES.values())
    assert set(schema["$defs"]) == {name for name in CLASSES if name} | {"text", "step"}


def test_the_schemas_steps_are_the_runtimes_with_their_types_and_bounds(schema: dict[str, Any]):
    choices = {choice["properties"]["step"]["const"]: choice for choice in schema["$defs"]["step"]["oneOf"]}
    assert choices.keys() == STEPS.keys()
    for name, choice in choices.items():
        arguments = {key: value for key, value in choice["properties"].items() if key != "step"}
        fields = {field.name: field for field in dataclasses.fields(STEPS[name])}  # type: ignore[arg-type]
        assert arguments.keys() == fields.keys()
        assert choice["additionalProperties"] is False
        assert set(choice["required"]) == {"step"} | {key for key, field in fields.items() if field.default is dataclasses.MISSING}
        for key, value in arguments.items():
            kind, default = fields[key].type, fields[key].default
            assert value.get("default", dataclasses.MISSING) == default
            if kind is int:
                assert (value["type"], value["minimum"], value["maximum"]) == ("integer", 1, MOST[key])
            elif kind is float or kind is bool:
                assert value["type"] == {float: "number", bool: "boolean"}[kind]
            else:
                assert tuple(value["enum"]) == get_args(kind)


def test_the_schemas_numbers_are_the_runtimes(schema: dict[str, Any]):
    keys, frontend = schema["properties"], schema["$defs"]["frontend"]["properties"]
    assert keys["schema"]["maximum"] == SCHEMA
    assert tuple(keys["activation"]["enum"]) == get_args(Activation)
    for rate in (keys["rate"], frontend["rate"]):
        assert (rate["minimum"], rate["maximum"]) == (RATES[0], RATES[-1])
    assert frontend["steps"]["maxItems"] == MOST_STEPS
    assert frontend["min_samples"]["maximum"] == MOST["size"]
    assert schema["$defs"]["text"]["maxLength"] == LONGEST_TEXT
    limits = re.findall(r'"max(?:Items|Properties)": (\d+)', json.dumps(schema))
    assert set(limits) == {str(MOST_ITEMS), str(MOST_STEPS)}


# The page against files


def table(page: str, heading: str) -> list[list[str]]:
    """The cells of the first table below a heading, code marks taken off, without its head."""
    _, below = page.split(f"## {heading}\n")
    lines = [line for line in below.split("\n## ")[0].splitlines() if line.startswith("|")]
    return [[cell.strip().strip("`") for cell in line.strip("|").split("|")] for line in lines[2:]]


ONNX_TYPES = {1: "float32", 7: "int64", 8: "string"}


def described(values: Any, labels: int, k: int) -> list[list[str]]:
    """Name, type and shape of a graph's inputs or outputs, as the page writes them; `labels` and `k` are different numbers."""
    words = {labels: "labels", k: "K"}
    rows = []
    for value in values:
        kind = value.type.tensor_type
        axes = [dim.dim_param or words[dim.dim_value] for dim in kind.shape.dim]
        rows.append([value.name, ONNX_TYPES[kind.elem_type], f"[{', '.join(axes)}]"])
    return rows


def test_inputs_and_outputs_are_those_of_real_files(page: str, artifacts: dict[str, Path]):
    inputs, outputs = ([row[:3] for row in table(page, heading)] for heading in ("Inputs", "Outputs"))
    for path in (*artifacts.values(), DEFAULT_MODEL):
        graph = onnx.load(path).graph
        manifest = read_manifest(path)
        k = int(manifest.provenance.options.get("top_k", 0))
        assert described(graph.input, len(manifest.labels), k) == inputs
        assert described(graph.output, len(manifest.labels), k) == outputs[: 5 if k else 2]


def test_what_the_runtime_gives_is_what_the_page_says(page: str, artifacts: dict[str, Path]):
    """Not what the graph declares but what comes out: types and shapes, NaN for a row too short, and the other rows as ever."""
    path = artifacts["top and rate"]
    session, manifest = onnxruntime.InferenceSession(path), read_manifest(path)
    shortest = manifest.frontend.min_samples
    waveform = (0.1 * np.random.default_rng(1).standard_normal((3, 30000))).astype(np.float32)
    waveform[1:, 9000:] = np.nan
    found = session.run(None, {"waveform": waveform, "lengths": np.array([10**12, 9000, shortest - 1])})
    names = [entry.name for entry in session.get_outputs()]
    kinds = {"float32": np.float32, "int64": np.int64, "string": np.object_}
    sizes = {"batch": 3, "labels": len(manifest.labels), "K": 2}
    for (name, kind, shape, *_), own, value in zip(table(page, "Outputs"), names, found, strict=True):
        assert name == own
        assert value.dtype == kinds[kind]
        assert list(value.shape) == [sizes[axis] for axis in shape.strip("[]").split(", ")]
    logits, scores, top_scores, top_indices, top_labels = found
    for floats in (logits, scores, top_scores):
        assert np.isfinite(floats[:2]).all()
        assert np.isnan(floats[2]).all()
    assert top_indices[2].tolist() == [0, 1]
    assert top_labels[2].tolist() == list(manifest.labels[:2])


def test_the_metadatas_keys_are_those_of_real_files(page: str, artifacts: dict[str, Path]):
    for path in (*artifacts.values(), DEFAULT_MODEL):
        model = onnx.load(path)
        metadata = {entry.key: entry.value for entry in model.metadata_props}
        assert list(metadata.keys() ^ {row[0] for row in table(page, "Metadata")}) == []
        manifest = json.loads(metadata["stapes"])
        assert json.loads(metadata["labels"]) == manifest["labels"]
        assert metadata["sampling_rate"] == str(manifest["rate"])
        (said,) = re.findall(r"opset (\d+), IR version (\d+)", page)
        assert [(entry.domain, str(entry.version)) for entry in model.opset_import] == [("", said[0])]
        assert str(model.ir_version) == said[1]


def test_weights_lie_where_the_page_says(artifacts: dict[str, Path], page: str, tmp_path: Path):
    assert INLINE_LIMIT == 1_500_000_000
    assert "From 1.5 GB on" in page
    assert "`NAME.onnx.data`" in page
    export(str(artifacts["fp32"].parent / "wav2vec2"), tmp_path / "NAME.onnx", external_data=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["NAME.onnx", "NAME.onnx.data"]
    places = {
        entry.value
        for tensor in onnx.load(tmp_path / "NAME.onnx", load_external_data=False).graph.initializer
        for entry in tensor.external_data
        if entry.key == "location"
    }
    assert places == {"NAME.onnx.data"}


def as_the_page_says(seconds: float, rate: int) -> list[float]:
    """The golden signal once more, in the words of the page and nothing of ours."""
    state, signal = 1, []
    for i in range(round(seconds * rate)):
        t = i / rate
        state = (1664525 * state + 1013904223) % 2**32
        sweep = math.sin(2 * math.pi * (100 * t + (3400 - 100) * t**2 / (2 * seconds)))
        signal.append(0.4 * sweep * (0.5 - 0.5 * math.cos(2 * math.pi * 4 * t)) + 0.1 * (state / 2**31 - 1))
    return signal


def test_the_golden_signal_is_the_pages_formula(page: str, artifacts: dict[str, Path]):
    signal = as_the_page_says(1.0, 16000)
    rows = table(page, "The golden test")
    assert len(rows) == 6
    for i, value in rows:
        assert f"{signal[int(i)]:.6f}" == value
    assert "x[i] = 0.4 sin(2 pi (100 t + (3400 - 100) t^2 / (2 seconds))) (0.5 - 0.5 cos(2 pi 4 t)) + 0.1 u[i]" in page
    assert "s[i] = (1664525 s[i-1] + 1013904223) mod 2^32,   s[-1] = 1,   u[i] = s[i] / 2^31 - 1" in page


def test_a_host_that_knows_only_the_page_passes_the_golden_test(artifacts: dict[str, Path]):
    for path in (*artifacts.values(), DEFAULT_MODEL):
        manifest = told(path)
        samples = np.array([as_the_page_says(manifest["golden"]["seconds"], manifest["rate"])], np.float32)
        session = onnxruntime.InferenceSession(path)
        logits = session.run(["logits"], {"waveform": samples, "lengths": np.array([samples.shape[1]])})[0][0]
        assert np.abs(logits - manifest["golden"]["logits"]).max() <= manifest["golden"]["tolerance"], path


def test_needs_are_told_in_the_runtimes_words(page: str):
    _, section = page.split("## `needs`\n")
    section = section.split("\n## ")[0]
    assert all(f"`{need}`" in section for need in CPU_FLAGS)
