"""What each --precision means: the passes in their order, and the error it may cost."""

from dataclasses import dataclass

from stapes_export.passes import Pass
from stapes_export.passes.attach_frontend import attach_frontend
from stapes_export.passes.attach_scores import attach_scores
from stapes_export.passes.chunk_convolutions import chunk_convolutions
from stapes_export.passes.constant_shapes import constant_shapes
from stapes_export.passes.half_products import half_products
from stapes_export.passes.plain_sums import plain_sums
from stapes_export.passes.quantize_grouped_conv import quantize_grouped_conv, quantize_grouped_conv_portable
from stapes_export.passes.quantize_rows import quantize_rows, quantize_rows_portable


@dataclass(frozen=True)
class Recipe:
    """One precision."""

    passes: tuple[Pass, ...]
    max_difference: float
    """Largest difference of a logit from torch's, in units of max(1, largest logit of the clip)."""
    batch_difference: float
    """The same between a clip alone and in a batch."""
    golden_tolerance: float
    """The same between two hosts: other CPUs round otherwise."""
    keeps_convolutions: bool = False
    """Whether convolutions stay as they are where that is faster; integers need products."""


FLOAT = (constant_shapes, attach_frontend, attach_scores, plain_sums)
INT8 = (*FLOAT, quantize_rows, quantize_grouped_conv, chunk_convolutions)
PORTABLE = (*FLOAT, quantize_rows_portable, quantize_grouped_conv_portable, chunk_convolutions)

RECIPES: dict[str, Recipe] = {
    "fp32": Recipe(FLOAT, max_difference=1e-4, batch_difference=1e-5, golden_tolerance=1e-4, keeps_convolutions=True),
    "fp16": Recipe((*FLOAT, half_products), max_difference=2e-2, batch_difference=1e-2, golden_tolerance=2e-2),
    "int8": Recipe(INT8, max_difference=0.2, batch_difference=1e-2, golden_tolerance=2e-2),
    "int8-portable": Recipe(PORTABLE, max_difference=0.2, batch_difference=1e-2, golden_tolerance=2e-2),
}
