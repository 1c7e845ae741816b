"""A model file is a stranger's: what is wrong with it is one line and exit status 2, and nothing in it costs memory, time or secrets."""

import json
import os
import time
import tracemalloc
from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx_wire import GRAPH, field, model_with, varint

import stapes
from stapes import bundle, frontend, repository
from stapes.bundle import KEY, LARGEST_METADATA, LONGEST_TEXT, MOST_ITEMS, SCHEMA, Manifest, Provenance, Verdict, read_manifest
from stapes.classifier import DEFAULT_MODEL
from stapes.errors import ModelError, ModelNotFound
from stapes.frontend import MOST, MOST_STEPS, Frontend
from stapes.frontend.steps import STEPS
from stapes.session import Session

CLIP = "examples/yes.flac"
OWN = read_manifest(DEFAULT_MODEL)
MANIFEST = json.loads(OWN.to_json())


def manifest(**changes: Any) -> str:
    return json.dumps(MANIFEST | changes)


def with_frontend(*steps: dict[str, Any], **changes: Any) -> str:
    return manifest(frontend={"rate": 16000, "min_samples": 1040, "steps": list(steps)} | changes)


NESTED = 100_000
BAD: dict[str, tuple[Callable[[], bytes], str]] = {
    "empty": (lambda: b"", "not an ONNX file"),
    "text": (lambda: b"This is no model.\n" * 100, "not an ONNX file"),
    "zeros": (lambda: bytes(1000), "not an ONNX file"),
    "wav": (lambda: b"RIFF\x24\x08\0\0WAVEfmt \x10\0\0\0\1\0\1\0" + bytes(2000), "not an ONNX file"),
    "truncated": (lambda: DEFAULT_MODEL.read_bytes()[:-1000], "truncated"),
    "half": (lambda: DEFAULT_MODEL.read_bytes()[:1_000_000], "truncated"),
    "no manifest": (lambda: GRAPH, "without a stapes manifest; make one with `stapes export`"),
    "no graph": (lambda: model_with(OWN.to_json()).removeprefix(GRAPH), "0 graphs"),
    "a long number": (lambda: b"\xff" * 11, "a number without an end"),
    "a number too large for a field": (lambda: varint((7 + 2**32) << 3 | 2) + b"\0" + GRAPH, r"field \d+"),
    "a group": (lambda: b"\x3b" + GRAPH, "wire type 3"),
    "newer schema": (lambda: model_with(manifest(schema=SCHEMA + 1)), "upgrade stapes"),
    "much newer schema": (lambda: model_with(json.dumps({"schema": 10**400})), "upgrade stapes"),
    "negative schema": (lambda: model_with(manifest(schema=-1)), "makes no sense"),
    "no JSON": (lambda: model_with("{'name': 'x'}"), "not JSON"),
    "no text": (lambda: GRAPH + field(14, field(1, KEY.encode()) + field(2, b"\xff\xfe")), "utf-8"),
    "nested": (lambda: model_with("[" * NESTED + "]" * NESTED), "not JSON .*recursion"),
    "nested inside": (lambda: model_with('{"schema":1,"x":' + '{"a":' * NESTED + "1" + "}" * NESTED + "}"), "not JSON .*recursion"),
    "long number": (lambda: model_with('{"schema": ' + "9" * 5000 + "}"), "not JSON"),
    "a key twice": (lambda: model_with(OWN.to_json()[:-1] + ',"labels":["other"]}'), "a key comes twice"),
    "a large manifest": (lambda: model_with(manifest(name="x" * LARGEST_METADATA)), "metadata of"),
    "many labels": (lambda: model_with(manifest(labels=["x"] * (MOST_ITEMS + 1))), f"'labels' has a length of {MOST_ITEMS + 1}, more than"),
    "long labels": (lambda: model_with(manifest(labels=["x" * 2**20, "y"])), f"'labels' has a length of {2**20}, more than {LONGEST_TEXT}"),
    "no labels": (lambda: model_with(manifest(labels=[])), "0 labels"),
    "numbered labels": (lambda: model_with(manifest(labels=[1, 2])), "'labels' should be of type str"),
    "a long name": (lambda: model_with(manifest(name="x" * (LONGEST_TEXT + 1))), "'name' has a length"),
    "many files": (
        lambda: model_with(manifest(provenance=MANIFEST["provenance"] | {"files": files(MOST_ITEMS + 1)})),
        "'files' has a length",
    ),
    "rate 0": (lambda: model_with(manifest(rate=0)), "makes no sense: .*rate 0"),
    "negative rate": (lambda: model_with(manifest(rate=-16000)), "rate -16000"),
    "absurd rate": (lambda: model_with(manifest(rate=10**18)), "rate 1000000000000000000"),
    "two rates": (lambda: model_with(manifest(rate=8000)), r"rate 8000 \(the frontend's: 16000\)"),
    "a rate with digits": (lambda: model_with(manifest(rate=16000.5)), "'rate' should be of type int"),
    "absurd frontend's rate": (lambda: model_with(with_frontend(rate=10**9)), "rate is a whole number from 100 to 1000000, not 1000000000"),
    "no minimum": (lambda: model_with(with_frontend(min_samples=0)), "min_samples is a whole number from 1"),
    "negative minimum": (lambda: model_with(with_frontend(min_samples=-5)), "min_samples is a whole number from 1"),
    "absurd minimum": (lambda: model_with(with_frontend(min_samples=10**300)), "min_samples is a whole number from 1"),
    "steps as text": (lambda: model_with(manifest(frontend={"rate": 16000, "min_samples": 1, "steps": "Log"})), "frontend is damaged"),
    "steps as numbers": (lambda: model_with(with_frontend(1, 2)), "frontend is damaged"),  # type: ignore[arg-type]
    "an unknown step": (lambda: model_with(with_frontend({"step": "Exec", "command": "rm"})), "no step 'Exec'"),
    "an unhashable step": (lambda: model_with(with_frontend({"step": ["Log"]})), "frontend is damaged"),
    "an unknown argument": (lambda: model_with(with_frontend({"step": "Scale", "factor": 1.0, "by": 2})), "takes no by"),
    "a missing argument": (lambda: model_with(with_frontend({"step": "Scale"})), "factor"),
    "many steps": (lambda: model_with(with_frontend(*[{"step": "Scale", "factor": 1.0}] * (MOST_STEPS + 1))), "more than 64"),
    "endless padding": (
        lambda: model_with(with_frontend({"step": "PadOrTrim", "size": 10**12})),
        "PadOrTrim.size is a whole number from 1",
    ),
    "a hop of 0": (lambda: model_with(with_frontend({"step": "Frames", "size": 400, "hop": 0})), "Frames.hop is a whole number from 1"),
    "a backward hop": (
        lambda: model_with(with_frontend({"step": "Frames", "size": 400, "hop": -160})),
        "Frames.hop is a whole number from 1",
    ),
    "a stack of 0": (
        lambda: model_with(with_frontend({"step": "Stack", "count": 0, "value": 0.0})),
        "Stack.count is a whole number from 1",
    ),
    "a huge mel bank": (lambda: model_with(with_frontend(MELS | {"mels": 10**9, "bins": 10**9})), "MelBank.mels is a whole number from 1"),
    "an unknown scale": (lambda: model_with(with_frontend(MELS | {"scale": "bark"})), "MelBank.scale is one of 'kaldi', 'slaney'"),
    "NaN in a step": (
        lambda: model_with(with_frontend({"step": "Scale", "factor": float("nan")})),
        "Scale.factor is a finite number, not nan",
    ),
    "a step's huge number": (lambda: model_with(with_frontend({"step": "Scale", "factor": 10**400})), "frontend is damaged"),
    "stacks of stacks": (lambda: model_with(with_frontend(*STACKS, {"step": "PadOrTrim", "size": 2**20})), "frontend is damaged"),
    "NaN in the golden test": (
        lambda: model_with(manifest(golden=MANIFEST["golden"] | {"tolerance": float("nan")})),
        "'tolerance' should be",
    ),
    "a huge golden logit": (lambda: model_with(manifest(golden=MANIFEST["golden"] | {"logits": [10**400]})), "'logits' should be"),
    "an unknown activation": (lambda: model_with(manifest(activation="tanh")), "activation 'tanh'"),
    "a list for everything": (lambda: model_with(json.dumps({key: [] for key in MANIFEST} | {"schema": SCHEMA})), "'name' should be"),
    "null for everything": (lambda: model_with(json.dumps(dict.fromkeys(MANIFEST) | {"schema": SCHEMA})), "'name' should be"),
}
"""What is wrong -> the file, and what is said of it."""

