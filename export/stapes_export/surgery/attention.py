"""Scaled dot-product attention in one form for every family that has it plain.

    softmax(q k' / sqrt(d) + bias) v        q, k, v: heads of linear maps of the hidden states

Four passes over the data are saved by algebra: the scale goes into q's weights; k's bias adds one number to all scores of a query, which
softmax takes away again; v's adds itself to every average, so it goes through the output's weights into the output's bias; and an absent
score bias is left out instead of added as zeros.
"""

from typing import Any

import torch
from torch import Tensor, nn


class SelfAttention(nn.Module):
    """(batch, frames, channels), score bias (batch, 1, 1, frames) or None -> (batch, frames, channels), None.

    In place of a transformers attention module with q_proj, k_proj, v_proj, out_proj (or o_proj), called as its layers call it.
    """

    def __init__(self, attention: Any) -> None:
        super().__init__()
        self.q, self.k, self.v = attention.q_proj, attention.k_proj, attention.v_proj
        self.out = attention.out_proj if hasattr(attention, "out_proj") else attention.o_proj
        self.size = attention.head_dim
        with torch.no_grad():
            self.q.weight *= attention.scaling
            if self.q.bias is not None:
                self.q.bias *= attention.scaling
            if self.v.bias is not None:
                through = self.out.weight @ self.v.bias
                self.out.bias = nn.Parameter(through if self.out.bias is None else self.out.bias + through)
        self.k.bias = self.v.bias = None

    def forward(self, hidden_states: Tensor, attention_mask: Tensor | None = None, **_: Any) -> tuple[Tensor, None]:
        return self.attend(hidden_states, hidden_states, *([] if attention_mask is None else [attention_mask])), None

    def attend(self, queries: Tensor, hidden: Tensor, *biases: Tensor) -> Tensor:
        """What `queries`, (batch, some, channels), find in the hidden states, with `biases` on the scores: (batch, some, channels)."""
        q, k, v = self.heads(self.q(queries)), self.heads(self.k(hidden)), self.heads(self.v(hidden))
        weights = torch.softmax(sum(biases, q @ k.transpose(2, 3)), 3)
        mixed: Tensor = self.out((weights @ v).transpose(1, 2).flatten(2))
        return mixed

    def heads(self, x: Tensor) -> Tensor:
        """(batch, frames, channels) -> (batch, heads, frames, head size)."""
        return x.reshape(*x.shape[:2], x.shape[2] // self.size, self.size).transpose(1, 2)
