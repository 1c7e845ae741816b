"""Directories of graphs and configs: those we write, read by us and by the hosts they are for; and those that others wrote."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from int8_here import INT8
from onnx import TensorProto, helper
from transformers import AutoFeatureExtractor, AutoModelForAudioClassification

import stapes
from stapes.audio import Clip
from stapes.errors import ExportError, ModelError, ParityError
from stapes.frontend import huggingface
from stapes_export import verify
from stapes_export.build import export
from stapes_export.recipes import RECIPES
from stapes_export.targets import hub

KINDS = {
    "wav2vec2-group": ("wav2vec2", {"feat_extract_norm": "group"}, 400),
    "wav2vec2-layer-mask": ("wav2vec2", {"feat_extract_norm": "layer", "return_attention_mask": True}, 400),
    "sew-group-mask": ("sew", {"return_attention_mask": True, "problem_type": "multi_label_classification"}, 720),
    "ast": ("audio-spectrogram-transformer", {"problem_type": "regression"}, 400),
    "whisper": ("whisper", {}, 1),
    "wav2vec2-bert": ("wav2vec2-bert", {}, 560),
}
"""name -> model_type, options, shortest clip."""

MASKED = ("wav2vec2-layer-mask", "sew-group-mask", "wav2vec2-bert")

PARITY = {"fp32": 1e-4, "int8": 0.2}  # of max(1, largest logit): what each precision may cost
NEIGHBOURS = 1e-5  # of the same: a batch only changes the order of sums


def clips(shortest: int) -> list[np.ndarray]:
    """The shortest clip, one sample more, a second, a little more (an odd number of mel frames), and past five seconds."""
    rng = np.random.default_rng(0)
    return [(rng.uniform(0.01, 0.3) * rng.standard_normal(n)).astype(np.float32) for n in (shortest, shortest + 1, 16000, 16122, 80000)]


def originals(folder: Path, clips: Sequence[np.ndarray]) -> np.ndarray:
    extractor = AutoFeatureExtractor.from_pretrained(folder)
    model = AutoModelForAudioClassification.from_pretrained(folder).eval()
    with torch.no_grad():
        return np.concatenate([model(**extractor(clip, sampling_rate=16000, return_tensors="pt")).logits.numpy() for clip in clips])


def off(got: np.ndarray, want: np.ndarray) -> float:
    """Largest difference of a logit, in units of max(1, largest logit of the clip)."""
    return float((np.abs(got - want) / np.maximum(1, np.abs(want).max(axis=1, keepdims=True))).max())


@pytest.fixture(scope="module")
def written(made, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """written("ast") -> the hub layout of that kind, in fp32 and int8."""
    done: dict[str, Path] = {}

    def of(kind: str) -> Path:
        if kind not in done:
            model_type, options, _ = KINDS[kind]
            done[kind] = tmp_path_factory.mktemp("hub") / kind
            export(str(made(model_type, **options)), done[kind], INT8, layout="hub")
        return done[kind]

    return of


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("precision", PARITY)
def test_the_directory_answers_as_transformers(kind: str, precision: str, written, made, record_property):
    model_type, options, shortest = KINDS[kind]
    sounds = clips(shortest)
    want = originals(made(model_type, **options), sounds)
    assert want.std(axis=0).max() > 0.01 * np.abs(want).max(), "the logits must differ between the clips, or equality proves nothing"
    classifier = stapes.load(written(kind), device="cpu", precision=precision)
    assert classifier.manifest.frontend.min_samples == shortest
    got = np.concatenate([classifier.logits([Clip(sound, 16000)]) for sound in sounds])
    record_property("difference", off(got, want))
    assert off(got, want) <= PARITY[precision]
    together = classifier.logits([Clip(sound, 16000) for sound in (*sounds, sounds[2])])
    assert off(together[:-1], got) <= NEIGHBOURS
    assert np.array_equal(together[-1], together[2])


@pytest.mark.parametrize("kind", KINDS)
def test_the_graphs_take_what_the_extractor_gives(kind: str, written, made):
    model_type, options, _ = KINDS[kind]
    extractor = AutoFeatureExtractor.from_pretrained(made(model_type, **options))
    given = extractor(np.zeros(16000, np.float32), sampling_rate=16000, return_tensors="np")
    files = sorted(path.name for path in (written(kind) / "onnx").iterdir())
    assert files == ["model.onnx", "model_int8.onnx", "model_quantized.onnx"]
    assert (written(kind) / "onnx/model_int8.onnx").read_bytes() == (written(kind) / "onnx/model_quantized.onnx").read_bytes()
    for name in files[:2]:
        model = onnx.load(written(kind) / "onnx" / name)
        onnx.checker.check_model(model, full_check=True)
        assert [opset.domain for opset in model.opset_import] == [""]
        assert {entry.name for entry in model.graph.input} == set(given)
        assert [entry.name for entry in model.graph.output] == ["logits"]
        types = {entry.name: entry.type.tensor_type.elem_type for entry in model.graph.input}
        assert types.pop("attention_mask", TensorProto.INT64) == TensorProto.INT64
        assert set(types.values()) == {TensorProto.FLOAT}
        assert any(node.op_type == "DequantizeLinear" for node in model.graph.node) == (name != "model.onnx")


@pytest.mark.parametrize("kind", KINDS)
def test_the_directory_says_what_it_is(kind: str, written, made):
    model_type, options, _ = KINDS[kind]
    folder = made(model_type, **options)
    assert (written(kind) / "config.json").read_bytes() == (folder / "config.json").read_bytes()
    said, complete = (json.loads((where / "preprocessor_config.json").read_text()) for where in (folder, written(kind)))
    assert said.items() < complete.items()  # transformers.js knows no defaults
    plain, small = (stapes.load(written(kind), precision=precision).manifest for precision in PARITY)
    assert plain.labels == ("one", "two", "three")
    assert plain.activation == {"sew-group-mask": "sigmoid", "ast": "none"}.get(kind, "softmax")
    assert (plain.provenance.precision, small.provenance.precision) == ("fp32", INT8)
    assert plain.provenance.passes == ("constant_shapes", "hub_inputs", "plain_sums")
    assert (plain.needs, bool(small.needs)) == ((), INT8 == "int8")
    assert plain.parity is not None
    assert plain.parity.max_difference <= PARITY["fp32"]
    for precision in PARITY:
        classifier = stapes.load(written(kind), device="cpu", precision=precision)
        golden = classifier.manifest.golden
        assert golden is not None
        assert np.abs(classifier.logits([Clip(golden.signal(16000), 16000)])[0] - golden.logits).max() <= golden.tolerance


@pytest.mark.parametrize("kind", MASKED)
def test_what_the_mask_hides_has_no_say(kind: str, written, made):
    model_type, options, _ = KINDS[kind]
    extractor = AutoFeatureExtractor.from_pretrained(made(model_type, **options))
    session = onnxruntime.InferenceSession(written(kind) / "onnx" / "model.onnx")
    sounds = clips(16000)[:4]
    alone = []
    padded = extractor(sounds, sampling_rate=16000, return_tensors="np", padding=True)
    for sound in sounds:
        given = extractor(sound, sampling_rate=16000, return_tensors="np")
        alone.append(session.run(["logits"], {**given, "attention_mask": given["attention_mask"].astype(np.int64)})[0])
    mask = padded.pop("attention_mask").astype(np.int64)
    ((name, features),) = padded.items()
    for garbage in (0.0, 1e4, np.nan):
        behind = mask == 0
        features[behind] = garbage
        together = session.run(["logits"], {name: features, "attention_mask": mask})[0]
        assert off(together, np.concatenate(alone)) <= NEIGHBOURS, garbage


def test_every_extractor_and_every_precision_has_its_names():
    assert hub.INPUTS.keys() == huggingface.BUILDERS.keys()
    assert hub.SUFFIXES.keys() >= RECIPES.keys()


def test_an_earlier_layout_is_replaced_whole_and_nothing_else_is(made, tmp_path: Path, written):
    out = tmp_path / "out"
    shutil.copytree(written("wav2vec2-group"), out)
    export(str(made("wav2vec2", feat_extract_norm="group")), out, layout="hub")
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["config.json", "model.onnx", "onnx", "out", "preprocessor_config.json"]


@pytest.mark.parametrize("stranger", ["README.md", "onnx/model_q4.onnx", "model.safetensors"])
def test_a_directory_with_anything_else_in_it_is_left_alone(stranger: str, made, tmp_path: Path):
    (tmp_path / "out" / "onnx").mkdir(parents=True)
    (tmp_path / "out" / stranger).write_text("mine")
    with pytest.raises(ExportError, match=rf"{stranger}.*no part of a hub layout"):
        export(str(made("wav2vec2")), tmp_path / "out", layout="hub")
    assert (tmp_path / "out" / stranger).read_text() == "mine"


def test_configs_alone_are_no_earlier_layout_and_a_file_is_no_directory(made, tmp_path: Path):
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ExportError, match=r"holds config\.json and no graphs"):
        export(str(made("wav2vec2")), tmp_path, layout="hub")
    with pytest.raises(ExportError, match="is a file"):
        export(str(made("wav2vec2")), tmp_path / "config.json", layout="hub")


def test_a_complete_description_of_the_extractor_is_copied_as_it_is(made, tmp_path: Path):
    folder = tmp_path / "checkpoint"
    shutil.copytree(made("audio-spectrogram-transformer", problem_type="regression"), folder)
    AutoFeatureExtractor.from_pretrained(folder).save_pretrained(folder)
    export(str(folder), tmp_path / "out", layout="hub")
    for name in ("config.json", "preprocessor_config.json"):
        assert (tmp_path / "out" / name).read_bytes() == (folder / name).read_bytes()


def test_a_write_that_fails_leaves_what_was_there(written, tmp_path: Path):
    shutil.copytree(written("ast"), tmp_path / "out")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(ExportError, match="cannot write"), hub.replacing(tmp_path / "out") as part:
        (part / "no such folder" / "model.onnx").write_bytes(b"new")
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_an_answer_beyond_the_budget_writes_no_directory(made, tmp_path: Path, monkeypatch):
    real = verify.Reference.__call__
    monkeypatch.setattr(verify.Reference, "__call__", lambda self, x: real(self, x) + 0.1)
    with pytest.raises(ParityError, match="nothing was written"):
        export(str(made("audio-spectrogram-transformer", problem_type="regression")), tmp_path / "out", layout="hub")
    assert list(tmp_path.iterdir()) == []


# What others may have written.


def foreign(folder: Path, inputs: dict[str, tuple[int, list]], nodes: list[onnx.NodeProto], output: str = "logits") -> Path:
    """A directory with a hand-made graph; its extractor hands the samples on as they are."""
    (folder / "onnx").mkdir()
    (folder / "config.json").write_text(json.dumps({"id2label": {"0": "sum", "1": "peak"}, "problem_type": "regression"}))
    extractor = {"feature_extractor_type": "Wav2Vec2FeatureExtractor", "do_normalize": False}
    (folder / "preprocessor_config.json").write_text(json.dumps(extractor))
    entries = [helper.make_tensor_value_info(name, kind, shape) for name, (kind, shape) in inputs.items()]
    logits = helper.make_tensor_value_info(output, TensorProto.FLOAT, [None, None])
    axis = helper.make_tensor("axis", TensorProto.INT64, [1], [1])
    graph = helper.make_graph(nodes, "foreign", entries, [logits], [axis])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8), folder / "onnx" / "model.onnx")
    return folder


def sum_and_peak(kind: int, output: str = "logits") -> list[onnx.NodeProto]:
    """The sum of each row, and the peak of the whole batch: a graph whose rows see each other."""
    nodes = [helper.make_node("Cast", ["input_values"], ["x"], to=TensorProto.FLOAT)]
    nodes += [helper.make_node("ReduceSum", ["x", "axis"], ["sums"], keepdims=1)]
    nodes += [helper.make_node("ReduceMax", ["x"], ["peak"], keepdims=1), helper.make_node("Mul", ["sums", "peak"], ["product"])]
    return [*nodes, helper.make_node("Concat", ["sums", "product"], [output], axis=1)]


def test_clips_of_different_lengths_are_never_padded_together(tmp_path: Path):
    folder = foreign(tmp_path, {"input_values": (TensorProto.FLOAT, ["b", "t"])}, sum_and_peak(TensorProto.FLOAT))
    short, long = np.full(100, 0.25, np.float32), np.full(200, 0.5, np.float32)
    answers = stapes.load(folder).logits([short, long, short])
    np.testing.assert_array_equal(answers, [[25, 6.25], [100, 50], [25, 6.25]])


@pytest.mark.parametrize("mask_type", [TensorProto.INT64, TensorProto.INT32, TensorProto.FLOAT, TensorProto.BOOL])
def test_a_graph_gets_the_types_it_was_made_for_and_its_own_batch(mask_type: int, tmp_path: Path):
    inputs = {"attention_mask": (mask_type, [1, "t"]), "input_values": (TensorProto.FLOAT16, [1, "t"])}
    nodes = [helper.make_node("Cast", ["attention_mask"], ["mask"], to=TensorProto.FLOAT)]
    nodes += [helper.make_node("ReduceSum", ["mask", "axis"], ["real"], keepdims=1)]
    nodes += [helper.make_node("Cast", ["input_values"], ["x"], to=TensorProto.FLOAT)]
    nodes += [helper.make_node("ReduceSum", ["x", "axis"], ["sums"], keepdims=1)]
    nodes += [helper.make_node("Concat", ["sums", "real"], ["logits"], axis=1)]
    answers = stapes.load(foreign(tmp_path, inputs, nodes)).logits([np.full(8, 0.5, np.float32)] * 2)
    np.testing.assert_array_equal(answers, [[4, 8], [4, 8]])


def test_a_graph_that_is_no_classifier_of_this_config_is_refused(tmp_path: Path):
    def case(name: str, *arguments: object) -> Path:
        (tmp_path / name).mkdir()
        return foreign(tmp_path / name, *arguments)

    samples = (TensorProto.FLOAT, ["b", "t"])
    with pytest.raises(ModelError, match="takes input_values, speaker; an audio classifier takes input_values or input_features"):
        stapes.load(case("inputs", {"input_values": samples, "speaker": samples}, sum_and_peak(1)))
    with pytest.raises(ModelError, match="gives states and no logits"):
        stapes.load(case("outputs", {"input_values": samples}, sum_and_peak(1, "states"), "states"))
    wide = case("labels", {"input_values": samples}, [helper.make_node("Identity", ["input_values"], ["logits"])])
    with pytest.raises(ModelError, match=r"logits are \(1, 8\).*2 labels"):
        stapes.load(wide).logits([np.zeros(8, np.float32)])


# The hosts that the layout is for, each as its users install it.

OPTIMUM = ("optimum-onnx[onnxruntime]", "transformers<4.58", f"torch=={torch.__version__.split('+')[0]}")
TRANSFORMERS_JS = "@huggingface/transformers@4"

BY_OPTIMUM = """
import sys
import numpy as np
from optimum.onnxruntime import ORTModelForAudioClassification
from transformers import AutoFeatureExtractor

