"""Tests of paired differences against scipy and full enumeration; Holm's correction against a published example."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from unime_kedro.evaluation.significance import holm, mean_sign_flip_p, sign_flip_p

unhurried = settings(deadline=None, max_examples=60)


def enumerated(groups, weights):
    """Count every choice of signs."""
    numbers = np.concatenate([np.abs(group) * weight for group, weight in zip(groups, weights, strict=True)])
    observed = abs(sum(float(np.sum(group)) * weight for group, weight in zip(groups, weights, strict=True)))
    sums = np.abs([np.dot(signs, numbers) for signs in itertools.product((-1, 1), repeat=len(numbers))])
    if observed < 1e-9:
        return 1.0
    return float(np.mean(sums > observed + 1e-9) + np.mean(np.abs(sums - observed) <= 1e-9) / 2)


@unhurried
@given(st.lists(st.integers(-4, 4), min_size=1, max_size=9))
def test_equals_full_enumeration(differences):
    assert sign_flip_p(differences) == pytest.approx(enumerated([differences], [1.0]), abs=1e-12)
    assert sign_flip_p([-d for d in differences]) == sign_flip_p(differences)


@pytest.mark.parametrize(("won", "lost"), [(5, 0), (12, 4), (40, 40), (100, 61), (0, 1), (900, 700)])
def test_one_query_a_unit_is_mcnemars_mid_p(won, lost):
    # exact McNemar is the binomial test of those that one model alone answered; mid-p takes half of what is as extreme
    exact = scipy.stats.binomtest(won, won + lost).pvalue
    as_extreme = scipy.stats.binom.pmf(won, won + lost, 0.5)
    expected = exact - as_extreme if won != lost else 1.0
    found = sign_flip_p(np.repeat([1, -1, 0], [won, lost, 50]))
    assert found == pytest.approx(expected, abs=1e-9)


def test_by_hand():
    # 2 ** 3 choices for 3, 1, 1: sums 5 3 3 1 -1 -3 -3 -5; two of them are as large as 5
    assert sign_flip_p([3, 1, 1]) == 2 / 8 / 2
    assert sign_flip_p([3, -1, 1]) == pytest.approx(2 / 8 + 4 / 8 / 2, abs=1e-15)
    assert sign_flip_p([0, 0]) == 1
    assert sign_flip_p([1, -1]) == 1


def test_whole_numbers_only():
    with pytest.raises(ValueError, match="whole numbers, got float64"):
        sign_flip_p([0.5])


@pytest.mark.parametrize(
    ("groups", "weights"),
    [
        ([[1, 1, -1, 1], [2, 1, 1]], [0.5 / 4, 0.5 / 3]),
        ([[1, 1, 1], [1, 1, 1, 1, -1]], [0.5, 0.5]),
        ([[1, -1], [0]], [1, 1]),
    ],
)
def test_drawn_signs_of_several_samples_approach_full_enumeration(groups, weights):
    names = ["a", "b"]
    found = mean_sign_flip_p(
        dict(zip(names, groups, strict=True)),
        dict(zip(names, weights, strict=True)),
        {name: [0, i] for i, name in enumerate(names)},
    )
    assert found == pytest.approx(enumerated(groups, weights), abs=0.012)


def test_drawn_signs_depend_on_the_streams_alone():
    groups, weights = {"a": np.repeat([1, -1], [30, 20]), "b": np.repeat([1, -1], [9, 4])}, {"a": 0.01, "b": 0.02}
    one, same, other = (mean_sign_flip_p(groups, weights, {"a": [s, 1], "b": [s, 2]}) for s in (0, 0, 1))
    assert one == same != other
    backwards = {name: groups[name][::-1] for name in ("b", "a")}
    assert mean_sign_flip_p(backwards, weights, {"a": [0, 1], "b": [0, 2]}) == one


def test_a_difference_beyond_all_draws_is_rare_and_not_impossible():
    groups = {"a": np.ones(500, dtype=int), "b": np.ones(500, dtype=int)}
    assert mean_sign_flip_p(groups, {"a": 1.0, "b": 1.0}, {"a": [0], "b": [1]}) == 0.5 / 20_001


# --- Holm ---


def test_holm_by_a_worked_example():
    # .01 x 4, .03 x 3 = .09, .04 x 2 = .08 is below .09 and becomes .09, .5 x 1
    assert holm([0.04, 0.01, 0.5, 0.03]).tolist() == pytest.approx([0.09, 0.04, 0.5, 0.09])
    assert holm([0.6, 0.7]).tolist() == [1.0, 1.0]
    assert holm([0.03]).tolist() == [0.03]
    assert holm([]).tolist() == []


def slow_holm(p):
    """Reject from the smallest on; the corrected p is the smallest level at which its turn comes."""
    order = sorted(range(len(p)), key=lambda i: p[i])
    found, largest = [0.0] * len(p), 0.0
    for step, i in enumerate(order):
        largest = max(largest, (len(p) - step) * p[i])
        found[i] = min(1.0, largest)
    return found


@unhurried
@given(st.lists(st.floats(0, 1), max_size=12))
def test_holm_equals_the_slow_loop_and_is_between_p_and_bonferroni(p):
    found = holm(p)
    assert found.tolist() == pytest.approx(slow_holm(p), abs=1e-12)
    assert (found >= np.array(p) - 1e-15).all()
    assert (found <= np.minimum(1, len(p) * np.array(p)) + 1e-12).all()


def test_holm_of_no_probability():
    with pytest.raises(ValueError, match="between 0 and 1"):
        holm([0.5, 1.5])


def test_holm_keeps_false_alarms_of_many_tests_rare():
    rng = np.random.default_rng(0)
    p = rng.random((4000, 13))
    alarms = np.mean([(holm(row) < 0.05).any() for row in p])
    assert 0.04 <= alarms <= 0.06
    assert (p.min(axis=1) < 0.05).mean() > 0.4  # without correction
