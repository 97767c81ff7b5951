"""Which of the kept pool members become a query's negatives.

Neighbours in the retrieval order resemble one another. *Cyclical sampling* (method 2.3, UniME-V2, arXiv 2510.13515)
walks the kept members with a stride of five, so that the first few negatives already span the pool: positions
0, 5, 10, ..., then 1, 6, 11, ..., then 2, 7, ....

Everything here is a pure function of a query's own row: neither the other queries nor the width of the matrix, the
order or the chunking of the rows change what a query gets.
"""

from __future__ import annotations

from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

#: score of a negative that was drawn at random because nothing was left to choose from (method 2.3)
FALLBACK_SCORE = 1.0


class Origin(IntEnum):
    """How a negative came to its slot."""

    SAMPLED = 0
    #: a repetition: fewer members were kept than negatives are wanted
    DUPLICATE = 1
    #: drawn at random from the pool: no member was kept
    FALLBACK = 2


def cyclical_order(keep: NDArray[np.bool_], step: int = 5) -> NDArray[np.int32]:
    """Put the kept positions of every row into cyclical order.

    The stride counts kept members only: with ``step=5``, the first taken is the 0th that was kept, the next one the
    5th that was kept, wherever they stand in the pool.

    Args:
        keep: (n, k), bool, in retrieval order.
        step: The interval, at least 1; 1 is the retrieval order itself.

    Returns:
        (n, k), int32: column numbers in the order in which they are taken, then -1.

    Raises:
        ValueError: ``step`` is below 1.
    """
    keep = np.asarray(keep, dtype=bool)
    n, k = keep.shape
    counts, flat, starts = _compact(keep)
    wanted = _visits(k, k, step)[counts]
    order = np.full((n, k), -1, dtype=np.int32)
    exists = np.arange(k) < counts[:, None]
    source = (starts[:, None] + wanted)[exists]
    order[exists] = flat[source] % k if k else 0
    return order


def sample_negatives(
    keep: NDArray[np.bool_],
    scores: NDArray[np.float32],
    pool_mask: NDArray[np.bool_],
    n_negatives: int,
    step: int,
    seed: int,
    query_ids: NDArray[np.int64],
) -> tuple[NDArray[np.int32], NDArray[np.float32], NDArray[np.uint8]]:
    """Take every query's negatives from its pool.

    ===================  =====================================================  ==============  ==================
    kept members         slots                                                  score           origin
    ===================  =====================================================  ==============  ==================
    at least n           the first n in cyclical order                          the judge's     SAMPLED
    fewer than n         all in cyclical order, then the same again, in order   the judge's     SAMPLED, DUPLICATE
    none                 n of the pool at random, without replacement; a pool   1.0             FALLBACK
                         smaller than n is repeated in the drawn order
    ===================  =====================================================  ==============  ==================

    The random draw takes the members with the lowest keys, and a key is a hash (SplitMix64) of seed, query id and pool
    position: a counter-based generator, without a state that the order of the work could disturb.

    Args:
        keep: (n, k), bool, in retrieval order.
        scores: (n, k), float32, the judge's scores; read where ``keep`` is true.
        pool_mask: (n, k), bool, false beyond the end of a query's pool.
        n_negatives: Negatives per query, at least 1.
        step: Interval of the cyclical sampling, at least 1.
        seed: Seed of the random draw.
        query_ids: (n,), int64.

    Returns:
        Columns of the pool matrix (n, n_negatives) int32, their scores (n, n_negatives) float32 and their
        :class:`Origin` (n, n_negatives) uint8.

    Raises:
        ValueError: ``n_negatives`` or ``step`` below 1, a kept place outside the pool, or a query with an empty pool.
    """
    keep, pool_mask = np.asarray(keep, dtype=bool), np.asarray(pool_mask, dtype=bool)
    query_ids = np.asarray(query_ids, dtype=np.int64)
    _check(keep, pool_mask, n_negatives, query_ids)
    n, k = keep.shape
    counts, flat, starts = _compact(keep)
    origin = np.where(np.arange(n_negatives) < counts[:, None], Origin.SAMPLED, Origin.DUPLICATE).astype(np.uint8)
    taken = np.zeros((n, n_negatives), dtype=np.int64)
    chosen = counts > 0
    wanted = _visits(k, n_negatives, step)[counts[chosen]]
    # flat numbers the places of the whole matrix row by row; minus the row's first place it is a column
    taken[chosen] = flat[starts[chosen, None] + wanted] - (np.flatnonzero(chosen) * k)[:, None]
    taken_scores = np.take_along_axis(np.asarray(scores, dtype=np.float32), taken, axis=1)
    empty = np.flatnonzero(~chosen)
    if empty.size:
        taken[empty] = draw(pool_mask[empty], n_negatives, seed, query_ids[empty])
        taken_scores[empty], origin[empty] = FALLBACK_SCORE, Origin.FALLBACK
    return taken.astype(np.int32), taken_scores, origin


