"""Precision@1 and its relatives over the candidates of every query. numpy only.

The layout is flat: ``similarity`` holds the candidates of all queries one after the other; those of query i stand at
``similarity[offsets[i]:offsets[i + 1]]``. The first of them is the target; where a query has several right ones, or
another than the first, the mask ``right`` says which. Every measure is pessimistic: what ties with the best right
candidate counts as better, so that no query is right by the luck of an order, and a query with a NaN anywhere is wrong.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

log = logging.getLogger(__name__)

#: Similarities of a query that differ by no more than this are the same but for float32 rounding.
ROUNDING = 1e-6


class BestWrong(NamedTuple):
    """The most similar wrong candidate of every query.

    Attributes:
        place: (n_queries,) int64, its place among the query's candidates, the lowest of equals; -1 where a query has
            no wrong candidate.
        similarity: (n_queries,) float32; NaN where there is none, -inf where all of them are NaN.
    """

    place: NDArray[np.int64]
    similarity: NDArray[np.float32]


class Spread(NamedTuple):
    """How far the similarities of every query reach.

    Attributes:
        sizes: (n_queries,) int64, how many there are.
        nan: (n_queries,) int64, how many of them are NaN.
        width: (n_queries,) float32, the largest less the smallest; NaN where one is NaN.
    """

    sizes: NDArray[np.int64]
    nan: NDArray[np.int64]
    width: NDArray[np.float32]


def rank_of_target(similarity: ArrayLike, offsets: ArrayLike, right: ArrayLike | None = None) -> NDArray[np.int64]:
    """Return the pessimistic rank of every query's best right candidate.

    Args:
        similarity: (n_pairs,) float32, higher is nearer.
        offsets: (n_queries + 1,) int64, from 0 to n_pairs.
        right: (n_pairs,) bool, at least one of each query; None for its first.

    Returns:
        (n_queries,) int64: 1 + how many wrong ones are at least as similar as the best right one. With a NaN among the
        query's similarities every wrong one counts as better, and the rank is 2 at least, so that such a query never
        counts as right.

    Raises:
        ValueError: If the offsets do not cut the similarities into pieces of at least one, or a query has no right
            candidate.
    """
    values, starts, sizes = _flat(similarity, offsets)
    if not sizes.size:
        return np.empty(0, dtype=np.int64)
    mask = _right(right, starts, values.size)
    best = np.maximum.reduceat(np.where(mask, values, np.float32(-np.inf)), starts)
    at_least = (values >= np.repeat(best, sizes)) & ~mask
    rank = 1 + np.add.reduceat(at_least, starts, dtype=np.int64)
    n_wrong = np.add.reduceat(~mask, starts, dtype=np.int64)
    has_nan = np.logical_or.reduceat(np.isnan(values), starts)
    return np.where(has_nan, np.maximum(n_wrong + 1, 2), rank)


def best_wrong(similarity: ArrayLike, offsets: ArrayLike, right: ArrayLike | None = None) -> BestWrong:
    """Find the most similar wrong candidate of every query; NaN counts as the least similar.

    Args:
        similarity: (n_pairs,) float32.
        offsets: (n_queries + 1,) int64, as for :func:`rank_of_target`.
        right: (n_pairs,) bool, likewise.

    Raises:
        ValueError: As for :func:`rank_of_target`.
    """
    values, starts, sizes = _flat(similarity, offsets)
    if not sizes.size:
        return BestWrong(np.empty(0, dtype=np.int64), np.empty(0, dtype=np.float32))
    mask = _right(right, starts, values.size)
    place = np.arange(values.size) - np.repeat(starts, sizes)
    wrong = np.where(np.isnan(values) | mask, np.float32(-np.inf), values)
    best = np.maximum.reduceat(wrong, starts)
    is_best = (wrong == np.repeat(best, sizes)) & ~mask
    index = np.minimum.reduceat(np.where(is_best, place, values.size), starts)
    none = np.logical_and.reduceat(mask, starts)
    return BestWrong(np.where(none, -1, index), np.where(none, np.float32(np.nan), best))


def hit_at(ranks: ArrayLike, k: int) -> NDArray[np.bool_]:
    """Tell for every query whether its target is among the first ``k``; the mean is Recall@k, for k = 1 Precision@1.

    Args:
        ranks: (n_queries,) from :func:`rank_of_target`.
        k: At least 1.

    Raises:
        ValueError: If ``k`` is below 1.
    """
    if k < 1:
        raise ValueError(f"k must be at least 1, is {k}")
    return np.asarray(ranks) <= k


def mean_reciprocal_rank(ranks: ArrayLike) -> float:
    """Return the mean of ``1 / rank``, in (0, 1]; NaN without queries."""
    array = np.asarray(ranks, dtype=np.float64)
    return float((1 / array).mean()) if array.size else float("nan")


def precision_at_1(similarities: Sequence[ArrayLike]) -> float:
    """Return the share of queries whose target is strictly the most similar of its candidates.

    Args:
        similarities: Per query (n_candidates,) numbers, the target first; lengths may differ.

    Returns:
        A number in [0, 1]; NaN without queries.

    Raises:
        ValueError: If a query has no candidates, or its similarities are not one-dimensional.
    """
    rows = [np.asarray(row, dtype=np.float32) for row in similarities]
    if not rows:
        return float("nan")
    offsets = np.cumsum([0, *(len(row) for row in rows)])
    return float(hit_at(rank_of_target(np.concatenate(rows), offsets), 1).mean())


def warn_of_useless_similarities(dataset: str, similarity: ArrayLike, offsets: ArrayLike) -> None:
    """Log a warning when similarities say nothing: NaN among them, or no query tells its candidates apart.

    One warning for each of the two faults. A constant embedder is recognised by similarities that differ by no more
    than :data:`ROUNDING` within every query that has two candidates or more.

    Args:
        dataset: Named in the warning.
        similarity: (n_pairs,) float32.
        offsets: (n_queries + 1,) int64, as for :func:`rank_of_target`.

    Raises:
        ValueError: As for :func:`rank_of_target`.
    """
    warn_of_useless_spreads(dataset, spread_of(similarity, offsets))


def spread_of(similarity: ArrayLike, offsets: ArrayLike) -> Spread:
    """Return what :func:`warn_of_useless_spreads` needs to know of a block of queries.

    Args:
        similarity: (n_pairs,) float32.
        offsets: (n_queries + 1,) int64, as for :func:`rank_of_target`.

    Raises:
        ValueError: As for :func:`rank_of_target`.
    """
    values, starts, sizes = _flat(similarity, offsets)
    if not sizes.size:
        return Spread(sizes, sizes, np.empty(0, dtype=np.float32))
    nan = np.add.reduceat(np.isnan(values), starts, dtype=np.int64)
    return Spread(sizes, nan, np.maximum.reduceat(values, starts) - np.minimum.reduceat(values, starts))


def warn_of_useless_spreads(dataset: str, spread: Spread) -> None:
    """Log what :func:`warn_of_useless_similarities` logs, for similarities that are not in memory together.

    Args:
        dataset: Named in the warning.
        spread: Of all its queries, from :func:`spread_of`.
    """
    sizes = spread.sizes
    if n_nan := int(spread.nan.sum()):
        log.warning(
            "%s: %d of %d similarities are NaN; the %d of %d queries that they belong to count as wrong. Look at the "
            "embedder, not at the score.",
            *(dataset, n_nan, int(sizes.sum()), int((spread.nan > 0).sum()), sizes.size),
        )
    several = sizes > 1
    if several.any() and bool((spread.width[several] <= ROUNDING).all()):  # a NaN width is not below it
        log.warning(
            "%s: within every one of %d queries all candidates are equally similar (to %g): the embedder gives all of "
            "them the same vector. Ties count as wrong.",
            *(dataset, int(several.sum()), ROUNDING),
        )


def _right(right: ArrayLike | None, starts: NDArray[np.int64], size: int) -> NDArray[np.bool_]:
    """Return the mask of right candidates; raise for one that does not fit."""
    if right is None:
        mask = np.zeros(size, dtype=bool)
        mask[starts] = True
        return mask
    mask = np.asarray(right)
    if mask.shape != (size,) or mask.dtype != bool:
        raise ValueError(f"expected right as ({size},) bool, got {mask.shape} of {mask.dtype}")
    if (bare := ~np.logical_or.reduceat(mask, starts)).any():
        raise ValueError(f"query {int(np.argmax(bare))} has no right candidate")
    return mask


def _flat(
    similarity: ArrayLike, offsets: ArrayLike
) -> tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.int64]]:
    """Return similarities, starts and sizes; raise for offsets that do not fit."""
    values, bounds = np.asarray(similarity, dtype=np.float32), np.asarray(offsets)
    if values.ndim != 1 or bounds.ndim != 1 or not np.issubdtype(bounds.dtype, np.integer) or not bounds.size:
        raise ValueError(
            f"expected (n_pairs,) similarities and (n_queries + 1,) integer offsets; got shapes {values.shape} and "
            f"{bounds.shape}, offsets of {bounds.dtype}"
        )
    if bounds[0] != 0 or bounds[-1] != values.size:
        raise ValueError(f"offsets must run from 0 to {values.size}, they run from {bounds[0]} to {bounds[-1]}")
    sizes = np.diff(bounds).astype(np.int64)
    if (sizes < 1).any():
        raise ValueError(f"query {int(np.argmax(sizes < 1))} has no candidates; expected its target at least")
    return values, bounds[:-1].astype(np.int64), sizes
