"""Conformer encoders (wav2vec2-conformer, wav2vec2-bert) whose depthwise convolution does not read across a row's end."""

import math
from typing import Any

import torch
from torch import Tensor, nn

from stapes_export.surgery.masking import attention_bias, zeroed


class RelativePositions(nn.Module):
    """(1, 2 frames - 1, channels): sines and cosines of the distances frames - 1 down to 1 - frames.

    transformers keeps a table that it grows on demand; a graph has no such memory, so they are computed.
    """

    def __init__(self, config: Any) -> None:
        super().__init__()
        exponents = torch.arange(0, config.hidden_size, 2, dtype=torch.int64).float()
        self.register_buffer("frequencies", torch.exp(exponents * -(math.log(10000.0) / config.hidden_size)))

    def forward(self, hidden: Tensor) -> Tensor:
        frames = hidden.shape[1]
        angles = torch.arange(frames - 1, -frames, -1).to(hidden.dtype)[:, None] * self.get_buffer("frequencies")
        return torch.stack([angles.sin(), angles.cos()], 2).flatten(1)[None]


class RotaryPositions(nn.Module):
    """(2, frames, 1, 1, head size): cosines and sines."""

    def __init__(self, embedding: Any) -> None:
        super().__init__()
        self.register_buffer("frequencies", embedding.inv_freq.detach().clone())

    def forward(self, hidden: Tensor) -> Tensor:
        angles = torch.arange(hidden.shape[1]).to(hidden.dtype)[:, None] * self.get_buffer("frequencies")
        angles = torch.cat([angles, angles], 1)[:, None, None]
        return torch.stack([angles.cos(), angles.sin()])


class Convolution(nn.Module):
    """The convolution module: (batch, frames, channels), real frames -> (batch, frames, channels)."""

    def __init__(self, module: Any) -> None:
        super().__init__()
        self.norm, self.expand, self.glu, self.depthwise = module.layer_norm, module.pointwise_conv1, module.glu, module.depthwise_conv
        self.activation, self.contract = module.activation, module.pointwise_conv2
        self.causal = hasattr(module, "depthwise_layer_norm")  # then the frames before are padded, and layer norm takes batch norm's place
        self.after = module.depthwise_layer_norm if self.causal else module.batch_norm

    def forward(self, hidden: Tensor, real: Tensor) -> Tensor:
        # zeros behind a row's end stay zeros through the bias-free expansion and the GLU
        hidden = self.glu(self.expand(zeroed(self.norm(hidden), real).transpose(1, 2)))
        if self.causal:
            hidden = self.depthwise(nn.functional.pad(hidden, (self.depthwise.kernel_size[0] - 1, 0)))
            hidden = self.after(hidden.transpose(1, 2)).transpose(1, 2)
        else:
            hidden = self.after(self.depthwise(hidden))
        contracted: Tensor = self.contract(self.activation(hidden)).transpose(1, 2)
        return contracted


class Block(nn.Module):
    """Half a feed-forward, attention, convolution, half a feed-forward, norm."""

    def __init__(self, layer: Any) -> None:
        super().__init__()
        self.ffn1_norm, self.ffn1, self.ffn2_norm, self.ffn2 = layer.ffn1_layer_norm, layer.ffn1, layer.ffn2_layer_norm, layer.ffn2
        self.attention_norm, self.attention = layer.self_attn_layer_norm, layer.self_attn
        self.convolution, self.norm = Convolution(layer.conv_module), layer.final_layer_norm

    def forward(self, hidden: Tensor, real: Tensor, bias: Tensor, positions: Tensor | None) -> Tensor:
        hidden = hidden + 0.5 * self.ffn1(self.ffn1_norm(hidden))
        mixed = self.attention(self.attention_norm(hidden), attention_mask=bias, relative_position_embeddings=positions)[0]
        hidden = hidden + mixed
        hidden = hidden + self.convolution(hidden, real)
        normalized: Tensor = self.norm(hidden + 0.5 * self.ffn2(self.ffn2_norm(hidden)))
        return normalized


class Conformer(nn.Module):
    """The encoder: (batch, frames, channels), real frames -> its states and which of their frames are real."""

    def __init__(self, encoder: Any, config: Any, after: nn.Module | None = None) -> None:
        """`after`: a feed-forward behind the encoder, added by half to the output but to none of the states that are summed."""
        super().__init__()
        kind = config.position_embeddings_type
        self.positions = {"relative": lambda: RelativePositions(config), "rotary": lambda: RotaryPositions(encoder.embed_positions)}.get(
            kind, lambda: None
        )()
        self.blocks = nn.ModuleList(Block(layer) for layer in encoder.layers)
        self.norm = getattr(encoder, "layer_norm", None)
        self.after, self.summed = after, config.use_weighted_layer_sum

    def forward(self, hidden: Tensor, real: Tensor) -> tuple[list[Tensor], Tensor]:
        hidden = zeroed(hidden, real)
        positions = self.positions(hidden) if self.positions is not None else None
        bias = attention_bias(real, hidden.dtype)
        states = [hidden]
        for block in self.blocks:
            states.append(block(states[-1], real, bias, positions))
        if self.norm is not None:
            states[-1] = self.norm(states[-1])
        if self.after is not None and not self.summed:
            states[-1] = states[-1] + 0.5 * self.after(states[-1])
        return states, real
