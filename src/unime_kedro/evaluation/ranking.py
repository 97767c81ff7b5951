"""Measures of scores against labels: ROC AUC, rank correlation, precision and recall, calibration. numpy only.

All of them treat ties by rule, so that no result depends on the order of the rows.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray


class PrecisionRecall(NamedTuple):
    """Precision and recall of a yes/no prediction, and the counts that they come from."""

    precision: float
    recall: float
    true_positives: int
    predicted: int
    actual: int


def roc_auc(scores: ArrayLike, labels: ArrayLike) -> float:
    """Return the area under the ROC curve.

    It is the probability that a random positive has a higher score than a random negative, a tie counting one half:
    ``(sum of the positives' mid-ranks - p (p + 1) / 2) / (p n)`` for p positives and n negatives (Mann-Whitney U).

    Args:
        scores: (n_pairs,) numbers, higher means "more likely positive"; infinities are allowed.
        labels: (n_pairs,) truth values.

    Returns:
        The area in [0, 1]; NaN when there are no positives or no negatives, because it is undefined then.

    Raises:
        ValueError: If the lengths differ or a score is NaN.
    """
    values, positive = paired(scores, labels)
    n_positive = int(positive.sum())
    n_negative = positive.size - n_positive
    if n_positive == 0 or n_negative == 0:
        return float("nan")
    rank_sum = float(mid_ranks(values)[positive].sum())
    return (rank_sum - n_positive * (n_positive + 1) / 2) / (n_positive * n_negative)


def mid_ranks(values: ArrayLike) -> NDArray[np.float64]:
    """Return ranks 1..n in ascending order; equal values share the mean of the ranks that they span.

    Args:
        values: (n,) numbers without NaN.

    Returns:
        (n,) float64.

    Raises:
        ValueError: If a value is NaN or the array is not one-dimensional.
    """
    array = _numbers(values, "values")
    order = np.argsort(array, kind="stable")
    ordered = array[order]
    starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]]) if array.size else np.empty(0, dtype=np.int64)
    sizes = np.diff(np.r_[starts, array.size])
    ranks = np.empty(array.size, dtype=np.float64)
    ranks[order] = np.repeat(starts + (sizes + 1) / 2, sizes)
    return ranks


def spearman(x: ArrayLike, y: ArrayLike) -> float:
    """Return Spearman's rank correlation: Pearson's correlation of the mid-ranks.

    Args:
        x: (n,) numbers.
        y: (n,) numbers.

    Returns:
        A number in [-1, 1]; NaN when either side is constant or n < 2.

    Raises:
        ValueError: If the lengths differ or a value is NaN.
    """
    first, second = mid_ranks(x), mid_ranks(y)
    if first.size != second.size:
        raise ValueError(f"{first.size} values on one side, {second.size} on the other")
    if first.size < 2:
        return float("nan")
    first -= (first.size + 1) / 2  # the mean of mid-ranks, exactly
    second -= (second.size + 1) / 2
    spread = float(np.sqrt((first @ first) * (second @ second)))
    return float(np.clip(first @ second / spread, -1, 1)) if spread > 0 else float("nan")


def precision_recall(predicted: ArrayLike, actual: ArrayLike) -> PrecisionRecall:
    """Compare a yes/no prediction with the truth.

    Precision is the share of the predicted that are actual, recall the share of the actual that are predicted.

    Args:
        predicted: (n,) truth values.
        actual: (n,) truth values.

    Returns:
        Both shares with their counts; a share of nothing (none predicted, none actual) is NaN.

    Raises:
        ValueError: If the lengths differ.
    """
    yes, true = np.asarray(predicted, dtype=bool).ravel(), np.asarray(actual, dtype=bool).ravel()
    if yes.size != true.size:
        raise ValueError(f"{yes.size} predictions, {true.size} truths")
    both, n_yes, n_true = int((yes & true).sum()), int(yes.sum()), int(true.sum())
    return PrecisionRecall(
        precision=both / n_yes if n_yes else float("nan"),
        recall=both / n_true if n_true else float("nan"),
        true_positives=both,
        predicted=n_yes,
        actual=n_true,
    )


def expected_calibration_error(scores: ArrayLike, labels: ArrayLike, bins: int = 15) -> float:
    """Return the expected calibration error of probabilities.

    [0, 1] is cut into ``bins`` intervals of equal width, each including its lower end, the last one both ends. The
    error is the mean over all pairs of ``|mean score - share of positives|`` of the pair's bin
    (Guo et al. 2017, eq. 3, for two classes and the probability of "yes").

    Args:
        scores: (n_pairs,) probabilities of "yes".
        labels: (n_pairs,) truth values.
        bins: How many intervals.

    Returns:
        A number in [0, 1]; NaN without pairs.

    Raises:
        ValueError: If the lengths differ, a score is NaN or outside [0, 1], or ``bins`` is below 1.
    """
    values, positive = paired(scores, labels)
    bin_of = probability_bins(values, bins)
    if values.size == 0:
        return float("nan")
    gap = np.bincount(bin_of, weights=values, minlength=bins) - np.bincount(bin_of, weights=positive, minlength=bins)
    return float(np.abs(gap).sum() / values.size)


def probability_bins(values: NDArray[np.float64], bins: int) -> NDArray[np.int64]:
    """Return the number of the bin, from 0, that each probability falls into.

    Args:
        values: (n,) probabilities.
        bins: How many intervals of equal width [0, 1] is cut into, each including its lower end, the last one both.

    Returns:
        (n,) int64.

    Raises:
        ValueError: If a value is outside [0, 1] or ``bins`` is below 1.
    """
    if bins < 1:
        raise ValueError(f"bins must be at least 1, is {bins}")
    if values.size and (values.min() < 0 or values.max() > 1):
        raise ValueError(f"scores must lie in [0, 1], they reach from {values.min()} to {values.max()}")
    return np.minimum((values * bins).astype(np.int64), bins - 1)


def paired(scores: ArrayLike, labels: ArrayLike, name: str = "scores") -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Return scores and labels as flat arrays of one length.

    Raises:
        ValueError: If the lengths differ or a score is NaN; the message calls the scores ``name``.
    """
    values, truth = _numbers(scores, name), np.asarray(labels, dtype=bool)
    if values.shape != truth.shape:
        raise ValueError(f"{name} have shape {values.shape}, labels {truth.shape}")
    return values, truth


def _numbers(values: ArrayLike, name: str) -> NDArray[np.float64]:
    """Return a flat float64 array, NaN refused: it would sort somewhere and silently count as a rank."""
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1:
        raise ValueError(f"{name} must be one-dimensional, have shape {array.shape}")
    if np.isnan(array).any():
        raise ValueError(f"{name} hold {int(np.isnan(array).sum())} NaN; drop or replace them first")
    return array
