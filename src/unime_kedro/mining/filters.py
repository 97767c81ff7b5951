"""Which pool members are too good to be negatives.

A pool is full of candidates that answer the query as well as its positive does. A rule turns the judge's score of the
positive into a threshold; a pool member that scores strictly above it is taken for a false negative and dropped.
The paper's rule (method 2.3, UniME-V2, arXiv 2510.13515) is ``absolute`` with margin 0.01.

=============  ==========================  ===============  =========================================
rule           threshold                   margin in        at a positive's score of 0.80
=============  ==========================  ===============  =========================================
absolute       ``positive - margin``       ``0 <= m <= 1``  margin 0.01: drop above 0.79
relative       ``positive * (1 - margin)`` ``0 <= m < 1``   margin 0.05: drop above 0.76
percentage     ``positive * margin``       ``0 < m <= 1``   margin 0.95: drop above 0.76
none           infinite                    not used         drop nothing
=============  ==========================  ===============  =========================================

``margin`` is a distance for ``absolute``, a share of the positive's score *below* it for ``relative``, and a share *of*
it for ``percentage``: a small margin is lenient for the first two, and drops nearly everything for the third.
``percentage`` is NV-Retriever's TopK-PercPos (arXiv 2407.15831), which found 0.95 best; ``relative`` with ``m`` is the
same rule as ``percentage`` with ``1 - m``.
"""

from __future__ import annotations

from enum import IntEnum

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .margins import Rule, check_margin


class Reason(IntEnum):
    """What became of one place of the (query, pool position) matrix."""

    KEPT = 0
    FALSE_NEGATIVE = 1
    #: the judge gave no score, so it is unknown whether this is a negative
    UNJUDGED = 2
    #: this query's pool is shorter than the matrix is wide
    PADDING = 3


def false_negative_threshold(positive_score: ArrayLike, rule: Rule, margin: float) -> NDArray[np.float32]:
    """Return the highest score that a pool member may have and still be a negative.

    The threshold is computed in float64 and rounded to the nearest float32, the type in which it is stored and in
    which scores are compared with it. So ``score <= threshold`` holds for a kept member and for no dropped one, for
    everybody who reads the two columns, and a score of 0.94 is kept at positive 0.95 and margin 0.01 although none of
    the three is a binary fraction.

    Args:
        positive_score: (n,) or scalar, the judge's score of the positive, in [0, 1].
        rule: See the table of this module.
        margin: See the table of this module.

    Returns:
        Array of the shape of ``positive_score``, float32; +inf for rule ``none``. A negative one keeps nothing.

    Raises:
        ConfigurationError: Unknown rule or margin out of range.
        ValueError: A positive's score is NaN or infinite.
    """
    check_margin(rule, margin)
    positive = np.asarray(positive_score, dtype=np.float64)
    if not np.isfinite(positive).all():
        raise ValueError("a positive without a finite score has no threshold; leave its query out")
    if rule == "none":
        return np.full(positive.shape, np.inf, dtype=np.float32)
    exact = {
        "absolute": positive - margin,
        "relative": positive * (1.0 - margin),
        "percentage": positive * margin,
    }[rule]
    return np.asarray(exact, dtype=np.float32)


def filter_false_negatives(
    scores: NDArray[np.float32],
    positive_scores: NDArray[np.float32],
    pool_mask: NDArray[np.bool_],
    rule: Rule,
    margin: float,
) -> tuple[NDArray[np.bool_], NDArray[np.uint8]]:
    """Say which pool members stay, and why the others go.

    Args:
        scores: (n, k), float32, the judge's scores in retrieval order; NaN where unjudged or beyond the pool.
        positive_scores: (n,), float32, the judge's scores of the positives.
        pool_mask: (n, k), bool, false beyond the end of a query's pool.
        rule: See the table of this module.
        margin: See the table of this module.

    Returns:
        ``keep``, (n, k), bool, and ``reason``, (n, k), uint8, values of :class:`Reason`. A score is dropped when it is
        strictly greater than :func:`false_negative_threshold`.

    Raises:
        ConfigurationError: Unknown rule or margin out of range.
        ValueError: Shapes do not fit, or a positive's score is not finite.
    """
    scores = np.asarray(scores, dtype=np.float32)
    n, k = scores.shape
    if np.shape(positive_scores) != (n,) or np.shape(pool_mask) != (n, k):
        raise ValueError(
            f"expected positive_scores of shape ({n},) and pool_mask of shape ({n}, {k}) beside scores ({n}, {k}), "
            f"got {np.shape(positive_scores)} and {np.shape(pool_mask)}"
        )
    threshold = false_negative_threshold(positive_scores, rule, margin)
    reason = np.zeros((n, k), dtype=np.uint8)
    reason[scores > threshold[:, None]] = Reason.FALSE_NEGATIVE
    reason[np.isnan(scores)] = Reason.UNJUDGED
    reason[~pool_mask] = Reason.PADDING
    return reason == Reason.KEPT, reason