folder, sounds, answers = sys.argv[1:]
sounds = np.load(sounds)
extractor = AutoFeatureExtractor.from_pretrained(folder)
found = {}
for name in ("model", "model_int8", "model_quantized"):
    model = ORTModelForAudioClassification.from_pretrained(folder, subfolder="onnx", file_name=f"{name}.onnx")
    given = [extractor(sounds[key], sampling_rate=16000, return_tensors="np") for key in sounds]
    found[name] = np.concatenate([model(**each).logits for each in given])
np.savez(answers, **found)
"""

FROM_OPTIMUM = """
import sys
from optimum.onnxruntime import ORTModelForAudioClassification, ORTQuantizer
from optimum.onnxruntime.configuration import AutoQuantizationConfig
from transformers import AutoFeatureExtractor

folder, out = sys.argv[1:]
model = ORTModelForAudioClassification.from_pretrained(folder, export=True)
model.save_pretrained(out)
AutoFeatureExtractor.from_pretrained(folder).save_pretrained(out)
settings = AutoQuantizationConfig.avx512_vnni(is_static=False, operators_to_quantize=["MatMul"])
ORTQuantizer.from_pretrained(model).quantize(settings, out)
"""

BY_TRANSFORMERS_JS = """
import fs from "node:fs";
import path from "node:path";
import { AutoModelForAudioClassification, AutoProcessor, env, pipeline } from "@huggingface/transformers";

