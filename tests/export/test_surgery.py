"""Each replacement equals what it replaces, and its rows see only themselves."""

import pytest
import torch
from torch import nn
from transformers import AutoModelForAudioClassification

from stapes_export.families import FAMILIES
from stapes_export.surgery.masking import MaskedGroupNorm, blocked_sum, masked_mean, real_frames
from stapes_export.surgery.speech import receptive_field
from stapes_export.surgery.weight_norm import fold_weight_norm

FLOAT32 = 1e-5


def test_real_frames_are_those_whose_window_lies_within_the_row():
    kernel, stride = 10, 5
    lengths = torch.tensor([0, 9, 10, 14, 15, 100])
    real = real_frames(lengths, 30, kernel, stride)
    for n, row in zip(lengths.tolist(), real, strict=True):
        assert int(row.sum()) == max(0, (n - kernel) // stride + 1)


@pytest.mark.parametrize(("kernels", "strides"), [([10, 3, 3, 3, 3, 2, 2], [5, 2, 2, 2, 2, 2, 2]), ([400, 3, 3], [160, 1, 2]), ([4], [3])])
def test_the_receptive_field_is_the_shortest_input_that_gives_a_frame(kernels: list[int], strides: list[int]):
    convolutions = nn.Sequential(*(nn.Conv1d(1, 1, k, s) for k, s in zip(kernels, strides, strict=True)))
    shortest = receptive_field(kernels, strides)
    assert convolutions(torch.zeros(1, 1, shortest)).shape[2] == 1
    with pytest.raises(RuntimeError):
        convolutions(torch.zeros(1, 1, shortest - 1))


@pytest.mark.parametrize("n", [1, 255, 256, 257, 5000])
def test_blocked_sums_are_sums(n: int):
    x = torch.randn(2, 3, n, dtype=torch.float64)
    torch.testing.assert_close(blocked_sum(x), x.sum(2, keepdim=True))


def test_the_masked_group_norm_is_the_group_norm_of_each_row():
    torch.manual_seed(0)
    norm = nn.GroupNorm(6, 6)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    x, counts = torch.randn(3, 6, 50), [50, 31, 2]
    real = torch.arange(50)[None] < torch.tensor(counts)[:, None]
    got = MaskedGroupNorm(norm)(x, real)
    for i, n in enumerate(counts):
        torch.testing.assert_close(got[i, :, :n], norm(x[i : i + 1, :, :n])[0], atol=FLOAT32, rtol=0)


def test_a_group_norm_over_several_channels_is_refused():
    with pytest.raises(ValueError, match="2 groups of 6"):
        MaskedGroupNorm(nn.GroupNorm(2, 6))


def test_the_masked_mean_reads_no_garbage():
    x = torch.ones(2, 4, 3)
    x[1, 2:] = torch.nan
    real = torch.tensor([[True] * 4, [True, True, False, False]])
    assert torch.equal(masked_mean(x, real), torch.ones(2, 3))


def test_folding_the_weight_norm_changes_no_value():
    conv = nn.utils.parametrizations.weight_norm(nn.Conv1d(4, 4, 3), dim=2)
    nn.init.normal_(conv.parametrizations.weight.original0)
    x = torch.randn(1, 4, 20)
    want = conv(x)
    fold_weight_norm(conv)
    assert "weight" in dict(conv.named_parameters())
    torch.testing.assert_close(conv(x), want)


SPEECH_OPTIONS = [
    {"feat_extract_norm": "group", "do_stable_layer_norm": False},
    {"feat_extract_norm": "layer", "do_stable_layer_norm": True},
    {"feat_extract_norm": "group", "do_stable_layer_norm": False, "use_weighted_layer_sum": True},
    {"feat_extract_norm": "layer", "do_stable_layer_norm": False, "conv_bias": True},
]


@pytest.mark.parametrize("options", SPEECH_OPTIONS, ids=lambda o: "-".join(map(str, o.values())))
def test_the_adapted_module_equals_transformers_row_by_row(options: dict, made):
    folder = made("wav2vec2", **options)
    original = AutoModelForAudioClassification.from_pretrained(folder, attn_implementation="eager").eval()
    family = next(family for family in FAMILIES if family.model_type == "wav2vec2")
    copy = AutoModelForAudioClassification.from_pretrained(folder, attn_implementation="eager")
    adapted = family.adapt(copy, "v5").eval()  # transformers 5 is what it is compared with
    torch.manual_seed(1)
    lengths = torch.tensor([4000, 1717, family.min_samples(original.config)])
    x = torch.randn(3, 4000)
    for row, n in zip(x, lengths, strict=True):
        row[n:] = 1e4
    with torch.no_grad():
        got = adapted(x, lengths)
        want = torch.stack([original(row[None, :n]).logits[0] for row, n in zip(x, lengths, strict=True)])
    assert want.std(0).max() > 0.1, "the logits must differ between the clips, or equality proves nothing"
    torch.testing.assert_close(got, want, atol=FLOAT32 * max(1, float(want.abs().max())), rtol=0)
