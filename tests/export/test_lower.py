"""A lowered step is its NumPy meaning: algebra in float64 by onnx's own evaluator, rounding in float32 by ONNX Runtime."""

from collections.abc import Sequence

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from onnx.reference import ReferenceEvaluator

from stapes.frontend import Frontend, huggingface
from stapes.frontend import steps as step
from stapes.frontend.steps import fold
from stapes_export.emitter import Emitter
from stapes_export.lower import LOWER, Rows, lower

RNG = np.random.default_rng(0)
ALGEBRA = 1e-9  # float64 on both sides
WAV2VEC2 = huggingface.build({"feature_extractor_type": "Wav2Vec2FeatureExtractor"})
AST = huggingface.build({"feature_extractor_type": "ASTFeatureExtractor", "max_length": 60})
SEAMLESS = huggingface.build({"feature_extractor_type": "SeamlessM4TFeatureExtractor", "padding_value": 1})
WHISPER = huggingface.build({"feature_extractor_type": "WhisperFeatureExtractor", "feature_size": 128, "chunk_length": 1})


def lowered(steps: Sequence[step.Step], rank: int, dtype: ir.DataType) -> onnx.ModelProto:
    """The steps as a model of their own: x (batch, time, ...), lengths (batch,) -> y, out_lengths."""
    emit = Emitter("test", dtype=dtype)
    x = ir.Value(name="x", shape=ir.Shape([None] * rank), type=ir.TensorType(dtype))
    lengths = ir.Value(name="lengths", shape=ir.Shape([None]), type=ir.TensorType(ir.DataType.INT64))
    rows = lower(fold(tuple(steps)), emit, Rows(x, lengths, rank))
    y, out_lengths = rows.values, emit.op("Identity", rows.lengths)
    for value, name, kind, size in ((y, "y", dtype, None), (out_lengths, "out_lengths", ir.DataType.INT64, 1)):
        value.name, value.type = name, ir.TensorType(kind)
        if size:
            value.shape = ir.Shape([None])
    graph = ir.Graph([x, lengths], [y, out_lengths], nodes=emit.nodes, opset_imports={"": 20}, name="lowered")
    emit.register(graph)
    return ir.to_proto(ir.Model(graph, ir_version=10))


