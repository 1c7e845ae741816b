"""WavLM's attention: relative positions in buckets, their bias scaled for each query by a gate.

    scores = q k' / sqrt(d) + gate(x) bias[bucket(key - query)]

transformers computes the buckets with logarithms, whose rounding may fall to either side of a bucket's edge elsewhere. A bucket depends
on the distance alone and is constant from `max_distance` on, so here the bias is a table over the distances, made once in torch.
"""

from typing import Any

import torch
from torch import Tensor, nn

from stapes_export.surgery.attention import SelfAttention
from stapes_export.surgery.speech import Transformer


class GatedAttention(SelfAttention):
    """(batch, frames, channels), score bias (batch, 1, 1, frames), position bias (heads, frames, frames) -> (batch, frames, channels)."""

    def __init__(self, attention: Any) -> None:
        super().__init__(attention)
        self.gate, self.gate_constant = attention.gru_rel_pos_linear, attention.gru_rel_pos_const

    def forward(self, hidden: Tensor, bias: Tensor, positions: Tensor) -> Tensor:  # type: ignore[override]  # called by our own layer
        first, second = self.gate(self.heads(hidden)).split(4, 3)  # eight numbers a query, summed in two fours
        first, second = torch.sigmoid(first.sum(3, keepdim=True)), torch.sigmoid(second.sum(3, keepdim=True))
        gate = first * (second * self.gate_constant - 1.0) + 2.0
        return self.attend(hidden, hidden, gate * positions, bias)


class GatedLayer(nn.Module):
    """One layer, in either order of layer norm."""

    def __init__(self, layer: Any, stable: bool) -> None:
        super().__init__()
        self.attention, self.feed_forward = GatedAttention(layer.attention), layer.feed_forward
        self.norm, self.final_norm, self.stable = layer.layer_norm, layer.final_layer_norm, stable

    def forward(self, hidden: Tensor, bias: Tensor, positions: Tensor) -> Tensor:
        if self.stable:
            hidden = hidden + self.attention(self.norm(hidden), bias, positions)
            hidden = hidden + self.feed_forward(self.final_norm(hidden))
        else:
            hidden = self.norm(hidden + self.attention(hidden, bias, positions))
            hidden = self.final_norm(hidden + self.feed_forward(hidden))
        return hidden


class GatedTransformer(Transformer):
    """WavLM's encoder: the first layer's position bias serves all of them."""

    def __init__(self, encoder: Any, config: Any, layer_sum: Any) -> None:
        first = encoder.layers[0].attention
        super().__init__(
            encoder, config, layer_sum, layers=nn.ModuleList(GatedLayer(layer, config.do_stable_layer_norm) for layer in encoder.layers)
        )
        self.reach = first.max_distance
        distances = torch.arange(-self.reach, self.reach + 1)
        self.register_buffer("bias_table", first.rel_attn_embed(first._relative_positions_bucket(distances)).detach())

    def run_layers(self, hidden: Tensor, bias: Tensor) -> list[Tensor]:
        frames = torch.arange(hidden.shape[1])
        distance = (frames[None] - frames[:, None]).clamp(-self.reach, self.reach) + self.reach
        positions = self.get_buffer("bias_table")[distance].permute(2, 0, 1)
        states = [hidden]
        for layer in self.layers:
            states.append(layer(states[-1], bias, positions))
        return states