MELS = {"step": "MelBank", "mels": 80, "bins": 257, "rate": 16000, "low_hz": 20.0, "high_hz": 8000.0, "scale": "kaldi"}
STACKS = [{"step": "Stack", "count": MOST["count"], "value": 0.0}] * 20


def files(count: int) -> dict[str, str]:
    return {f"{number}": "" for number in range(count)}


@pytest.mark.parametrize("what", BAD)
def test_what_is_wrong_with_a_model_is_said_in_one_line_that_names_it(what: str, tmp_path: Path):
    content, says = BAD[what]
    (tmp_path / "m.onnx").write_bytes(content())
    begin = time.monotonic()
    with pytest.raises(ModelError, match=says) as caught:
        repository.find(tmp_path / "m.onnx")
    assert time.monotonic() - begin < 5
    assert str(tmp_path / "m.onnx") in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 600


@pytest.mark.parametrize("what", ["empty", "text", "truncated", "newer schema", "nested", "many labels", "endless padding", "rate 0"])
@pytest.mark.parametrize("command", [("classify", CLIP, "-m"), ("info",), ("verify",)], ids=lambda command: command[0])
def test_every_command_that_takes_a_model_says_it_in_one_line_and_exits_with_2(
    command: Sequence[str], what: str, stapes_command, tmp_path: Path
):
    (tmp_path / "m.onnx").write_bytes(BAD[what][0]())
    done = stapes_command(*command, tmp_path / "m.onnx")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("stapes: ")
    assert str(tmp_path / "m.onnx") in done.stderr


