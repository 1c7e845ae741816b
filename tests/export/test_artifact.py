"""What holds for every artifact, whatever family and precision it has."""

import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from transformers import AutoFeatureExtractor, AutoModelForAudioClassification

import stapes
from stapes.audio import Clip
from stapes.bundle import read_manifest
from stapes.predictions import activate
from stapes_export.recipes import RECIPES

KINDS = [
    ("wav2vec2", {"feat_extract_norm": "group"}),
    ("wav2vec2", {"feat_extract_norm": "layer", "do_stable_layer_norm": True, "problem_type": "multi_label_classification"}),
    ("audio-spectrogram-transformer", {"problem_type": "regression"}),
]
IDS = ["wav2vec2-group", "wav2vec2-layer-multilabel", "ast-regression"]
RNG = np.random.default_rng(0)


def clips_for(path: Path) -> list[np.ndarray]:
    """The shortest clip, one sample more, around a second, and past five seconds."""
    shortest = read_manifest(path).frontend.min_samples
    return [(0.1 * RNG.standard_normal(n)).astype(np.float32) for n in (shortest, shortest + 1, 16000, 16122, 80000)]


def originals(folder: Path, clips: list[np.ndarray]) -> np.ndarray:
    extractor = AutoFeatureExtractor.from_pretrained(folder)
    model = AutoModelForAudioClassification.from_pretrained(folder).eval()
    answers = []
    for clip in clips:
        features = extractor(clip, sampling_rate=16000, return_tensors="pt")
        answers.append(model(**features).logits.detach().numpy()[0])
    return np.stack(answers)


def run(path: Path, waveform: np.ndarray, lengths: list[int]) -> tuple[np.ndarray, np.ndarray]:
    session = onnxruntime.InferenceSession(path)
    return session.run(["logits", "scores"], {"waveform": waveform, "lengths": np.array(lengths, np.int64)})


@pytest.mark.parametrize(("model_type", "options"), KINDS, ids=IDS)
@pytest.mark.parametrize("precision", RECIPES)
def test_answers_are_transformers_own(precision: str, model_type: str, options: dict, exported, made):
    path = exported(precision, model_type, **options)
    clips = clips_for(path)
    want = originals(made(model_type, **options), clips)
    assert want.std(0).max() > 0.1, "the logits must differ between the clips, or equality proves nothing"
    classifier = stapes.load(path, device="cpu")
    got = np.concatenate([classifier.logits([Clip(clip, 16000)]) for clip in clips])
    unit = np.maximum(1, np.abs(want).max(axis=1, keepdims=True))
    assert (np.abs(got - want) / unit).max() <= RECIPES[precision].max_difference


@pytest.mark.parametrize(("model_type", "options"), KINDS, ids=IDS)
@pytest.mark.parametrize("precision", RECIPES)
def test_a_row_depends_on_nothing_but_itself(precision: str, model_type: str, options: dict, exported):
    path = exported(precision, model_type, **options)
    clips = clips_for(path)
    budget = RECIPES[precision].batch_difference
    alone = np.concatenate([run(path, clip[None], [len(clip)])[0] for clip in clips])
    unit = np.maximum(1, np.abs(alone).max(axis=1, keepdims=True))
    longest = max(map(len, clips))
    for garbage in (0.0, 1e4, np.nan, np.inf):
        waveform = np.full((len(clips), longest), garbage, np.float32)
        for row, clip in zip(waveform, clips, strict=True):
            row[: len(clip)] = clip
        together = run(path, waveform, [len(clip) for clip in clips])[0]
        assert (np.abs(together - alone) / unit).max() <= budget, garbage


@pytest.mark.parametrize(("model_type", "options"), KINDS, ids=IDS)
def test_no_host_can_crash_the_graph(model_type: str, options: dict, exported):
    path = exported("fp32", model_type, **options)
    shortest = read_manifest(path).frontend.min_samples
    clip = (0.1 * RNG.standard_normal((1, 16000))).astype(np.float32)
    whole = run(path, clip, [16000])[0]
    assert np.array_equal(run(path, clip, [10**9])[0], whole)  # a length beyond the samples is all of them
    for lengths, samples in ([-5, 16000], [0, 16000], [shortest - 1, 16000], [5, 5], [0, 0]):
        logits, _ = run(path, clip[:, :samples], [lengths])
        assert np.isnan(logits).all(), (lengths, samples)
    assert np.isfinite(run(path, clip[:, :shortest], [shortest])[0]).all()
    mixed = run(path, np.repeat(clip, 2, axis=0), [16000, 3])[0]
    assert np.allclose(mixed[0], whole[0], atol=1e-4)
    assert np.isnan(mixed[1]).all()


