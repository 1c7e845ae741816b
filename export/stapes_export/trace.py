"""torch module -> ONNX graph: the only place that knows how a graph is made."""

import ast
import contextlib
import io
import logging
import warnings
from collections.abc import Iterator
from typing import Any

import onnx_ir as ir
import torch
from torch import nn

from stapes_export.artifact import FRONTEND, HEAD, LOCAL, PART, SCOPE
from stapes_export.emitter import Emitter
from stapes_export.families import Family
from stapes_export.surgery.channels_last import ConvLayers, Grid

OPSET = 20
"""The first with Gelu as one operator."""

FEATURES, LENGTHS, LOGITS = "features", "lengths", "logits"
"""What a traced graph reads and gives: (batch, time, ...) float32, (batch,) int64 -> (batch, labels) float32."""

_SCOPES = "pkg.torch.onnx.name_scopes"  # where torch's exporter writes the path of the module that a node came from


def trace(module: nn.Module, family: Family, config: Any, min_length: int) -> ir.Model:
    """The graph of an adapted module, batch dynamic, time too where the family has a grid; weights inside.

    `min_length`: the smallest length for which the module has an answer.
    """
    grid = family.grid(config) if family.grid else None
    example = family.example(config)
    lengths = torch.tensor([example.shape[1], max(min_length, example.shape[1] // 2)])
    axes: dict[int, Any] = {0: torch.export.Dim("batch", min=1)}
    time: dict[int, Any] = {}
    if grid is not None:
        # Declared as what it is: with a free axis every layer has another division, and the tracer does not end on seven of them
        example, time = grid.pad(example), {1: grid.stride * torch.export.Dim("steps", min=1) + grid.offset}
    with _quiet(), torch.no_grad():
        program = torch.onnx.export(
            module.eval(),  # the wrapper too: in training mode transformers traces its augmentation
            (example, lengths),
            dynamo=True,
            dynamic_shapes=(axes | time, axes),
            input_names=[FEATURES, LENGTHS],
            output_names=[LOGITS],
            opset_version=OPSET,
            verbose=False,
        )
    if program is None:
        raise RuntimeError("torch.onnx.export gave no program")
    model = program.model
    layers = [f"'{path}'" for path, child in module.named_modules() if isinstance(child, ConvLayers)]
    local: list[ir.Node] = []
    for node in model.graph.all_nodes():
        scopes = node.metadata_props.get(_SCOPES, "")
        node.metadata_props.clear()  # stack traces hold paths of this machine
        node.metadata_props[SCOPE] = ["", *ast.literal_eval(scopes or "[]")][-2:][0]  # of the module; the last is the operator's
        if "'head'" in scopes:
            node.metadata_props[PART] = HEAD
        if any(path in scopes for path in layers):
            local.append(node)
    _name_local(local)
    if grid is not None:
        _pad_to(grid, model.graph)
    model.metadata_props.clear()
    model.graph.metadata_props.clear()
    for value in [*model.graph.inputs, *model.graph.outputs]:
        value.metadata_props.clear()
    model.ir_version = 10  # opset 20 needs no newer one, and older ONNX Runtimes refuse it
    return model


def _name_local(nodes: list[ir.Node]) -> None:
    """LOCAL for what goes into these nodes and what comes out, in frames."""
    made = {value for node in nodes for value in node.outputs}
    read = {value for node in nodes for value in node.inputs if value is not None and value not in made}
    left = {value for value in made if any(user not in nodes for user, _ in value.uses())}
    for name, values in zip(LOCAL, (read, left), strict=True):
        for value in values:
            if value.shape is not None and len(value.shape) == 3 and not isinstance(value.shape[1], int):
                value.name = name


def _pad_to(grid: Grid, graph: ir.Graph) -> None:
    """Zeros behind the features, up to the grid's next size: any host may give any number."""
    features = graph.inputs[0]
    if features.shape is None:
        raise RuntimeError("torch's exporter gave the features no shape")
    features.shape = ir.Shape([features.shape[0], "time", *features.shape[2:]])
    if grid == Grid(1, 0):
        return
    emit = Emitter("grid", FRONTEND)
    size = emit.size(features, 1)
    steps = emit.op("Div", emit.op("Add", size, emit.ints(grid.stride - 1 - grid.offset)), emit.ints(grid.stride))
    whole = emit.op("Add", emit.op("Mul", emit.op("Max", steps, emit.ints(1)), emit.ints(grid.stride)), emit.ints(grid.offset))
    before, behind = emit.ints(*[0] * len(features.shape), 0), emit.ints(*[0] * (len(features.shape) - 2))
    amounts = [before, emit.op("Sub", whole, size), *([behind] if len(features.shape) > 2 else [])]
    padded = emit.op("Pad", features, emit.op("Concat", *amounts, axis=0))
    ir.convenience.replace_all_uses_with(features, padded)
    emit.nodes[0].replace_input_with(0, features)
    emit.nodes[-1].replace_input_with(0, features)
    graph.insert_before(graph[0], emit.nodes)
    emit.register(graph)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keeps the tracer's own progress and its remarks on packages we do not use off the terminal."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "torch.export", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