def test_a_manifest_of_100_mb_is_refused_unread(tmp_path: Path):
    with (tmp_path / "m.onnx").open("wb") as file:
        size = 100 * 2**20
        file.write(GRAPH + varint(14 << 3 | 2) + varint(size))
        file.truncate(file.tell() + size)
    tracemalloc.start()
    try:
        with pytest.raises(ModelError, match="metadata of 104857600 bytes"):
            read_manifest(tmp_path / "m.onnx")
        assert tracemalloc.get_traced_memory()[1] < 2**21
    finally:
        tracemalloc.stop()


def test_a_file_of_nothing_but_empty_fields_is_refused_in_seconds(tmp_path: Path):
    (tmp_path / "m.onnx").write_bytes(b"\x0a\0" * 4_000_000)
    begin = time.monotonic()
    with pytest.raises(ModelError, match="more than 1000000 fields"):
        read_manifest(tmp_path / "m.onnx")
    assert time.monotonic() - begin < 20


def test_what_large_real_models_need_is_allowed(tmp_path: Path):
    labels = tuple(f"{number}: " + "long words " * 90 for number in range(20_000))  # 20 MB
    large = replace(OWN, labels=labels, golden=None)
    (tmp_path / "m.onnx").write_bytes(model_with(large.to_json()))
    assert read_manifest(tmp_path / "m.onnx") == large


def test_every_whole_number_of_a_step_has_its_bound():
    for step in STEPS.values():
        for argument in fields(step):  # type: ignore[arg-type]
            assert (argument.type is int) == (argument.name in MOST)


