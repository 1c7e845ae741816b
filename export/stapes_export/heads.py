"""Classification heads that are not transformers' own: two linear layers behind the mean over time, under other names.

    logits = out(activation(dense(mean)))

A checkpoint with such a head loads into transformers without an error and with a random head in its place.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import safetensors
import torch
from torch import Tensor, nn

from stapes.errors import CheckpointError
from stapes_export.fetch import Checkpoint


@dataclass(frozen=True)
class HeadMap:
    """How one kind of head is named and computed."""

    dense: str
    out: str
    activation: type[nn.Module]


HEADS: Mapping[str, HeadMap] = {
    "dense-tanh-out-proj": HeadMap("classifier.dense", "classifier.out_proj", nn.Tanh),
    "dense-output": HeadMap("classifier.dense", "classifier.output", nn.Identity),
    "dense-tanh-output": HeadMap("classifier.dense", "classifier.output", nn.Tanh),
}
"""Every head that --head may name. The first is the family of code that m3hrdadfi's and audeering's checkpoints come from."""


class MappedHead(nn.Module):
    """In the place of a model's `classifier`, with an identity as its `projector`: (batch, hidden) -> (batch, labels)."""

    def __init__(self, dense: nn.Linear, activation: nn.Module, out: nn.Linear) -> None:
        super().__init__()
        self.dense, self.activation, self.out = dense, activation, out

    def forward(self, pooled: Tensor) -> Tensor:
        logits: Tensor = self.out(self.activation(self.dense(pooled)))
        return logits


def fitting(keys: Iterable[str]) -> tuple[str, ...]:
    """The names of the heads whose weights are among `keys`."""
    keys = set(keys)
    return tuple(name for name, head in HEADS.items() if {f"{head.dense}.weight", f"{head.out}.weight"} <= keys)


def load(checkpoint: Checkpoint, name: str, labels: int) -> MappedHead:
    """The head of that name with the checkpoint's weights; CheckpointError where they do not give `labels` logits."""
    head = HEADS[name]
    keys = [f"{layer}.{part}" for layer in (head.dense, head.out) for part in ("weight", "bias")]
    tensors = _tensors(checkpoint, keys)
    if absent := [key for key in keys if key not in tensors]:
        raise CheckpointError(f"{checkpoint.name} has no {', '.join(absent)}, which head {name} is made of")
    if len(tensors[f"{head.out}.weight"]) != labels:
        raise CheckpointError(f"{checkpoint.name} has {labels} labels and a head for {len(tensors[f'{head.out}.weight'])}")
    return MappedHead(_linear(tensors, head.dense), head.activation(), _linear(tensors, head.out))


def _linear(tensors: Mapping[str, Tensor], name: str) -> nn.Linear:
    weight = tensors[f"{name}.weight"].float()
    layer = nn.Linear(weight.shape[1], weight.shape[0])
    with torch.no_grad():
        layer.weight.copy_(weight)
        layer.bias.copy_(tensors[f"{name}.bias"].float())
    return layer


def _tensors(checkpoint: Checkpoint, keys: Iterable[str]) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    for name in checkpoint.files:
        path = checkpoint.path / name
        if path.suffix == ".safetensors":
            with safetensors.safe_open(path, framework="pt") as file:
                found |= {key: file.get_tensor(key) for key in keys if key in file.keys()}  # noqa: SIM118 (no mapping)
        elif path.suffix == ".bin":
            weights = torch.load(path, map_location="cpu", weights_only=True)
            found |= {key: weights[key] for key in keys if key in weights}
    return found
