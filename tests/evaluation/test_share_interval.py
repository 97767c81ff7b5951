"""Intervals of shares against scipy, by hand, and what an interval of 95 % promises: to hold the true value."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from unime_kedro.evaluation.statistics import bootstrap_draws, mean_share_interval, share_interval

RESAMPLES = 400


def interval(right, groups=None, level=0.95, seed=0, resamples=RESAMPLES):
    n = len(right) if groups is None else len(np.unique(groups))
    draws = bootstrap_draws("mean", right, groups=groups, resamples=resamples, seed=seed)
    return share_interval(float(np.mean(right)), draws, level, n)


def wilson(k, n, level=0.95):
    found = scipy.stats.binomtest(k, n).proportion_ci(level, method="wilson")
    return found.low, found.high


@pytest.mark.parametrize("k", [0, 100])
def test_all_wrong_or_all_right_is_wilson_and_not_certain(k):
    found = interval(np.arange(100) < k)
    assert found.value == k / 100
    assert found[1:3] == pytest.approx(wilson(k, 100), abs=1e-12)
    assert found.high - found.low == pytest.approx(0.037, abs=0.0005)


@pytest.mark.parametrize(("k", "n"), [(500, 1000), (970, 1000), (3, 1000), (80, 100)])
def test_independent_queries_have_wilsons_interval_but_for_the_luck_of_the_draws(k, n):
    found = interval(np.arange(n) < k, resamples=40_000)
    low, high = wilson(k, n)
    # Student's t for n = 100 and the variance of 40,000 draws: two in a hundred of the width
    assert found[1:3] == pytest.approx((low, high), abs=0.02 * (high - low))


def test_by_hand():
    # variance .01 of .5 is that of 25 answers, of which 10 units know 9/10: 22.5; t of 9 degrees at 90 % is 1.8331
    found = share_interval(0.5, [0.4, 0.6], 0.9, 10)
    assert found.value == 0.5
    reach = 1.8331 * math.sqrt(0.25 / 22.5 + 1.8331**2 / (4 * 22.5**2)) / (1 + 1.8331**2 / 22.5)
    assert found[1:3] == pytest.approx((0.5 - reach, 0.5 + reach), abs=1e-4)
    # and of a share away from the middle, the middle of the interval is drawn to it
    found = share_interval(0.9, [0.8, 1.0], 0.9, 10)
    size = 0.09 / 0.01 * 0.9
    assert (found.low + found.high) / 2 < 0.9
    middle = (0.9 + 1.8331**2 / (2 * size)) / (1 + 1.8331**2 / size)
    reach = 1.8331 * math.sqrt(0.09 / size + 1.8331**2 / (4 * size**2)) / (1 + 1.8331**2 / size)
    assert found[1:3] == pytest.approx((middle - reach, middle + reach), abs=1e-4)


def test_rows_of_one_group_count_once():
    answers = np.arange(60) % 3 > 0
    found = interval(np.repeat(answers, 10), np.repeat(np.arange(60), 10))
    assert found == interval(answers, np.arange(60))
    assert found.n == 60


@settings(deadline=None, max_examples=60)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=30), st.floats(0.5, 0.999))
def test_it_holds_its_value_and_stays_within_bounds(values, level):
    found = interval(np.array(values), level=level, resamples=20)
    assert found.low <= found.value <= found.high
    assert found.low >= -1e-9
    assert found.high <= 1 + 1e-9
    if len(values) > 1:
        assert found.low < found.high


def test_no_share():
    for value in (-0.1, 1.1, math.nan):
        with pytest.raises(ValueError, match="between 0 and 1 was expected"):
            share_interval(value, [0.5], 0.95, 3)
    # what rounding adds is let pass
    assert share_interval(1 + 1e-12, [1.0, 1.0], 0.95, 10).high == 1 + 1e-12


# --- means over data sets ---


def mean_interval(parts, level=0.95, seed=0, resamples=RESAMPLES):
    draws = [bootstrap_draws("mean", part, resamples=resamples, seed=[seed, i]) for i, part in enumerate(parts)]
    return mean_share_interval([float(np.mean(part)) for part in parts], draws, [len(part) for part in parts], level)


def test_a_mean_over_one_data_set_is_its_own():
    right = np.arange(40) < 30
    assert mean_interval([right]) == interval(right, seed=[0, 0])


def test_equal_data_sets_are_as_good_as_one():
    parts = [np.arange(100) < 90] * 4
    found, whole = mean_interval(parts, resamples=20_000), interval(np.concatenate(parts), resamples=20_000)
    assert found == pytest.approx(whole, abs=0.002)


def test_what_one_sided_data_sets_could_hold_is_added():
    # Wilson: 0 of 10 could be .2775, 10 of 10 could be .7225; each is half of the mean
    found = mean_interval([np.zeros(10), np.ones(10)])
    assert found == pytest.approx((0.5, 0.5 - 0.27754 / 2, 0.5 + 0.27754 / 2, 20), abs=1e-4)
    # .2775 downwards twice, nothing upwards
    found = mean_interval([np.ones(10), np.ones(10)])
    assert found == pytest.approx((1, 1 - 0.27754 / math.sqrt(2), 1, 20), abs=1e-4)
    # a large one that varies, and a small one that does not: the small one decides
    large = np.arange(2000) % 2
    found = mean_interval([large, np.ones(10)])
    own = interval(np.concatenate([large, np.ones(10)]))
    assert found.high - found.value == pytest.approx(0.0219 / 2, rel=0.1)
    assert found.value - found.low == pytest.approx(0.27754 / 2, rel=0.02)
    assert own.high - own.low < 0.05


# --- what an interval promises ---


def shares_that_hold(n, p):
    """Return the exact chance that the interval holds p: shares of n queries are binomial."""
    counts = np.arange(n + 1)
    chances = scipy.stats.binom.pmf(counts, n, p)
    likely = counts[chances > 1e-6]
    found = {k: interval(np.arange(n) < k, seed=k) for k in likely.tolist()}
    return sum(chances[k] for k, one in found.items() if one.low <= p <= one.high)


@pytest.mark.parametrize("p", [0.5, 0.8, 0.95, 0.98])
@pytest.mark.parametrize("n", [100, 1000])
def test_coverage_of_a_share(n, p):
    assert 0.93 <= shares_that_hold(n, p) <= 0.975


@pytest.mark.parametrize(("n", "a", "b"), [(40, 4, 1), (100, 9.5, 0.5)])
def test_coverage_of_grouped_rows(n, a, b):
    # queries of one picture share its difficulty, and pictures have one to nine queries
    rng = np.random.default_rng(0)
    held = 0
    for i in range(1000):
        groups = np.repeat(np.arange(n), rng.integers(1, 10, n))
        right = rng.random(len(groups)) < rng.beta(a, b, n)[groups]
        found = interval(right, groups, seed=i)
        held += found.low <= a / (a + b) <= found.high
    assert 0.93 <= held / 1000 <= 0.97


@pytest.mark.parametrize(
    ("sizes", "shares"), [((100, 300, 1000), (0.5, 0.8, 0.95)), ((50, 100, 100, 200, 400), (0.9, 0.95, 0.97, 0.9, 0.6))]
)
def test_coverage_of_a_mean_over_unequal_data_sets(sizes, shares):
    rng = np.random.default_rng(2)
    held = 0
    for _ in range(1000):
        right = [rng.binomial(n, p) / n for n, p in zip(sizes, shares, strict=True)]
        # resamples of independent queries are binomial (tests of bootstrap_draws)
        draws = [rng.binomial(n, p, size=RESAMPLES) / n for n, p in zip(sizes, right, strict=True)]
        found = mean_share_interval(right, draws, sizes, 0.95)
        held += found.low <= np.mean(shares) <= found.high
    assert 0.93 <= held / 1000 <= 0.97