@pytest.mark.parametrize("name", STEPS)
def test_every_argument_of_a_step_is_checked_for_its_type(name: str):
    wrong = {"step": name} | {argument.name: {"a": []} for argument in fields(STEPS[name])}  # type: ignore[arg-type]
    if len(wrong) > 1:
        with pytest.raises(ModelError, match=rf"{name}\."):
            Frontend.from_dict({"rate": 16000, "min_samples": 1, "steps": [wrong]})


@pytest.mark.parametrize(
    "steps",
    [
        [{"step": "Frames", "size": 4000, "hop": 160}],  # longer than the clip
        [{"step": "ReflectPad", "size": 4000}, {"step": "Transpose"}, {"step": "Power"}, {"step": "Stack", "count": 2, "value": 0.0}],
        [{"step": "Stack", "count": 2, "value": 0.0}],
        [MELS],
        [{"step": "Log", "floor": 0.0}],
        [{"step": "Standardize", "mean": 0.0, "deviation": 0.0}],
        [{"step": "ZeroMeanUnitVariance", "epsilon": -1e9}],
        [{"step": "Scale", "factor": 1e300}],
    ],
    ids=lambda steps: steps[-1]["step"],
)
def test_steps_that_do_not_fit_are_a_model_error_when_they_run(steps: list[dict[str, Any]]):
    made = Frontend.from_dict({"rate": 16000, "min_samples": 1, "steps": steps})
    with pytest.raises(ModelError, match="frontend"):
        made(np.arange(1999) % 2)


# Labels and names that steer a terminal

STEERING = ("\x1b[2J\x1b[1;1Hyes", "no\nstapes: all is well", "\x9b31mred", "\u202egnp.exe", "tab\tbed", "\ud800", "")


@pytest.mark.parametrize("format", ["table", "csv", "json", "jsonl", "srt", "vtt", "audacity", "raven"])
def test_no_label_reaches_the_terminal_as_a_command(format: str, stapes_command, tmp_path: Path):
    pytest.importorskip("onnxruntime")
    labels = [*STEERING, *"abcde"]
    told = manifest(labels=labels, name="\x1b[31mname", needs=["\x1b]0;title\x07"])
    (tmp_path / "m.onnx").write_bytes(DEFAULT_MODEL.read_bytes() + model_with(told).removeprefix(GRAPH))
    done = stapes_command("classify", CLIP, "-m", tmp_path / "m.onnx", "--format", format, "--top-k", "12")
    assert done.returncode == 0
    assert not any(character in done.stdout + done.stderr for character in "\x1b\x9b\x07")
    assert "\nstapes: all" not in done.stdout


def test_info_steers_no_terminal_either(stapes_command, tmp_path: Path):
    verdict = Verdict(9, 9, 1.0, 0.9, 0.9, 0.0, 0.1, kept=("\x1b]0;title\x07",)).__dict__
    told = manifest(labels=[*STEERING, *"abcde"], name="\x1b[31mname", verdict=verdict)
    (tmp_path / "m.onnx").write_bytes(DEFAULT_MODEL.read_bytes() + model_with(told).removeprefix(GRAPH))
    for options in ((), ("--json",)):
        done = stapes_command("info", tmp_path / "m.onnx", *options)
        assert done.returncode == 0
        assert not any(character in done.stdout for character in "\x1b\x9b\x07")
    assert json.loads(done.stdout)["labels"][:2] == list(STEERING[:2])


# Names that are no model


def test_a_name_without_a_model_behind_it_is_one_line_and_exit_2(stapes_command, tmp_path: Path):
    (tmp_path / "loop.onnx").symlink_to("loop.onnx")
    (tmp_path / "bare").mkdir()
    names = [tmp_path / "gone.onnx", tmp_path / "loop.onnx", tmp_path / "bare"]
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe.onnx")
        names += [tmp_path / "pipe.onnx", Path(os.devnull)]
    for name in names:
        done = stapes_command("classify", CLIP, "-m", name)
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr.count("\n") == 1
        assert str(name) in done.stderr


# Configs of model directories

