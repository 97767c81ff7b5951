"""Mined negatives as training rows, and what is refused."""

from __future__ import annotations

import polars as pl
import pytest

from unime_kedro.errors import DataError
from unime_kedro.mining.training import SCHEMA, training_table

QUERIES = pl.DataFrame(
    {"query_id": [0, 1, 2], "dataset": ["a", "b", "b"], "item_id": [10, 11, 12], "positive_item_id": [20, 21, 22]}
)
SCORES = pl.DataFrame(
    {
        "query_id": [0, 0, 0, 1, 1, 1, 2],
        "item_id": [20, 30, 31, 21, 30, 32, 22],
        "is_positive": [True, False, False, True, False, False, True],
        "score": pl.Series([0.9, 0.1, 0.2, 0.8, 0.3, 0.4, 0.7], dtype=pl.Float32),
    }
)


def negatives(**changes) -> pl.DataFrame:
    rows = {
        "query_id": [1, 0, 0, 1],
        "slot": [1, 0, 1, 0],
        "item_id": [32, 31, 30, 30],
        "score": [0.4, 0.2, 0.1, 0.3],
        "origin": ["sampled"] * 4,
    }
    return pl.DataFrame(rows | changes, schema_overrides={"slot": pl.Int32, "score": pl.Float32})


def test_one_row_per_query_in_order_of_slots():
    table, metrics = training_table(negatives(), QUERIES, SCORES, n_negatives=2, validation=[1])
    assert dict(table.schema) == SCHEMA
    assert table.drop("positive_score", "negative_scores").rows() == [
        (0, "a", "train", 10, 20, [31, 30]),
        (1, "b", "validation", 11, 21, [30, 32]),
    ]
    assert table["positive_score"].to_list() == pytest.approx([0.9, 0.8])
    assert table["negative_scores"][0].to_list() == pytest.approx([0.2, 0.1])
    # query 2 was skipped by mining
    assert (metrics["queries"], metrics["validation_queries"], metrics["left_out"]) == (1, 1, 1)
    assert metrics["mean_negative_score"] == pytest.approx(0.15)


def test_only_the_first_slots_are_used():
    table, _ = training_table(negatives(), QUERIES, SCORES, n_negatives=1)
    assert table["negative_item_ids"].to_list() == [[31], [30]]


def test_fallback_queries_are_kept_or_dropped():
    fallback = negatives(origin=["sampled", "fallback", "fallback", "sampled"], score=[0.4, 1.0, 1.0, 0.3])
    kept, metrics = training_table(fallback, QUERIES, SCORES, n_negatives=2)
    assert kept["query_id"].to_list() == [0, 1]
    assert metrics["fallback_queries"] == 1
    dropped, metrics = training_table(fallback, QUERIES, SCORES, n_negatives=2, fallback="drop")
    assert dropped["query_id"].to_list() == [1]
    assert (metrics["fallback_queries"], metrics["left_out"]) == (0, 2)


@pytest.mark.parametrize(
    ("changes", "n", "told"),
    [
        ({}, 3, "query_id 0 has 2 negatives, train.negatives is 3"),
        ({"score": [0.4, 1.2, 0.1, 0.3]}, 2, r"query_id 0, slot 0: score 1.2.*expected a number in \[0, 1\]"),
        ({"score": [float("nan"), 0.2, 0.1, 0.3]}, 2, "query_id 1, slot 1: score nan"),
        ({"score": [0.4, 0.2, None, 0.3]}, 2, "query_id 0, slot 1: score None"),
        ({"score": [0.4, 0.25, 0.1, 0.3]}, 2, "query_id 0, slot 0: score 0.25, in judge_scores it is 0.2"),
        ({"item_id": [32, 33, 30, 30]}, 2, "query_id 0, slot 0: score 0.2.*, in judge_scores it is None"),
        ({"query_id": [1, 0, 0, 9]}, 2, "query_id 9 is not in queries"),
        ({"item_id": [32, 20, 30, 30]}, 2, "query_id 0, slot 0: item 20 is the query's own positive"),
    ],
)
def test_what_does_not_fit_is_named(changes, n, told):
    with pytest.raises(DataError, match=told):
        training_table(negatives(**changes), QUERIES, SCORES, n_negatives=n)


def test_no_negatives_at_all_say_how_to_make_them():
    with pytest.raises(DataError, match="negatives is empty; `kedro run --pipeline=select`"):
        training_table(negatives().clear(), QUERIES, SCORES, n_negatives=2)
