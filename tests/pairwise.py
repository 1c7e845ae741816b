"""A small set of combinations in which every pair of option values meets."""

from collections.abc import Mapping, Sequence
from itertools import combinations, product
from typing import Any

Cell = dict[str, Any]


def full(options: Mapping[str, Sequence[Any]]) -> list[Cell]:
    """Every combination."""
    return [dict(zip(options, values, strict=True)) for values in product(*options.values())]


def pairwise(options: Mapping[str, Sequence[Any]]) -> list[Cell]:
    """Combinations that cover every pair of values, chosen greedily: each next one meets the most pairs still open."""
    cells = full(options)
    pairs = [_pairs(cell) for cell in cells]
    open_pairs = set().union(*pairs)
    chosen = []
    while open_pairs:
        best = max(range(len(cells)), key=lambda i: len(pairs[i] & open_pairs))
        chosen.append(cells[best])
        open_pairs -= pairs[best]
    return chosen


def _pairs(cell: Cell) -> set[tuple[tuple[str, str], ...]]:
    items = [(name, repr(value)) for name, value in cell.items()]
    return set(combinations(items, 2)) or {(item,) for item in items}
