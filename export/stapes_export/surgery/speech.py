"""The speech models of transformers (wav2vec2 and its descendants) as one plain module whose rows see only themselves.

    samples -> convolutions -> projection -> encoder -> [weighted sum of its states] -> mean over time -> two linear layers

transformers gives the same for a single clip; its own batches leak between rows, in some families even with a mask.
"""

from collections.abc import Callable, Iterable, Sequence
from math import prod
from typing import Any

import torch
from torch import Tensor, nn

from stapes_export.surgery.masking import MaskedGroupNorm, attention_bias, masked_mean, real_frames, zeroed

Encode = Callable[[Tensor, Tensor], list[Tensor]]
"""(hidden (batch, frames, channels), real (batch, frames)) -> the encoder's states: the input of each layer, then the last output."""


def receptive_field(kernels: Sequence[int], strides: Sequence[int]) -> int:
    """Samples that one frame behind a stack of convolutions reads: the fewest that give a frame."""
    return 1 + sum((kernel - 1) * prod(strides[:i]) for i, kernel in enumerate(kernels))


class ConvEncoder(nn.Module):
    """The convolutions: (batch, samples), lengths (batch,) -> (batch, frames, channels) and which frames are real."""

    def __init__(self, layers: Iterable[Any], kernels: Sequence[int], strides: Sequence[int]) -> None:
        """`layers`: those of a transformers feature encoder, each with `conv`, `activation` and perhaps `layer_norm`."""
        super().__init__()
        self.convolutions = nn.ModuleList()
        self.norms = nn.ModuleList()
        self.activations = nn.ModuleList()
        for layer in layers:
            norm = getattr(layer, "layer_norm", None)
            self.convolutions.append(layer.conv)
            self.norms.append(MaskedGroupNorm(norm) if isinstance(norm, nn.GroupNorm) else norm or nn.Identity())
            self.activations.append(layer.activation)
        self.reach = [(receptive_field(kernels[:n], strides[:n]), prod(strides[:n])) for n in range(1, len(kernels) + 1)]

    def forward(self, samples: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        hidden = samples[:, None]
        for conv, norm, activation, reach in zip(self.convolutions, self.norms, self.activations, self.reach, strict=True):
            hidden = conv(hidden)
            if isinstance(norm, MaskedGroupNorm):
                hidden = norm(hidden, real_frames(lengths, hidden.shape[2], *reach))
            else:
                hidden = norm(hidden.transpose(1, 2)).transpose(1, 2)
            hidden = activation(hidden)
        return hidden.transpose(1, 2), real_frames(lengths, hidden.shape[2], *self.reach[-1])


class Transformer(nn.Module):
    """An encoder with a positional convolution in front, in its two orders of layer norm."""

    def __init__(self, encoder: Any, stable: bool) -> None:
        """`stable`: the layers normalise their input, and one more norm follows the last (do_stable_layer_norm)."""
        super().__init__()
        self.position, self.norm, self.layers, self.stable = encoder.pos_conv_embed, encoder.layer_norm, encoder.layers, stable

    def forward(self, hidden: Tensor, real: Tensor) -> list[Tensor]:
        hidden = zeroed(hidden, real)  # the positional convolution reads across a row's end
        hidden = hidden + self.position(hidden)
        if not self.stable:
            hidden = self.norm(hidden)
        bias = attention_bias(real, hidden.dtype)
        states = [hidden]
        for layer in self.layers:
            hidden = layer(hidden, attention_mask=bias)
            states.append(hidden)
        if self.stable:
            states[-1] = self.norm(hidden)  # the weighted sum was trained on the normalised last state
        return states


class Head(nn.Module):
    """States -> logits. The mean over time stands first: it commutes with the projection, which then runs once a clip."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.projector, self.classifier = model.projector, model.classifier
        self.layer_weights = model.layer_weights if model.config.use_weighted_layer_sum else None

    def forward(self, states: list[Tensor], real: Tensor) -> Tensor:
        if self.layer_weights is None:
            hidden = states[-1]
        else:
            weights = torch.softmax(self.layer_weights, 0)
            hidden = sum((weight * state for weight, state in zip(weights, states, strict=True)), torch.zeros(()))
        logits: Tensor = self.classifier(self.projector(masked_mean(hidden, real)))
        return logits


class SpeechClassifier(nn.Module):
    """The whole model: features (batch, samples), lengths (batch,) -> logits (batch, labels)."""

    def __init__(self, conv: nn.Module, projection: nn.Module, encoder: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.conv, self.projection, self.encoder, self.head = conv, projection, encoder, head

    def forward(self, features: Tensor, lengths: Tensor) -> Tensor:
        hidden, real = self.conv(features, lengths)
        projected = self.projection(hidden)
        if isinstance(projected, tuple):  # some families also return what the pretraining loss needs
            projected = projected[0]
        logits: Tensor = self.head(self.encoder(projected, real), real)
        return logits
