"""Each replacement equals what it replaces, and its rows see only themselves."""

import pytest
import torch
from torch import nn
from transformers import AutoModelForAudioClassification, Wav2Vec2Config
from transformers.models.wav2vec2.modeling_wav2vec2 import Wav2Vec2Attention

from stapes_export.families import FAMILIES
from stapes_export.surgery.attention import SelfAttention
from stapes_export.surgery.channels_last import BlockConv, FoldedGroupNorm, Grid, keep_convolutions, receptive_field
from stapes_export.surgery.masking import attention_bias, masked_mean, real_frames
from stapes_export.surgery.speech import ConvEncoder
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


STACKS = [([10, 3, 3, 3, 3, 2, 2], [5, 2, 2, 2, 2, 2, 2]), ([400, 3, 3], [160, 1, 2]), ([4], [3]), ([10, 3, 1, 3, 1], [5, 2, 1, 2, 1])]


@pytest.mark.parametrize(("kernels", "strides"), STACKS)
def test_padding_up_to_the_grid_adds_no_frame(kernels: list[int], strides: list[int]):
    grid, convolutions = Grid.of(kernels, strides), nn.Sequential(*(nn.Conv1d(1, 1, k, s) for k, s in zip(kernels, strides, strict=True)))
    shortest = receptive_field(kernels, strides)
    for size in range(shortest, shortest + 2 * grid.stride + 1):
        frames = convolutions(torch.zeros(1, 1, size)).shape[2]
        assert grid.above(size) == grid.stride * frames + grid.offset
        assert convolutions(torch.zeros(1, 1, grid.above(size))).shape[2] == frames


@pytest.mark.parametrize(("kernels", "strides"), STACKS)
def test_blocks_are_whole_in_every_layer_and_none_is_beyond_the_grid(kernels: list[int], strides: list[int]):
    grid = Grid.of_blocks(kernels, strides)
    assert grid.stride == Grid.of(kernels, strides).stride
    assert grid.offset <= Grid.of(kernels, strides).offset
    for steps in (1, 2, 7):
        size = grid.stride * steps + grid.offset
        assert grid.above(size) == size
        assert grid.above(size - grid.stride + 1) == size
        for kernel, stride in zip(kernels, strides, strict=True):
            assert size % stride == 0
            size = size // stride - -(-kernel // stride) + 1
        assert size == steps
    assert grid.above(0) == grid.stride + grid.offset
    assert (Grid.of_blocks(*STACKS[0]), Grid.of(*STACKS[0])) == (Grid(320, 155), Grid(320, 399))


@pytest.mark.parametrize(
    ("kernel", "stride", "bias"), [(3, 2, True), (2, 2, False), (10, 5, True), (400, 160, False), (3, 1, True), (1, 1, True), (1, 2, False)]
)
def test_products_of_blocks_are_the_strided_convolution(kernel: int, stride: int, bias: bool):
    torch.manual_seed(0)
    conv = nn.Conv1d(6, 5, kernel, stride, bias=bias)
    size = Grid.of_blocks([kernel], [stride]).above(3 * kernel + stride)
    x = torch.randn(2, 6, size)
    with torch.no_grad():
        want = conv(x).transpose(1, 2)
        products = BlockConv(conv)
        got = products(x.transpose(1, 2))
        kept = products(x.transpose(1, 2), as_products=False)
    torch.testing.assert_close(got, want, atol=FLOAT32, rtol=0)
    torch.testing.assert_close(kept, want, atol=FLOAT32, rtol=0)


def test_a_padded_or_grouped_convolution_is_refused():
    with pytest.raises(ValueError, match="plain strided"):
        BlockConv(nn.Conv1d(4, 4, 3, 2, groups=2))


