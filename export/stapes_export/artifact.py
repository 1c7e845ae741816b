"""What every pass takes and returns: a graph and what it says of itself."""

from dataclasses import dataclass, replace

import onnx_ir as ir

from stapes.bundle import Manifest

PART = "stapes.part"
"""A node's metadata key: which part of the model it belongs to. Passes that lower precision skip FRONTEND, HEAD and KEPT."""

FRONTEND, HEAD = "frontend", "head"

KEPT = "kept"
"""A product whose floats the accuracy search keeps."""

SCOPE = "stapes.scope"
"""A node's metadata key while it is on its way: the dotted path of the module that it came from."""

LOCAL = ("local_in", "local_out")
"""Names of two values, (batch, frames, channels): each frame of the second depends on a window of the first and on nothing else in time."""

PRODUCTS = ("MatMul", "Gemm", "Conv")
"""Operators whose precision is lowered."""


@dataclass(frozen=True)
class Artifact:
    """A model on its way to a file."""

    model: ir.Model
    manifest: Manifest


def part(node: ir.Node) -> str | None:
    """FRONTEND, HEAD, KEPT, or None for the rest of the model's body."""
    return node.metadata_props.get(PART)


def module(node: ir.Node) -> str:
    """The module that the node came from; its own name where tracing left none."""
    return node.metadata_props.get(SCOPE) or node.name or ""


def with_kept(artifact: Artifact, modules: tuple[str, ...]) -> Artifact:
    """A copy of a traced artifact, the products of these modules and of those inside them tagged KEPT. Weights are shared."""
    model = artifact.model.clone()
    for node in model.graph:
        own = module(node)
        if node.op_type in PRODUCTS and part(node) is None and any(f"{own}.".startswith(f"{name}.") for name in modules):
            node.metadata_props[PART] = KEPT
    return replace(artifact, model=model)