CONFIG = {"model_type": "wav2vec2", "id2label": {"0": "yes", "1": "no"}}
EXTRACTOR = {"feature_extractor_type": "Wav2Vec2FeatureExtractor", "sampling_rate": 16000}


@pytest.mark.parametrize(
    ("config", "extractor"),
    [
        ({"id2label": None, "num_labels": 10**12}, {}),
        ({"id2label": {str(number): "" for number in range(MOST_ITEMS + 1)}}, {}),
        ({"id2label": {"0": "x" * 10_000}}, {}),
        ({"id2label": {"9" * 5000: "x"}}, {}),
        ({"conv_kernel": [10**30], "conv_stride": [5]}, {}),
        ({"conv_kernel": [-3], "conv_stride": [5]}, {}),
        ({"conv_kernel": [3] * 65, "conv_stride": [2] * 65}, {}),
        ({"conv_kernel": [3] * 60, "conv_stride": [2] * 60}, {}),
        ({"conv_kernel": [float("inf")], "conv_stride": [5]}, {}),
        ({"conv_kernel": [10], "conv_stride": [5], "squeeze_factor": None}, {}),
        ({}, {"sampling_rate": 0}),
        ({}, {"sampling_rate": -16000}),
        ({}, {"sampling_rate": 10**12}),
        ({}, {"sampling_rate": "16000"}),
        ({}, {"sampling_rate": None}),
        ({}, {"feature_extractor_type": ["ASTFeatureExtractor"]}),
        ({}, {"feature_extractor_type": "ASTFeatureExtractor", "max_length": 10**12}),
        ({}, {"feature_extractor_type": "ASTFeatureExtractor", "num_mel_bins": 10**9}),
        ({}, {"feature_extractor_type": "ASTFeatureExtractor", "mean": "low"}),
        ({}, {"feature_extractor_type": "ASTFeatureExtractor", "std": [1.0]}),
        ({}, {"feature_extractor_type": "ASTFeatureExtractor", "sampling_rate": "16000"}),
        ({}, {"feature_extractor_type": "WhisperFeatureExtractor", "chunk_length": 10**9}),
        ({}, {"feature_extractor_type": "WhisperFeatureExtractor", "chunk_length": "30"}),
        ({}, {"feature_extractor_type": "WhisperFeatureExtractor", "hop_length": 0}),
        ({}, {"feature_extractor_type": "WhisperFeatureExtractor", "n_fft": -400}),
        ({}, {"feature_extractor_type": "WhisperFeatureExtractor", "padding_value": float("nan")}),
        ({}, {"feature_extractor_type": "SeamlessM4TFeatureExtractor", "stride": 0}),
    ],
    ids=lambda part: f"{part!s:.60}",
)
def test_a_hostile_config_is_a_model_error(config: dict[str, Any], extractor: dict[str, Any], tmp_path: Path):
    (tmp_path / "config.json").write_text(json.dumps(CONFIG | config))
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(EXTRACTOR | extractor))
    (tmp_path / "model.onnx").write_bytes(GRAPH)
    with pytest.raises(ModelError) as caught:
        repository.find(tmp_path)
    assert str(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 600


@pytest.mark.parametrize("name", ["config.json", "preprocessor_config.json"])
@pytest.mark.parametrize("content", ["[" * NESTED, "\udcff", '"' + "x" * 100])
def test_a_config_that_is_no_json_is_a_model_error(content: str, name: str, tmp_path: Path):
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(EXTRACTOR))
    (tmp_path / name).write_bytes(content.encode(errors="surrogateescape"))
    (tmp_path / "model.onnx").write_bytes(GRAPH)
    with pytest.raises(ModelError, match=f"{name} is not JSON"):
        repository.find(tmp_path)


def test_a_config_of_gigabytes_is_refused_unread(tmp_path: Path):
    with (tmp_path / "config.json").open("wb") as file:
        file.truncate(3 * 2**30)
    with pytest.raises(ModelError, match="larger than"):
        repository.find(tmp_path)


# Graphs, in the wire format of onnx.proto


