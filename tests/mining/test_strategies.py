"""Which pairs are judged: against a loop over single calls, and by what must hold of every outcome."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategy_loops import cascade_one, lazy_one, stride, taken

from unime_kedro.mining.sampling import sample_negatives
from unime_kedro.mining.strategies import Pools, Sheet, Wanted, budget, cascade, chance_kept, lazy

SCORES = st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 1.0, float("nan")])
THRESHOLDS = st.sampled_from([-0.1, 0.0, 0.25, 0.49, 0.9, 1.0, float("inf"), float("nan")])


@st.composite
def worlds(draw):
    """Pools of different sizes with scores, thresholds, and a small judge's of both."""
    sizes = draw(st.lists(st.integers(1, 13), min_size=1, max_size=5))
    width = max(sizes)
    rows = [draw(st.lists(SCORES, min_size=size, max_size=size)) for size in sizes]
    small = [draw(st.lists(SCORES, min_size=size, max_size=size)) for size in sizes]
    pad = lambda lists: np.array([[*row, *[np.nan] * (width - len(row))] for row in lists], dtype=np.float32)  # noqa: E731
    limits = np.array(draw(st.lists(THRESHOLDS, min_size=len(sizes), max_size=len(sizes))), dtype=np.float32)
    small_limits = np.array(
        draw(st.lists(st.sampled_from([0.0, 0.3, 0.8]), min_size=len(sizes), max_size=len(sizes))), dtype=np.float32
    )
    mask = np.arange(width) < np.array(sizes)[:, None]
    ids = np.arange(len(sizes)) * 3
    return rows, small, pad(rows), pad(small), Pools(ids, mask, limits), Pools(ids, mask, small_limits)


class Judge:
    """Answers from a matrix and counts; never asked twice about one pair."""

    def __init__(self, scores):
        self.scores, self.calls, self.rounds = scores, np.zeros(scores.shape, dtype=int), 0

    def __call__(self, wanted):
        self.calls += wanted
        self.rounds += 1
        assert self.calls.max() <= 1
        return np.where(wanted, self.scores, np.nan).astype(np.float32)


def places(row):
    """The columns that were taken, in order."""
    return [int(place) for place in row if place >= 0]


WANTED, STEP, LOOK = st.integers(1, 6), st.integers(1, 6), st.integers(0, 4)


@given(worlds(), WANTED, STEP, LOOK)
def test_lazy_asks_and_takes_what_a_loop_does(world, wanted, step, look):
    rows, _, scores, _, pools, _ = world
    judge = Judge(scores)
    sheet = Sheet(pools, judge)
    found = lazy(sheet, Wanted(wanted, step), look)
    for i, row in enumerate(np.float32(row).tolist() for row in rows):
        asked, chosen = lazy_one(row, float(pools.thresholds[i]), wanted, step, look)
        assert set(np.flatnonzero(sheet.asked[i])) == asked
        assert places(found[i]) == chosen
        assert all(row[place] <= pools.thresholds[i] for place in chosen)
        assert len(chosen) == wanted or len(asked) in (0, len(row))
    assert (judge.calls > 0).tolist() == sheet.asked.tolist()


def test_lazy_by_hand():
    scores = np.full((3, 12), 0.1, dtype=np.float32)
    scores[1, 0] = scores[2, 5] = 0.9
    pools = Pools(np.arange(3), np.ones((3, 12), dtype=bool), np.full(3, 0.5, dtype=np.float32))
    sheet = Sheet(pools, Judge(scores))
    found = lazy(sheet, Wanted(3, 5), 2)
    # one false negative in front shifts all; one that is met on the way shifts what is behind it
    assert [places(row) for row in found] == [[0, 5, 10], [1, 6, 11], [0, 6, 11]]
    asked = [np.flatnonzero(row).tolist() for row in sheet.asked]
    assert asked == [[0, 1, 5, 10], [0, 1, 6, 11], [0, 1, 5, 6, 10, 11]]


@given(worlds(), WANTED, STEP)
def test_who_looks_at_everything_takes_what_is_taken_of_all_scores(world, wanted, step):
    _, _, scores, _, pools, _ = world
    sheet = Sheet(pools, Judge(scores))
    found = lazy(sheet, Wanted(wanted, step), scores.shape[1])
    for i, row in enumerate(sheet.kept):
        assert places(found[i]) == taken(np.flatnonzero(row).tolist(), wanted, step)


@given(worlds(), WANTED, STEP, st.sampled_from([0.0, 0.07, 0.31]))
def test_cascade_asks_and_takes_what_a_loop_does(world, wanted, step, band):
    rows, small_rows, scores, small, pools, small_pools = world
    sheet = Sheet(pools, Judge(scores))
    chosen = cascade(sheet, small_pools, small, Wanted(wanted, step), band)
    for i, row in enumerate(rows):
        asked, found = cascade_one(
            np.float32(row).tolist(), np.float32(small_rows[i]).tolist(), float(pools.thresholds[i]),
            float(small_pools.thresholds[i]), wanted, step, band,
        )  # fmt: skip
        assert set(np.flatnonzero(sheet.asked[i]).tolist()) == asked
        assert places(chosen[i]) == found
        assert all(scores[i, place] <= pools.thresholds[i] for place in found)
        assert len(found) == wanted or len(asked) in (0, len(row))


