"""Measures of single queries and their means with intervals: by hand, and against a slow loop."""

from __future__ import annotations

import math
import zlib

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unime_kedro.errors import DataError
from unime_kedro.evaluation.macro import macro_mean, measure
from unime_kedro.evaluation.scores import benchmark_scores, query_measures
from unime_kedro.evaluation.statistics import bootstrap_draws, share_interval


def tables(orders, dataset="D"):
    """Make predictions and first candidates of queries given as right/wrong in order of similarity."""
    predictions, top = [], []
    for query, order in enumerate(orders):
        rank = order.index(True) + 1
        predictions.append((dataset, query, query, 0, rank == 1, 0.5, 0.4, rank, len(order), sum(order)))
        top += [(dataset, query, i, i, i, 0.5, right) for i, right in enumerate(order[:10])]
    from unime_kedro.evaluation.scoring import PREDICTIONS_SCHEMA, TOP_SCHEMA

    return (
        pl.DataFrame(predictions, schema=PREDICTIONS_SCHEMA, orient="row"),
        pl.DataFrame(top, schema=TOP_SCHEMA, orient="row"),
    )


T, F = True, False


def test_measures_by_hand():
    orders = [[T, F], [F, F, T, F], [F] * 5 + [T, F], [F, T, T], [F] * 11 + [T], [F] * 4 + [T], [F] * 9 + [T]]
    found = query_measures(*tables(orders))
    assert found["hit_at_5"].to_list() == [1, 1, 0, 1, 0, 1, 0]
    assert found["hit_at_10"].to_list() == [1, 1, 1, 1, 0, 1, 1]
    assert found["reciprocal_rank"].to_list() == pytest.approx([1, 1 / 3, 1 / 6, 1 / 2, 1 / 12, 1 / 5, 1 / 10])
    both = (1 / math.log2(3) + 1 / math.log2(4)) / (1 + 1 / math.log2(3))
    # 1 / log2(4) at position 2, 1 / log2(6) at position 4
    assert found["ndcg_at_5"].to_list() == pytest.approx([1, 1 / 2, 0, both, 0, 1 / math.log2(6), 0])


@settings(deadline=None)
@given(
    st.lists(st.lists(st.booleans(), min_size=1, max_size=14).filter(any), min_size=1, max_size=6), st.integers(0, 9)
)
def test_ndcg_equals_the_slow_loop(orders, seed):
    def gain(order):
        return sum(right / math.log2(i + 2) for i, right in enumerate(order[:5]))

    predictions, top = tables(orders)
    shuffled = top.sample(fraction=1, shuffle=True, seed=seed)
    found = query_measures(predictions, shuffled)["ndcg_at_5"].to_list()
    assert found == pytest.approx([gain(order) / gain(sorted(order, reverse=True)) for order in orders])


def test_the_order_of_a_reranker_counts():
    predictions, top = tables([[F, F, T, F, F, F]])
    # the first three are reranked, the others stay
    top = top.with_columns(reranked_position=pl.Series([1, 2, 0, None, None, None], dtype=pl.Int32))
    assert query_measures(predictions, top)["ndcg_at_5"].to_list() == [1.0]


def test_too_few_first_candidates():
    predictions, top = tables([[T, F], [F, T, F, F, F, F]])
    with pytest.raises(DataError, match="D, query_id 1: 3 first candidates are known; nDCG@5 needs 5"):
        query_measures(predictions, top.filter(pl.col("position") < 3))


def two_sets():
    first, first_top = tables([[T, F], [F, T], [T, F], [T, F]], "A")
    second, second_top = tables([[F, T, F], [T, F, F]], "B")
    predictions = pl.concat([first.with_columns(unit=pl.Series([0, 0, 1, 2])), second])
    return query_measures(predictions, pl.concat([first_top, second_top]))


def scores(measured, **options):
    means = {"both": ["A", "B"], "more": ["A", "C"]}
    names = {"B": "recall_at_1", "A": "recall_at_1", "C": "recall_at_1"}
    return benchmark_scores(measured, names, means, level=0.9, resamples=200, seed=3, **options)


def test_scores_by_hand():
    found = scores(two_sets())
    assert list(found) == ["B", "A", "both", "more"]  # as declared, then means
    assert found["A"]["recall_at_1"]["value"] == 0.75
    assert (found["A"]["recall_at_1"]["n"], found["A"]["recall_at_1"]["units"]) == (4, 3)
    assert found["both"]["recall_at_1"]["value"] == (0.75 + 0.5) / 2  # not 4 of 6
    assert found["both"]["recall_at_1"]["n"] == 6
    assert found["A"]["mrr"]["value"] == pytest.approx((1 + 1 / 2 + 1 + 1) / 4)
    assert found["A"]["chance"] == {"value": 0.5, "low": None, "high": None, "n": 4, "units": 3}
    assert found["both"]["chance"]["value"] == pytest.approx((1 / 2 + 1 / 3) / 2)
    missing = {"value": None, "low": None, "high": None, "n": 0, "units": 0, "missing": ["C"]}
    assert found["more"] == {"recall_at_1": missing}


def test_intervals_resample_units_within_data_sets():
    measured = two_sets()
    figure = scores(measured)["A"]["recall_at_1"]
    single = measured.filter(pl.col("dataset") == "A")
    draws = bootstrap_draws(
        "mean",
        single["correct"].to_numpy(),
        groups=single["unit"].to_numpy(),
        resamples=200,
        seed=[3, zlib.crc32(b"A")],
    )
    expected = share_interval(0.75, draws, 0.9, 3)
    assert (figure["low"], figure["high"]) == (expected.low, expected.high)


def test_order_of_rows_does_not_matter():
    measured = two_sets()
    assert scores(measured.sample(fraction=1, shuffle=True, seed=1)) == scores(measured)


def test_a_mean_of_two_measures_is_called_accuracy():
    found = benchmark_scores(two_sets(), {"A": "recall_at_1"}, {"both": ["A", "B"]}, level=0.9, resamples=50, seed=0)
    assert next(iter(found["both"])) == "accuracy"
    assert next(iter(found["B"])) == "precision_at_1"


def test_a_macro_mean_is_narrower_than_its_members():
    rng = np.random.default_rng(0)
    parts = [measure(rng.random(400) < 0.5, np.arange(400), name, resamples=500, seed=0) for name in "ABCD"]
    whole, one = macro_mean(parts, 0.95), macro_mean(parts[:1], 0.95)
    assert whole.value == pytest.approx(np.mean([part.value for part in parts]))
    assert (whole.high - whole.low) == pytest.approx((one.high - one.low) / 2, rel=0.15)
    assert one.n == 400
    assert whole.n == 1600
