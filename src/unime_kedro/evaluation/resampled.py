"""Intervals of a judge's ROC AUC and calibration error, by resampling queries, fast enough for whole corpora.

They equal :func:`unime_kedro.evaluation.statistics.bootstrap_interval` with the same seed, resample for resample, which
computes a statistic anew from the rows of each resample. Here a resample is a weight per query, so that the scores are
sorted once (AUC), or never (calibration error).
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import ArrayLike, NDArray

from unime_kedro.evaluation.ranking import expected_calibration_error, paired, probability_bins, roc_auc
from unime_kedro.evaluation.statistics import Interval, percentile_interval


def roc_auc_interval(
    scores: ArrayLike,
    labels: ArrayLike,
    groups: ArrayLike,
    *,
    level: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
) -> Interval:
    """Return the area under the ROC curve with its cluster bootstrap interval.

    Args:
        scores: (n_pairs,) numbers, higher means "more likely positive".
        labels: (n_pairs,) truth values.
        groups: (n_pairs,) query ids; pairs of one query are drawn together.
        level: Share of the resamples' values between the two ends.
        resamples: How many resamples are drawn.
        seed: Seed of the drawing.

    Returns:
        The area and its interval; all NaN when there are no positives or no negatives.

    Raises:
        ValueError: If the lengths differ or a score is NaN.
    """
    values, positive = paired(scores, labels)
    group, n = _numbered(groups, values.size)
    area = roc_auc(values, positive)
    if np.isnan(area):
        return Interval(area, area, area, n)
    negatives = np.argsort(values[~positive], kind="stable")
    ordered, group_of_negative = values[~positive][negatives], group[~positive][negatives]
    below = np.searchsorted(ordered, values[positive], side="left")
    not_above = np.searchsorted(ordered, values[positive], side="right")
    draws = np.full(resamples, np.nan)
    for i, weights in enumerate(_weights(n, resamples, seed)):
        of_positive = weights[group[positive]]
        passed = np.append(0.0, np.cumsum(weights[group_of_negative]))  # weight of the k lowest negatives
        pairs = of_positive.sum() * passed[-1]
        if pairs > 0:
            draws[i] = of_positive @ (passed[below] + passed[not_above]) / 2 / pairs
    return percentile_interval(area, draws, level, n)


def calibration_error_interval(
    scores: ArrayLike,
    labels: ArrayLike,
    groups: ArrayLike,
    *,
    bins: int = 15,
    level: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
) -> Interval:
    """Return the expected calibration error with its cluster bootstrap interval.

    The error is a mean of absolute values, so that resamples have a larger one than the data on average. The interval
    can lie above the value where scores are well calibrated.

    Args:
        scores: (n_pairs,) probabilities of "yes".
        labels: (n_pairs,) truth values.
        groups: (n_pairs,) query ids; pairs of one query are drawn together.
        bins: See :func:`unime_kedro.evaluation.ranking.expected_calibration_error`.
        level: Share of the resamples' values between the two ends.
        resamples: How many resamples are drawn.
        seed: Seed of the drawing.

    Returns:
        The error and its interval; all NaN without pairs.

    Raises:
        ValueError: If the lengths differ, or a score is NaN or outside [0, 1].
    """
    values, positive = paired(scores, labels)
    group, n = _numbered(groups, values.size)
    error = expected_calibration_error(values, positive, bins)
    if np.isnan(error):
        return Interval(error, error, error, n)
    place = group * bins + probability_bins(values, bins)
    gaps = np.bincount(place, weights=values - positive, minlength=n * bins).reshape(n, bins)
    sizes = np.bincount(group, minlength=n)
    draws = [np.abs(weights @ gaps).sum() / (weights @ sizes) for weights in _weights(n, resamples, seed)]
    return percentile_interval(error, draws, level, n)


def _numbered(groups: ArrayLike, n_rows: int) -> tuple[NDArray[np.int64], int]:
    """Return the number of each row's group, from 0, and how many groups there are."""
    labels, group = np.unique(np.asarray(groups), return_inverse=True)
    if group.size != n_rows:
        raise ValueError(f"{group.size} groups, {n_rows} scores")
    return group, len(labels)


def _weights(n: int, resamples: int, seed: int) -> Iterator[NDArray[np.float64]]:
    """Yield how often each of n groups is in each resample."""
    rng = np.random.default_rng(seed)
    for _ in range(resamples):
        yield np.bincount(rng.integers(0, n, size=n), minlength=n).astype(np.float64)
