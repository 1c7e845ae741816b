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

from stapes_export.artifact import HEAD, PART, SCOPE
from stapes_export.families import Family

OPSET = 20
"""The first with Gelu as one operator."""

FEATURES, LENGTHS, LOGITS = "features", "lengths", "logits"
"""What a traced graph reads and gives: (batch, time, ...) float32, (batch,) int64 -> (batch, labels) float32."""

_SCOPES = "pkg.torch.onnx.name_scopes"  # where torch's exporter writes the path of the module that a node came from


def trace(module: nn.Module, family: Family, config: Any, min_length: int) -> ir.Model:
    """The graph of an adapted module, batch dynamic, time too where the family's is; weights inside.

    `min_length`: the shortest time axis the module takes.
    """
    example = family.example(config)
    lengths = torch.tensor([example.shape[1], max(min_length, example.shape[1] // 2)])
    axes: dict[int, Any] = {0: torch.export.Dim("batch", min=1)}
    time = {1: torch.export.Dim("time", min=min_length)} if family.dynamic_time else {}
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
    for node in model.graph.all_nodes():
        scopes = node.metadata_props.get(_SCOPES, "")
        node.metadata_props.clear()  # stack traces hold paths of this machine
        node.metadata_props[SCOPE] = ["", *ast.literal_eval(scopes or "[]")][-2:][0]  # of the module; the last is the operator's
        if "'head'" in scopes:
            node.metadata_props[PART] = HEAD
    model.metadata_props.clear()
    model.graph.metadata_props.clear()
    for value in [*model.graph.inputs, *model.graph.outputs]:
        value.metadata_props.clear()
    model.ir_version = 10  # opset 20 needs no newer one, and older ONNX Runtimes refuse it
    return model


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
