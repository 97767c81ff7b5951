"""Temperature scaling against closed forms, a slow grid search and draws of a known temperature."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unime_kedro.evaluation.calibration import TEMPERATURE_LIMITS, calibration_curve, fit_temperature
from unime_kedro.evaluation.ranking import expected_calibration_error

# a shared machine may stall; how long an example takes says nothing here
unhurried = settings(deadline=None, max_examples=50)
GRID = [0.05 * 400 ** (i / 2000) for i in range(2001)]  # .05 to 20, steps of .3 %


def sigmoid(x):
    return 1 / (1 + math.exp(-x)) if x >= 0 else math.exp(x) / (1 + math.exp(x))


def slow_loss(logits, labels, temperature):
    """Mean negative log-likelihood, one pair at a time; log(1 + e^m) is m + log(1 + e^-m)."""
    margins = [-z / temperature if y else z / temperature for z, y in zip(logits, labels, strict=True)]
    return math.fsum(max(m, 0) + math.log1p(math.exp(-abs(m))) for m in margins) / len(margins)


def test_by_hand():
    # three of four pairs at 2 ln 3 are positives: the best score there is 3/4 = sigmoid(ln 3), so T = 2
    assert fit_temperature([2 * math.log(3)] * 4, [True, True, True, False]) == pytest.approx(2, rel=1e-10)
    # the same on the other side, and an overcautious judge: nine of ten right at a logit of ln 3, so T = 1/2
    assert fit_temperature([-2 * math.log(3)] * 4, [0, 0, 0, 1]) == pytest.approx(2, rel=1e-10)
    assert fit_temperature([math.log(3)] * 10, [1] * 9 + [0]) == pytest.approx(0.5, rel=1e-10)


def test_limits_and_ties():
    low, high = TEMPERATURE_LIMITS
    assert (low, high) == (0.05, 20.0)
    assert fit_temperature([3.0, 1.0, -1.0], [1, 1, 0]) == low  # without a fault: more certain is always better
    assert fit_temperature([1e4, -1e4], [1, 0]) == low  # where the loss is 0 in float64 at any temperature
    assert fit_temperature([3.0, 1.0, -1.0], [0, 0, 1]) == high  # always wrong: less certain is always better
    assert fit_temperature([2.0, 2.0], [1, 0]) == high  # a coin: the best T is infinite
    assert fit_temperature([0.0, 0.0], [1, 0]) == 1.0
    # best at 40 and at .025, beyond the limits
    assert fit_temperature([40 * math.log(3)] * 4, [1, 1, 1, 0]) == high
    assert fit_temperature([0.025 * math.log(3)] * 4, [1, 1, 1, 0]) == low


@pytest.mark.parametrize("true_temperature", [0.4, 1.0, 2.5, 7.0])
def test_a_known_temperature_is_found_within_its_standard_error(true_temperature):
    rng = np.random.default_rng(5)
    logits = rng.normal(1, 6, 40_000)
    probability = np.array([sigmoid(z / true_temperature) for z in logits])
    labels = rng.random(logits.size) < probability
    # Fisher's information about 1/T; the standard error of T follows with T^2
    information = float((logits**2 * probability * (1 - probability)).sum())
    error = true_temperature**2 / math.sqrt(information)
    found = fit_temperature(logits, labels)
    assert error < 0.03 * true_temperature
    assert abs(found - true_temperature) < 4 * error


def test_scores_are_probabilities_afterwards():
    rng = np.random.default_rng(6)
    logits = rng.normal(0, 9, 20_000)
    labels = rng.random(logits.size) < 1 / (1 + np.exp(-logits / 3))
    before = expected_calibration_error(1 / (1 + np.exp(-logits)), labels)
    after = expected_calibration_error(1 / (1 + np.exp(-logits / fit_temperature(logits, labels))), labels)
    assert before > 0.1
    assert after < 0.015


PAIRS = st.lists(st.tuples(st.integers(-80, 80).map(lambda i: i / 8), st.booleans()), min_size=2, max_size=25).filter(
    lambda pairs: len({label for _, label in pairs}) == 2
)


@unhurried
@given(PAIRS)
def test_no_temperature_of_a_slow_grid_fits_better(pairs):
    logits, labels = zip(*pairs, strict=True)
    losses = [slow_loss(logits, labels, temperature) for temperature in GRID]
    found = fit_temperature(logits, labels)
    assert 0.05 <= found <= 20
    assert slow_loss(logits, labels, found) <= min(losses) + 1e-12
    if any(logits):  # the loss has one minimum, so that the fit lies beside the grid's best
        best = GRID[losses.index(min(losses))]
        near = [t for t, loss in zip(GRID, losses, strict=True) if loss <= min(losses) + 1e-9]
        assert min(near[0], best) / 1.004 <= found <= max(near[-1], best) * 1.004


@unhurried
@given(PAIRS, st.randoms(use_true_random=False))
def test_row_order_does_not_matter(pairs, random):
    shuffled = random.sample(pairs, len(pairs))
    assert fit_temperature(*zip(*pairs, strict=True)) == fit_temperature(*zip(*shuffled, strict=True))


@pytest.mark.parametrize(
    ("logits", "labels", "message"),
    [
        ([1.0, math.nan], [1, 0], "logits hold 1 NaN"),
        ([1.0, math.inf, -math.inf], [1, 0, 1], "logits hold 2 infinite"),
        ([1.0, 2.0], [1], r"logits have shape \(2,\), labels \(1,\)"),
        ([1.0, 2.0], [1, 1], "2 of 2 labels are positive: a temperature needs pairs of both classes"),
        ([1.0, 2.0], [0, 0], "0 of 2 labels"),
        ([], [], "0 of 0 labels"),
        ([[1.0]], [[1]], "logits must be one-dimensional"),
    ],
)
def test_what_cannot_be_fitted_is_refused(logits, labels, message):
    with pytest.raises(ValueError, match=message):
        fit_temperature(logits, labels)


def test_curve_by_hand():
    curve = calibration_curve([0.2, 0.4, 0.5, 1.0, 0.3], [0, 1, 1, 1, 0], bins=4)
    # [0, .25) .2 | [.25, .5) .4 and .3, one positive | [.5, .75) .5 | [.75, 1] 1
    assert curve.pairs.tolist() == [1, 2, 1, 1]
    assert curve.pairs.dtype == np.int64
    np.testing.assert_allclose(curve.mean_score, [0.2, 0.35, 0.5, 1.0])
    np.testing.assert_allclose(curve.positive_share, [0, 0.5, 1, 1])
    gap = calibration_curve([0.1, 0.9], [0, 1], bins=3)
    assert gap.pairs.tolist() == [1, 0, 1]
    assert np.isnan([gap.mean_score[1], gap.positive_share[1]]).all()
    assert calibration_curve([], [], bins=2).pairs.tolist() == [0, 0]
    assert len(calibration_curve([0.5], [1]).pairs) == 15


@unhurried
@given(
    st.lists(st.tuples(st.integers(0, 60).map(lambda i: i / 60), st.booleans()), min_size=1, max_size=40),
    st.sampled_from([1, 7, 15]),
)
def test_the_calibration_error_follows_from_the_curve(pairs, bins):
    scores, labels = zip(*pairs, strict=True)
    curve = calibration_curve(scores, labels, bins)
    rows = [row for row in zip(*(part.tolist() for part in curve), strict=True) if row[0]]
    error = sum(n * abs(mean - share) for n, mean, share in rows) / sum(n for n, *_ in rows)
    assert sum(n for n, *_ in rows) == len(pairs)
    assert expected_calibration_error(scores, labels, bins) == pytest.approx(error, abs=1e-12)


@pytest.mark.parametrize(
    ("scores", "bins", "message"),
    [([1.2], 15, r"\[0, 1\]"), ([0.5], 0, "bins"), ([math.nan], 15, "scores hold 1 NaN"), ([0.5, 0.5], 15, "shape")],
)
def test_a_curve_wants_probabilities(scores, bins, message):
    with pytest.raises(ValueError, match=message):
        calibration_curve(scores, [1], bins)
