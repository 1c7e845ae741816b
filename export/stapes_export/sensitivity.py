"""Which modules must stay in float for a precision to keep its accuracy: found by leaving each out in turn.

    cost(m) = rms(logits with everything lowered but m and what is kept  -  logits of the checkpoint)

The module with the lowest cost is kept, since that mends most, and the drop is measured on all clips; beyond the budget the next one is
sought in the same way. It is sought anew, not taken from one ranking: errors cancel, so what is kept changes what the rest costs.
"""

import math
import tempfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from stapes.errors import ExportError
from stapes_export import passes
from stapes_export.artifact import PRODUCTS, Artifact, module, part, with_kept
from stapes_export.calibrate import Recording, verdict
from stapes_export.recipes import Recipe
from stapes_export.verify import Logits, answers, far

CANDIDATES = 32
"""Groups of modules that are tried: each try makes a graph and runs it."""

CLIPS = 32
"""Clips, spread over all, that rank the candidates."""

Group = tuple[str, ...]
"""Dotted paths of modules that keep their floats, or not, together."""

Progress = Callable[[Sequence[Any], str], Iterable[Any]]
"""Hands items on and shows under a name how far it is."""


def modules_to_keep(
    traced: Artifact,
    recipe: Recipe,
    clips: list[Recording],
    expected: Logits,
    max_drop: float,
    save: Callable[[Artifact, Path], object],
    progress: Progress = lambda items, name: items,
) -> Group:
    """The modules that must stay in float for the recipe to lose at most `max_drop` points on `clips`; () where none must.

    `traced`: before any pass; it is left as it is. `expected`: the checkpoint's logits, (clips, labels). Where nothing is within the
    budget it is the last choice that was tried, for verification to refuse with its figures.
    """
    manifest = traced.manifest

    def logits(kept: Group, some: Iterable[Recording]) -> Logits:
        with tempfile.TemporaryDirectory(prefix="stapes-") as folder:
            draft = Path(folder) / "trial.onnx"
            save(passes.run(recipe.passes, with_kept(traced, kept)), draft)
            return answers(draft, some)

    def fits(found: Logits) -> bool:
        drop = verdict(expected, found, clips, manifest.labels, manifest.activation).drop
        return drop <= max_drop and bool((far(expected, found) <= recipe.max_difference).all())

    def tried(kept: Group, some: Iterable[Recording]) -> Logits | None:
        """None where the recipe refuses: then nothing would be lowered any more."""
        try:
            return logits(kept, some)
        except ExportError:
            return None

    lowered = logits((), progress(clips, "drop"))
    if fits(lowered):
        return ()
    every = slice(None, None, math.ceil(len(clips) / CLIPS))
    few, want = clips[every], expected[every]
    left = groups(lowered_modules(traced, recipe), CANDIDATES)
    kept: Group = ()
    error = _error(lowered[every], want)
    while left:
        costs = {group: _error(tried((*kept, *group), few), want) for group in progress(left, f"sensitivity {len(kept) + 1}")}
        best = min(left, key=lambda group: costs[group])
        if costs[best] == math.inf or set(costs.values()) == {error}:  # nothing more can be kept, or keeping changes nothing
            break
        kept, error = (*kept, *best), costs[best]
        left.remove(best)
        if fits(logits(kept, clips)):
            break
    return kept


def lowered_modules(traced: Artifact, recipe: Recipe) -> list[str]:
    """The modules whose products the recipe does not leave in float, in the order of the graph."""
    done = passes.run(recipe.passes, with_kept(traced, ()))
    left = {node.name for node in done.model.graph if _float_product(node)}
    found = [node for node in traced.model.graph if _float_product(node) and part(node) is None and node.name not in left]
    return list(dict.fromkeys(map(module, found)))


def groups(modules: Sequence[str], most: int) -> list[Group]:
    """The modules in at most `most` groups: each alone where they are few, otherwise by what holds them, otherwise by neighbours.

    A group is the path of what holds its modules, or several such paths.
    """

    def cut(depth: int) -> list[str]:
        return list(dict.fromkeys(".".join(name.split(".")[:depth]) for name in modules))

    depth = max((name.count(".") + 1 for name in modules), default=0)
    while len(cut(depth)) > most and len(cut(depth - 1)) > most // 4:  # a whole encoder is no choice
        depth -= 1
    found = cut(depth)
    size = math.ceil(len(found) / most)
    return [tuple(found[i : i + size]) for i in range(0, len(found), max(1, size))]


def _float_product(node: ir.Node) -> bool:
    """Whether the node multiplies by a constant weight in float32."""
    weight = node.inputs[1] if node.op_type in PRODUCTS else None
    return weight is not None and weight.const_value is not None and weight.const_value.dtype == ir.DataType.FLOAT


def _error(found: Logits | None, want: Logits) -> float:
    """Root mean square of the difference; infinite where there is no answer."""
    if found is None:
        return math.inf
    return float(np.sqrt(np.mean(np.square(np.nan_to_num(found - want, nan=np.inf), dtype=np.float64))))
