"""Which pool members a judge is asked about, when not all of them.

The method asks the judge about a query's positive and its fifty candidates, and keeps ten: 51 calls, of which most say
of a candidate only that it was not needed. The strategies here ask about fewer. Each asks until a query has its
negatives or its pool is exhausted, so that for every query one of two things holds: at least as many members as
negatives are wanted were judged and kept, or every member was judged. Every accepted negative has a score of the judge
and obeys the false-negative rule of the method (2.3) exactly; which ones they are may differ from the exhaustive ones,
because dropping one early member shifts every later pick.

=========  ==========================================================================================================
lazy       visits the pool in the sampler's stride order (0, 5, 10, .., 1, 6, ..) and stops at the tenth accepted
cascade    a small judge scores everything; the large one is asked about what would be chosen, and about what lies near
           the small judge's threshold, until the choice stands on the large judge's scores alone
budget     lazy, round by round, as far as the calls go; calls that are left go where keeping or dropping is most
           uncertain by what was seen so far
=========  ==========================================================================================================

Everything works on dense (queries, pool size) matrices and asks for many pairs at a time. What a query gets depends on
no other query (``budget`` apart, whose calls all queries share), nor on order, chunks or workers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .sampling import cyclical_order, sample_negatives

#: (n, k) bool, which pairs are asked for -> (n, k) float32, their scores; NaN where not asked for or not judged
Ask = Callable[[NDArray[np.bool_]], NDArray[np.float32]]


@dataclass(frozen=True)
class Pools:
    """What is known before the first call about a candidate.

    Attributes:
        query_ids: (n,), int64.
        mask: (n, k), bool, false beyond the end of a query's pool.
        thresholds: (n,), float32: the highest score of a negative; NaN for a query whose positive has no score, which
            gets no negatives and is not asked about.
    """

    query_ids: NDArray[np.int64]
    mask: NDArray[np.bool_]
    thresholds: NDArray[np.float32]


class Sheet:
    """The scores known so far, filled by asking.

    Attributes:
        asked: (n, k), bool: the judge was asked; it may have failed.
        scores: (n, k), float32, NaN where not asked or failed.
    """

    def __init__(self, pools: Pools, ask: Ask) -> None:
        self.pools, self._ask = pools, ask
        self.open = pools.mask & ~np.isnan(pools.thresholds)[:, None]
        self.asked = np.zeros(pools.mask.shape, dtype=bool)
        self.scores = np.full(pools.mask.shape, np.nan, dtype=np.float32)

    @property
    def kept(self) -> NDArray[np.bool_]:
        """Members that were judged and are no false negatives, (n, k) bool."""
        return self.asked & (self.scores <= self.pools.thresholds[:, None])

    def ask(self, wanted: NDArray[np.bool_]) -> None:
        """Ask about pairs; what was asked before, or does not exist, is left out."""
        wanted = wanted & self.open & ~self.asked
        if wanted.any():
            found = self._ask(wanted)
            self.scores[wanted] = found[wanted]
            self.asked |= wanted


def visiting_order(mask: NDArray[np.bool_], step: int) -> NDArray[np.int32]:
    """Return when each pool position is visited in the sampler's stride order: (n, k), int32, k where it is not.

    A pool of 12 with step 5: positions 0, 5, 10, 1, 6, 11, 2, 7, 3, 8, 4, 9.
    """
    n, k = mask.shape
    order = cyclical_order(mask, step)
    visits = np.full((n, k), k, dtype=np.int32)
    rows, turns = np.nonzero(order >= 0)
    visits[rows, order[rows, turns]] = turns
    return visits


def lazy(sheet: Sheet, n_negatives: int, step: int) -> None:
    """Visit members in stride order until ``n_negatives`` are accepted.

    All queries take a round together: each asks about as many members as it still lacks.
    """
    visits = visiting_order(sheet.pools.mask, step)
    while (wanted := _next(sheet, visits, n_negatives)).any():
        sheet.ask(wanted)


def _next(sheet: Sheet, visits: NDArray[np.int32], n_negatives: int) -> NDArray[np.bool_]:
    """Return what every unfinished query asks for in the next round."""
    lacks = n_negatives - np.count_nonzero(sheet.kept, axis=1)
    done = np.count_nonzero(sheet.asked, axis=1)
    return sheet.open & ~sheet.asked & (visits < (done + np.maximum(lacks, 0))[:, None])


@dataclass(frozen=True)
class Cascade:
    """Options of :func:`cascade`: negatives per query, interval of the sampling, and the band around the threshold."""

    n_negatives: int
    step: int
    band: float


def cascade(sheet: Sheet, small: Pools, small_scores: NDArray[np.float32], options: Cascade) -> NDArray[np.bool_]:
    """Ask about what would be chosen, and about what a small judge is not sure of, until nothing new would be chosen.

    Args:
        sheet: The large judge's.
        small: The same pools with the small judge's thresholds, from its own scores of the positives.
        small_scores: (n, k), float32, the small judge's; NaN counts as kept by it.
        options: What would be chosen, and how near is near.

    Returns:
        (n, k), bool: what is chosen; all of it was judged by the large judge and kept. Fewer than wanted only where
        every member was judged.
    """
    limit = small.thresholds[:, None]
    sheet.ask(np.abs(small_scores - limit) <= options.band)
    while True:
        promised = sheet.open & np.where(sheet.asked, sheet.kept, ~(small_scores > limit))
        chosen = _chosen(promised, sheet.pools, options)
        # where the small judge leaves too few, it may have dropped too many: the rest of the pool is looked at
        short = np.count_nonzero(promised, axis=1) < options.n_negatives
        wanted = sheet.open & ~sheet.asked & (chosen | short[:, None])
        if not wanted.any():
            return chosen
        sheet.ask(wanted)


def _chosen(keep: NDArray[np.bool_], pools: Pools, options: Cascade) -> NDArray[np.bool_]:
    """Mark what the sampler takes of the kept members."""
    chosen = np.zeros(keep.shape, dtype=bool)
    rows = np.flatnonzero(keep.any(axis=1))
    if rows.size:
        taken, _, _ = sample_negatives(
            keep[rows], np.zeros(keep[rows].shape, dtype=np.float32), pools.mask[rows], options.n_negatives,
            options.step, 0, pools.query_ids[rows],
        )  # fmt: skip
        chosen[rows[:, None], taken] = True
    return chosen


def budget(sheet: Sheet, n_negatives: int, step: int, calls: int) -> None:
    """Spend ``calls`` calls about candidates: first on ten for every query, then on what is most uncertain.

    Rounds are those of :func:`lazy`. A round that the calls do not suffice for is asked in the order of visits, so that
    no query gets its third member before all have their second. Calls that are left go to the pairs whose chance of
    being kept (:func:`chance_kept`) is nearest to one half. Ties go by query, then by place in the pool.

    Args:
        sheet: Is filled.
        n_negatives: Negatives wanted per query.
        step: Interval of the sampling.
        calls: How many pairs may be asked about.
    """
    visits = visiting_order(sheet.pools.mask, step)
    left = calls
    while left > 0 and (wanted := _next(sheet, visits, n_negatives)).any():
        wanted = _first(wanted, visits.astype(np.float64), left)
        sheet.ask(wanted)
        left -= int(wanted.sum())
    if left > 0:
        wanted = sheet.open & ~sheet.asked
        sheet.ask(_first(wanted, np.abs(chance_kept(sheet) - 0.5), left))


def _first(wanted: NDArray[np.bool_], order: NDArray[np.float64], count: int) -> NDArray[np.bool_]:
    """Keep the ``count`` wanted places that come first by ``order``; ties by row, then by column."""
    rows, columns = np.nonzero(wanted)
    if rows.size <= count:
        return wanted
    taken = np.argsort(order[rows, columns], kind="stable")[:count]
    first = np.zeros(wanted.shape, dtype=bool)
    first[rows[taken], columns[taken]] = True
    return first


#: groups of queries by threshold, and of places by rank, in :func:`chance_kept`
_GROUPS = 10


def chance_kept(sheet: Sheet) -> NDArray[np.float64]:
    """Estimate for every pair whether it would be kept, from those judged so far.

    Queries are cut into ten groups of equal size by threshold, places into ten by rank; the estimate is the share kept
    among the judged of a cell, drawn to the overall share as if one more pair of each kind had been seen.

    Returns:
        (n, k), float64, in (0, 1).
    """
    n, k = sheet.pools.mask.shape
    rank = np.argsort(np.argsort(sheet.pools.thresholds, kind="stable"), kind="stable")
    cell = (rank * _GROUPS // max(n, 1))[:, None] * _GROUPS + (np.arange(k) * _GROUPS // max(k, 1))[None, :]
    judged = np.isfinite(sheet.scores)
    kept = sheet.kept
    seen = np.bincount(cell[judged], minlength=_GROUPS * _GROUPS)
    good = np.bincount(cell[kept], minlength=_GROUPS * _GROUPS)
    overall = (kept.sum() + 1) / (judged.sum() + 2)
    return ((good + 2 * overall) / (seen + 2))[cell]
