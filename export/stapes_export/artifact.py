"""What every pass takes and returns: a graph and what it says of itself."""

from dataclasses import dataclass

import onnx_ir as ir

from stapes.bundle import Manifest

PART = "stapes.part"
"""A node's metadata key: which part of the model it belongs to. Passes that lower precision skip FRONTEND, HEAD and KEPT."""

FRONTEND, HEAD = "frontend", "head"

KEPT = "kept"
"""A node whose floats the accuracy search keeps; it stays float."""


@dataclass(frozen=True)
class Artifact:
    """A model on its way to a file."""

    model: ir.Model
    manifest: Manifest


def part(node: ir.Node) -> str | None:
    """FRONTEND, HEAD, KEPT, or None for the rest of the model's body."""
    return node.metadata_props.get(PART)
