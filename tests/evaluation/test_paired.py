"""Comparing two arms: by hand, against a slow bootstrap over rows, and what an interval promises."""

from __future__ import annotations

import math

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unime_kedro.errors import DataError
from unime_kedro.evaluation.paired import compare_arms, correctness

QUICK = settings(max_examples=30, deadline=None)


def arms(seed=0, seeds=3, sizes=(40, 60), better=0.1):
    """Two arms that find the same queries hard; the first answers more of them."""
    rng = np.random.default_rng(seed)
    names = np.repeat([f"d{i}" for i in range(len(sizes))], sizes)
    chance = rng.uniform(0.2, 0.8, size=names.size)
    first, second = (rng.random((seeds, names.size)) < chance + shift for shift in (better, 0))
    return first, second, names


def test_by_hand():
    # data set a: 3 of 4 and 4 of 4 right in the first arm, 2 and 1 in the second; b: 1 and 0 of 2, and 1 and 1
    first = np.array([[1, 1, 1, 0, 1, 0], [1, 1, 1, 1, 0, 0]], dtype=bool)
    second = np.array([[1, 0, 1, 0, 0, 1], [0, 0, 1, 0, 1, 0]], dtype=bool)
    found = compare_arms(first, second, ["a"] * 4 + ["b"] * 2)
    assert found.first.values == (0.625, 0.5)  # (3/4 + 1/2) / 2, (4/4 + 0) / 2
    assert found.second.values == (0.5, 0.375)
    assert found.first.mean == 0.5625
    assert found.first.deviation == pytest.approx(0.125 / math.sqrt(2), abs=1e-12)
    assert found.second.deviation == pytest.approx(0.125 / math.sqrt(2), abs=1e-12)
    assert found.by_seed == (0.125, 0.125)
    assert found.difference.value == 0.125
    assert found.difference.n == 6
    assert -0.5 < found.difference.low < 0.125 < found.difference.high < 1


def test_equal_arms_differ_by_exactly_nothing():
    first, _, names = arms()
    found = compare_arms(first, first.copy(), names)
    assert found.difference == (0.0, 0.0, 0.0, 100)
    assert found.first == found.second
    assert found.first.deviation > 0


def test_always_against_never_is_one_whatever_is_drawn():
    names = ["a"] * 3 + ["b"] * 7
    found = compare_arms(np.ones((2, 10), dtype=bool), np.zeros((2, 10), dtype=bool), names)
    assert found.difference == (1.0, 1.0, 1.0, 10)
    assert (found.first, found.second) == ((1.0, 0.0, (1.0, 1.0)), (0.0, 0.0, (0.0, 0.0)))


def test_one_seed_has_no_deviation_and_the_exact_distribution_of_its_queries():
    # 50 of 100 queries are won, none lost: a resample's difference is Binomial(100, 1/2) / 100
    import scipy.stats

    second = np.zeros((1, 100), dtype=bool)
    first = second.copy()
    first[0, ::2] = True
    found = compare_arms(first, second, ["a"] * 100, resamples=20_000)
    assert math.isnan(found.first.deviation)
    exact = scipy.stats.binom(100, 0.5)
    assert found.difference.low == pytest.approx(exact.ppf(0.025) / 100, abs=0.0101)
    assert found.difference.high == pytest.approx(exact.ppf(0.975) / 100, abs=0.0101)


def test_seeds_alone_have_the_exact_distribution():
    # every query is won with the first seed, none with the two others: Binomial(3, 1/3) / 3, whatever queries are drawn
    first = np.zeros((3, 50), dtype=bool)
    first[0] = True
    found = compare_arms(first, np.zeros_like(first), ["a"] * 50, resamples=20_000, level=0.5)
    assert found.difference.value == pytest.approx(1 / 3)
    # P(0) = 8/27 > 1/4, P(at most 1) = 20/27 < 3/4
    assert found.difference.low == 0
    assert found.difference.high == pytest.approx(2 / 3)


def slow_draws(first, second, names, resamples, rng) -> np.ndarray:
    draws = []
    for _ in range(resamples):
        seeds = rng.integers(0, len(first), size=len(first))
        means = []
        for name in sorted(set(names)):
            columns = np.flatnonzero(names == name)
            columns = columns[rng.integers(0, columns.size, size=columns.size)]
            values = [float(first[s, c]) - float(second[s, c]) for s in seeds for c in columns]
            means.append(sum(values) / len(values))
        draws.append(sum(means) / len(means))
    return np.array(draws)


@pytest.mark.parametrize(("seeds", "sizes"), [(3, (10, 30)), (1, (20,)), (5, (6, 6, 12))])
def test_agrees_with_a_slow_bootstrap_over_rows(seeds, sizes):
    first, second, names = arms(seed=4, seeds=seeds, sizes=sizes)
    found = compare_arms(first, second, names, resamples=20_000).difference
    slow = slow_draws(first, second, names, 1500, np.random.default_rng(1))
    low, high = np.quantile(slow, [0.025, 0.975])
    width = high - low
    assert found.low == pytest.approx(low, abs=0.08 * width)
    assert found.high == pytest.approx(high, abs=0.08 * width)


