"""Strided convolutions over (batch, frames, channels) as products with constant weights, which is what is fast and what int8 needs.

    y[i] = sum_j  x[s i + j] W_j  =  sum_b  block[i + b] W_[b s, (b+1) s)        block[i] = x[s i], ..., x[s i + s - 1]  side by side

A convolution of k taps at stride s is ceil(k / s) products on blocks of s frames. A block is a reshape, so nothing is copied but what the
second product skips, and no layer needs a transpose around its norm.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import Tensor, nn


def receptive_field(kernels: Sequence[int], strides: Sequence[int]) -> int:
    """Samples that one frame behind a stack of convolutions reads: the fewest that give a frame."""
    return 1 + sum((kernel - 1) * prod(strides[:i]) for i, kernel in enumerate(kernels))


@dataclass(frozen=True)
class Grid:
    """Sizes of a time axis, an arithmetic progression: stride * n + offset, n from 1 up. A tracer that knows it can divide exactly."""

    stride: int
    offset: int

    @classmethod
    def of(cls, kernels: Sequence[int], strides: Sequence[int]) -> "Grid":
        """The largest sizes for which a stack of convolutions gives n frames, so that padding up to one adds no frame.

        (10, 3, 3, 3, 3, 2, 2) at (5, 2, 2, 2, 2, 2, 2): 320 n + 399.
        """
        return cls(prod(strides), receptive_field(kernels, strides) - 1)

    @classmethod
    def of_blocks(cls, kernels: Sequence[int], strides: Sequence[int]) -> "Grid":
        """The sizes on which each layer's frames fall into whole blocks and the last layer gives n; none is above that of `of`.

        (10, 3, 3, 3, 3, 2, 2) at (5, 2, 2, 2, 2, 2, 2): 320 n + 155.
        """
        offset = 0
        for kernel, step in reversed(list(zip(kernels, strides, strict=True))):
            offset = (offset + -(-kernel // step) - 1) * step
        return cls(prod(strides), offset)

    def above(self, size: int) -> int:
        """The smallest size of the grid that is no less than `size`."""
        return self.stride * max(1, -(-(size - self.offset) // self.stride)) + self.offset

    def pad(self, x: Tensor) -> Tensor:
        """(batch, time, ...) with zeros behind, up to the grid."""
        missing = self.above(x.shape[1]) - x.shape[1]
        return nn.functional.pad(x, (0, 0) * (x.ndim - 2) + (0, missing))


class BlockConv(nn.Module):
    """A Conv1d: (batch, frames, channels) with frames = stride * (n + ceil(kernel / stride) - 1) -> (batch, n, channels out).

    At stride 1 a block is one frame; there the taps of one output are laid side by side instead, for one product.
    """

    def __init__(self, conv: nn.Conv1d) -> None:
        super().__init__()
        (self.kernel,), (self.stride,) = conv.kernel_size, conv.stride
        if conv.groups != 1 or conv.dilation != (1,):
            raise ValueError(f"a plain strided convolution was expected, not {conv}")
        self.kept = conv.weight
        taps = conv.weight.detach().permute(2, 1, 0)  # (kernel, in, out)
        step = self.kernel if self.stride == 1 else self.stride
        self.weights = nn.ParameterList(
            taps[start : start + step].reshape(-1, conv.out_channels).contiguous() for start in range(0, self.kernel, step)
        )
        self.bias = conv.bias

    def forward(self, hidden: Tensor, as_products: bool = True) -> Tensor:
        if not as_products:
            return nn.functional.conv1d(hidden.transpose(1, 2), self.kept, self.bias, self.stride).transpose(1, 2)
        batch, frames, channels = hidden.shape
        blocks, count = hidden, frames - self.kernel + 1
        if self.stride == 1 < self.kernel:
            blocks = torch.cat([hidden[:, start : count + start] for start in range(self.kernel)], 2)
        elif self.stride > 1:
            blocks = hidden.reshape(batch, frames // self.stride, self.stride * channels)
            count = blocks.shape[1] - len(self.weights) + 1
        products = []
        for start, weight in enumerate(self.weights):
            taken = blocks[:, start : count + start]
            products.append((taken if len(weight) == taken.shape[2] else taken[:, :, : len(weight)]) @ weight)
        result: Tensor = sum(products[1:], products[0])
        return result if self.bias is None else result + self.bias


class FoldedGroupNorm(nn.Module):
    """The first convolution, one channel in, and the group norm behind it, as one product: what goes in, and its weights.

    (batch, samples, 1) in whole blocks, real frames (batch, all), how many frames are wanted
    -> (batch, wanted, kernel + 1), (batch, kernel + 1, channels)

    A convolution is linear, so each channel's mean and variance over a clip follow from those of its windows, kernel numbers wide:

        mean(W x) = W mean(x),      var(W x) = diag(W cov(x) W')

    The norm becomes a scale of the weights and a bias for each clip, and no pass over frames x channels is left of it. The statistics
    are in float64: in float32 the covariance of a pure tone costs 4e-3, in float64 this is closer to the exact value than the norm itself.
    """

    def __init__(self, conv: nn.Conv1d, norm: nn.GroupNorm) -> None:
        super().__init__()
        if norm.num_groups != norm.num_channels:
            raise ValueError(f"one group a channel was expected, not {norm.num_groups} groups of {norm.num_channels} channels")
        (self.kernel,), (self.stride,) = conv.kernel_size, conv.stride
        self.register_buffer("taps", conv.weight.detach()[:, 0].T.contiguous())  # (kernel, channels); the norm removes any bias
        self.gain, self.shift, self.epsilon = norm.weight, norm.bias, norm.eps

    def forward(self, samples: Tensor, real: Tensor, wanted: int) -> tuple[Tensor, Tensor]:
        windows = self.windows(samples)
        counted = real[:, :, None].double()
        count = counted.sum(1, keepdim=True)
        exact = windows.double()
        mean = (exact * counted).sum(1, keepdim=True) / count
        centred = (exact - mean) * counted
        covariance = centred.transpose(1, 2) @ centred / count
        taps = self.get_buffer("taps").double()
        variance = ((covariance @ taps) * taps).sum(1, keepdim=True).clamp(min=0)
        scale = self.gain / torch.sqrt(variance + self.epsilon)
        weights = torch.cat([taps * scale, self.shift - (mean @ taps) * scale], 1).float()
        # the bias is one weight more, on a column of ones: adding it afterwards would be a pass over frames x channels
        return torch.cat([windows, torch.ones_like(windows[:, :, :1])], 2)[:, :wanted], weights

    def frames(self, samples: int) -> int:
        """How many frames that many samples give."""
        return samples // self.stride - -(-self.kernel // self.stride) + 1

    def windows(self, samples: Tensor) -> Tensor:
        """(batch, samples, 1) in whole blocks -> (batch, frames, kernel)."""
        batch, size, _ = samples.shape
        blocks, count = samples.reshape(batch, size // self.stride, self.stride), self.frames(size)
        shifted = [blocks[:, start : count + start] for start in range(-(-self.kernel // self.stride))]
        return torch.cat(shifted, 2)[:, :, : self.kernel]


class ConvLayers(nn.Module):
    """Convolutions, norms over the channels and activations: (batch, frames, channels) -> (batch, fewer frames, channels).

    A frame that comes out depends on its window alone, so a long clip may pass in chunks: see passes/chunk_convolutions.py.
    """

    def __init__(self, layers: Sequence[Any], first_activation: nn.Module | None = None) -> None:
        """`layers`: each with `conv`, `activation` and perhaps `layer_norm`. `first_activation`: behind a product in front of them all."""
        super().__init__()
        self.first_activation = first_activation
        self.convolutions = nn.ModuleList(BlockConv(layer.conv) for layer in layers)
        self.norms = nn.ModuleList(getattr(layer, "layer_norm", None) or nn.Identity() for layer in layers)
        self.activations = nn.ModuleList(layer.activation for layer in layers)
        self.as_products = True

    def forward(self, hidden: Tensor, weights: Tensor | None = None) -> Tensor:
        """`weights`, (batch, channels in, channels out): of that product, a row's own."""
        if weights is not None and self.first_activation is not None:
            product = hidden @ weights if self.as_products else (weights.transpose(1, 2) @ hidden.transpose(1, 2)).transpose(1, 2)
            hidden = self.first_activation(product)
        for conv, norm, activation in zip(self.convolutions, self.norms, self.activations, strict=True):
            hidden = activation(norm(conv(hidden, self.as_products)))
        return hidden


def keep_convolutions(module: nn.Module) -> None:
    """Leave convolutions as they are, for graphs that stay in float: without a norm between two layers, that is 2 to 4 % faster there."""
    for layers in module.modules():
        if isinstance(layers, ConvLayers) and layers.first_activation is not None:
            layers.as_products = False