def number(place: int, value: int) -> bytes:
    return varint(place << 3) + varint(value)


def value_info(name: str, *axes: str | int) -> bytes:
    dims = b"".join(field(1, number(1, axis) if isinstance(axis, int) else field(2, axis.encode())) for axis in axes)
    return field(1, name.encode()) + field(2, field(1, number(1, 1) + field(2, dims)))


def node(kind: str, inputs: Sequence[str], output: str, attribute: bytes = b"") -> bytes:
    return b"".join(field(1, name.encode()) for name in inputs) + field(2, output.encode()) + field(4, kind.encode()) + attribute


def tensor(values: Sequence[float] | None, **external: str) -> bytes:
    """Two floats called `w`, here or elsewhere."""
    head = number(1, 2) + number(2, 1) + field(8, b"w")
    if values is not None:
        return head + field(9, np.array(values, "<f4").tobytes())
    return head + b"".join(field(13, field(1, key.encode()) + field(2, value.encode())) for key, value in external.items()) + number(14, 1)


def classifier(weights: bytes, *, constant: bool = False, told: Manifest | None = None) -> bytes:
    """A model of ONNX Runtime: the clip's mean plus `w`. `constant`: the tensor lies in a node instead of the initializers."""
    nodes = [node("ReduceMean", ["input_values"], "mean"), node("Add", ["mean", "w"], "logits")]
    if constant:
        nodes.insert(0, node("Constant", [], "w", field(5, field(1, b"value") + field(5, weights) + number(20, 4))))
    parts = [field(1, each) for each in nodes] + [field(2, b"made")] + ([] if constant else [field(5, weights)])
    parts += [field(11, value_info("input_values", 1, "time")), field(12, value_info("logits", 1, 2))]
    return model(b"".join(parts), told or MADE)


def model(graph: bytes, told: Manifest) -> bytes:
    return number(1, 8) + field(7, graph) + field(8, number(2, 17)) + model_with(told.to_json()).removeprefix(GRAPH)


MADE = Manifest(
    name="made",
    rate=16000,
    labels=("quiet", "loud"),
    activation="none",
    frontend=Frontend(16000, 1, ()),
    frontend_in_graph=False,
    needs=(),
    provenance=Provenance("made", None, {}, "made", "fp32", (), {}),
)
WEIGHTS = np.array([1, 2], "<f4").tobytes()


@pytest.fixture
def beside(tmp_path: Path) -> Path:
    """A model's folder with weights in it, weights of someone else next to it, and ways to those."""
    pytest.importorskip("onnxruntime")
    folder = tmp_path / "model"
    (folder / "inside").mkdir(parents=True)
    for place in (folder, folder / "inside", tmp_path):
        (place / "w.bin").write_bytes(WEIGHTS)
    (tmp_path / "secret").write_bytes(WEIGHTS)
    (folder / "link").symlink_to(tmp_path / "secret")
    (folder / "folder").symlink_to(tmp_path)
    (folder / "*" / "_ORT_MEM_ADDR_").mkdir(parents=True)
    (folder / "*" / "_ORT_MEM_ADDR_" / "*").write_bytes(WEIGHTS)
    return folder


@pytest.mark.parametrize("constant", [False, True], ids=["initializer", "constant"])
@pytest.mark.parametrize("location", ["w.bin", "inside/w.bin", "inside/../w.bin", "./w.bin"])
def test_weights_in_a_file_beside_the_model_are_used(location: str, constant: bool, beside: Path):
    (beside / "m.onnx").write_bytes(classifier(tensor(None, location=location), constant=constant))
    assert stapes.load(beside / "m.onnx").logits([np.zeros(8, np.float32)]).tolist() == [[1, 2]]


OUTSIDE = ["../secret", "inside/../../secret", "link", "folder/secret", "{above}/secret", "/etc/passwd", "/dev/zero", "*/_ORT_MEM_ADDR_/*"]


