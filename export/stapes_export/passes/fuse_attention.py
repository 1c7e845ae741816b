"""Scaled dot-product attention becomes one operator.   softmax(q k' + bias) v  =  com.microsoft.MultiHeadAttention(q, k, v, bias)

The operator goes through the keys in pieces and never writes the whole of frames x frames, which pays from some five hundred frames on;
it is ONNX Runtime's own, so a graph that holds it runs nowhere else. That is why this pass is a choice and no part of a precision.

A bias that masks keys alone, Where(real, 0, lowest) for every head and query, becomes the operator's mask of keys.
"""

from dataclasses import replace

import onnx_ir as ir

from stapes_export.artifact import Artifact
from stapes_export.emitter import Emitter

DOMAIN, OPERATOR = "com.microsoft", "MultiHeadAttention"

HEADS_FIRST, KEYS_TURNED = (0, 2, 1, 3), (0, 2, 3, 1)


def fuse_attention(artifact: Artifact) -> Artifact:
    graph = artifact.model.graph
    emit = Emitter("attention")
    masks: dict[ir.Value, ir.Value] = {}
    fused = 0
    for node in list(graph):
        if node.op_type != "Softmax" or (found := _attention(node)) is None:
            continue
        queries, keys, values, heads, (bias, real), result = found
        done = len(emit.nodes)
        if real is not None and real not in masks:
            masks[real] = emit.op("Cast", real, to=ir.DataType.INT32)
        inputs = [queries, keys, values, None, masks[real] if real is not None else None, bias]
        while inputs[-1] is None:
            inputs.pop()
        attended = emit.op(OPERATOR, *inputs, domain=DOMAIN, num_heads=heads, scale=1.0)
        graph.insert_before(node, emit.nodes[done:])
        ir.convenience.replace_all_uses_with(result, attended)
        fused += 1
    if not fused:
        raise ValueError("no plain attention in this model: export it without --fused-attention")
    artifact.model.opset_imports[DOMAIN] = 1
    emit.register(graph)
    options = {**artifact.manifest.provenance.options, "attention": "fused"}
    return replace(artifact, manifest=replace(artifact.manifest, provenance=replace(artifact.manifest.provenance, options=options)))


_Biases = tuple[ir.Value | None, ir.Value | None]
_Found = tuple[ir.Value, ir.Value, ir.Value, int, _Biases, ir.Value]


def _attention(softmax: ir.Node) -> _Found | None:
    """q, k, v as (batch, frames, channels), the heads, what is added to the scores, and the result, where a Softmax is an attention's.

    Added are a bias, (batch, heads, frames, frames), and a mask, given as the condition (batch, frames) under which a key is real.
    """
    scores = softmax.inputs[0]
    bias = real = None
    while (add := _by(scores, "Add")) is not None:
        scores, added = add.inputs
        condition = _real_keys(added) if added is not None else None
        if (condition is None and bias is not None) or (condition is not None and real is not None):
            return None
        bias, real = (added, real) if condition is None else (bias, condition)
    product = _by(scores, "MatMul")
    users = list(softmax.outputs[0].uses())
    if product is None or len(users) != 1 or users[0][0].op_type != "MatMul":
        return None
    mixed = users[0][0]
    q, k, v = _heads(product.inputs[0], HEADS_FIRST), _heads(product.inputs[1], KEYS_TURNED), _heads(mixed.inputs[1], HEADS_FIRST)
    turned = _only_user(mixed, "Transpose")
    flat = _only_user(turned, "Reshape") if turned is not None else None
    if q is None or k is None or v is None or flat is None:
        return None
    return q[0], k[0], v[0], q[1], (bias, real), flat.outputs[0]


def _heads(x: ir.Value | None, permutation: tuple[int, ...]) -> tuple[ir.Value, int] | None:
    """What was cut into heads, and into how many."""
    turned = _by(x, "Transpose")
    if turned is None or tuple(turned.attributes["perm"].as_ints()) != permutation:
        return None
    cut = _by(turned.inputs[0], "Reshape")
    shape = cut.outputs[0].shape if cut is not None else None
    if cut is None or cut.inputs[0] is None or shape is None or not isinstance(shape[2], int):
        return None
    return cut.inputs[0], shape[2]


def _real_keys(bias: ir.Value) -> ir.Value | None:
    """The condition (batch, frames), where the bias only says which keys are real."""
    wide = _by(bias, "Unsqueeze")
    chosen = _by(wide.inputs[0], "Where") if wide is not None else None
    axes = wide.inputs[1].const_value if wide is not None and wide.inputs[1] is not None else None
    if chosen is None or axes is None or axes.numpy().tolist() != [1, 2] or chosen.inputs[1] is None:
        return None
    zero = chosen.inputs[1].const_value
    return chosen.inputs[0] if zero is not None and not zero.numpy().any() else None


def _by(x: ir.Value | None, op_type: str) -> ir.Node | None:
    """The node that made x, if it is of that type."""
    node = x.producer() if x is not None else None
    return node if node is not None and node.op_type == op_type else None


def _only_user(node: ir.Node, op_type: str) -> ir.Node | None:
    """The only node that reads the output, if it is of that type."""
    users = [user for user, _ in node.outputs[0].uses()]
    return users[0] if len(users) == 1 and users[0].op_type == op_type else None
