"""Which pool members a judge is asked about, when not all of them.

The method asks the judge about a query's positive and its fifty candidates, and takes ten: 51 calls, of which most say
of a candidate only that it was not needed. The strategies here ask about fewer. They take what the sampler of the
method (2.3) would take if every member that was not asked about were kept, ask about that, and do so again without the
false negatives found, until all that is taken was judged and kept. So for every query one of two things holds: as many
members as wanted are taken, or every member was judged. Each has a score of the judge and obeys the false-negative rule
exactly; which ones they are may differ from the exhaustive ones, because an early false negative that nobody asked
about would have shifted every later pick.

=========  ==========================================================================================================
lazy       asks about the first few of the pool, where false negatives are, then about what would be taken
cascade    a small judge scores everything; the large one is asked about what would be taken, and about what lies near
           the small judge's threshold
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

from .sampling import cyclical_order

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

    def unknown(self, taken: NDArray[np.int32]) -> NDArray[np.bool_]:
        """Mark what is taken (columns, -1 for none) and was not asked about yet, (n, k) bool."""
        marked = np.zeros(self.open.shape, dtype=bool)
        rows, slots = np.nonzero(taken >= 0)
        marked[rows, taken[rows, slots]] = True
        return marked & self.open & ~self.asked

    def ask(self, wanted: NDArray[np.bool_]) -> None:
        """Ask about pairs; what was asked before, or does not exist, is left out."""
        wanted = wanted & self.open & ~self.asked
        if wanted.any():
            found = self._ask(wanted)
            self.scores[wanted] = found[wanted]
            self.asked |= wanted


@dataclass(frozen=True)
class Wanted:
    """What is taken of a pool: so many negatives, at this interval of the cyclical sampling."""

    n_negatives: int
    step: int


def lazy(sheet: Sheet, wanted: Wanted, look: int) -> NDArray[np.int32]:
    """Ask about the first ``look`` members, then about what would be taken, until all of that was judged and kept.

    False negatives are among the nearest, and there each shifts all picks. To look at some first makes the picks nearly
    those of exhaustive judging, and saves the calls about picks that would have to be shifted.

    Args:
        sheet: Is filled.
        wanted: What is taken.
        look: How many members of every pool are asked about in any case.

    Returns:
        (n, n_negatives or k, whichever is less), int32: columns of the pool matrix in the sampler's order, -1 where
        there are no more.
    """
    sheet.ask(_leading(sheet, look))
    while (new := sheet.unknown(_take(_promised(sheet), wanted))).any():
        sheet.ask(new)
    return _take(_promised(sheet), wanted)


def cascade(
    sheet: Sheet, small: Pools, small_scores: NDArray[np.float32], wanted: Wanted, band: float
) -> NDArray[np.int32]:
    """Ask about what would be taken, and about what a small judge is not sure of, until nothing new would be taken.

    Args:
        sheet: The large judge's.
        small: The same pools with the small judge's thresholds, from its own scores of the positives.
        small_scores: (n, k), float32, the small judge's; NaN counts as kept by it.
        wanted: What is taken.
        band: Asked about in any case is what the small judge scores this near its threshold.

    Returns:
        See :func:`lazy`. Fewer are taken only where the large judge was asked about every member.
    """
    limit = small.thresholds[:, None]
    sheet.ask(np.abs(small_scores - limit) <= band)
    while True:
        promised = sheet.open & np.where(sheet.asked, sheet.kept, ~(small_scores > limit))
        taken = _take(promised, wanted)
        new = sheet.unknown(taken)
        # where the small judge leaves too few, it may have dropped too many: the rest of the pool is looked at
        short = np.count_nonzero(promised, axis=1) < wanted.n_negatives
        new |= sheet.open & ~sheet.asked & short[:, None]
        if not new.any():
            return taken
        sheet.ask(new)


def budget(sheet: Sheet, wanted: Wanted, look: int, calls: int) -> NDArray[np.int32]:
    """Spend ``calls`` calls about candidates: first as :func:`lazy` does, then on what is most uncertain.

    A round that the calls do not suffice for is asked slot by slot, so that no query gets its third before all have
    their second. Calls that are left go, half of them at a time, to the pairs whose chance of being kept
    (:func:`chance_kept`) is nearest to one half, and to what is to be taken then. Ties go by query, then by place.

    Args:
        sheet: Is filled.
        wanted: What is taken.
        look: See :func:`lazy`.
        calls: How many pairs may be asked about.

    Returns:
        See :func:`lazy`. Of a query whose picks the calls did not suffice for, those that were judged and kept.
    """
    purse = _Purse(sheet, calls)
    leading = _leading(sheet, look)
    purse.ask(leading, np.broadcast_to(np.arange(leading.shape[1], dtype=np.float64), leading.shape))
    while True:
        while purse.left and (new := sheet.unknown(taken := _take(_promised(sheet), wanted))).any():
            purse.ask(new, _slots(taken, new.shape))
        unsure = sheet.open & ~sheet.asked
        if not purse.left or not unsure.any():
            break
        purse.ask(unsure, np.abs(chance_kept(sheet) - 0.5), at_most=(purse.left + 1) // 2)
    taken = _take(_promised(sheet), wanted)
    unpaid = np.asarray(sheet.unknown(taken).any(axis=1, keepdims=True))
    return np.where(unpaid, _take(sheet.kept, wanted), taken)


class _Purse:
    """Calls that may still be made."""

    def __init__(self, sheet: Sheet, calls: int) -> None:
        self._sheet, self.left = sheet, calls

    def ask(self, wanted: NDArray[np.bool_], order: NDArray[np.float64], at_most: int | None = None) -> None:
        """Ask about as many as can be paid, in ascending ``order``."""
        wanted = wanted & self._sheet.open & ~self._sheet.asked
        wanted = _first(wanted, order, self.left if at_most is None else at_most)
        self._sheet.ask(wanted)
        self.left -= int(wanted.sum())


def _leading(sheet: Sheet, look: int) -> NDArray[np.bool_]:
    return np.logical_and(sheet.open, np.arange(sheet.open.shape[1]) < look)


def _promised(sheet: Sheet) -> NDArray[np.bool_]:
    """Mark what is kept or was not asked about."""
    return sheet.open & ~(sheet.asked & ~sheet.kept)


def _take(keep: NDArray[np.bool_], wanted: Wanted) -> NDArray[np.int32]:
    """Return what the sampler takes of the kept members, in its order; -1 where there are no more."""
    return cyclical_order(keep, wanted.step)[:, : wanted.n_negatives]


def _slots(taken: NDArray[np.int32], shape: tuple[int, ...]) -> NDArray[np.float64]:
    """Return in which slot each place of the pools is taken, (n, k)."""
    slots = np.full(shape, np.inf)
    rows, slot = np.nonzero(taken >= 0)
    slots[rows, taken[rows, slot]] = slot
    return slots


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