@pytest.mark.parametrize("constant", [False, True], ids=["initializer", "constant"])
@pytest.mark.parametrize("location", OUTSIDE)
def test_weights_outside_of_the_models_folder_are_refused(location: str, constant: bool, beside: Path):
    location = location.format(above=beside.parent)
    (beside / "m.onnx").write_bytes(classifier(tensor(None, location=location, offset="0", length="8"), constant=constant))
    with pytest.raises(ModelError, match=r"m\.onnx asks for weights outside of its own folder"):
        stapes.load(beside / "m.onnx")
    with pytest.raises(ModelError, match="outside"):
        Session(beside / "m.onnx")


@pytest.mark.parametrize("location", ["gone.bin", "inside", "", "inside/gone.bin", "nul\0byte", "x" * 5000])
def test_weights_that_are_not_there_are_named(location: str, beside: Path):
    (beside / "m.onnx").write_bytes(classifier(tensor(None, location=location)))
    with pytest.raises(ModelError, match=r"m\.onnx keeps its weights in .*, which is not beside it") as caught:
        stapes.load(beside / "m.onnx")
    assert len(str(caught.value)) < 600


OUT = tensor(None, location="../secret")
HIDING_PLACES = {
    "a later location": field(7, field(5, tensor(None, location="w.bin") + field(13, field(1, b"location") + field(2, b"../secret")))),
    "a key given twice": field(7, field(5, field(13, field(1, b"x") + field(1, b"location") + field(2, b"../secret")))),
    "a sparse tensor": field(7, field(15, field(1, OUT))),
    "a sparse tensor's indices": field(7, field(15, field(2, OUT))),
    "an attribute's list": field(7, field(1, field(5, field(10, OUT)))),
    "a branch": field(7, field(1, field(5, field(6, field(5, OUT))))),
    "a branch of many": field(7, field(1, field(5, field(11, field(1, field(5, field(5, OUT))))))),
    "a sparse attribute": field(7, field(1, field(5, field(22, field(1, OUT))))),
    "a function": field(7, b"") + field(25, field(7, field(5, field(5, OUT)))),
    "a function's default": field(7, b"") + field(25, field(11, field(5, OUT))),
    "training": field(7, b"") + field(20, field(1, field(5, OUT))),
    "behind a large tensor": field(7, field(5, field(9, bytes(2**20)) + OUT)),
}


@pytest.mark.parametrize("place", HIDING_PLACES)
def test_no_place_in_a_graph_hides_external_data(place: str, beside: Path):
    (beside / "m.onnx").write_bytes(HIDING_PLACES[place])
    with pytest.raises(ModelError, match="outside of its own folder"):
        bundle.check_external_data(beside / "m.onnx")


def test_a_graph_nested_without_end_is_refused(tmp_path: Path):
    graph = field(5, OUT)
    for _ in range(2000):
        graph = field(1, field(5, field(6, graph)))
    (tmp_path / "m.onnx").write_bytes(field(7, graph))
    with pytest.raises(ModelError, match="not an ONNX file"):
        bundle.check_external_data(tmp_path / "m.onnx")


def test_a_model_that_is_a_link_may_have_its_weights_where_it_leads(beside: Path, tmp_path: Path):
    # as in the hub's cache: snapshots/<commit>/model.onnx -> ../../blobs/<hash>, and its weights likewise
    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshots" / "0"
    blobs.mkdir()
    snapshot.mkdir(parents=True)
    (blobs / "a").write_bytes(classifier(tensor(None, location="w.bin")))
    (blobs / "b").write_bytes(WEIGHTS)
    (snapshot / "m.onnx").symlink_to("../../blobs/a")
    (snapshot / "w.bin").symlink_to("../../blobs/b")
    bundle.check_external_data(snapshot / "m.onnx")
    (snapshot / "w.bin").unlink()
    (snapshot / "w.bin").symlink_to(tmp_path / "secret")
    with pytest.raises(ModelError, match="outside"):
        bundle.check_external_data(snapshot / "m.onnx")


