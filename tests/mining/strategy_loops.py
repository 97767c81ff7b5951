"""The strategies of judging, one query and one call at a time, as an oracle for tests."""

from __future__ import annotations

import math


def stride(size: int, step: int) -> list[int]:
    """Return positions 0, step, 2 step, .., 1, step + 1, ..."""
    return [place for first in range(step) for place in range(first, size, step)]


def taken(keep: list[int], wanted: int, step: int) -> list[int]:
    """Return what the cyclical sampling takes of the kept places, in its order."""
    return [keep[i] for i in stride(len(keep), step)[:wanted]]


def lazy_one(scores: list[float], threshold: float, wanted: int, step: int, look: int) -> tuple[set[int], list[int]]:
    """Return the places asked about and those taken; NaN is a failure of the judge."""
    if math.isnan(threshold):
        return set(), []
    asked = set(range(min(look, len(scores))))
    while True:
        keep = [p for p in range(len(scores)) if p not in asked or scores[p] <= threshold]
        found = taken(keep, wanted, step)
        if asked.issuperset(found):
            return asked, found
        asked |= set(found)


def cascade_one(
    scores: list[float], small: list[float], limit: float, small_limit: float, wanted: int, step: int, band: float
) -> tuple[set[int], list[int]]:
    """Return the places that the large judge was asked about, and those taken."""
    if math.isnan(limit):
        return set(), []
    places = range(len(scores))
    asked = {p for p in places if abs(small[p] - small_limit) <= band}
    while True:
        keep = [p for p in places if (scores[p] <= limit if p in asked else not small[p] > small_limit)]
        chosen = taken(keep, wanted, step)
        new = (set(chosen) if len(keep) >= wanted else set(places)) - asked
        if not new:
            return asked, chosen
        asked |= new
