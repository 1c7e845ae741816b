"""The speech models of transformers (wav2vec2 and its descendants) as one plain module whose rows see only themselves.

    samples -> convolutions -> projection -> encoder -> [weighted sum of its states] -> mean over time -> two linear layers

transformers gives the same for a single clip; its own batches leak between rows, in some families even with a mask.
"""

from collections.abc import Iterable, Sequence
from math import prod
from typing import Any

import torch
from torch import Tensor, nn

from stapes_export.layer_sum import LayerSum
from stapes_export.surgery.attention import SelfAttention
from stapes_export.surgery.channels_last import ConvLayers, FoldedGroupNorm, Grid, receptive_field
from stapes_export.surgery.masking import attention_bias, masked_mean, real_frames, zeroed


class ConvEncoder(nn.Module):
    """The convolutions: (batch, samples) on `Grid.of` them, lengths (batch,) -> (batch, frames, channels) and which frames are real."""

    def __init__(self, layers: Iterable[Any], kernels: Sequence[int], strides: Sequence[int]) -> None:
        """`layers`: those of a transformers feature encoder, each with `conv`, `activation` and perhaps `layer_norm`."""
        super().__init__()
        first, *others = layers
        norm = getattr(first, "layer_norm", None)
        self.first = FoldedGroupNorm(first.conv, norm) if isinstance(norm, nn.GroupNorm) else None
        self.layers = ConvLayers(others, first.activation) if self.first else ConvLayers([first, *others])
        size = Grid.of(kernels, strides)
        self.unread = size.offset - Grid.of_blocks(kernels, strides).offset
        self.missing = -size.offset % strides[0]
        self.kernel, self.stride, self.reach = kernels[0], strides[0], (receptive_field(kernels, strides), prod(strides))

    def forward(self, samples: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        # what stands behind a row's end, not a number perhaps, shares blocks with its last frames
        samples = zeroed(samples[:, :, None], real_frames(lengths, samples.shape[1], 1, 1))
        read = samples.shape[1] - self.unread
        if self.first is None:
            hidden = self.layers(samples[:, :read])
        else:
            # a norm counts every frame of a clip, those too that give no frame behind the last layer
            whole = nn.functional.pad(samples, (0, 0, 0, self.missing))
            real = real_frames(lengths, self.first.frames(whole.shape[1]), self.kernel, self.stride)
            hidden = self.layers(*self.first(whole, real, self.first.frames(read)))
        return hidden, real_frames(lengths, hidden.shape[1], *self.reach)


class Positions(nn.Module):
    """A positional convolution: (batch, frames, channels) -> the same, to be added. It reads across a row's end, so zeros stand there."""

    def __init__(self, embedding: Any) -> None:
        super().__init__()
        self.embedding = embedding

    def forward(self, hidden: Tensor, real: Tensor) -> Tensor:
        positions: Tensor = self.embedding(zeroed(hidden, real))
        return positions


class StackedPositions(nn.Module):
    """Several positional convolutions one behind the other; each reads across a row's end, so each gets zeros there."""

    def __init__(self, layers: nn.ModuleList) -> None:
        super().__init__()
        self.layers = layers

    def forward(self, hidden: Tensor, real: Tensor) -> Tensor:
        for layer in self.layers:
            hidden = layer(zeroed(hidden, real).transpose(1, 2)).transpose(1, 2)
        return hidden


class NormalizedPositions(nn.Module):
    """A batch norm, then a positional convolution: the zeros belong between the two."""

    def __init__(self, embedding: Any) -> None:
        super().__init__()
        self.norm, self.embedding = embedding.batch_norm, embedding
        embedding.batch_norm = None

    def forward(self, hidden: Tensor, real: Tensor) -> Tensor:
        normalized = self.norm(hidden.transpose(1, 2)).transpose(1, 2)
        positions: Tensor = self.embedding(zeroed(normalized, real))
        return positions


def plain_attention(layers: nn.ModuleList) -> nn.ModuleList:
    """The layers, their attention replaced by ours where it is the plain kind."""
    for layer in layers:
        if hasattr(layer.attention, "q_proj"):
            layer.attention = SelfAttention(layer.attention)
    return layers


class Transformer(nn.Module):
    """An encoder with a positional convolution in front, in its two orders of layer norm.

    `do_stable_layer_norm`: the layers normalise their input, and one more norm follows the last.

    (batch, frames, channels), real frames (batch, frames) -> the encoder's states (the input of each layer, then the last output) and
    which of their frames are real.
    """

    def __init__(
        self, encoder: Any, config: Any, layer_sum: LayerSum, position: nn.Module | None = None, layers: nn.ModuleList | None = None
    ) -> None:
        super().__init__()
        self.position = position or Positions(encoder.pos_conv_embed)
        self.norm, self.layers = encoder.layer_norm, layers or plain_attention(encoder.layers)
        self.stable = getattr(config, "do_stable_layer_norm", False)
        self.sum_before_norm = config.use_weighted_layer_sum and layer_sum == "v5"

    def forward(self, hidden: Tensor, real: Tensor) -> tuple[list[Tensor], Tensor]:
        hidden = zeroed(hidden, real)
        hidden = hidden + self.position(hidden, real)
        if not self.stable:
            hidden = self.norm(hidden)
        states = self.run_layers(hidden, attention_bias(real, hidden.dtype))
        if self.stable and not self.sum_before_norm:
            states[-1] = self.norm(states[-1])
        return states, real

    def run_layers(self, hidden: Tensor, bias: Tensor) -> list[Tensor]:
        """Every state, given what is added to the attention scores."""
        states = [hidden]
        for layer in self.layers:
            states.append(layer(states[-1], attention_mask=bias))
        return states


class Head(nn.Module):
    """States -> logits. The mean over time stands first: it commutes with the projection, which then runs once a clip."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.projector, self.classifier = model.projector, model.classifier
        self.layer_weights = model.layer_weights if model.config.use_weighted_layer_sum else None

    def forward(self, states: list[Tensor], real: Tensor | None) -> Tensor:
        """`real`: which frames count, (batch, frames); all where None."""
        hidden = states[-1]
        if self.layer_weights is not None:
            weights = torch.softmax(self.layer_weights, 0)
            hidden = torch.stack([weight * state for weight, state in zip(weights, states, strict=True)]).sum(0)
        pooled = hidden.mean(1) if real is None else masked_mean(hidden, real)
        logits: Tensor = self.classifier(self.projector(pooled))
        return logits


class SpeechClassifier(nn.Module):
    """The whole model: features (batch, time, ...), lengths (batch,) -> logits (batch, labels). Time on the family's grid."""

    def __init__(self, conv: nn.Module, projection: nn.Module, encoder: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.conv, self.projection, self.encoder, self.head = conv, projection, encoder, head

    def forward(self, features: Tensor, lengths: Tensor) -> Tensor:
        hidden, real = self.conv(features, lengths)
        projected = self.projection(hidden)
        if isinstance(projected, tuple):  # some families also return what the pretraining loss needs
            projected = projected[0]
        logits: Tensor = self.head(*self.encoder(projected, real))
        return logits


def speech_classifier(model: Any, encoder: nn.Module, projection: nn.Module | None = None) -> SpeechClassifier:
    """A classifier of transformers around another encoder; its convolutions, projection and head stay."""
    config, base = model.config, model.base_model
    conv = ConvEncoder(base.feature_extractor.conv_layers, config.conv_kernel, config.conv_stride)
    return SpeechClassifier(conv, projection or base.feature_projection, encoder, Head(model))


def shortest_clip(config: Any) -> int:
    """Samples that give one frame: the fewest for which a speech model answers."""
    return receptive_field(config.conv_kernel, config.conv_stride)


def sample_grid(config: Any) -> Grid:
    """The numbers of samples that a speech model takes: its graph pads a clip up to the next one."""
    return Grid.of(config.conv_kernel, config.conv_stride)