def _check(keep: NDArray[np.bool_], pool_mask: NDArray[np.bool_], n_negatives: int, query_ids: NDArray) -> None:
    if n_negatives < 1:
        raise ValueError(f"n_negatives must be at least 1, got {n_negatives}")
    if (keep & ~pool_mask).any():
        raise ValueError("a place outside the pool is marked as kept")
    if not pool_mask.any(axis=1).all():
        query = int(query_ids[~pool_mask.any(axis=1)][0])
        raise ValueError(f"the pool of query_id {query} is empty; leave such queries out")


def _compact(keep: NDArray[np.bool_]) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Return the kept places per row, all kept places row by row, and where each row's begin among them."""
    counts = np.count_nonzero(keep, axis=1)
    return counts, np.flatnonzero(keep), np.cumsum(counts) - counts


def _visits(k: int, slots: int, step: int) -> NDArray[np.int64]:
    """Tabulate the cyclical order: entry [m, s] says which of m kept members goes to slot s; wraps round after m."""
    if step < 1:
        raise ValueError(f"step must be at least 1, got {step}")
    table = np.zeros((k + 1, slots), dtype=np.int64)
    for m in range(1, k + 1):
        places = np.arange(m)
        visits = np.argsort(places % step, kind="stable")
        table[m] = visits[np.arange(slots) % m]
    return table


def draw(pool_mask: NDArray[np.bool_], slots: int, seed: int, query_ids: NDArray[np.int64]) -> NDArray[np.int64]:
    """Draw pool columns at random without replacement, repeating them in order where the pool is too small."""
    keys = random_keys(seed, query_ids, pool_mask.shape[1])
    # stable, so that the lower column wins between equal keys; places outside the pool come last whatever their key
    shuffled = np.lexsort((keys, ~pool_mask), axis=1)
    size = np.count_nonzero(pool_mask, axis=1)
    return np.take_along_axis(shuffled, np.arange(slots) % size[:, None], axis=1)


def random_keys(seed: int, query_ids: NDArray[np.int64], width: int) -> NDArray[np.uint64]:
    """Return (n, width) uint64 keys, each a hash of seed, query id and column alone."""
    golden = np.uint64(0x9E3779B97F4A7C15)
    with np.errstate(over="ignore"):
        state = _splitmix64(np.uint64(seed & 0xFFFFFFFFFFFFFFFF) + golden)
        rows = _splitmix64(state + (query_ids.astype(np.uint64) + np.uint64(1)) * golden)
        return _splitmix64(rows[:, None] + (np.arange(width, dtype=np.uint64) + np.uint64(1)) * golden)


def _splitmix64(state: NDArray[np.uint64] | np.uint64) -> NDArray[np.uint64]:
    """Scramble 64 bits: the output function of SplitMix64 (Steele, Lea, Flood, OOPSLA 2014)."""
    state = np.asarray(state, dtype=np.uint64)
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return state ^ (state >> np.uint64(31))
