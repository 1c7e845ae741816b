"""A checkpoint fills its module, maps by itself, or is refused with the true reason."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import soundfile
import torch

import stapes
from stapes.errors import CheckpointError
from stapes_export import diagnose
from stapes_export.build import export
from stapes_export.fetch import fetch

LABELS = ("angry", "calm")
HIDDEN = 32


def changed(folder: Path, copy: Path, weights: dict[str, torch.Tensor] | None = None, drop: tuple[str, ...] = (), **config: object) -> Path:
    """A copy of a checkpoint with other weights and config entries; a config entry of None is left out."""
    shutil.copytree(folder, copy)
    content = json.loads((copy / "config.json").read_text()) | config
    (copy / "config.json").write_text(json.dumps({key: value for key, value in content.items() if value is not None}))
    tensors = safetensors.torch.load_file(copy / "model.safetensors")
    kept = {key: tensor for key, tensor in tensors.items() if not key.startswith(drop or ("\0",))}
    safetensors.torch.save_file(kept | (weights or {}), copy / "model.safetensors", {"format": "pt"})
    return copy


def head(out: str, labels: int = len(LABELS), seed: int = 0) -> dict[str, torch.Tensor]:
    """The weights of a head of two linear layers, as m3hrdadfi's code (out_proj) or ehcalabres' (output) name them."""
    random = torch.Generator().manual_seed(seed)
    return {
        "classifier.dense.weight": torch.randn(HIDDEN, HIDDEN, generator=random),
        "classifier.dense.bias": torch.randn(HIDDEN, generator=random),
        f"classifier.{out}.weight": torch.randn(labels, HIDDEN, generator=random),
        f"classifier.{out}.bias": torch.randn(labels, generator=random),
    }


@pytest.fixture
def foreign(made, tmp_path: Path):
    """foreign("output") -> a checkpoint whose head is classifier.dense and classifier.output."""

    def of(out: str, **config: object) -> Path:
        base = made("wav2vec2", labels=LABELS, do_stable_layer_norm=True, feat_extract_norm="layer")
        return changed(base, tmp_path / "foreign", head(out), ("classifier", "projector"), **config)

    return of


def by_hand(folder: Path, samples: np.ndarray, out: str, activation) -> np.ndarray:
    """The answer of the original code: mean over time, dense, activation, output."""
    from transformers import AutoFeatureExtractor, Wav2Vec2Model

    base = Wav2Vec2Model.from_pretrained(folder).eval()
    features = AutoFeatureExtractor.from_pretrained(folder)(samples, sampling_rate=16000, return_tensors="pt")
    weights = head(out)
    with torch.no_grad():
        pooled = base(**features).last_hidden_state.mean(1)
        dense = activation(pooled @ weights["classifier.dense.weight"].T + weights["classifier.dense.bias"])
        return (dense @ weights[f"classifier.{out}.weight"].T + weights[f"classifier.{out}.bias"])[0].numpy()


CLIP = (0.1 * np.random.default_rng(0).standard_normal(16000)).astype(np.float32)


@pytest.mark.parametrize(
    ("name", "activation"), [("dense-output", lambda x: x), ("dense-tanh-output", torch.tanh)], ids=["identity", "tanh"]
)
def test_an_ambiguous_head_is_refused_until_it_is_named(name: str, activation, foreign, tmp_path: Path):
    folder = foreign("output")
    with pytest.raises(CheckpointError, match=r"classifier\.dense\.weight.*--head dense-output or --head dense-tanh-output"):
        export(str(folder), tmp_path / "m.onnx")
    assert not (tmp_path / "m.onnx").exists()
    export(str(folder), tmp_path / "m.onnx", head=name)
    classifier = stapes.load(tmp_path / "m.onnx", device="cpu")
    assert np.allclose(classifier.logits([CLIP])[0], by_hand(folder, CLIP, "output", activation), atol=1e-4)
    assert classifier.manifest.provenance.options == {"head": name}


def test_labelled_clips_try_each_head(foreign, tmp_path: Path):
    for label, level in zip(LABELS, (0.01, 0.3), strict=True):
        (tmp_path / "clips" / label).mkdir(parents=True)
        soundfile.write(tmp_path / "clips" / label / "a.wav", level * CLIP, 16000)
    with pytest.raises(CheckpointError, match=r"dense-output is right on [\d.]+% of 2 labelled clips; dense-tanh-output is right on"):
        export(str(foreign("output")), tmp_path / "m.onnx", calibration=tmp_path / "clips")


def test_the_known_family_of_heads_maps_by_itself(foreign, tmp_path: Path):
    folder = foreign("out_proj", pooling_mode="mean")
    export(str(folder), tmp_path / "m.onnx")
    classifier = stapes.load(tmp_path / "m.onnx", device="cpu")
    assert np.allclose(classifier.logits([CLIP])[0], by_hand(folder, CLIP, "out_proj", torch.tanh), atol=1e-4)
    assert classifier.manifest.activation == "softmax"


@pytest.mark.parametrize("config", [{"problem_type": "regression"}, {"finetuning_task": "wav2vec2_reg"}])
def test_a_regression_has_no_activation(config: dict, foreign, tmp_path: Path):
    export(str(foreign("out_proj", **config)), tmp_path / "m.onnx")
    assert stapes.load(tmp_path / "m.onnx").manifest.activation == "none"


def test_another_pooling_is_refused(foreign, tmp_path: Path):
    with pytest.raises(CheckpointError, match="pooling_mode 'max'"):
        export(str(foreign("out_proj", pooling_mode="max")), tmp_path / "m.onnx")


def test_a_head_that_does_not_fit_the_keys_is_refused(foreign, made, tmp_path: Path):
    with pytest.raises(CheckpointError, match="no head dense-output; its keys fit dense-tanh-out-proj"):
        export(str(foreign("out_proj")), tmp_path / "m.onnx", head="dense-output")
    with pytest.raises(CheckpointError, match="fit none"):
        export(str(made("wav2vec2")), tmp_path / "m.onnx", head="dense-output")


def test_two_heads_are_refused_as_two_heads(made, tmp_path: Path):
    both = {f"{name}.{layer}.weight": torch.zeros(2, HIDDEN) for name in ("age", "gender") for layer in ("dense", "out_proj")}
    folder = changed(made("wav2vec2"), tmp_path / "two", both, ("classifier", "projector"))
    with pytest.raises(CheckpointError, match=r"two heads, age .* and gender"):
        export(str(folder), tmp_path / "m.onnx")


BENIGN = {
    "masked_spec_embed": torch.zeros(HIDDEN),
    "quantizer.codevectors": torch.zeros(1, 4, 4),
    "project_q.weight": torch.zeros(4, 4),
    "project_hid.weight": torch.zeros(4, 4),
    "lm_head.weight": torch.zeros(5, HIDDEN),
}


def test_what_only_pretraining_used_is_no_harm(made, tmp_path: Path):
    folder = changed(made("wav2vec2"), tmp_path / "pretrained", BENIGN)
    assert diagnose.load(fetch(str(folder)))


def test_a_missing_training_embedding_is_no_harm(made, tmp_path: Path):
    folder = changed(made("wav2vec2"), tmp_path / "m", drop=("wav2vec2.masked_spec_embed",), mask_time_prob=0.05)
    assert diagnose.load(fetch(str(folder)))


def test_a_weight_norm_under_its_older_names_is_the_same_weight(made, tmp_path: Path):
    old = "wav2vec2.encoder.pos_conv_embed.conv."
    new = f"{old}parametrizations.weight."
    tensors = safetensors.torch.load_file(made("wav2vec2") / "model.safetensors")
    legacy = {f"{old}weight_g": tensors[f"{new}original0"], f"{old}weight_v": tensors[f"{new}original1"]}
    folder = changed(made("wav2vec2"), tmp_path / "legacy", legacy, (new,))
    got, want = (diagnose.load(fetch(str(path))) for path in (folder, made("wav2vec2")))
    x = torch.from_numpy(CLIP)[None]
    assert torch.equal(got(x).logits, want(x).logits)


def test_a_whisper_decoder_is_no_harm(made, tmp_path: Path):
    decoder = {"model.decoder.embed_tokens.weight": torch.zeros(4, 32), "proj_out.weight": torch.zeros(4, 32)}
    assert diagnose.load(fetch(str(changed(made("whisper"), tmp_path / "whole", decoder))))


def test_a_missing_body_is_listed(made, tmp_path: Path):
    folder = changed(made("wav2vec2"), tmp_path / "hollow", drop=("wav2vec2.encoder.layers.1.final_layer_norm",))
    with pytest.raises(CheckpointError, match=r"missing wav2vec2\.encoder\.layers\.1\.final_layer_norm\.bias, wav2vec2"):
        diagnose.load(fetch(str(folder)))


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({"model_type": None}, "no model_type"),
        ({"speechbrain_interface": "EncoderClassifier", "model_type": None}, "SpeechBrain"),
        ({"auto_map": {"AutoModel": "modeling.Own"}}, "its own model code"),
        ({"num_labels": 7}, "num_labels 7 and names 3 labels"),
        ({"add_adapter": True}, "adapters"),
    ],
)
def test_a_checkpoint_of_another_world_is_refused_with_the_reason(config: dict, says: str, made, tmp_path: Path):
    folder = changed(made("wav2vec2"), tmp_path / "other", **config)
    with pytest.raises(CheckpointError, match=says):
        export(str(folder), tmp_path / "m.onnx")


def test_a_speechbrain_folder_is_named_as_one(tmp_path: Path):
    (tmp_path / "hyperparams.yaml").write_text("sample_rate: 16000")
    with pytest.raises(CheckpointError, match="SpeechBrain"):
        fetch(str(tmp_path))


def test_a_pickle_that_runs_code_is_refused(made, tmp_path: Path):
    folder = changed(made("wav2vec2"), tmp_path / "hostile")
    (folder / "model.safetensors").unlink()

    class Hostile:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "ran",))

    torch.save({"classifier.weight": Hostile()}, folder / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match="cannot load"):
        export(str(folder), tmp_path / "m.onnx")
    assert not (tmp_path / "ran").exists()


def test_an_extractor_nested_in_a_processor_is_found(made, tmp_path: Path):
    folder = changed(made("wav2vec2"), tmp_path / "nested")
    extractor = json.loads((folder / "preprocessor_config.json").read_text())
    (folder / "preprocessor_config.json").unlink()
    (folder / "processor_config.json").write_text(json.dumps({"feature_extractor": extractor, "processor_class": "Wav2Vec2Processor"}))
    export(str(folder), tmp_path / "m.onnx")
    assert stapes.load(tmp_path / "m.onnx").manifest.rate == 16000