@pytest.mark.parametrize(("model_type", "options"), KINDS, ids=IDS)
def test_the_graphs_scores_are_the_runtimes(model_type: str, options: dict, exported):
    path = exported("fp32", model_type, **options)
    logits, scores = run(path, (0.1 * RNG.standard_normal((2, 16000))).astype(np.float32), [16000, 12000])
    manifest = read_manifest(path)
    expected = {"multi_label_classification": "sigmoid", "regression": "none"}.get(options.get("problem_type"), "softmax")
    assert manifest.activation == expected
    np.testing.assert_allclose(scores, activate(logits, manifest.activation), atol=1e-6)


@pytest.mark.parametrize(("model_type", "options"), KINDS, ids=IDS)
@pytest.mark.parametrize("precision", RECIPES)
def test_the_file_says_what_it_is_in_standard_onnx(precision: str, model_type: str, options: dict, exported, made):
    path = exported(precision, model_type, **options)
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    assert [opset.domain for opset in model.opset_import] == [""]
    assert [entry.name for entry in model.graph.input] == ["waveform", "lengths"]
    assert [entry.name for entry in model.graph.output] == ["logits", "scores"]
    axes = [dim.dim_param or dim.dim_value for dim in model.graph.input[0].type.tensor_type.shape.dim]
    assert axes == ["batch", "samples"]
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    assert metadata.keys() == {"stapes", "labels", "sampling_rate"}
    assert json.loads(metadata["labels"]) == ["one", "two", "three"]
    assert not any(str(made(model_type, **options).parent) in text for text in (str(model), metadata["stapes"]))
    integer = [node for node in model.graph.node if node.op_type == "DequantizeLinear"]
    assert bool(integer) == precision.startswith("int8")
    manifest = read_manifest(path)
    assert manifest.frontend_in_graph
    assert manifest.parity is not None
    assert manifest.golden is not None
    assert bool(manifest.needs) == (precision == "int8")


def test_quantized_products_leave_frontend_and_head_in_float(exported):
    def products(precision: str) -> list[str]:
        model = onnx.load(exported(precision, *KINDS[2][:1], **KINDS[2][1]))
        tags = [next((p.value for p in node.metadata_props if p.key == "stapes.part"), "") for node in model.graph.node]
        return [tag for node, tag in zip(model.graph.node, tags, strict=True) if node.op_type in ("MatMul", "Gemm", "MatMulInteger")]

    assert sorted(tag for tag in products("fp32") if tag) == sorted(tag for tag in products("int8") if tag)
    assert products("fp32").count("frontend") == 2  # the DFT and the mel bank
    assert "head" in products("fp32")


HALF_SCORES = 5e-3


@pytest.mark.parametrize(("model_type", "options"), KINDS[:2], ids=IDS[:2])
def test_half_precision_keeps_scores_and_what_sums_or_normalizes_in_float(model_type: str, options: dict, exported):
    path = exported("fp16", model_type, **options)
    clips = clips_for(path)
    whole, half = (stapes.load(exported(precision, model_type, **options), device="cpu") for precision in ("fp32", "fp16"))
    scores = [activate(classifier.logits(clips), classifier.manifest.activation) for classifier in (whole, half)]
    assert np.abs(scores[0] - scores[1]).max() <= HALF_SCORES
    model = onnx.shape_inference.infer_shapes(onnx.load(path), data_prop=True)
    kinds = {entry.name: entry.type.tensor_type.elem_type for entry in [*model.graph.value_info, *model.graph.input, *model.graph.output]}
    kinds |= {entry.name: entry.data_type for entry in model.graph.initializer}
    float32, float16 = onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16
    for node in model.graph.node:
        tags = {entry.value for entry in node.metadata_props if entry.key == "stapes.part"}
        if node.op_type in ("LayerNormalization", "Softmax", "ReduceSum") or tags & {"frontend", "head"}:
            assert float16 not in {kinds.get(name) for name in [*node.input, *node.output]}, node.op_type
        elif node.op_type in ("MatMul", "Gemm", "Conv") and onnx.TensorProto.DOUBLE not in {kinds.get(name) for name in node.input}:
            assert {kinds.get(name) for name in node.output} == {float16}, node.op_type
    assert {kinds[name] for name in ("waveform", "logits", "scores")} == {float32}


def test_portable_weights_keep_to_seven_bits(exported):
    model = onnx.load(exported("int8-portable", *KINDS[0][:1], **KINDS[0][1]))
    weights = [onnx.numpy_helper.to_array(i) for i in model.graph.initializer if i.data_type == onnx.TensorProto.INT8]
    assert weights
    assert max(int(np.abs(w.astype(int)).max()) for w in weights) == 63
