"""Bootstrap intervals against scipy, exact distributions, slow loops and what an interval promises."""

from __future__ import annotations

import logging
import math

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from unime_kedro.evaluation.ranking import roc_auc
from unime_kedro.evaluation.statistics import Interval, bootstrap_draws, bootstrap_interval, percentile_interval

unhurried = settings(deadline=None, max_examples=30)


def test_coverage_of_a_mean():
    rng = np.random.default_rng(7)
    covered = 0
    for seed in range(300):
        interval = bootstrap_interval("mean", rng.random(200) < 0.6, seed=seed)
        covered += interval.low <= 0.6 <= interval.high
    assert 0.92 <= covered / 300 <= 0.98


def test_means_of_bernoulli_rows_have_the_exact_distribution():
    # a resample's mean of n rows with k ones is Binomial(n, k / n) / n
    values = np.repeat([1, 0], [60, 40])
    draws = bootstrap_draws("mean", values, resamples=20_000, seed=1)
    exact = scipy.stats.binom(100, 0.6)
    assert scipy.stats.kstest(draws * 100 + 0.001, lambda x: exact.cdf(x)).statistic < 0.1  # steps of up to .08
    for level in (0.8, 0.95):
        interval = percentile_interval(0.6, draws, level, 100)
        assert interval.low == pytest.approx(exact.ppf((1 - level) / 2) / 100, abs=0.0101)
        assert interval.high == pytest.approx(exact.ppf((1 + level) / 2) / 100, abs=0.0101)


def test_agrees_with_scipy():
    rng = np.random.default_rng(0)
    values = rng.exponential(size=150)
    for statistic in ("mean", np.median):
        ours = bootstrap_interval(statistic, values, resamples=20_000, seed=3)
        function = np.mean if statistic == "mean" else statistic
        theirs = scipy.stats.bootstrap((values,), function, n_resamples=20_000, method="percentile", rng=4)
        assert ours.value == pytest.approx(function(values), rel=1e-14)
        width = theirs.confidence_interval.high - theirs.confidence_interval.low
        assert ours.low == pytest.approx(theirs.confidence_interval.low, abs=0.05 * width)
        assert ours.high == pytest.approx(theirs.confidence_interval.high, abs=0.05 * width)


def test_groups_widen_the_interval_of_correlated_rows():
    answers = np.random.default_rng(5).random(40) < 0.5
    rows, groups = np.repeat(answers, 25), np.repeat(np.arange(40), 25)  # rows of a group say the same
    by_row = bootstrap_interval("mean", rows)
    by_group = bootstrap_interval("mean", rows, groups=groups)
    alone = bootstrap_interval("mean", answers)
    assert (by_row.n, by_group.n, alone.n) == (1000, 40, 40)
    assert by_row.value == by_group.value == answers.mean()
    # sqrt(25) times as wide in theory, and as wide as if each group were one row
    assert 4 < (by_group.high - by_group.low) / (by_row.high - by_row.low) < 6
    assert by_group[1:3] == pytest.approx(alone[1:3], abs=0.04)


def slow_draws(statistic, arrays, groups, resamples, seed):
    """Draw groups in the order of their labels, one resample and one group at a time."""
    labels = sorted(set(groups))
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(resamples):
        picked = [labels[i] for i in rng.integers(0, len(labels), size=len(labels))]
        rows = [i for label in picked for i in range(len(groups)) if groups[i] == label]
        found.append(statistic(*(np.array([a[i] for i in rows]) for a in arrays)))
    return found


@unhurried
@given(st.lists(st.tuples(st.integers(0, 4), st.integers(-3, 3), st.integers(-3, 3)), min_size=1, max_size=20))
def test_general_path_equals_the_slow_loop(rows):
    groups, x, y = (list(column) for column in zip(*rows, strict=True))

    def statistic(a, b):
        return float((a * 10 + b).sum() / len(a))

    draws = bootstrap_draws(statistic, x, y, groups=groups, resamples=5, seed=11)
    assert draws.tolist() == pytest.approx(slow_draws(statistic, (x, y), groups, 5, 11), abs=1e-12)


