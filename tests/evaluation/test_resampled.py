"""Intervals from weights equal the bootstrap that computes everything anew from the rows of each resample."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unime_kedro.evaluation.ranking import expected_calibration_error, roc_auc
from unime_kedro.evaluation.resampled import calibration_error_interval, roc_auc_interval
from unime_kedro.evaluation.statistics import bootstrap_interval

# few distinct scores, so that there are ties within and between queries
ROWS = st.lists(
    st.tuples(st.sampled_from([0.0, 0.1, 0.5, 0.9, 1.0]), st.booleans(), st.integers(0, 5)), min_size=1, max_size=40
)


def columns(rows: list[tuple[float, bool, int]]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    scores, labels, groups = zip(*rows, strict=True)
    return np.array(scores), np.array(labels), np.array([f"query {g}" for g in groups])


@given(ROWS, st.integers(0, 3))
@settings(max_examples=60)
def test_auc_equals_the_plain_bootstrap(rows: list[tuple[float, bool, int]], seed: int) -> None:
    scores, labels, groups = columns(rows)
    found = roc_auc_interval(scores, labels, groups, level=0.9, resamples=25, seed=seed)
    wanted = bootstrap_interval(roc_auc, scores, labels, groups=groups, level=0.9, resamples=25, seed=seed)
    np.testing.assert_allclose(found, wanted, atol=1e-12)


@given(ROWS, st.integers(0, 3), st.sampled_from([1, 4, 15]))
@settings(max_examples=60)
def test_calibration_error_equals_the_plain_bootstrap(
    rows: list[tuple[float, bool, int]], seed: int, bins: int
) -> None:
    scores, labels, groups = columns(rows)
    found = calibration_error_interval(scores, labels, groups, bins=bins, level=0.8, resamples=25, seed=seed)
    error = partial(expected_calibration_error, bins=bins)
    wanted = bootstrap_interval(error, scores, labels, groups=groups, level=0.8, resamples=25, seed=seed)
    np.testing.assert_allclose(found, wanted, atol=1e-12)


def test_the_order_of_rows_does_not_matter() -> None:
    rng = np.random.default_rng(0)
    scores, labels, groups = rng.random(200), rng.random(200) < 0.3, rng.integers(0, 20, 200)
    order = rng.permutation(200)
    for interval in (roc_auc_interval, calibration_error_interval):
        one = interval(scores, labels, groups, resamples=50)
        other = interval(scores[order], labels[order], groups[order], resamples=50)
        np.testing.assert_allclose(one, other, atol=1e-12)
        assert one.low < one.value < one.high or interval is calibration_error_interval
        assert one.n == 20


def test_what_is_undefined_is_nan() -> None:
    assert np.isnan(roc_auc_interval([0.1, 0.2], [True, True], [0, 1])[:3]).all()
    assert np.isnan(calibration_error_interval([], [], [])[:3]).all()


def test_groups_of_another_length_are_refused() -> None:
    for interval in (roc_auc_interval, calibration_error_interval):
        with pytest.raises(ValueError, match="3 groups, 2 scores"):
            interval([0.1, 0.2], [True, False], [0, 1, 2])
