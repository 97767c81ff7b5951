"""The strategies of judging, one query and one call at a time, as an oracle for tests."""

from __future__ import annotations

import math


def stride(size: int, step: int) -> list[int]:
    """Return positions 0, step, 2 step, .., 1, step + 1, ..."""
    return [place for first in range(step) for place in range(first, size, step)]


def lazy_one(scores: list[float], threshold: float, wanted: int, step: int) -> tuple[list[int], list[int]]:
    """Return the places asked about and those accepted, in order; NaN is a failure of the judge."""
    asked, accepted = [], []
    if math.isnan(threshold):
        return asked, accepted
    for place in stride(len(scores), step):
        if len(accepted) == wanted:
            break
        asked.append(place)
        if scores[place] <= threshold:
            accepted.append(place)
    return asked, accepted


def taken(keep: list[int], wanted: int, step: int) -> set[int]:
    """Return what the cyclical sampling takes of the kept places."""
    return {keep[i] for i in stride(len(keep), step)[:wanted]}


def cascade_one(
    scores: list[float], small: list[float], limit: float, small_limit: float, wanted: int, step: int, band: float
) -> tuple[set[int], set[int]]:
    """Return the places that the large judge was asked about, and those chosen."""
    if math.isnan(limit):
        return set(), set()
    places = range(len(scores))
    asked = {p for p in places if abs(small[p] - small_limit) <= band}
    while True:
        keep = [p for p in places if (scores[p] <= limit if p in asked else not small[p] > small_limit)]
        chosen = taken(keep, wanted, step)
        new = (chosen if len(keep) >= wanted else set(places)) - asked
        if not new:
            return asked, chosen
        asked |= new
