"""Percentiles against the standard library and NumPy's own definition; the rule of agreement where it must hold and where it must fail."""

import math
import statistics

import numpy as np
import pytest

from stapes_bench import measure

DRAW = np.random.default_rng(5)
LOGITS = 3 * DRAW.standard_normal((16, 12))
UNIT = math.sqrt(np.mean((LOGITS - LOGITS.mean(axis=0)) ** 2))


def noisy(noise: float) -> np.ndarray:
    """LOGITS with exactly so much noise, in units of what tells clips apart."""
    added = DRAW.standard_normal(LOGITS.shape)
    return LOGITS + added * noise * UNIT / math.sqrt(np.mean(added**2))


def test_percentiles_are_those_of_the_definition():
    values = [float(value) for value in DRAW.permutation(101)]
    found = measure.figures(values)
    assert (found.count, found.least, found.most) == (101, 0, 100)
    assert (found.p50, found.p90, found.p99) == (50, 90, 99)  # of 0 to 100 the p-th percentile is p


def test_percentiles_between_two_values_are_what_the_standard_library_says():
    values = [0.3, 0.1, 0.9, 0.4, 0.25, 0.6]
    cuts = statistics.quantiles(values, n=100, method="inclusive")
    found = measure.figures(values)
    assert [found.p50, found.p90, found.p99] == pytest.approx([statistics.median(values), cuts[89], cuts[98]])


def test_one_value_is_all_of_its_percentiles():
    found = measure.figures([0.5])
    assert {found.p50, found.p90, found.p99, found.least, found.most} == {0.5}


def test_no_values_have_no_percentiles():
    with pytest.raises(ValueError, match="no values"):
        measure.figures([])


def test_the_ratio_is_of_medians_and_above_one_for_the_faster():
    assert measure.ratio([0.1, 0.1, 9.0], [0.5, 0.5, 0.5]) == pytest.approx(5)


def test_real_time_and_throughput_count_the_whole_batch():
    assert measure.real_time_factor(0.5, 10) == 20
    assert measure.throughput(0.5, 8) == 16


def test_the_same_answers_agree_without_noise():
    found = measure.agreement(LOGITS, LOGITS.copy())
    assert (found.agrees, found.noise, found.same_top, found.clips, found.score_difference) == (True, 0, 16, 16, 0)


@pytest.mark.parametrize("noise", [1e-4, 0.02, 0.3])
def test_the_noise_is_what_was_added_and_agrees_below_ten_decibels(noise: float):
    found = measure.agreement(LOGITS, noisy(noise))
    assert found.noise == pytest.approx(noise)
    assert found.agrees, found.why


@pytest.mark.parametrize("noise", [0.33, 1.0])
def test_more_noise_than_that_is_another_answer(noise: float):
    found = measure.agreement(LOGITS, noisy(noise))
    assert not found.agrees
    assert "noise" in found.why


def test_one_answer_for_every_clip_is_wrong_even_where_clips_differ_little():
    offset = 10 * DRAW.standard_normal(12)
    reference = offset + 0.1 * DRAW.standard_normal((16, 12))  # the same winner on all clips
    constant = np.tile(reference.mean(axis=0), (16, 1))
    found = measure.agreement(reference, constant)
    assert found.same_top == 16
    assert found.noise == pytest.approx(1)
    assert not found.agrees


def test_a_clear_winner_that_is_lost_is_no_rounding():
    reference = DRAW.standard_normal((32, 100))
    reference[:, 7] += 8
    found = reference.copy()
    found[3, 7] = -1  # one logit of 3200
    compared = measure.agreement(reference, found)
    assert compared.noise <= measure.NOISE  # the mean over all logits hides it
    assert compared.clear_losses == 1
    assert not compared.agrees


def test_a_narrow_winner_may_change_within_the_noise():
    reference = LOGITS.copy()
    order = np.argsort(reference[0])
    reference[0, order[-1]] = reference[0, order[-2]] + 0.01
    found = reference + (noisy(0.1) - LOGITS)
    found[0, order[-2]] = found[0, order[-1]] + 0.01
    compared = measure.agreement(reference, found)
    assert compared.same_top < compared.clips
    assert compared.clear_losses == 0
    assert compared.agrees, compared.why


def test_swapped_labels_are_another_answer():
    assert not measure.agreement(LOGITS, LOGITS[:, ::-1]).agrees


def test_clips_in_another_order_are_another_answer():
    assert not measure.agreement(LOGITS, np.roll(LOGITS, 1, axis=0)).agrees


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_what_is_no_number_is_no_answer(value: float):
    broken = LOGITS.copy()
    broken[2, 3] = value
    with np.errstate(invalid="ignore", over="ignore"):
        found = measure.agreement(LOGITS, broken)
    assert not found.agrees
    assert found.why == "a logit is no number"


def test_shapes_that_differ_and_a_single_clip_do_not_compare():
    for reference, found in ((LOGITS, LOGITS[:, :3]), (LOGITS[:1], LOGITS[:1])):
        with pytest.raises(ValueError, match="do not compare"):
            measure.agreement(reference, found)


@pytest.mark.parametrize("activation", ["softmax", "sigmoid", "none"])
def test_scores_move_as_torch_computes_them(activation: str):
    torch = pytest.importorskip("torch")
    apply = {"softmax": lambda x: torch.softmax(x, -1), "sigmoid": torch.sigmoid, "none": lambda x: x}[activation]
    found = noisy(0.1)
    want = (apply(torch.from_numpy(found)) - apply(torch.from_numpy(LOGITS))).abs().max()
    assert measure.agreement(LOGITS, found, activation).score_difference == pytest.approx(float(want))
