"""What each means of the exporter buys: one checkpoint exported with more and more of them, raced in one process.

    python -m stapes_bench.ablation CHECKPOINT --seconds 1,10      (prints the table of docs/speed.md; takes minutes)

Answers are verified against torch by the exporter.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from statistics import median
from unittest import mock

import numpy as np

import stapes
from stapes_bench import clips
from stapes_bench.host import describe, fingerprint
from stapes_export.build import export
from stapes_export.passes.attach_frontend import attach_frontend
from stapes_export.passes.attach_scores import attach_scores
from stapes_export.passes.constant_shapes import constant_shapes
from stapes_export.passes.fuse_attention import fuse_attention
from stapes_export.passes.plain_sums import plain_sums
from stapes_export.passes.quantize_grouped_conv import quantize_grouped_conv
from stapes_export.passes.quantize_rows import quantize_rows
from stapes_export.recipes import RECIPES

FLOAT = (constant_shapes, attach_frontend, attach_scores)
INT8 = (*FLOAT, plain_sums, quantize_rows)
FP32, LOWERED = RECIPES["fp32"], RECIPES["int8"]

VARIANTS = {
    "float32, convolutions as products": replace(FP32, passes=FLOAT, keeps_convolutions=False),
    "convolutions kept": replace(FP32, passes=FLOAT),
    "Sum instead of Add (**fp32**)": FP32,
    "fused attention (**fp32 --fused-attention**)": replace(FP32, passes=(fuse_attention, *FP32.passes)),
    "int8 with one scale a row, convolutions as products": replace(LOWERED, passes=(*FLOAT, quantize_rows)),
    "Sum instead of Add": replace(LOWERED, passes=INT8),
    "the positional convolution in integers": replace(LOWERED, passes=(*INT8, quantize_grouped_conv)),
    "chunks (**int8**)": LOWERED,
    "fused attention (**int8 --fused-attention**)": replace(LOWERED, passes=(fuse_attention, *LOWERED.passes)),
}
"""Each has one thing more than the one above it, but for the first in int8; what a model has no use for changes nothing."""


def race(models: Mapping[str, stapes.Classifier], seconds: float, rounds: int) -> dict[str, list[float]]:
    """ms of one clip through every model, `rounds` times in turn."""
    (clip,) = clips.made(1, seconds, next(iter(models.values())).manifest.rate)
    times: dict[str, list[float]] = {name: [] for name in models}
    for turn in range(rounds + 1):  # the first warms up
        for name, model in models.items():
            start = time.perf_counter()
            found = model.logits([clip])
            times[name].append(1e3 * (time.perf_counter() - start))
            if not np.isfinite(found).all():
                raise RuntimeError(f"{name} has no answer")
        print(f"{seconds:g} s: round {turn} of {rounds}", file=sys.stderr)
    return {name: values[1:] for name, values in times.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description="What each means of the exporter buys, on one thread.")
    parser.add_argument("checkpoint")
    parser.add_argument("--seconds", default="1,10")
    parser.add_argument("--rounds", type=int, default=12)
    options = parser.parse_args()
    lengths = [float(value) for value in options.seconds.split(",")]
    with tempfile.TemporaryDirectory(prefix="stapes-") as folder, mock.patch.dict(RECIPES, VARIANTS):
        models = {}
        for index, name in enumerate(VARIANTS):
            print(f"== {name}", file=sys.stderr)
            path = Path(folder) / f"{index}.onnx"
            export(options.checkpoint, path, name)
            models[name] = stapes.load(path, device="cpu", threads=1, cache=False)
        found = {seconds: race(models, seconds, options.rounds) for seconds in lengths}
    print(f"| {Path(options.checkpoint).name} | " + " | ".join(f"{seconds:g} s" for seconds in lengths) + " |")
    print("|---" * (1 + len(lengths)) + "|")
    for name in models:
        print(f"| {name} | " + " | ".join(f"{median(found[seconds][name]):.1f}" for seconds in lengths) + " |")
    print(f"\nms, medians of {options.rounds} interleaved rounds on one thread; {describe(fingerprint())}.")


if __name__ == "__main__":
    main()