def batch_of(rows: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Rows of different lengths in one array, garbage behind each row's end."""
    lengths = np.array([len(row) for row in rows], np.int64)
    x = np.full((len(rows), lengths.max(), *rows[0].shape[1:]), 9.0)
    for into, row in zip(x, rows, strict=True):
        into[: len(row)] = row
    return x, lengths


def check(steps: Sequence[step.Step], rows: list[np.ndarray]) -> None:
    x, lengths = batch_of(rows)
    got, got_lengths = ReferenceEvaluator(lowered(steps, x.ndim, ir.DataType.DOUBLE)).run(None, {"x": x, "lengths": lengths})
    frontend = Frontend(16000, 1, tuple(steps))
    for i, row in enumerate(rows):
        want = frontend.evaluate(row)
        assert got_lengths[i] == frontend.length(len(row))
        assert got_lengths[i] <= len(want)
        assert np.abs(got[i, : len(want)] - want).max(initial=0) <= ALGEBRA


@pytest.mark.parametrize(
    ("one", "shape"),
    [
        (step.ZeroMeanUnitVariance(1e-7), ()),
        (step.Frames(400, 160), ()),
        (step.Frames(320, 160), ()),
        (step.Frames(7, 3), ()),
        (step.RemoveMean(), (40,)),
        (step.Power(), (40,)),
        (step.Log(1e-3), (40,)),
        (step.PadOrTrim(1000, 0.5), (4,)),
        (step.PadOrTrim(1000, 0.5), ()),
        (step.Standardize(0.3, 2.0), (4,)),
        (step.Log(1e-3, "10"), (40,)),
        (step.NormalizeBins(1e-7), (4,)),
        (step.Stack(2, 1.0), (4,)),
        (step.Scale(3.0), ()),
        (step.Resample(8000, 16000), ()),
        (step.Resample(44100, 16000), ()),
        (step.Resample(48000, 16000), ()),
        (step.Resample(16000, 44100), ()),
        (step.Resample(22050, 16000), ()),
    ],
    ids=str,
)
def test_each_step_equals_numpy_for_ragged_rows(one: step.Step, shape: tuple[int, ...]):
    check([one], [RNG.standard_normal((n, *shape)) for n in (400, 1000, 559, 561, 2345)])


@pytest.mark.parametrize(
    "linear",
    [
        step.PreEmphasis(0.97),
        step.Hann(),
        step.Hann(periodic=True),
        step.Povey(),
        step.RealDft(64),
        step.MelBank(8, 20, 16000, 20.0, 8000.0, "kaldi"),
        step.MelBank(8, 20, 16000, 0.0, 8000.0, "slaney"),
    ],
    ids=lambda linear: type(linear).__name__,
)
def test_each_linear_step_equals_numpy_as_a_matrix(linear: step.Step):
    check([step.Frames(20, 10), linear], [RNG.standard_normal(n) for n in (20, 200, 115)])


# the minimum and its neighbours, one frame more or less, the length at which AST is full, and beyond
AST_FULL = 400 + 59 * 160


@pytest.mark.parametrize("n", [400, 401, 559, 560, 561, AST_FULL - 1, AST_FULL, AST_FULL + 1, AST_FULL + 160, 16000])
@pytest.mark.parametrize("frontend", [WAV2VEC2, AST, SEAMLESS, WHISPER], ids=["wav2vec2", "ast", "seamless", "whisper"])
def test_each_extractor_equals_numpy_at_boundary_lengths(frontend: Frontend, n: int):
    n = max(n, frontend.min_samples)
    check(frontend.steps, [RNG.standard_normal(n), RNG.standard_normal(max(frontend.min_samples, n // 2))])


@pytest.mark.parametrize("rate", [8000, 44100, 48000])
def test_a_resampled_row_ends_where_it_ends_in_numpy(rate: int):
    """The shortest rows, one block of outputs and its neighbours, and two; the others of the batch a block longer and noise behind."""
    resample = step.Resample(rate, 16000)
    for block in (1, 2):
        edge = resample.shortest(block * resample.block)
        for n in (1, 2, edge - 1, edge, edge + 1):
            check([resample], [RNG.standard_normal(n), RNG.standard_normal(edge + resample.stride)])


@pytest.mark.parametrize("rate", [8000, 44100, 48000])
@pytest.mark.parametrize("frontend", [WAV2VEC2, AST, SEAMLESS, WHISPER], ids=["wav2vec2", "ast", "seamless", "whisper"])
def test_each_extractor_equals_numpy_behind_a_resampler(frontend: Frontend, rate: int):
    heard = frontend.heard_at(rate)
    edges = [heard.min_samples, heard.min_samples + 1, heard.steps[0].shortest(16000), rate]
    check(heard.steps, [RNG.standard_normal(max(n, heard.steps[0].shortest(560))) for n in edges])


FLOAT32_RESAMPLED = 2e-6  # some 700 products and sums of full-scale samples; measured 4.4e-7


@pytest.mark.parametrize("rate", [8000, 44100, 48000])
def test_rounding_of_a_resampled_clip_stays_within_its_budget(rate: int):
    resample = step.Resample(rate, 16000)
    rows = [RNG.uniform(-1, 1, n).astype(np.float32) for n in (10 * rate, rate)]
    x, lengths = batch_of(rows)
    session = onnxruntime.InferenceSession(lowered([resample], 2, ir.DataType.FLOAT).SerializeToString())
    got = session.run(["y"], {"x": x.astype(np.float32), "lengths": lengths})[0]
    for i, row in enumerate(rows):
        want = resample(row.astype(np.float64))
        assert np.abs(got[i, : len(want)] - want).max() <= FLOAT32_RESAMPLED


@pytest.mark.parametrize("n", [0, 100, 239, 240, 399])
def test_rows_shorter_than_a_frame_have_no_frames(n: int):
    x = RNG.standard_normal((2, 800))
    model = ReferenceEvaluator(lowered([step.Frames(400, 160)], 2, ir.DataType.DOUBLE))
    assert model.run(None, {"x": x, "lengths": np.array([800, n])})[1].tolist() == [3, 0]


FLOAT32_NORMALIZED = 1e-5  # unit variance: a few steps of float32 for the sums of 10 s and the division
FLOAT32_LOG_MEL = 1e-4  # ln near its floor magnifies the rounding of a DFT of 400 products; then divided by 9


FLOAT32_RANGE = 3e-4  # the maximum's rounding moves every value at the lower end of the range; log10, divided by 4
FLOAT32_BINS = 1e-2  # a bin that hardly varies is divided by its deviation: with two frames by next to nothing


@pytest.mark.parametrize(
    ("frontend", "budget"),
    [(WAV2VEC2, FLOAT32_NORMALIZED), (AST, FLOAT32_LOG_MEL), (SEAMLESS, FLOAT32_BINS), (WHISPER, FLOAT32_RANGE)],
    ids=["wav2vec2", "ast", "seamless", "whisper"],
)
@pytest.mark.parametrize("n", [560, 16121, 160000])
@pytest.mark.parametrize(("level", "offset"), [(0.1, 0.0), (1e-3, 0.5)], ids=["speech-like", "small-on-offset"])
def test_rounding_in_float32_stays_within_its_budget(frontend: Frontend, budget: float, n: int, level: float, offset: float):
    rows = [level * RNG.standard_normal(n) + offset, level * RNG.standard_normal(max(560, n // 3))]
    x, lengths = batch_of([row.astype(np.float32).astype(np.float64) for row in rows])
    session = onnxruntime.InferenceSession(lowered(frontend.steps, 2, ir.DataType.FLOAT).SerializeToString())
    got = session.run(["y"], {"x": x.astype(np.float32), "lengths": lengths})[0]
    if offset:
        budget *= 30  # the mean of float32 samples at 0.5 carries 3e-8, a small part of 1e-3
    for i, row in enumerate(rows):
        want = frontend(row.astype(np.float32))
        assert np.abs(got[i, : len(want)] - want).max() <= budget


def test_every_step_that_a_manifest_may_name_can_be_lowered():
    lowerable = {kind.__name__ for kind in LOWER}
    linear = {name for name, kind in step.STEPS.items() if kind.linear}
    assert lowerable | linear == set(step.STEPS) | {"Matrix"}
    assert not lowerable & linear