def folded(norm: nn.GroupNorm, conv: nn.Conv1d, x: torch.Tensor, counts: list[int]) -> torch.Tensor:
    frames = (x.shape[1] - 10) // 5 + 1
    real = torch.arange(frames)[None] < torch.tensor(counts)[:, None]
    with torch.no_grad():
        windows, weights = FoldedGroupNorm(conv, norm)(x[:, :, None], real, frames)
        return windows @ weights


@pytest.mark.parametrize("kind", ["noise", "tone", "offset", "click"])
def test_the_folded_group_norm_is_the_norm_of_each_row(kind: str):
    torch.manual_seed(0)
    conv, norm = nn.Conv1d(1, 6, 10, 5), nn.GroupNorm(6, 6)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    samples = 5 * 400
    time = torch.arange(samples) / 16000
    signal = {
        "noise": torch.randn(samples),
        "tone": torch.sin(2 * torch.pi * 440 * time),
        "offset": 100 + 1e-2 * torch.randn(samples),
        "click": (torch.arange(samples) == 700).float(),
    }[kind]
    x, counts = torch.stack([signal, signal, signal]), [399, 211, 150]
    got = folded(norm, conv, x, counts)
    exact_conv, exact_norm = conv.double(), norm.double()
    for i, n in enumerate(counts):
        with torch.no_grad():
            want = exact_norm(exact_conv(x[i : i + 1, None, : 5 * n + 5].double()))[0].T
        # the folded weights are rounded to float32 once; a large offset is multiplied by that rounding
        budget = FLOAT32 * max(1.0, float(signal.abs().max()) * float(want.std() / signal.std().clamp(min=1e-9)) * 0.05)
        torch.testing.assert_close(got[i, :n].double(), want, atol=budget, rtol=1e-5)
    conv.float(), norm.float()


def test_kept_convolutions_give_what_products_give():
    torch.manual_seed(0)
    model = AutoModelForAudioClassification.from_config(Wav2Vec2Config(conv_dim=(8,) * 7)).eval()
    layers, config = model.wav2vec2.feature_extractor.conv_layers, model.config
    encoder = ConvEncoder(layers, config.conv_kernel, config.conv_stride)
    samples, lengths = torch.randn(2, 320 * 9 + 399), torch.tensor([3279, 1700])
    with torch.no_grad():
        want, real = encoder(samples, lengths)
        keep_convolutions(encoder)
        got, _ = encoder(samples, lengths)
    assert not encoder.layers.as_products
    torch.testing.assert_close(got[real], want[real], atol=FLOAT32, rtol=0)


def test_a_group_norm_over_several_channels_is_refused():
    with pytest.raises(ValueError, match="2 groups of 6"):
        FoldedGroupNorm(nn.Conv1d(1, 6, 10, 5), nn.GroupNorm(2, 6))


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


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("masked", [True, False])
def test_the_plain_attention_is_transformers(bias: bool, masked: bool):
    torch.manual_seed(0)
    config = Wav2Vec2Config(hidden_size=32, num_attention_heads=4)
    config._attn_implementation = "eager"
    original = Wav2Vec2Attention(32, 4, bias=bias, config=config).eval()
    for parameter in original.parameters():
        nn.init.normal_(parameter)
    hidden = torch.randn(2, 9, 32)
    real = torch.arange(9)[None] < torch.tensor([[9], [4]])
    mask = attention_bias(real, torch.float32) if masked else None
    with torch.no_grad():
        want = original(hidden, attention_mask=mask)[0]
        got = SelfAttention(original)(hidden, attention_mask=mask)[0]
    torch.testing.assert_close(got, want, atol=1e-4, rtol=1e-5)  # values of some tens


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
        got = adapted(family.grid(original.config).pad(x), lengths)
        want = torch.stack([original(row[None, :n]).logits[0] for row, n in zip(x, lengths, strict=True)])
    assert want.std(0).max() > 0.1, "the logits must differ between the clips, or equality proves nothing"
    torch.testing.assert_close(got, want, atol=FLOAT32 * max(1, float(want.abs().max())), rtol=0)