const [folder, sounds, answers] = process.argv.slice(2);
env.allowRemoteModels = false;
env.localModelPath = path.dirname(folder);
const name = path.basename(folder);
const processor = await AutoProcessor.from_pretrained(name);
const found = { pipeline: [] };
for (const dtype of ["fp32", "int8", "q8"]) {
  const model = await AutoModelForAudioClassification.from_pretrained(name, { dtype, device: "cpu" });
  found[dtype] = [];
  for (const sound of JSON.parse(fs.readFileSync(sounds))) {
    const { logits } = await model(await processor(Float32Array.from(sound)));
    found[dtype].push(Array.from(logits.data));
  }
}
const classify = await pipeline("audio-classification", name, { dtype: "fp32", device: "cpu" });
for (const sound of JSON.parse(fs.readFileSync(sounds))) found.pipeline.push(await classify(Float32Array.from(sound), { top_k: 3 }));
fs.writeFileSync(answers, JSON.stringify(found));
"""


def run(*command: str | Path, **options: object) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")} | {"HF_HUB_OFFLINE": "1"}
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, env=environment, timeout=1200, **options)
    assert done.returncode == 0, f"{done.stdout[-2000:]}\n{done.stderr[-4000:]}"


def installed(what: str, *command: str | Path, **options: object) -> None:
    """Runs an installer; the test is skipped where it cannot do its work."""
    try:
        done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=1200, **options)
    except (OSError, subprocess.TimeoutExpired) as error:
        pytest.skip(f"{what} cannot be installed here: {error}")
    if done.returncode:
        pytest.skip(f"{what} cannot be installed here: {(done.stderr.strip().splitlines() or ['no reason given'])[-1]}")


@pytest.fixture(scope="module")
def optimum(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The interpreter of an environment with optimum-onnx, which does not go together with the exporter's transformers."""
    folder = tmp_path_factory.mktemp("optimum")
    run(sys.executable, "-m", "venv", folder / "env")
    installed("optimum-onnx", folder / "env/bin/python", "-m", "pip", "install", "--quiet", *OPTIMUM)
    yield folder / "env/bin/python"
    shutil.rmtree(folder)  # two gigabytes, which pytest would keep for three sessions


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with transformers.js in node_modules; its packages bring the binaries for a CPU, so no install script need run."""
    folder = tmp_path_factory.mktemp("node")
    if not (shutil.which("node") and shutil.which("npm")):
        pytest.skip("node and npm are not on this machine")
    (folder / "package.json").write_text('{"private": true, "type": "module"}')
    installed("transformers.js", "npm", "install", "--ignore-scripts", "--no-audit", "--no-fund", TRANSFORMERS_JS, cwd=folder)
    (folder / "answer.js").write_text(BY_TRANSFORMERS_JS)
    yield folder
    shutil.rmtree(folder)


@pytest.mark.slow
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "wav2vec2-bert"])  # it has no input_features but whisper's
def test_optimum_runs_what_we_write(kind: str, optimum: Path, written, made, tmp_path: Path, record_property):
    model_type, options, shortest = KINDS[kind]
    sounds = clips(shortest)
    np.savez(tmp_path / "sounds.npz", *sounds)
    run(optimum, "-c", BY_OPTIMUM, written(kind), tmp_path / "sounds.npz", tmp_path / "answers.npz")
    found = np.load(tmp_path / "answers.npz")
    want = originals(made(model_type, **options), sounds)
    ours = np.concatenate([stapes.load(written(kind), precision="int8").logits([Clip(sound, 16000)]) for sound in sounds])
    record_property("fp32", off(found["model"], want))
    record_property("int8", off(found["model_int8"], want))
    record_property("int8 against ours", off(found["model_int8"], ours))
    assert off(found["model"], want) <= PARITY["fp32"]
    assert off(found["model_int8"], want) <= PARITY["int8"]
    np.testing.assert_array_equal(found["model_quantized"], found["model_int8"])


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["wav2vec2-group", "ast", "whisper"])
def test_we_run_what_optimum_writes(kind: str, optimum: Path, made, tmp_path: Path, record_property):
    model_type, options, shortest = KINDS[kind]
    sounds = clips(shortest)
    run(optimum, "-c", FROM_OPTIMUM, made(model_type, **options), tmp_path / "theirs")
    want = originals(made(model_type, **options), sounds)
    for precision, budget in (("fp32", PARITY["fp32"]), ("quantized", PARITY["int8"])):
        classifier = stapes.load(tmp_path / "theirs", device="cpu", precision=precision)
        assert classifier.manifest.frontend.min_samples == shortest
        got = np.concatenate([classifier.logits([Clip(sound, 16000)]) for sound in sounds])
        record_property(precision, off(got, want))
        assert off(got, want) <= budget
        loud = classifier.logits([Clip(sound, 16000) for sound in (sounds[2], 100 * sounds[2], sounds[0])])
        assert off(loud[[0, 2]], got[[2, 0]]) <= NEIGHBOURS  # also in their int8, which has one scale a batch


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["wav2vec2-group", "wav2vec2-layer-mask", "ast", "wav2vec2-bert"])  # the others it does not know
def test_transformers_js_runs_what_we_write(kind: str, node: Path, written, made, tmp_path: Path, record_property):
    model_type, options, shortest = KINDS[kind]
    sounds = clips(shortest)
    (tmp_path / "sounds.json").write_text(json.dumps([sound.tolist() for sound in sounds]))
    run("node", "answer.js", written(kind), tmp_path / "sounds.json", tmp_path / "answers.json", cwd=node)
    found = json.loads((tmp_path / "answers.json").read_text())
    want = originals(made(model_type, **options), sounds)
    for precision, budget in (("fp32", PARITY["fp32"]), ("int8", PARITY["int8"]), ("q8", PARITY["int8"])):
        record_property(precision, off(np.array(found[precision]), want))
        assert off(np.array(found[precision]), want) <= budget
    classifier = stapes.load(written(kind))
    for sound, answer in zip(sounds, found["pipeline"], strict=True):
        assert [entry["label"] for entry in answer] == [entry.label for entry in classifier(Clip(sound, 16000), top_k=3)]
