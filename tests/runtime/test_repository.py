"""A model directory, whoever made it: what its configs mean, and which graph is picked."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from onnx_wire import GRAPH, model_with

import stapes
from stapes import repository
from stapes.bundle import Manifest, Provenance
from stapes.errors import ModelError, ModelNotFound
from stapes.frontend import Frontend
from stapes.frontend.steps import ZeroMeanUnitVariance

CONFIG = {"model_type": "wav2vec2", "id2label": {"0": "yes", "1": "no"}, "conv_kernel": [10, 3, 3], "conv_stride": [5, 2, 2]}
EXTRACTOR = {"feature_extractor_type": "Wav2Vec2FeatureExtractor", "sampling_rate": 16000}


def directory(folder: Path, *graphs: str, config: dict | None = None, extractor: dict | None = None) -> Path:
    """A model directory whose graphs are empty: nothing here runs them."""
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(CONFIG | (config or {})))
    (folder / "preprocessor_config.json").write_text(json.dumps(EXTRACTOR | (extractor or {})))
    for name in graphs:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(GRAPH)
    return folder


OURS = Manifest(
    name="owner/words",
    rate=16000,
    labels=("other", "names"),
    activation="none",
    frontend=Frontend(16000, 400, (ZeroMeanUnitVariance(1e-7),)),
    frontend_in_graph=False,
    needs=("vnni",),
    provenance=Provenance("owner/words", "0" * 40, {}, "wav2vec2", "int8", ("hub_inputs", "quantize_rows"), {"stapes": "0"}),
)


@pytest.mark.parametrize(
    ("graphs", "picked"),
    [
        (("onnx/model.onnx", "onnx/model_quantized.onnx", "model.onnx"), "onnx/model.onnx"),
        (("model.onnx", "onnx/model_quantized.onnx"), "model.onnx"),
        (("onnx/model_int8.onnx", "onnx/model_quantized.onnx", "onnx/model_fp16.onnx"), "onnx/model_quantized.onnx"),
        (("onnx/model_int8.onnx", "onnx/model_fp16.onnx"), "onnx/model_int8.onnx"),
        (("onnx/model_q4.onnx",), "onnx/model_q4.onnx"),
        (("model_optimized.onnx", "decoder_model.onnx", "modeling.onnx"), "model_optimized.onnx"),
    ],
)
def test_without_a_precision_the_plain_graph_comes_first(graphs: tuple[str, ...], picked: str, tmp_path: Path):
    folder = directory(tmp_path, *graphs)
    assert repository.find(folder).file == folder / picked


@pytest.mark.parametrize(
    ("precision", "picked"),
    [
        ("fp32", "onnx/model.onnx"),
        ("int8", "onnx/model_int8.onnx"),
        ("quantized", "onnx/model_quantized.onnx"),
        ("q8", "onnx/model_quantized.onnx"),
        ("fp16", "model_fp16.onnx"),
        ("q4f16", "onnx/model_q4f16.onnx"),
    ],
)
def test_a_precision_picks_the_graph_of_that_name(precision: str, picked: str, tmp_path: Path):
    files = ("model", "model_int8", "model_quantized", "model_q4f16")
    folder = directory(tmp_path, *(f"onnx/{name}.onnx" for name in files), "model_fp16.onnx")
    found = repository.find(folder, precision)
    assert found.file == folder / picked
    assert found.manifest.provenance.precision == {"q8": "quantized"}.get(precision, precision)


def test_a_precision_that_is_not_there_is_an_error_that_lists_what_is(tmp_path: Path):
    folder = directory(tmp_path, "onnx/model.onnx", "onnx/model_quantized.onnx")
    with pytest.raises(ModelNotFound, match=r"'int4'.*onnx/model\.onnx, onnx/model_quantized\.onnx"):
        repository.find(folder, "int4")
    with pytest.raises(ModelNotFound, match=r"model_\.\./\.\./x"):
        repository.find(folder, "../../x")


def test_several_graphs_and_none_of_them_plain_must_be_chosen_from(tmp_path: Path):
    folder = directory(tmp_path, "onnx/model_q4.onnx", "onnx/model_fp16.onnx")
    with pytest.raises(ModelError, match=r"name one by its precision: onnx/model_fp16\.onnx, onnx/model_q4\.onnx"):
        repository.find(folder)


def test_a_single_file_has_no_precision_to_pick(tmp_path: Path):
    (tmp_path / "m.onnx").write_bytes(model_with(OURS.to_json()))
    assert repository.find(tmp_path / "m.onnx").manifest == OURS
    assert repository.find(tmp_path / "m.onnx", "int8").manifest == OURS  # what it was exported with
    with pytest.raises(ModelError, match="with, int8, not fp16; precision picks a graph of a directory"):
        stapes.load(tmp_path / "m.onnx", precision="fp16")


def test_an_artifact_among_the_graphs_is_none_of_them(tmp_path: Path):
    folder = directory(tmp_path, "model_int8.stapes.onnx", "onnx/model_q4.onnx")
    assert repository.find(folder).file == folder / "onnx/model_q4.onnx"


def test_the_choice_over_a_part_of_the_files_is_the_choice_over_all(tmp_path: Path):
    names = ["onnx/model.onnx", "onnx/model_int8.onnx", "model_int8.onnx", "model_quantized.onnx", "onnx/model_q4.onnx"]
    for precision, chosen in ((None, "onnx/model.onnx"), ("q8", "model_quantized.onnx"), ("int8", "onnx/model_int8.onnx")):
        there = repository.graphs(names)
        assert there[repository.choose(there, precision, "owner/model")] == chosen
        for others in ([], names[3:], names[1:3]):
            part = repository.graphs([*others, chosen])
            assert part[repository.choose(part, precision, "owner/model")] == chosen


def test_a_snapshot_of_a_hub_is_named_by_its_id_and_commit(tmp_path: Path):
    snapshot = tmp_path / "models--owner--some-words" / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    manifest = repository.find(directory(snapshot, "model.onnx")).manifest
    assert (manifest.name, manifest.provenance.source, manifest.provenance.revision) == ("owner/some-words", "owner/some-words", "0" * 40)


def test_the_configs_make_the_manifest(tmp_path: Path):
    folder = directory(tmp_path / "words", "onnx/model.onnx")
    manifest = repository.find(folder).manifest
    assert manifest.name == "words"
    assert manifest.labels == ("yes", "no")
    assert manifest.activation == "softmax"
    assert manifest.rate == 16000
    assert not manifest.frontend_in_graph
    assert manifest.needs == ()
    assert manifest.frontend.steps == (ZeroMeanUnitVariance(1e-7),)
    assert manifest.provenance.model_type == "wav2vec2"
    assert Manifest.from_json(manifest.to_json()) == manifest


def test_what_a_graph_of_stapes_says_of_itself_is_kept(tmp_path: Path):
    folder = directory(tmp_path, "model_int8.onnx")
    (folder / "model_int8.onnx").write_bytes(model_with(OURS.to_json()))
    manifest = repository.find(folder, "int8").manifest
    assert (manifest.name, manifest.needs, manifest.provenance) == (OURS.name, OURS.needs, OURS.provenance)
    assert (manifest.labels, manifest.activation) == (("yes", "no"), "softmax")  # the directory's own word, as every host reads it
    (folder / "model_int8.onnx").write_bytes(model_with(replace(OURS, frontend_in_graph=True).to_json()))
    with pytest.raises(ModelError, match="load the file itself"):
        repository.find(folder)


def test_labels_are_sorted_by_number_not_by_letter(tmp_path: Path):
    names = {str(index): f"word {index}" for index in (10, 2, 0, 1, 11, *range(3, 10))}
    folder = directory(tmp_path, "model.onnx", config={"id2label": names})
    assert repository.find(folder).manifest.labels == tuple(f"word {index}" for index in range(12))


@pytest.mark.parametrize(("config", "count"), [({}, 2), ({"num_labels": 3}, 3)])
def test_labels_without_names_are_numbered_as_transformers_does(config: dict, count: int, tmp_path: Path):
    folder = directory(tmp_path, "model.onnx", config={"id2label": None} | config)
    assert repository.find(folder).manifest.labels == tuple(f"LABEL_{index}" for index in range(count))


@pytest.mark.parametrize(
    ("config", "activation"),
    [
        ({"problem_type": None}, "softmax"),
        ({"problem_type": "single_label_classification"}, "softmax"),
        ({"problem_type": "multi_label_classification"}, "sigmoid"),
        ({"problem_type": "regression"}, "none"),
        ({"finetuning_task": "wav2vec2_reg"}, "none"),
    ],
)
def test_the_problem_type_is_the_activation(config: dict, activation: str, tmp_path: Path):
    assert repository.find(directory(tmp_path, "model.onnx", config=config)).manifest.activation == activation


BASE = {"conv_kernel": [10, 3, 3, 3, 3, 2, 2], "conv_stride": [5, 2, 2, 2, 2, 2, 2]}
SQUEEZED = {"conv_kernel": [10, 3, 1, 3, 1, 3, 1, 3, 1, 2, 1, 2, 1], "conv_stride": [5, 2, 1, 2, 1, 2, 1, 2, 1, 2, 1, 2, 1]}


@pytest.mark.parametrize(
    ("config", "shortest"),
    [(BASE, 400), (SQUEEZED, 400), (SQUEEZED | {"squeeze_factor": 2}, 720), ({"conv_kernel": None}, 1), ({"conv_stride": None}, 1)],
)
def test_the_shortest_clip_is_what_one_frame_reads(config: dict, shortest: int, tmp_path: Path):
    assert repository.find(directory(tmp_path, "model.onnx", config=config)).manifest.frontend.min_samples == shortest


def test_the_extractor_may_need_more_than_the_model(tmp_path: Path):
    folder = directory(tmp_path, "model.onnx", extractor={"feature_extractor_type": "SeamlessM4TFeatureExtractor"})
    assert repository.find(folder).manifest.frontend.min_samples == 560


def test_an_extractor_nested_in_a_processor_is_found(tmp_path: Path):
    folder = directory(tmp_path, "model.onnx")
    (folder / "preprocessor_config.json").unlink()
    (folder / "processor_config.json").write_text(json.dumps({"feature_extractor": EXTRACTOR | {"do_normalize": False}}))
    assert repository.find(folder).manifest.frontend.steps == ()


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({"num_labels": 3}, "num_labels is 3, but id2label has 2"),
        ({"id2label": {"0": "a", "2": "b"}}, "does not number its labels 0 to 1"),
        ({"id2label": {}}, "does not number"),
        ({"id2label": {"zero": "a"}}, "maps numbers to names"),
        ({"id2label": ["a", "b"]}, "maps numbers to names"),
        ({"id2label": None, "num_labels": 0}, "from 1 up"),
        ({"conv_kernel": [10, 3]}, "equally long"),
        ({"conv_kernel": 10}, "lists of whole numbers"),
    ],
)
def test_a_config_that_contradicts_itself_is_refused(config: dict, says: str, tmp_path: Path):
    with pytest.raises(ModelError, match=says):
        stapes.load(directory(tmp_path, "model.onnx", config=config))


def test_an_unknown_extractor_is_an_error_that_lists_the_known(tmp_path: Path):
    folder = directory(tmp_path, "model.onnx", extractor={"feature_extractor_type": "ClvpFeatureExtractor"})
    with pytest.raises(ModelError, match="ASTFeatureExtractor"):
        stapes.load(folder)


@pytest.mark.parametrize("name", ["config.json", "preprocessor_config.json"])
def test_a_directory_without_a_config_is_no_model(name: str, tmp_path: Path):
    folder = directory(tmp_path, "model.onnx")
    (folder / name).write_text("{")
    with pytest.raises(ModelError, match=rf"{name} is not JSON"):
        stapes.load(folder)
    (folder / name).write_text("[]")
    with pytest.raises(ModelError, match=rf"{name} holds no JSON object"):
        stapes.load(folder)
    (folder / name).unlink()
    with pytest.raises(ModelNotFound, match=f"no {name} in"):
        stapes.load(folder)


def test_a_checkpoint_without_graphs_is_told_so(tmp_path: Path):
    folder = directory(tmp_path)
    (folder / "model.safetensors").write_bytes(b"")
    with pytest.raises(ModelNotFound, match=r"no ONNX graph in .*onnx/model\*\.onnx"):
        stapes.load(folder)


def test_info_reads_a_directory_and_its_precisions(stapes_command, tmp_path: Path):
    folder = directory(tmp_path / "words", "onnx/model.onnx", "onnx/model_fp16.onnx")
    done = stapes_command("info", folder, "--precision", "fp16")
    assert done.returncode == 0
    assert dict(line.split(maxsplit=1) for line in done.stdout.splitlines())["precision"] == "fp16"
    done = stapes_command("classify", "examples/yes.flac", "-m", folder, "--precision", "q4")
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "onnx/model_fp16.onnx" in done.stderr
