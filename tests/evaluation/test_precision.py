"""Precision@1 and its relatives against values worked out by hand and against slow loops."""

from __future__ import annotations

import logging
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unime_kedro.evaluation.precision import (
    best_wrong,
    hit_at,
    mean_reciprocal_rank,
    precision_at_1,
    rank_of_target,
    warn_of_useless_similarities,
)

NAN, INF = float("nan"), float("inf")
unhurried = settings(deadline=None)
# few distinct values, so that ties are common; NaN and infinities now and then
VALUES = st.sampled_from([-1.0, -0.5, 0.0, 0.25, 0.5, 1.0, NAN, -INF, INF])
QUERIES = st.lists(st.lists(VALUES, min_size=1, max_size=6), max_size=8)


def flat(rows):
    return np.array([v for row in rows for v in row], dtype=np.float32), np.cumsum([0, *map(len, rows)])


def slow_rank(row):
    if any(math.isnan(v) for v in row):
        return max(len(row), 2)
    return 1 + sum(v >= row[0] for v in row[1:])


def test_ranks_by_hand():
    rows = [
        [0.9, 0.1, 0.5],  # strictly best
        [0.5, 0.9, 0.5, 0.1],  # one better, one tie: third
        [0.5, 0.5],  # a tie is wrong
        [-0.1, -0.2],  # negative similarities are similarities
        [0.9, NAN, 0.1],  # NaN anywhere: last
        [NAN, 0.2, 0.1, 0.0],
        [0.3],  # alone: right
        [NAN],  # alone and NaN: wrong
        [-0.0, 0.0],  # two zeros are equal
    ]
    ranks = rank_of_target(*flat(rows))
    assert ranks.tolist() == [1, 3, 2, 1, 3, 4, 1, 2, 2]
    assert ranks.dtype == np.int64
    assert hit_at(ranks, 1).tolist() == [True, False, False, True, False, False, True, False, False]
    assert hit_at(ranks, 3).tolist() == [True, True, True, True, True, False, True, True, True]
    assert precision_at_1(rows) == 3 / 9
    assert mean_reciprocal_rank(ranks) == pytest.approx((1 + 1 / 3 + 1 / 2 + 1 + 1 / 3 + 1 / 4 + 1 + 1 / 2 + 1 / 2) / 9)


def test_differences_below_float32_are_ties():
    assert precision_at_1([[1.0, 1.0 - 1e-9]]) == 0.0
    assert precision_at_1([[1.0, 1.0 - 1e-6]]) == 1.0


def test_best_wrong_by_hand():
    rows = [[0.9, 0.1, 0.5], [0.5, 0.7, 0.2, 0.7], [0.5], [0.1, NAN, 0.0], [0.1, NAN, NAN], [0.1, -INF]]
    found = best_wrong(*flat(rows))
    assert found.place.tolist() == [2, 1, -1, 2, 1, 1]  # the first of equals
    np.testing.assert_array_equal(found.similarity, np.array([0.5, 0.7, NAN, 0.0, -INF, -INF], dtype=np.float32))


@unhurried
@given(QUERIES)
def test_all_equal_the_slow_loop(rows):
    ranks = rank_of_target(*flat(rows))
    assert ranks.tolist() == [slow_rank(row) for row in rows]
    found = best_wrong(*flat(rows))
    for row, place, similarity in zip(rows, *found, strict=True):
        wrong = [-INF if math.isnan(v) else v for v in row[1:]]
        assert place == (1 + wrong.index(max(wrong)) if wrong else -1)
        assert similarity == max(wrong) if wrong else math.isnan(similarity)
    right = [len(r) == 1 or r[0] > max(r[1:]) for r in rows if not any(map(math.isnan, r))]
    assert precision_at_1(rows) == pytest.approx(sum(right) / len(rows) if rows else NAN, nan_ok=True)


@unhurried
@given(st.lists(VALUES, min_size=1, max_size=8), st.randoms(use_true_random=False))
def test_the_order_of_wrong_candidates_does_not_matter(row, random):
    shuffled = row[1:]
    random.shuffle(shuffled)
    assert rank_of_target(*flat([row])) == rank_of_target(*flat([[row[0], *shuffled]]))


@pytest.mark.parametrize(
    ("similarity", "offsets", "message"),
    [
        ([0.1, 0.2], [0, 1], "run from 0 to 2, they run from 0 to 1"),
        ([0.1, 0.2], [1, 2], "run from 0 to 2, they run from 1 to 2"),
        ([0.1, 0.2], [0, 0, 2], "query 0 has no candidates"),
        ([0.1, 0.2, 0.3], [0, 2, 1, 3], "query 1 has no candidates"),
        ([[0.1]], [0, 1], "shapes"),
        ([0.1], [0.0, 1.0], "float64"),
        ([], np.empty(0, dtype=np.int64), "shapes"),
    ],
)
def test_offsets_that_do_not_fit(similarity, offsets, message):
    with pytest.raises(ValueError, match=message):
        rank_of_target(similarity, offsets)
    with pytest.raises(ValueError, match=message):
        best_wrong(similarity, offsets)


def test_nothing_and_nonsense():
    assert math.isnan(precision_at_1([]))
    assert math.isnan(mean_reciprocal_rank([]))
    assert rank_of_target([], [0]).shape == (0,)
    with pytest.raises(ValueError, match="k must be at least 1, is 0"):
        hit_at([1], 0)
    with pytest.raises(ValueError, match="query 1 has no candidates"):
        precision_at_1([[0.1], []])


def warnings_of(caplog, rows):
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        warn_of_useless_similarities("GQA", *flat(rows))
    return [record.getMessage() for record in caplog.records]


def test_a_constant_embedder_is_warned_of_once(caplog):
    (message,) = warnings_of(caplog, [[1.0, 1.0], [0.5, 0.5 + 5e-7, 0.5], [0.3]])
    assert message.startswith("GQA: within every one of 2 queries all candidates are equally similar")
    assert warnings_of(caplog, [[1.0, 1.0], [0.5, 0.5, 0.50001]]) == []  # one query tells them apart
    assert warnings_of(caplog, [[0.3], [0.3]]) == []  # nothing to tell apart
    assert warnings_of(caplog, []) == []


def test_nan_is_warned_of_once(caplog):
    (message,) = warnings_of(caplog, [[1.0, NAN, NAN], [0.5, 0.4], [NAN, 0.4]])
    assert message.startswith("GQA: 3 of 7 similarities are NaN; the 2 of 3 queries that they belong to count as wrong")
    assert len(warnings_of(caplog, [[1.0, NAN], [0.5, 0.5]])) == 1
