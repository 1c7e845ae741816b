"""Graph rewrites: one law a file, each a function Artifact -> Artifact that changes the graph in place. `run` checks every claim."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol

import onnx
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass, RemoveUnusedOpsetsPass

from stapes.errors import ExportError
from stapes_export.artifact import Artifact


class Pass(Protocol):
    """One rewrite; its module's docstring is its law."""

    __name__: str

    def __call__(self, artifact: Artifact, /) -> Artifact: ...


def run(passes: Sequence[Pass], artifact: Artifact) -> Artifact:
    """The passes in order, each followed by ONNX's own checker; the manifest keeps their names.

    Raises ExportError naming the pass that broke the graph and those that ran before it.
    """
    done: list[str] = []
    for rewrite in passes:
        name = rewrite.__name__
        try:
            artifact = rewrite(artifact)
            RemoveUnusedNodesPass()(artifact.model)
            RemoveUnusedOpsetsPass()(artifact.model)
            _check(artifact.model)
        except Exception as error:
            before = f" after {', '.join(done)}" if done else ""
            raise ExportError(f"pass {name} failed{before}: {error}") from error
        done.append(name)
    provenance = replace(artifact.manifest.provenance, passes=(*artifact.manifest.provenance.passes, *done))
    return replace(artifact, manifest=replace(artifact.manifest, provenance=provenance))


LARGE = 2**20
"""Bytes from which on a weight is left out of the check: protobuf refuses messages over 2 GB."""


def _check(model: ir.Model) -> None:
    """ONNX's checker on the graph, large weights standing in as inputs."""
    graph = model.graph
    large = [value for value in graph.initializers.values() if value.const_value is not None and value.const_value.nbytes > LARGE]
    inputs = list(graph.inputs)
    for value in large:
        graph.initializers.pop(value.name or "")
    graph.inputs.extend(large)
    try:
        onnx.checker.check_model(ir.to_proto(model))
    finally:
        graph.inputs[:] = inputs
        for value in large:
            graph.register_initializer(value)
