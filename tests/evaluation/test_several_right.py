"""Ranks where any of a query's candidates may be right, against a slow loop."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unime_kedro.evaluation.precision import best_wrong, rank_of_target, spread_of

NAN, INF = float("nan"), float("inf")
VALUES = st.sampled_from([-0.5, 0.0, 0.25, 1.0, NAN])
CANDIDATES = st.lists(st.tuples(VALUES, st.booleans()), min_size=1, max_size=6).filter(lambda r: any(x for _, x in r))


def flat(rows):
    similarity = np.array([s for row in rows for s, _ in row], dtype=np.float32)
    return similarity, np.cumsum([0, *map(len, rows)]), np.array([r for row in rows for _, r in row], dtype=bool)


def test_by_hand():
    rows = [
        [(0.5, False), (0.9, True), (0.8, True)],  # a right one is strictly first
        [(0.9, False), (0.9, True), (0.1, True), (0.2, False)],  # a tie with a wrong one
        [(0.9, True), (0.9, True)],  # ties among right ones are none
        [(0.9, True), (NAN, True), (0.1, False)],  # NaN anywhere: behind all wrong ones
        [(NAN, True), (0.9, True)],  # nothing wrong, and wrong nevertheless
    ]
    similarity, offsets, right = flat(rows)
    assert rank_of_target(similarity, offsets, right).tolist() == [1, 2, 1, 2, 2]
    found = best_wrong(similarity, offsets, right)
    assert found.place.tolist() == [0, 0, -1, 2, -1]
    assert found.similarity[:2].tolist() == pytest.approx([0.5, 0.9])
    assert np.isnan(found.similarity[[2, 4]]).all()
    assert spread_of(similarity, offsets).nan.tolist() == [0, 0, 0, 1, 1]
    assert spread_of(similarity, offsets).width[:3].tolist() == pytest.approx([0.4, 0.8, 0.0])


@settings(deadline=None)
@given(st.lists(CANDIDATES, min_size=1, max_size=6))
def test_equals_the_slow_loop(rows):
    similarity, offsets, right = flat(rows)
    ranks, wrong = [], []
    for row in rows:
        bad = [s for s, r in row if not r]
        if any(math.isnan(s) for s, _ in row):
            ranks.append(max(len(bad) + 1, 2))
        else:
            ranks.append(1 + sum(s >= max(v for v, r in row if r) for s in bad))
        known = [(-INF if math.isnan(s) else s, -place) for place, (s, r) in enumerate(row) if not r]
        wrong.append(-max(known)[1] if known else -1)
    assert rank_of_target(similarity, offsets, right).tolist() == ranks
    assert best_wrong(similarity, offsets, right).place.tolist() == wrong


def test_masks_that_do_not_fit():
    with pytest.raises(ValueError, match="query 1 has no right candidate"):
        rank_of_target([0.1, 0.2, 0.3], [0, 1, 3], [True, False, False])
    with pytest.raises(ValueError, match=r"expected right as \(2,\) bool, got \(1,\)"):
        best_wrong([0.1, 0.2], [0, 2], [True])
    with pytest.raises(ValueError, match="of int64"):
        best_wrong([0.1, 0.2], [0, 2], np.array([1, 0], dtype=np.int64))