def test_pairing_makes_the_interval_narrower():
    # both arms fail on the same queries; the second on one more in twenty
    rng = np.random.default_rng(0)
    first = np.broadcast_to(rng.random(400) < 0.5, (3, 400)).copy()
    second = first & (rng.random(400) < 0.9)
    found = compare_arms(first, second, ["a"] * 400).difference
    unpaired = compare_arms(first, second[:, rng.permutation(400)], ["a"] * 400).difference
    assert found.value == pytest.approx(unpaired.value)
    assert found.high - found.low < 0.5 * (unpaired.high - unpaired.low)
    assert found.low > 0


@given(st.integers(0, 1000), st.integers(1, 4), st.randoms(use_true_random=False))
@QUICK
def test_the_order_of_queries_and_seeds_changes_nothing(seed, seeds, random):
    first, second, names = arms(seed, seeds, sizes=(9, 14, 25))
    expected = compare_arms(first, second, names, resamples=100)
    order = random.sample(range(48), 48)
    again = compare_arms(first[:, order], second[:, order], names[order], resamples=100)
    assert (again.difference, again.by_seed) == (expected.difference, expected.by_seed)
    assert (again.first.values, again.second.values) == (expected.first.values, expected.second.values)
    rows = random.sample(range(seeds), seeds)
    again = compare_arms(first[rows], second[rows], names, resamples=100)
    assert again.by_seed == tuple(expected.by_seed[s] for s in rows)
    won = first.astype(int) - second
    if len({tuple(won[s, names == name].sum() for name in ("d0", "d1", "d2")) for s in range(seeds)}) == seeds:
        assert again.difference == pytest.approx(expected.difference, abs=1e-12)
    # the other way round it is the same with the other sign
    swapped = compare_arms(second, first, names, resamples=100)
    assert swapped.difference.value == pytest.approx(-expected.difference.value, abs=1e-12)
    assert swapped.first.values == expected.second.values


def test_the_seed_decides_the_interval():
    first, second, names = arms()
    one, same, other = (compare_arms(first, second, names, seed=s).difference for s in (1, 1, 2))
    assert one == same
    assert one != other
    assert one.value == other.value


def test_coverage():
    covered = {1: 0, 3: 0}
    for seeds in covered:
        for trial in range(150):
            first, second, names = arms(trial, seeds, sizes=(60, 60, 60), better=0.1)
            found = compare_arms(first, second, names, resamples=300, seed=trial).difference
            covered[seeds] += found.low <= 0.1 <= found.high
    assert 0.89 <= covered[1] / 150 <= 0.99
    assert covered[3] / 150 >= 0.95  # cautious


@pytest.mark.parametrize(
    ("first", "second", "names", "options", "message"),
    [
        ([[1, 0]], [[1, 0]], "ab", {}, "arms of bool, got int64"),
        ([[True]], [[True, False]], "a", {}, r"got \(1, 1\), \(1, 2\) and \(1,\)"),
        ([[True]], [[True]], "ab", {}, r"\(1, 1\) and \(2,\)"),
        ([True], [True], "a", {}, r"got \(1,\), \(1,\)"),
        (np.zeros((0, 1), bool), np.zeros((0, 1), bool), "a", {}, r"none empty; got \(0, 1\)"),
        ([[True]], [[True]], "a", {"level": 1.0}, "level"),
        ([[True]], [[True]], "a", {"resamples": 0}, "resamples"),
    ],
)
def test_what_cannot_be_compared(first, second, names, options, message):
    with pytest.raises(ValueError, match=message):
        compare_arms(first, second, list(names), **options)


# --- predictions ---


def predictions(correct) -> pl.DataFrame:
    return pl.DataFrame({"dataset": ["a", "a", "b"], "query_id": [0, 1, 0], "correct": correct})


def test_predictions_are_put_beside_each_other_by_query():
    one, other = predictions([True, False, True]), predictions([False, False, True])
    found, names = correctness([one, other.reverse().with_columns(rank=pl.lit(1))])
    assert found.tolist() == [[True, False, True], [False, False, True]]
    assert names.tolist() == ["a", "a", "b"]
    value = compare_arms(found, np.zeros_like(found), names)
    assert value.first.values == (0.75, 0.5)


def test_predictions_that_do_not_fit():
    good = predictions([True, True, False])
    for bad, message in (
        (good.drop("correct"), "seed number 1 lack correct"),
        (pl.concat([good, good[:1]]), "seed number 1: expected one answer per query, found two or null"),
        (predictions([True, None, False]), "seed number 1: expected one answer per query"),
        (good[:2], r"seed number 1 are of other queries \(2\) than those of the first \(3\)"),
    ):
        with pytest.raises(DataError, match=message):
            correctness([good, bad])
    with pytest.raises(ValueError, match="no predictions"):
        correctness([])
