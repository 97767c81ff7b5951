"""The sample is fair and fixed, and every logit stands beside its pair."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from unime_kedro.evaluation.rescoring import SCHEMA, rescore, sample_queries, sampled_pairs
from unime_kedro.mllm.content import Content
from unime_kedro.mllm.judge import PrefixJudge

WORDS = ["find a dog", "a dog", "an axe and a pen", "a big dog", "find a pen", "a pen", "three pens"]


def tables(n: int = 40) -> tuple[pl.DataFrame, pl.DataFrame, pl.DataFrame]:
    """Return queries of data sets A (three in four) and B, a pool of two each, and scores."""
    names = ["B" if i % 4 == 0 else "A" for i in range(n)]
    queries = pl.DataFrame({"query_id": range(n), "dataset": names, "item_id": [0] * n, "positive_item_id": [1] * n})
    pool = pl.DataFrame(
        {"query_id": np.repeat(np.arange(n), 2), "rank": [0, 1] * n, "item_id": [2, 3] * n},
        schema_overrides={"rank": pl.Int32},
    )
    scores = queries.select("query_id", is_positive=True, score=pl.lit(0.5))
    return queries, pool, scores


def test_data_sets_take_turns_and_row_order_does_not_matter() -> None:
    queries, pool, scores = tables()
    chosen = sample_queries(queries, pool, scores, 10, seed=3)
    assert chosen == sorted(set(chosen))
    assert [sum(q % 4 == 0 for q in chosen), len(chosen)] == [5, 10]
    assert sample_queries(queries[::-1], pool[::-1], scores[::-1], 10, seed=3) == chosen
    assert sample_queries(queries, pool, scores, 10, seed=4) != chosen
    assert set(sample_queries(queries, pool, scores, 6, seed=3)) < set(chosen)
    # of B there are but ten
    assert sum(q % 4 == 0 for q in sample_queries(queries, pool, scores, 30, seed=3)) == 10
    assert sample_queries(queries, pool, scores, 99, seed=3) == list(range(40))


def test_queries_without_pool_or_score_are_not_chosen() -> None:
    queries, pool, scores = tables()
    pool = pool.filter(pl.col("query_id") != 4)
    scores = scores.with_columns(
        score=pl.when(pl.col("query_id") == 8)
        .then(float("nan"))
        .when(pl.col("query_id") == 9)
        .then(None)
        .otherwise(0.5)
    )
    chosen = sample_queries(queries, pool, scores.filter(pl.col("query_id") != 12), 99, seed=0)
    assert sorted(set(range(40)) - set(chosen)) == [4, 8, 9, 12]


@pytest.fixture(scope="module")
def pairs() -> pl.DataFrame:
    queries = pl.DataFrame({"query_id": [3, 5], "item_id": [0, 4], "positive_item_id": [1, 5]})
    pool = pl.DataFrame(
        {"query_id": [5, 3, 3, 3], "rank": [0, 0, 1, 2], "item_id": [6, 2, 3, 5]}, schema_overrides={"rank": pl.Int32}
    )
    return sampled_pairs(queries, pool, [5, 3])


def test_pairs_are_positives_and_pool_in_order(pairs: pl.DataFrame) -> None:
    assert pairs.rows() == [
        (3, 0, 1, True), (3, 0, 2, False), (3, 0, 3, False), (3, 0, 5, False), (5, 4, 5, True), (5, 4, 6, False),
    ]  # fmt: skip


@pytest.mark.parametrize("backwards", [False, True])
def test_scores_are_those_of_each_pair_alone(adapter, pairs: pl.DataFrame, backwards: bool) -> None:
    contents = [Content(text) for text in WORDS]
    judge = PrefixJudge(adapter, batch_size=2)
    options = {"temperature": 2.0, "kind": "noise", "variant": "v", "backwards": backwards}
    found = rescore(pairs, contents, judge, **options)
    assert found.schema == SCHEMA
    assert found.select("query_id", "item_id", "is_positive").equals(pairs.drop("query_item_id"))
    assert set(found.select("kind", "variant").rows()) == {("noise", "v")}
    for row, (_, query, item, _) in zip(found.to_dicts(), pairs.rows(), strict=True):
        alone = judge.judge(contents[query], [contents[item]])
        assert row["yes_logit"] == pytest.approx(alone.yes[0], abs=1e-4)
        assert row["no_logit"] == pytest.approx(alone.no[0], abs=1e-4)
        assert row["score"] == pytest.approx(1 / (1 + np.exp((row["no_logit"] - row["yes_logit"]) / 2)), abs=1e-6)
    assert found["score"].n_unique() > 3


def test_what_cannot_be_judged_is_null(adapter, pairs: pl.DataFrame, tmp_path: Path) -> None:
    contents = [Content(text) for text in WORDS]
    contents[3] = Content("<|image_1|>", tmp_path / "no such picture.png")
    found = rescore(pairs, contents, PrefixJudge(adapter, batch_size=9), temperature=1, kind="noise", variant="v")
    assert found.filter(pl.col("score").is_null()).select("query_id", "item_id").rows() == [(3, 3)]
    assert found["yes_logit"].is_null().to_list() == found["score"].is_null().to_list()
    assert not found["score"].is_nan().any()


def test_pairs_out_of_order_are_refused(adapter, pairs: pl.DataFrame) -> None:
    with pytest.raises(ValueError, match="not sorted by query_id"):
        rescore(pairs[::-1], [], PrefixJudge(adapter, batch_size=9), temperature=1, kind="noise", variant="v")
