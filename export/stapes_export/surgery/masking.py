"""Which frames of a batch are real, and what must not read the others.

Rows of a batch have different lengths. A row's answer may depend on its own samples alone, so every statistic, every convolution
over time, the attention and the pooling take a mask of shape (batch, frames), True where a frame is real.
"""

import torch
from torch import Tensor, nn


def real_frames(lengths: Tensor, frames: int, kernel: int, stride: int) -> Tensor:
    """(batch, frames) bool: frame t of a convolution is real when its whole window t * stride + kernel lies within the row.

    For a stack of convolutions `kernel` is the receptive field and `stride` the product of the strides. No division: ONNX rounds
    those through float32, which is wrong from 2^24 samples on.
    """
    ends = torch.arange(frames, device=lengths.device) * stride + kernel
    return ends[None] <= lengths[:, None]


def attention_bias(real: Tensor, dtype: torch.dtype) -> Tensor:
    """(batch, 1, 1, frames), to be added to attention scores: 0 where a key is real, else the lowest number."""
    return torch.where(real, 0.0, torch.finfo(dtype).min).to(dtype)[:, None, None]


def zeroed(hidden: Tensor, real: Tensor) -> Tensor:
    """(batch, frames, channels) with exact zeros where a frame is not real, whatever stood there."""
    return torch.where(real[:, :, None], hidden, 0.0)


def masked_mean(hidden: Tensor, real: Tensor) -> Tensor:
    """(batch, frames, channels) -> (batch, channels): the mean over each row's real frames."""
    return zeroed(hidden, real).sum(1) / real.sum(1, keepdim=True).to(hidden.dtype)


def blocked_sum(x: Tensor, block: int = 256) -> Tensor:
    """(batch, channels, frames) -> (batch, channels, 1): sums of blocks, then their sum.

    ONNX Runtime adds a long row nearly one by one, which costs 1e-3 in float32 on ten seconds of sound.
    """
    batch, channels, frames = x.shape
    x = nn.functional.pad(x, (0, -frames % block))
    return x.reshape(batch, channels, -1, block).sum(3).sum(2, keepdim=True)


class MaskedGroupNorm(nn.Module):
    """GroupNorm with one group a channel, its statistics over each row's real frames."""

    def __init__(self, norm: nn.GroupNorm) -> None:
        super().__init__()
        if norm.num_groups != norm.num_channels:
            raise ValueError(f"one group a channel was expected, not {norm.num_groups} groups of {norm.num_channels} channels")
        self.weight, self.bias, self.epsilon = norm.weight, norm.bias, norm.eps

    def forward(self, hidden: Tensor, real: Tensor) -> Tensor:
        """(batch, channels, frames), (batch, frames) -> (batch, channels, frames)."""
        real = real[:, None]
        count = real.sum(2, keepdim=True).to(hidden.dtype)
        mean = blocked_sum(torch.where(real, hidden, 0.0)) / count
        centred = torch.where(real, hidden - mean, 0.0)
        variance = blocked_sum(centred * centred) / count
        return centred / torch.sqrt(variance + self.epsilon) * self.weight[:, None] + self.bias[:, None]