@unhurried
@given(st.lists(st.tuples(st.integers(0, 4), st.integers(-3, 3)), min_size=1, max_size=20))
def test_fast_path_of_means_equals_the_slow_loop(rows):
    groups, x = (list(column) for column in zip(*rows, strict=True))
    slow = slow_draws(np.mean, (x,), groups, 5, 11)
    draws = bootstrap_draws("mean", x, groups=groups, resamples=5, seed=11)
    # one call draws all resamples, which gives the same stream as one call for each
    assert draws.tolist() == pytest.approx(slow, abs=1e-12)
    assert draws.tolist() == bootstrap_draws(np.mean, x, groups=groups, resamples=5, seed=11).tolist()


@unhurried
@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.floats(-9, 9), st.booleans()), min_size=1, max_size=15),
    st.randoms(use_true_random=False),
)
def test_row_order_does_not_matter_and_the_seed_does(rows, random):
    def interval(some, seed=0):
        groups, x, y = (np.array(column) for column in zip(*some, strict=True))
        mean = bootstrap_interval("mean", x, groups=groups, resamples=20, seed=seed)
        auc = bootstrap_draws(lambda a, b: float(a @ b), x, y, groups=groups, resamples=20, seed=seed)
        return mean, auc.tolist()

    shuffled = list(rows)
    random.shuffle(shuffled)
    assert interval(rows) == interval(shuffled) == interval(rows)


def test_seeds_give_other_resamples():
    values = np.arange(50.0)
    first = bootstrap_draws("mean", values, seed=0)
    assert (first != bootstrap_draws("mean", values, seed=1)).any()
    assert (first != bootstrap_draws("mean", values, seed=[0, 1])).any()
    assert (first == bootstrap_draws("mean", values, seed=0)).all()


def test_auc_of_whole_queries():
    rng = np.random.default_rng(2)
    labels = np.tile([True, False, False, False], 60)
    scores = rng.normal(size=240) + labels
    interval = bootstrap_interval(roc_auc, scores, labels, groups=np.repeat(np.arange(60), 4), resamples=300)
    assert interval.value == roc_auc(scores, labels)
    assert interval.low < interval.value < interval.high
    assert interval.n == 60
    # the truth: P(N(1, 1) > N(0, 1)) = Phi(1 / sqrt(2))
    assert interval.low < scipy.stats.norm.cdf(1 / math.sqrt(2)) < interval.high


def test_undefined_resamples_are_left_out_and_counted(caplog):
    scores, labels = [0.1, 0.4, 0.9], [False, False, True]
    with caplog.at_level(logging.WARNING):
        interval = bootstrap_interval(roc_auc, scores, labels, resamples=1000)
    assert interval == Interval(1.0, 1.0, 1.0, 3)
    # no positive in (2/3)**3 of the resamples, no negative in (1/3)**3: a third in all
    (record,) = caplog.records
    assert record.args[0] == pytest.approx(1000 / 3, abs=50)
    with caplog.at_level(logging.WARNING):
        interval = bootstrap_interval(roc_auc, scores, [True] * 3)
    assert all(map(math.isnan, interval[:3]))


def test_one_row_and_equal_rows_have_no_width():
    assert bootstrap_interval("mean", [0.25]) == Interval(0.25, 0.25, 0.25, 1)
    assert bootstrap_interval("mean", [True] * 9) == Interval(1.0, 1.0, 1.0, 9)


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ((), {}, "at least one array"),
        (([],), {}, "no rows to resample"),
        (([1, 2], [1]), {}, r"one length; arrays have the shapes \[\(2,\), \(1,\)\]"),
        (([1, 2],), {"groups": [1]}, r"arrays and, last, groups have the shapes \[\(2,\), \(1,\)\]"),
        (([[1, 2]],), {}, "one dimension"),
        (([1, 2],), {"level": 1.0}, "level must lie between 0 and 1, is 1.0"),
        (([1, 2],), {"level": 0}, "level must lie between 0 and 1"),
        (([1, 2],), {"resamples": 0}, "resamples must be at least 1"),
        (([1, math.nan],), {}, "holds 1 NaN"),
        (([1], [1]), {}, "a mean takes one array, got 2"),
    ],
)
def test_what_cannot_be_resampled(arguments, options, message):
    with pytest.raises(ValueError, match=message):
        bootstrap_interval("mean", *arguments, **options)
