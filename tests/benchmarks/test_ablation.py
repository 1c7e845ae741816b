"""The steps of the ablation are the exporter's own, and its race times what it says."""

import itertools

import stapes
from stapes_bench.ablation import VARIANTS, race
from stapes_export.recipes import RECIPES


def test_the_steps_end_in_what_is_exported():
    shipped = {name: recipe for name, recipe in VARIANTS.items() if name.endswith(("(**fp32**)", "(**int8**)"))}
    assert list(shipped.values()) == [RECIPES["fp32"], RECIPES["int8"]]
    floats, integers = (
        [set(recipe.passes) for name, recipe in VARIANTS.items() if recipe.max_difference == shipped.max_difference]
        for shipped in (RECIPES["fp32"], RECIPES["int8"])
    )
    for steps in (floats, integers):
        assert all(one <= other for one, other in itertools.pairwise(steps))  # each has all that the one before it has


def test_every_model_has_its_turn_in_every_round():
    times = race({"one": stapes.load(device="cpu"), "other": stapes.load(device="cpu")}, 0.5, 3)
    assert {name: len(values) for name, values in times.items()} == {"one": 3, "other": 3}
    assert min(min(values) for values in times.values()) > 0
