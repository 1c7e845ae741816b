"""Features in becomes waveform in.   logits(waveform, lengths) = model(frontend(waveform), frontend.length(lengths))

The graph defends itself, since any host may run it: lengths are clamped to [0, samples], what stands behind them is replaced by
zeros, short waveforms are padded to `min_samples`, and a row shorter than that gives NaN.
"""

import math
from dataclasses import replace

import onnx_ir as ir

from stapes.frontend.steps import fold
from stapes_export.artifact import FRONTEND, Artifact
from stapes_export.emitter import Emitter
from stapes_export.lower import Rows, lower

WAVEFORM, LENGTHS, LOGITS = "waveform", "lengths", "logits"


def attach_frontend(artifact: Artifact) -> Artifact:
    graph, frontend = artifact.model.graph, artifact.manifest.frontend
    features, frame_lengths = graph.inputs
    (model_logits,) = graph.outputs
    emit = Emitter("frontend", FRONTEND)
    batch = ir.SymbolicDim("batch")
    waveform = ir.Value(name=WAVEFORM, shape=ir.Shape([batch, "samples"]), type=ir.TensorType(ir.DataType.FLOAT))
    lengths = ir.Value(name=LENGTHS, shape=ir.Shape([batch]), type=ir.TensorType(ir.DataType.INT64))

    shortest = emit.ints(frontend.min_samples)
    samples = emit.size(waveform, 1)
    within = emit.op("Min", emit.op("Max", lengths, emit.ints(0)), samples)
    gap = emit.op("Max", emit.op("Sub", shortest, samples), emit.ints(0))
    padded = emit.op("Pad", waveform, emit.op("Concat", emit.ints(0, 0, 0), gap, axis=0))
    silent = emit.op("Where", emit.real(padded, within), padded, emit.number(0))
    computed = emit.op("Max", within, shortest)  # too short a row is computed as silence and answered with NaN
    lowered = lower(fold(frontend.steps), emit, Rows(silent, computed))
    before = emit.nodes
    enough = emit.op("Unsqueeze", emit.op("GreaterOrEqual", within, shortest), emit.ints(1))
    logits = emit.op("Where", enough, model_logits, emit.number(math.nan))
    after = emit.nodes[len(before) :]

    ir.convenience.replace_all_uses_with([features, frame_lengths], [lowered.values, lowered.lengths])
    graph.insert_before(graph[0], before)
    graph.extend(after)
    emit.register(graph)
    model_logits.name, logits.name = "model_logits", LOGITS
    logits.shape, logits.type = model_logits.shape, model_logits.type
    graph.inputs[:] = [waveform, lengths]
    graph.outputs[:] = [logits]
    return replace(artifact, manifest=replace(artifact.manifest, frontend_in_graph=True))