def test_a_cascade_whose_small_judge_is_the_large_one_takes_what_is_taken_of_all_scores():
    random = np.random.default_rng(3)
    scores = random.random((40, 20), dtype=np.float32)
    limits = random.uniform(0.3, 1, 40).astype(np.float32)
    pools = Pools(np.arange(40), np.ones((40, 20), dtype=bool), limits)
    judge = Judge(scores)
    chosen = cascade(Sheet(pools, judge), pools, scores, Wanted(5, 5), 0.0)
    expected, _, origin = sample_negatives(scores <= limits[:, None], scores, pools.mask, 5, 5, 1, pools.query_ids)
    assert [places(row) for row in chosen] == [
        row[kind == 0].tolist() for row, kind in zip(expected, origin, strict=True)
    ]
    full = (scores <= limits[:, None]).sum(axis=1) >= 5
    assert judge.calls[full].sum() == 5 * full.sum()


@given(worlds(), WANTED, STEP, LOOK, st.integers(0, 40))
def test_a_budget_is_spent_to_the_last_call_and_takes_nothing_that_is_not_kept(world, wanted, step, look, calls):
    _, _, scores, _, pools, _ = world
    judge, unlimited = Judge(scores), Sheet(pools, Judge(scores))
    lazy(unlimited, Wanted(wanted, step), look)
    sheet = Sheet(pools, judge)
    found = budget(sheet, Wanted(wanted, step), look, calls)
    assert judge.calls.sum() == min(calls, int(sheet.open.sum()))
    if calls >= unlimited.asked.sum():
        assert (sheet.asked | ~unlimited.asked).all()
    for i, row in enumerate(found):
        chosen = places(row)
        assert len(set(chosen)) == len(chosen)
        assert sheet.kept[i, chosen].all()
        promised = np.flatnonzero(sheet.open[i] & (sheet.kept[i] | ~sheet.asked[i])).tolist()
        whole = taken(promised, wanted, step)
        # what the sampler would take, if that could be paid; else of what was kept
        expected = whole if sheet.asked[i, whole].all() else taken(np.flatnonzero(sheet.kept[i]).tolist(), wanted, step)
        assert chosen == expected


def test_no_query_gets_its_third_member_before_all_have_their_second():
    pools = Pools(np.arange(4), np.ones((4, 10), dtype=bool), np.full(4, 0.5, dtype=np.float32))
    sheet = Sheet(pools, Judge(np.zeros((4, 10))))
    found = budget(sheet, Wanted(5, 5), 1, 10)
    assert sheet.asked.sum(axis=1).tolist() == [3, 3, 2, 2]
    assert sheet.asked[:, [0, 5]].all()
    assert sheet.asked[:2, 1].all()
    assert [places(row) for row in found] == [[0, 1, 5], [0, 1, 5], [0, 5], [0, 5]]


def test_calls_that_are_left_go_where_keeping_is_uncertain():
    # near places are false negatives half of the time, far ones never
    random = np.random.default_rng(0)
    scores = np.where(np.arange(40) < 8, random.random((200, 40)), 0.1).astype(np.float32)
    pools = Pools(np.arange(200), np.ones((200, 40), dtype=bool), np.full(200, 0.5, dtype=np.float32))
    sheet, first = Sheet(pools, Judge(scores)), Sheet(pools, Judge(scores))
    lazy(first, Wanted(10, 5), 0)
    chance = chance_kept(first)
    assert chance[:, :8].mean() == pytest.approx(0.5, abs=0.1)
    assert chance[:, 8:].min() > 0.8
    budget(sheet, Wanted(10, 5), 0, int(first.asked.sum()) + 300)
    extra = sheet.asked & ~first.asked
    assert extra.sum() == 300
    # half of the calls are for uncertain pairs, all of them near; the others follow the picks that these move
    assert extra[:, :8].sum() >= 150
    assert np.isfinite(sheet.scores[extra]).all()


@given(worlds(), st.integers(1, 4), st.randoms())
def test_a_query_gets_the_same_whatever_stands_beside_it(world, wanted, random):
    _, _, scores, small, pools, small_pools = world
    order = list(range(len(scores)))
    random.shuffle(order)
    for run in ("lazy", "cascade"):
        found = []
        for rows in (order, sorted(order)):
            some = Pools(pools.query_ids[rows], pools.mask[rows], pools.thresholds[rows])
            others = Pools(small_pools.query_ids[rows], small_pools.mask[rows], small_pools.thresholds[rows])
            sheet = Sheet(some, Judge(scores[rows]))
            if run == "lazy":
                lazy(sheet, Wanted(wanted, 5), 2)
            else:
                cascade(sheet, others, small[rows], Wanted(wanted, 5), 0.1)
            found.append({int(q): row.tolist() for q, row in zip(some.query_ids, sheet.asked, strict=True)})
        assert found[0] == found[1]


def test_stride_of_the_oracle():
    assert stride(12, 5) == [0, 5, 10, 1, 6, 11, 2, 7, 3, 8, 4, 9]
