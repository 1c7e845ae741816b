"""Layers that are local in time run on one chunk of frames after the other.

    y[:, i c : (i + 1) c] = layers(x[:, i a c : (i + 1) a c + b])          x: (batch, a n + b, ...),   y: (batch, n, channels)

What stands between two layers of a long clip, 65 MB for ten seconds, then stays in the CPU's cache, and memory no longer grows with it.
Chunks are of equal length, so that next to nothing is computed in vain, and a clip of up to CHUNK frames is one.
"""

import numpy as np
import onnx_ir as ir

from stapes_export.artifact import LOCAL, Artifact
from stapes_export.emitter import Emitter
from stapes_export.passes.constant_shapes import Size

CHUNK = 64
"""Frames that come out of a chunk, at most: 1.3 s."""


def chunk_convolutions(artifact: Artifact) -> Artifact:
    """Unchanged where the model has no such layers."""
    graph = artifact.model.graph
    named = {value.name: value for node in graph for value in node.outputs if value.name in LOCAL}
    if len(named) < len(LOCAL):
        return artifact
    x, y = (named[name] for name in LOCAL)
    steps = Size.of(x.shape[1]) if x.shape is not None else None
    channels = y.shape[2] if y.shape is not None else None
    if steps is None or not isinstance(channels, int):
        raise ValueError("the layers that are local in time have no shapes")
    users = {user for user, _ in y.uses()}
    behind = next(node for node in graph if node in users)

    emit = Emitter("chunk")
    frames = emit.op("Div", emit.op("Sub", emit.size(x, 1), emit.ints(steps.offset)), emit.ints(steps.slope))
    count = _ceil(emit, frames, emit.ints(CHUNK))
    length = _ceil(emit, frames, count)
    stride = emit.op("Mul", length, emit.ints(steps.slope))
    missing = emit.op("Mul", emit.op("Sub", emit.op("Mul", count, length), frames), emit.ints(steps.slope))
    padded = emit.op("Pad", x, emit.op("Concat", emit.ints(0, 0, 0, 0), missing, emit.ints(0), axis=0))
    before = len(emit.nodes)

    index, go_on = _input("chunk_index", ir.DataType.INT64), _input("chunk_go_on", ir.DataType.BOOL)
    start = emit.op("Mul", emit.op("Reshape", index, emit.ints(1)), stride)
    end = emit.op("Add", emit.op("Add", start, stride), emit.ints(steps.offset))
    chunk, still = emit.slice(padded, start, end, 1), emit.op("Identity", go_on)
    still.shape, still.type = go_on.shape, go_on.type
    inside = emit.nodes[before:]
    for number, node in enumerate(inside):
        node.outputs[0].name = f"chunk_step_{number}"  # a graph names its own values alone, and these must differ from those around them

    loop_at = len(emit.nodes)
    layers = _between(graph, x, y)
    for node in layers:
        for position, value in enumerate(node.inputs):
            if value is x:
                node.replace_input_with(position, chunk)
            elif value is not None and value.dtype == ir.DataType.INT64 and value.const_value is None and value.producer() not in layers:
                raise ValueError(f"{node.op_type} takes a size of the whole clip, {value.name}, and a chunk has another")
    uses = list(y.uses())
    for value in (value for node in layers for value in node.outputs if value is not y):
        if any(user not in layers for user, _ in value.uses()):
            raise ValueError(f"{value.name} stands between layers that are local in time, and others read it too")
    graph.remove(layers)
    body = ir.Graph([index, go_on], [still, y], nodes=[*inside, *layers], name="chunk")
    stacked = emit.op("Loop", emit.op("Squeeze", count), emit.constant(np.bool_(True)), body=body)
    joined = emit.op("Reshape", emit.op("Transpose", stacked, perm=(1, 0, 2, 3)), emit.ints(0, -1, channels))
    cut = emit.slice(joined, emit.ints(0), frames, 1)
    cut.shape, cut.type = y.shape, y.type
    for user, position in uses:
        user.replace_input_with(position, cut)
    graph.insert_before(behind, [*emit.nodes[:before], *emit.nodes[loop_at:]])
    emit.register(graph)
    return artifact


def _input(name: str, dtype: ir.DataType) -> ir.Value:
    """A scalar that goes into the loop's body."""
    return ir.Value(name=name, shape=ir.Shape([]), type=ir.TensorType(dtype))


def _ceil(emit: Emitter, number: ir.Value, divisor: ir.Value) -> ir.Value:
    """number / divisor, rounded up."""
    return emit.op("Div", emit.op("Sub", emit.op("Add", number, divisor), emit.ints(1)), divisor)


def _between(graph: ir.Graph, x: ir.Value, y: ir.Value) -> list[ir.Node]:
    """The nodes that make y of x, in order, and those that only prepare their constants."""
    needed: set[ir.Node] = set()
    waiting = [y]
    while waiting:
        node = waiting.pop().producer()
        if node is not None and node not in needed:
            needed.add(node)
            waiting += [value for value in node.inputs if value is not None and value is not x]
    depends: set[ir.Value] = {x}
    fixed: set[ir.Node] = set()
    found = []
    for node in graph:
        if node not in needed:
            continue
        values = [value for value in node.inputs if value is not None]
        if any(value in depends for value in values):
            depends.update(node.outputs)
            found.append(node)
        elif all(value.const_value is not None or value.producer() in fixed for value in values):
            fixed.add(node)
            found.append(node)
    return found
