"""Ranking measures against values worked out by hand and against slow loops."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unime_kedro.evaluation.ranking import (
    expected_calibration_error,
    mid_ranks,
    precision_recall,
    roc_auc,
    spearman,
)

# few distinct values, so that ties are common; their images under the maps below stay distinct in float64
LEVELS = st.integers(-6, 6).map(lambda i: i / 4)
PAIRS = st.lists(st.tuples(LEVELS, st.booleans()), min_size=1, max_size=40)


# a shared machine may stall; how long an example takes says nothing here
unhurried = settings(deadline=None)


def slow_ranks(values):
    """Count, for every value, how many are smaller and how many are equal."""
    return [sum(w < v for w in values) + (sum(w == v for w in values) + 1) / 2 for v in values]


def slow_auc(scores, labels):
    """Compare every positive with every negative."""
    positives = [s for s, y in zip(scores, labels, strict=True) if y]
    negatives = [s for s, y in zip(scores, labels, strict=True) if not y]
    if not positives or not negatives:
        return math.nan
    wins = sum(1.0 if p > n else 0.5 if p == n else 0.0 for p in positives for n in negatives)
    return wins / (len(positives) * len(negatives))


def test_auc_by_hand():
    # 6 comparisons: .9 beats .8, .4, .4 (3); .4 loses to .8 and ties with .4 twice (1)
    assert roc_auc([0.9, 0.4, 0.8, 0.4, 0.4], [1, 1, 0, 0, 0]) == pytest.approx(4 / 6, abs=1e-15)
    assert roc_auc([0.1, 0.2, 0.3], [False, False, True]) == 1.0
    assert roc_auc([0.3, 0.2, 0.1], [False, False, True]) == 0.0
    assert roc_auc([7.0] * 5, [1, 0, 1, 0, 0]) == 0.5
    assert roc_auc([-np.inf, 0.0, np.inf], [0, 0, 1]) == 1.0


@pytest.mark.parametrize("labels", [[], [True, True], [False, False]])
def test_auc_of_one_class_is_undefined(labels):
    assert math.isnan(roc_auc([0.5] * len(labels), labels))


@pytest.mark.parametrize(
    ("scores", "labels", "message"),
    [([0.5, np.nan], [1, 0], "1 NaN"), ([0.5], [1, 0], "shape"), ([[0.5]], [[1]], "one-dimensional")],
)
def test_auc_refuses_what_it_cannot_rank(scores, labels, message):
    with pytest.raises(ValueError, match=message):
        roc_auc(scores, labels)


@unhurried
@given(PAIRS)
def test_auc_equals_the_slow_loop(pairs):
    scores, labels = zip(*pairs, strict=True)
    assert roc_auc(scores, labels) == pytest.approx(slow_auc(scores, labels), abs=1e-12, nan_ok=True)


@unhurried
@given(PAIRS, st.randoms(use_true_random=False))
def test_auc_ignores_order_and_monotone_maps_and_mirrors(pairs, random):
    scores, labels = (np.array(side) for side in zip(*pairs, strict=True))
    expected = roc_auc(scores, labels)
    shuffled = list(pairs)
    random.shuffle(shuffled)
    assert roc_auc(*zip(*shuffled, strict=True)) == pytest.approx(expected, abs=0, nan_ok=True)
    for mapped in (np.exp(scores), 3 * scores**3 - 1, 1 / (1 + np.exp(-scores))):
        assert roc_auc(mapped, labels) == pytest.approx(expected, abs=0, nan_ok=True)
    assert roc_auc(-scores, labels) == pytest.approx(1 - expected, abs=1e-12, nan_ok=True)
    assert roc_auc(scores, ~labels) == pytest.approx(1 - expected, abs=1e-12, nan_ok=True)


def test_auc_survives_counts_beyond_32_bits():
    # 70,000 x 70,000 comparisons overflow int32; half of the positives tie with all negatives, half win
    scores = np.r_[np.ones(35_000), np.zeros(35_000), np.zeros(70_000)]
    labels = np.r_[np.ones(70_000), np.zeros(70_000)]
    assert roc_auc(scores, labels) == 0.75


def test_mid_ranks_by_hand():
    np.testing.assert_array_equal(mid_ranks([10, 30, 20, 20, 40, 20]), [1, 5, 3, 3, 6, 3])
    assert mid_ranks([]).size == 0


@unhurried
@given(st.lists(LEVELS, min_size=1, max_size=40))
def test_mid_ranks_equal_the_slow_loop(values):
    np.testing.assert_array_equal(mid_ranks(values), slow_ranks(values))


def test_spearman_by_hand():
    # ranks of y: 1, 2, 3, 5, 4 -> d = 0, 0, 0, 1, 1 -> 1 - 6 * 2 / (5 * 24)
    assert spearman([1, 2, 3, 4, 5], [5, 6, 7, 8, 7.5]) == pytest.approx(0.9)
    # ties: ranks 1.5, 1.5, 3 against 1, 2, 3: centred products .25*... = (.5 + 0 + 1) / sqrt(1.5 * 2)
    assert spearman([0, 0, 1], [1, 2, 3]) == pytest.approx(1.5 / math.sqrt(3))
    assert math.isnan(spearman([1, 1, 1], [1, 2, 3]))
    assert math.isnan(spearman([1], [1]))
    with pytest.raises(ValueError, match="2 values on one side, 3"):
        spearman([1, 2], [1, 2, 3])


@unhurried
@given(st.lists(st.tuples(LEVELS, LEVELS), min_size=2, max_size=40))
def test_spearman_equals_the_correlation_of_slow_ranks(pairs):
    x, y = (np.array(side) for side in zip(*pairs, strict=True))
    if len(set(x)) < 2 or len(set(y)) < 2:
        assert math.isnan(spearman(x, y))
    else:
        assert spearman(x, y) == pytest.approx(np.corrcoef(slow_ranks(x), slow_ranks(y))[0, 1], abs=1e-12)


def test_precision_recall_by_hand():
    result = precision_recall([1, 1, 1, 0, 0], [1, 0, 1, 1, 0])
    assert result == (2 / 3, 2 / 3, 2, 3, 3)
    nothing_predicted = precision_recall([0, 0], [1, 0])
    assert math.isnan(nothing_predicted.precision)
    assert nothing_predicted.recall == 0
    nothing_actual = precision_recall([1, 0], [0, 0])
    assert nothing_actual.precision == 0
    assert math.isnan(nothing_actual.recall)
    with pytest.raises(ValueError, match="2 predictions, 1 truths"):
        precision_recall([1, 0], [1])


def test_calibration_error_by_hand():
    # bins of .5: (.2, .4) with one positive: |.3 - .5| = .2; (.5, 1.) with two positives: |.75 - 1| = .25
    scores, labels = [0.2, 0.4, 0.5, 1.0], [0, 1, 1, 1]
    assert expected_calibration_error(scores, labels, bins=2) == pytest.approx((2 * 0.2 + 2 * 0.25) / 4)
    assert expected_calibration_error(scores, labels, bins=1) == pytest.approx(abs(0.525 - 0.75))
    assert expected_calibration_error([0.0, 1.0], [0, 1]) == 0
    assert expected_calibration_error([0.0, 1.0], [1, 0]) == 1
    assert math.isnan(expected_calibration_error([], []))


@unhurried
@given(st.lists(st.tuples(st.integers(0, 60).map(lambda i: i / 60), st.booleans()), min_size=1, max_size=40))
def test_calibration_error_equals_the_slow_loop(pairs):
    bins, total = 7, 0.0
    for b in range(bins):
        members = [(s, y) for s, y in pairs if b <= s * bins < b + 1 or (b == bins - 1 and s == 1)]
        if members:
            mean_score = sum(s for s, _ in members) / len(members)
            total += len(members) * abs(mean_score - sum(y for _, y in members) / len(members))
    scores, labels = zip(*pairs, strict=True)
    assert expected_calibration_error(scores, labels, bins) == pytest.approx(total / len(pairs), abs=1e-12)


@pytest.mark.parametrize(
    ("scores", "bins", "message"), [([1.2], 15, r"\[0, 1\]"), ([-0.1], 15, r"\[0, 1\]"), ([0.5], 0, "bins")]
)
def test_calibration_error_wants_probabilities(scores, bins, message):
    with pytest.raises(ValueError, match=message):
        expected_calibration_error(scores, [1], bins)
