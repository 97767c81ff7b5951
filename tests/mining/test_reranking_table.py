"""Mined negatives as rows for the reranker: the hardest first, each once, and what is refused."""

from __future__ import annotations

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from unime_kedro.errors import DataError
from unime_kedro.mining.reranking import reranking_table
from unime_kedro.mining.training import SCHEMA

QUERIES = pl.DataFrame(
    {
        "query_id": [0, 1, 2, 3],
        "dataset": ["a", "b", "b", "b"],
        "item_id": [10, 11, 12, 13],
        "positive_item_id": [20, 21, 22, 23],
    }
)
SCORES = pl.DataFrame(
    {
        "query_id": [0, 0, 0, 0, 1, 1, 2, 2, 3],
        "item_id": [20, 30, 31, 32, 21, 30, 22, 30, 23],
        "is_positive": [True, False, False, False, True, False, True, False, True],
        "score": pl.Series([0.9, 0.25, 0.5, 0.25, 0.8, 0.125, 0.7, 0.375, 0.6], dtype=pl.Float32),
    }
)


def negatives(**changes) -> pl.DataFrame:
    """Query 0 has three, the last two equally hard; query 1 repeats its only one; query 2's are random; 3 has none."""
    rows = {
        "query_id": [2, 2, 0, 0, 0, 1, 1],
        "slot": [0, 1, 2, 1, 0, 1, 0],
        "item_id": [31, 31, 30, 31, 32, 30, 30],
        "score": [1.0, 1.0, 0.25, 0.5, 0.25, 0.125, 0.125],
        "origin": ["fallback", "fallback", "sampled", "sampled", "sampled", "duplicate", "sampled"],
    }
    return pl.DataFrame(rows | changes, schema_overrides={"slot": pl.Int32, "score": pl.Float32})


def test_the_hardest_negatives_come_first_and_once():
    table, metrics = reranking_table(negatives(), QUERIES, SCORES, n_negatives=5, validation=[1])
    assert dict(table.schema) == SCHEMA
    assert table.drop("positive_score", "negative_scores").rows() == [
        (0, "a", "train", 10, 20, [31, 32, 30]),  # 32 and 30 are equally hard: by slot
        (1, "b", "validation", 11, 21, [30]),
    ]
    assert table["negative_scores"].to_list() == [[0.5, 0.25, 0.25], [0.125]]
    assert table["positive_score"].to_list() == pytest.approx([0.9, 0.8])
    counts = {key: metrics[key] for key in ("queries", "validation_queries", "without_negatives", "fallback_queries")}
    assert counts == {"queries": 1, "validation_queries": 1, "without_negatives": 2, "fallback_queries": 1}
    assert (metrics["shorter_lists"], metrics["mean_negatives"], metrics["mean_hardest_score"]) == (1, 3.0, 0.5)


def test_no_more_negatives_than_wanted():
    table, metrics = reranking_table(negatives(), QUERIES, SCORES, n_negatives=2)
    assert table["negative_item_ids"].to_list() == [[31, 32], [30]]
    assert metrics["shorter_lists"] == 1


def test_random_negatives_are_used_when_asked_for():
    table, _ = reranking_table(negatives(), QUERIES, SCORES, n_negatives=5, fallback="use")
    assert table.filter(pl.col("query_id") == 2)["negative_item_ids"].to_list() == [[31]]


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"score": [1.0, 1.0, 0.25, 1.5, 0.25, 0.125, 0.125]}, "query_id 0, slot 1: score 1.5"),
        ({"score": [1.0, 1.0, 0.25, 0.4, 0.25, 0.125, 0.125]}, r"query_id 0, slot 1: score 0.4.*it is 0.5"),
        ({"item_id": [31, 31, 20, 31, 32, 30, 30]}, "query_id 0, slot 2: item 20 is the query's own positive"),
        ({"query_id": [2, 2, 9, 0, 0, 1, 1]}, "query_id 9 is not in queries"),
        ({"origin": ["fallback"] * 7}, "rerank.fallback is drop"),
    ],
)
def test_what_does_not_fit_is_named(changes, told):
    with pytest.raises(DataError, match=told):
        reranking_table(negatives(**changes), QUERIES, SCORES, n_negatives=5)


@given(st.permutations(range(7)), st.integers(1, 4))
def test_the_order_of_rows_does_not_matter(order, n):
    expected, _ = reranking_table(negatives(), QUERIES, SCORES, n_negatives=n)
    found, _ = reranking_table(negatives()[order], QUERIES.reverse(), SCORES.reverse(), n_negatives=n)
    assert found.equals(expected)
