"""Temperature scaling of a Yes/No score, and the curve that shows whether scores are probabilities. numpy and scipy.

A score is calibrated when, of all pairs that get a score near .8, eight in ten are positives. Temperature scaling
(Guo et al. 2017, section 4.2) divides the logits by one number T fitted on labelled pairs: T > 1 makes scores less
certain, T < 1 more. It cannot change the order of scores, so it changes no ranking.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from unime_kedro.evaluation.ranking import paired, probability_bins

#: Least and greatest temperature that is fitted. Labels that the sign of the logits predicts without a fault would take
#: T to zero, labels that the logits know nothing of to infinity.
TEMPERATURE_LIMITS = (0.05, 20.0)


class CalibrationCurve(NamedTuple):
    """Scores against labels, bin by bin.

    Attributes:
        pairs: (bins,) int64, how many fall into the bin.
        mean_score: (bins,) float64, NaN where the bin is empty.
        positive_share: (bins,) float64, share of the bin's pairs that are positives; NaN where the bin is empty.
    """

    pairs: NDArray[np.int64]
    mean_score: NDArray[np.float64]
    positive_share: NDArray[np.float64]


def fit_temperature(logits: ArrayLike, labels: ArrayLike) -> float:
    """Return the temperature at which ``sigmoid(logits / T)`` fits the labels best.

    Minimises the mean negative log-likelihood (Guo et al. 2017), searching within limits in log T. In 1/T the loss is
    convex, so that there is one minimum. Row order does not matter, bit for bit.

    Args:
        logits: (n,) yes_logit - no_logit of labelled pairs, finite.
        labels: (n,) bool, whether the pair is a positive.

    Returns:
        T within :data:`TEMPERATURE_LIMITS`; a limit itself where the best T lies beyond it; 1.0 when all logits are
        zero, because every T is as good as any other then.

    Raises:
        ValueError: If the lengths differ, a logit is NaN or infinite, or all labels are the same.
    """
    from scipy.optimize import brentq
    from scipy.special import expit

    values, positive = paired(logits, labels, "logits")
    if not np.isfinite(values).all():
        raise ValueError(f"logits hold {int(np.isinf(values).sum())} infinite numbers; drop these pairs first")
    n_positive = int(positive.sum())
    if n_positive in (0, positive.size):
        raise ValueError(
            f"{n_positive} of {positive.size} labels are positive: a temperature needs pairs of both classes"
        )
    if not values.any():
        return 1.0
    # how far each pair is on the right side; sorted, so that sums do not depend on the order of the rows
    margins = np.sort(np.where(positive, values, -values))

    def slope(log_temperature: float) -> float:
        """Of the loss, mean(log(1 + exp(-margin / T))), in 1/T; it falls with T and is zero at the best one."""
        return -float((margins * expit(-margins / math.exp(log_temperature))).mean())

    low, high = TEMPERATURE_LIMITS
    if slope(math.log(low)) <= 0:
        return low
    if slope(math.log(high)) >= 0:
        return high
    # the zero of the slope, not the least loss: around its minimum the loss is flat, which costs half of the digits
    return math.exp(brentq(slope, math.log(low), math.log(high), xtol=1e-12))


def calibration_curve(scores: ArrayLike, labels: ArrayLike, bins: int = 15) -> CalibrationCurve:
    """Return mean score and share of positives per bin, a reliability diagram in numbers.

    The bins are those of :func:`unime_kedro.evaluation.ranking.expected_calibration_error`, whose value is
    ``sum(pairs * |mean_score - positive_share|) / sum(pairs)`` over the bins that are not empty.

    Args:
        scores: (n_pairs,) probabilities of "yes".
        labels: (n_pairs,) truth values.
        bins: How many intervals of equal width.

    Returns:
        Three arrays of length ``bins``, from the lowest scores to the highest.

    Raises:
        ValueError: If the lengths differ, a score is NaN or outside [0, 1], or ``bins`` is below 1.
    """
    values, positive = paired(scores, labels)
    bin_of = probability_bins(values, bins)
    pairs = np.bincount(bin_of, minlength=bins)
    divisor = np.where(pairs > 0, pairs, np.nan)
    return CalibrationCurve(
        pairs=pairs,
        mean_score=np.bincount(bin_of, weights=values, minlength=bins) / divisor,
        positive_share=np.bincount(bin_of, weights=positive, minlength=bins) / divisor,
    )