def test_external_data_is_refused_at_the_command_line_in_one_line(beside: Path, stapes_command):
    for location in ("../secret", "gone.bin"):
        (beside / "m.onnx").write_bytes(classifier(tensor(None, location=location)))
        done = stapes_command("classify", CLIP, "-m", beside / "m.onnx")
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr.count("\n") == 1
        assert location in done.stderr


@pytest.mark.parametrize("offset", ["-4", str(10**15), "x", "4"])
def test_weights_of_another_size_are_a_model_error(offset: str, beside: Path):
    (beside / "m.onnx").write_bytes(classifier(tensor(None, location="w.bin", offset=offset, length="8")))
    with pytest.raises(ModelError, match="cannot load"):
        stapes.load(beside / "m.onnx")


@pytest.mark.parametrize("name", ["m.ort", "m", "m.onnx", "m.bin"])
def test_a_models_name_does_not_decide_how_it_is_read(name: str, beside: Path):
    (beside / name).write_bytes(classifier(tensor([1, 2])))
    assert stapes.load(beside / name).logits([np.zeros(8, np.float32)]).tolist() == [[1, 2]]


@pytest.mark.parametrize("labels", [("a",), ("a", "b", "c"), tuple("x" * 1000)])
def test_labels_that_do_not_match_the_graph_are_refused_at_load(labels: tuple[str, ...], beside: Path):
    (beside / "m.onnx").write_bytes(classifier(tensor([1, 2]), told=replace(MADE, labels=labels)))
    with pytest.raises(ModelError, match=rf"m\.onnx gives 2 logits, but {len(labels)} labels"):
        stapes.load(beside / "m.onnx")


@pytest.mark.parametrize("labels", [("a",), ("a", "b", "c")])
def test_labels_that_do_not_match_what_a_graph_leaves_open_are_refused_at_the_first_run(labels: tuple[str, ...], beside: Path):
    ends = field(11, value_info("input_values", 1, "time")) + field(12, value_info("logits", 1, "time"))
    graph = field(1, node("Identity", ["input_values"], "logits")) + field(2, b"open") + ends
    (beside / "m.onnx").write_bytes(model(graph, replace(MADE, labels=labels)))
    loaded = stapes.load(beside / "m.onnx")
    with pytest.raises(ModelError, match=rf"logits are \(1, 8\) .* {len(labels)} labels"):
        loaded(np.zeros(8, np.float32))


def test_labels_that_do_not_match_the_embedded_graph_are_exit_2(stapes_command, tmp_path: Path):
    pytest.importorskip("onnxruntime")
    (tmp_path / "m.onnx").write_bytes(DEFAULT_MODEL.read_bytes() + model_with(manifest(labels=["yes"])).removeprefix(GRAPH))
    done = stapes_command("classify", CLIP, "-m", tmp_path / "m.onnx")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1
    assert "gives 12 logits, but 1 labels" in done.stderr


def test_a_graph_for_something_else_is_refused(beside: Path):
    (beside / "m.onnx").write_bytes(classifier(tensor([1, 2]), told=replace(MADE, frontend_in_graph=True)))
    with pytest.raises(ModelError, match="takes input_values instead of waveform and lengths"):
        stapes.load(beside / "m.onnx")


def test_a_golden_test_of_years_is_refused(tmp_path: Path, stapes_command):
    pytest.importorskip("onnxruntime")
    told = manifest(golden=MANIFEST["golden"] | {"seconds": 1e9})
    (tmp_path / "m.onnx").write_bytes(DEFAULT_MODEL.read_bytes() + model_with(told).removeprefix(GRAPH))
    done = stapes_command("verify", tmp_path / "m.onnx")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1
    assert "golden test of 1e+09 s" in done.stderr
    assert stapes_command("classify", CLIP, "-m", tmp_path / "m.onnx").returncode == 0


def test_a_missing_model_is_also_a_file_not_found(tmp_path: Path):
    with pytest.raises(ModelNotFound, match=r"no model at .*gone\.onnx"):
        Session(tmp_path / "gone.onnx")
    assert frontend.RATES[0] == 100
