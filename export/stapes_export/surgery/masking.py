"""Which frames of a batch are real, and what must not read the others.

Rows of a batch have different lengths. A row's answer may depend on its own samples alone, so every statistic, every convolution
over time, the attention and the pooling take a mask of shape (batch, frames), True where a frame is real.
"""

import torch
from torch import Tensor


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
