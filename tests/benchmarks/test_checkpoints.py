"""Made checkpoints: of the published sizes, the same every time, and refused where clips are not told apart."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModel, AutoModelForAudioClassification

from stapes.errors import ExportError
from stapes_bench import checkpoints

torch.set_num_threads(1)

TINY = {"hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 96, "conv_dim": [32] * 7}
TINY |= {"num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 4, "classifier_proj_size": 32}
SMALL = replace(
    checkpoints.PUBLISHED["wav2vec2-base"], config=checkpoints.PUBLISHED["wav2vec2-base"].config | TINY, labels=("a", "b", "c", "d")
)


def parameters(published: checkpoints.Published) -> int:
    """Of the model without its head."""
    with torch.device("meta"):
        model = AutoModel.from_config(AutoConfig.for_model(published.model_type, **published.config))
    return sum(weight.numel() for weight in model.parameters())


@pytest.mark.parametrize(
    ("name", "millions"),
    [  # as their papers and hub pages have them
        ("wav2vec2-base", 94.37),
        ("hubert-base", 94.37),
        ("ast-base", 86.19),
        ("whisper-base", 72.59),
    ],
)
def test_a_published_config_has_the_published_number_of_parameters(name: str, millions: float):
    assert parameters(checkpoints.PUBLISHED[name]) / 1e6 == pytest.approx(millions, abs=0.01)


@pytest.mark.parametrize("name", ["wav2vec2-base", "hubert-base", "ast-base"])
def test_a_published_config_is_what_transformers_takes_the_base_model_to_be(name: str):
    published = checkpoints.PUBLISHED[name]
    default = AutoConfig.for_model(published.model_type)
    for key, value in published.config.items():
        found = getattr(default, key)
        assert (list(found) if isinstance(found, tuple) else found) == value, key


@pytest.fixture
def little(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fewer and shorter clips: the small model learns as much from them."""
    monkeypatch.setattr(checkpoints, "FITTED", 6)
    monkeypatch.setattr(checkpoints, "CHECK_S", (0.5, 1.0))
    monkeypatch.setattr(checkpoints, "FIT_S", 1.0)


@pytest.mark.usefixtures("little")
def test_a_checkpoint_is_loaded_by_transformers_and_is_the_same_every_time(tmp_path: Path):
    for name in ("one", "two"):
        shares = checkpoints.make(SMALL, tmp_path / name)
        assert min(shares.values()) >= checkpoints.LEAST_SPREAD
    files = sorted(path.name for path in (tmp_path / "one").iterdir())
    assert files == ["config.json", "model.safetensors", "preprocessor_config.json"]
    for file in files:
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()
    model, report = AutoModelForAudioClassification.from_pretrained(tmp_path / "one", output_loading_info=True)
    assert not report["missing_keys"]
    assert model.config.id2label == dict(enumerate(SMALL.labels))


@pytest.mark.usefixtures("little")
def test_weights_that_tell_nothing_apart_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(checkpoints, "fit_head", lambda *_: None)  # what makes a label's mean the same for all
    drawn = checkpoints.weighted

    def dull(published: checkpoints.Published) -> torch.nn.Module:
        model = drawn(published)
        with torch.no_grad():
            model.projector.weight.zero_()
        return model

    monkeypatch.setattr(checkpoints, "weighted", dull)
    with pytest.raises(ExportError, match="would prove nothing"):
        checkpoints.make(SMALL, tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_a_folder_that_is_there_is_not_written_over(tmp_path: Path, little: None):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("keep")
    with pytest.raises(ExportError, match="does not exist yet"):
        checkpoints.make(SMALL, tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["mine"]


def test_the_spread_between_clips_is_none_where_all_have_one_answer():
    same = np.tile(np.arange(5.0), (7, 1))
    assert checkpoints.between_clips(same) == 0
    assert checkpoints.between_clips(same - same) == 0
    told = np.random.default_rng(0).standard_normal((400, 5))
    assert checkpoints.between_clips(told) == pytest.approx(1, abs=0.02)
