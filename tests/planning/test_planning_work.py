"""Work and intervals against slow loops and hand calculations."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from unime_kedro.mllm.cost import ModelCost
from unime_kedro.planning.interval import Interval, bootstrap_rows, total
from unime_kedro.planning.lengths import Lengths, assumed_lengths
from unime_kedro.planning.measuring import MeasuredJudging, _explained
from unime_kedro.planning.work import (
    Passes,
    Work,
    contents_work,
    embedding_work,
    judging_work,
    scaled,
    spanning,
    training_passes,
)

COST = ModelCost(
    parameters=1000,
    language=700,
    vision=200,
    layers=2,
    width=8,
    hidden=8,
    vision_layers=3,
    vision_width=4,
    patches_per_token=4,
)
ends = st.lists(st.floats(0, 1e9), min_size=3, max_size=3).map(sorted)


@given(ends, ends)
def test_intervals_hold_whatever_their_parts_hold(first, second):
    a, b = Interval(*first), Interval(*second)
    for x in first:
        for y in second:
            assert (a + b).low <= x + y <= (a + b).high
            assert (a * b).low <= x * y <= (a * b).high
    speed = Interval(*(end + 1 for end in second))
    assert a.over(speed).low <= a.over(speed).middle <= a.over(speed).high
    assert a.over(speed).low == a.low / speed.high
    assert total([a, b, a]) == Interval(0, 0, 0) + a + b + a


def test_an_interval_in_disorder_is_refused():
    with pytest.raises(ValueError, match="low <= middle <= high"):
        Interval(2, 1, 3)


def test_scaling_up_is_a_ratio_with_the_bootstraps_interval():
    amounts, per = np.array([10.0, 30.0, 20.0]), np.array([1.0, 2.0, 1.0])
    found = scaled(amounts, per, 100)
    assert found.middle == pytest.approx(100 * 60 / 4)
    draws = [sum(amounts[i] for i in rows) / sum(per[i] for i in rows) for rows in bootstrap_rows(3, 0)]
    assert (found.low, found.high) == tuple(np.quantile(draws, [0.025, 0.975]) * 100)
    assert scaled(np.full(9, 5.0), np.ones(9), 7) == Interval.exactly(35.0), "nothing varies: known exactly"


@pytest.mark.parametrize("share_prefix", [True, False])
def test_judging_against_a_loop_over_pairs(share_prefix):
    random = np.random.default_rng(5)
    query, candidates = random.integers(1, 30, (6, 2)), random.integers(1, 30, (6, 4, 2))
    singles = random.integers(0, 9, (5, 2))
    lengths = Lengths(query.astype(float), candidates.astype(float), singles.astype(float))
    work = judging_work(lengths, COST, Interval.exactly(24), Interval.exactly(11), "m", share_prefix=share_prefix)
    prompt = run = prefix = operations = 0.0
    for q, found in zip(query, candidates, strict=True):
        head = q.sum()
        run += head if share_prefix else 0
        operations += slow_operations(head, 0) if share_prefix else 0
        for c in found:
            tail = c.sum()
            prompt, prefix = prompt + head + tail, prefix + head
            run += tail if share_prefix else head + tail
            operations += slow_operations(tail, head) if share_prefix else slow_operations(head + tail, 0)
    shown = [v for _, v in singles if v > 0]
    operations += 11 * np.mean([slow_picture(v) for v in shown])
    assert work.figures["prompt_tokens"].middle == pytest.approx(prompt)
    assert work.figures["run_tokens"].middle == pytest.approx(run)
    assert work.figures["prefix_share"].middle == pytest.approx(prefix / prompt)
    assert work.figures["visual_tokens"].middle == pytest.approx(11 * np.mean(shown))
    assert work.operations is not None
    assert work.operations.middle == pytest.approx(operations)


def slow_operations(tokens: int, before: int) -> float:
    """Token by token: two operations per weight, four per layer, width and token that is looked at."""
    return float(sum(2 * 700 + 4 * 2 * 8 * (before + place) for place in range(1, int(tokens) + 1)))


def slow_picture(visual: int) -> float:
    patches = 4 * int(visual)
    return float(sum(2 * 200 + 4 * 3 * 4 * patches for _ in range(patches)))


def test_embedding_and_training_by_hand():
    lengths = Lengths(np.ones((1, 2)), np.ones((1, 1, 2)), np.array([[4.0, 0.0], [2.0, 2.0]]))
    work = embedding_work(lengths, COST, Interval.exactly(10), "m")
    one, other = slow_operations(4, 0), slow_operations(4, 0) + slow_picture(2)
    assert work.operations is not None
    assert work.operations.middle == pytest.approx(5 * one + 5 * other)
    assert work.figures["tokens"] == Interval.exactly(40)
    assert embedding_work(lengths, None, Interval.exactly(10), "m").operations is None
    # both pass through the model three times, and twice of these through the tower
    trained = contents_work("train", lengths.singles, COST, Interval.exactly(2), "m", Passes(3, 2))
    assert trained.operations is not None
    assert trained.operations.middle == pytest.approx(3 * one + 3 * slow_operations(4, 0) + 2 * slow_picture(2))


def test_passes_of_a_training_step():
    # gradient cache: without graph, with graph, and back: once through frozen weights, twice through trained ones
    assert training_passes(lora=True, freeze_vision=False, cached=True) == Passes(3, 2)
    assert training_passes(lora=False, freeze_vision=False, cached=True) == Passes(4, 4)
    assert training_passes(lora=False, freeze_vision=True, cached=False) == Passes(3, 1)


def test_assumed_lengths_give_an_interval():
    low, middle, high = assumed_lengths(451584, 51, judged=True)
    assert middle.query[0, 1] == 0.5 * 576, "half of the largest picture: 24 x 24 cells of 28 pixels"
    found = spanning(
        [
            judging_work(one, COST, Interval.exactly(51), Interval.exactly(9), "m", share_prefix=True)
            for one in (low, middle, high)
        ]
    )
    tokens = found.figures["run_tokens"]
    # one query once, and its 51 candidates: 62 + 30 + 288 tokens, and 12 + 15 + 144 each
    assert tokens.middle == 380 + 51 * 171
    assert found.figures["prompt_tokens"].middle == 51 * (380 + 171)
    assert tokens.low < tokens.middle < tokens.high
    assert found.operations is not None
    assert found.operations.low < found.operations.middle < found.operations.high


def test_time_is_explained_by_its_causes():
    random = np.random.default_rng(3)
    causes = np.stack([np.linspace(40, 0, 60).round(), random.integers(0, 20, 60), random.integers(50, 90, 60)], axis=1)
    took = causes @ [0.01, 0.002, 0.001]
    whole = np.array([100.0, 5000.0, 90000.0])
    assert _explained(causes, took, whole).middle == pytest.approx(1 + 10 + 90)
    # scaling by the number of queries alone would take all pictures to be new for ever
    assert took.mean() * 90000 / causes[:, 2].mean() > 1.5 * 101
    noisy = _explained(causes, took * random.uniform(0.8, 1.2, 60), whole)
    assert noisy.middle == pytest.approx(101, rel=0.1)
    assert noisy.low < 101 < noisy.high


def test_one_slow_query_counts_in_the_total_and_bends_no_rate():
    causes = np.stack([np.zeros(50), np.arange(50) % 7, np.full(50, 100.0)], axis=1)
    took = causes @ [0.0, 0.001, 0.001]
    took[13] += 5.0  # the machine paused
    found = _explained(causes, took, np.array([0.0, 150.0, 5000.0]))
    assert found.middle == pytest.approx(took.sum() * (0.15 + 5.0) / (took.sum() - 5.0), rel=0.02)


def test_measured_judging_reads_what_the_whole_has():
    causes = np.array([[0.0, 2.0, 10.0, 1.0]] * 20)
    # 40 queries of 3 pairs in the whole corpus, 80 contents, and half of it is left
    measured = MeasuredJudging(causes, np.full(20, 0.5), queries=40, pairs=120, contents=80, basis="here")
    figures = {"visual_tokens": Interval.exactly(0), "run_tokens": Interval.exactly(200)}
    work = Work("judge", "m", "pairs", Interval.exactly(60), figures, None)
    found = measured.seconds(work)
    assert found.middle == pytest.approx(10.0), "twenty such queries more"
    assert found.as_dict() == pytest.approx({"low": 9.0, "middle": 10.0, "high": 11.0}), (
        "nothing varies but the machine"
    )
