"""From mined negatives to training queries: one row each, checked against the tables they came from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import polars as pl

from unime_kedro.errors import DataError

#: share of a score that float32 rounds away
_ROUNDING = 1e-6

SCHEMA = {
    "query_id": pl.Int64,
    "dataset": pl.String,
    "split": pl.String,
    "item_id": pl.Int64,
    "positive_item_id": pl.Int64,
    "positive_score": pl.Float32,
    "negative_item_ids": pl.List(pl.Int64),
    "negative_scores": pl.List(pl.Float32),
}


def training_table(
    negatives: pl.DataFrame,
    queries: pl.DataFrame,
    judge_scores: pl.DataFrame,
    *,
    n_negatives: int,
    fallback: Literal["use", "drop"] = "use",
    validation: Sequence[int] | pl.Series = (),
) -> tuple[pl.DataFrame, dict[str, float]]:
    """Put a query, its positive, its first negatives and the judge's scores into one row.

    Args:
        negatives: query_id, slot, item_id, score, origin.
        queries: query_id, dataset, item_id, positive_item_id.
        judge_scores: query_id, item_id, is_positive, score.
        n_negatives: k, how many negatives of each query are used: those in slots 0 to k-1.
        fallback: ``use`` keeps queries whose negatives were drawn at random (score 1.0, as in the paper), ``drop``
            leaves them out.
        validation: query_ids of split ``validation``; all others are split ``train``.

    Returns:
        :data:`SCHEMA`, sorted by query_id, and counts. Queries that mining skipped are left out.

    Raises:
        DataError: If a query has fewer than k negatives, a score is no number in [0, 1], a negative is its query's own
            positive, or negatives and scores are not of one mining; names table, query and slot.
    """
    used = negatives.filter(pl.col("slot") < n_negatives).sort("query_id", "slot")
    check_scores(used)
    check_mining(used, queries, judge_scores)
    fallbacks = used.filter(pl.col("origin") == "fallback")["query_id"].unique()
    rows = used.group_by("query_id", maintain_order=True).agg(negative_item_ids="item_id", negative_scores="score")
    _check_count(rows, negatives, n_negatives)
    positives = judge_scores.filter("is_positive").select("query_id", positive_score="score")
    check_positives(rows, positives)
    table = queries.join(rows, on="query_id").join(positives, on="query_id").sort("query_id")
    if fallback == "drop":
        table = table.filter(~pl.col("query_id").is_in(fallbacks.implode()))
    held_out = pl.col("query_id").is_in(pl.Series(validation, dtype=pl.Int64).implode())
    table = table.with_columns(split=pl.when(held_out).then(pl.lit("validation")).otherwise(pl.lit("train")))
    table = table.select(*SCHEMA).cast(SCHEMA)  # type: ignore[arg-type]
    return table, _metrics(table, queries, used, fallbacks if fallback == "use" else fallbacks.clear())


def check_scores(used: pl.DataFrame) -> None:
    """Make sure that every negative's score is a number in [0, 1]."""
    bad = used.filter(~pl.col("score").is_between(0, 1).fill_null(False) | pl.col("score").is_nan())
    if len(bad):
        first = bad.row(0, named=True)
        raise DataError(
            f"negatives: query_id {first['query_id']}, slot {first['slot']}: score {first['score']}; expected a number "
            f"in [0, 1]. {len(bad):,} scores are like that. `kedro run --pipelines=judge,select` makes them anew."
        )


def _check_count(rows: pl.DataFrame, negatives: pl.DataFrame, n_negatives: int) -> None:
    short = rows.filter(pl.col("negative_item_ids").list.len() < n_negatives)
    if not len(rows):
        raise DataError("negatives is empty; `kedro run --pipeline=select` makes it.")
    if len(short):
        query = short["query_id"][0]
        has = negatives.filter(pl.col("query_id") == query).height
        raise DataError(
            f"negatives: query_id {query} has {has} negatives, train.negatives is {n_negatives} ({len(short):,} "
            f"queries have too few). Set train.negatives to at most {has}, or run select again with a larger "
            "select.negatives (beyond what is left of the pool, pool.k, they repeat)."
        )


def check_positives(rows: pl.DataFrame, positives: pl.DataFrame) -> None:
    """Make sure that every query's positive has exactly one score in [0, 1]."""
    found = rows.select("query_id").join(positives, on="query_id", how="left").sort("query_id")
    good = pl.col("positive_score").is_between(0, 1).fill_null(False) & ~pl.col("query_id").is_duplicated()
    bad = found.filter(~good | pl.col("positive_score").is_nan())
    if len(bad):
        first = bad.row(0, named=True)
        raise DataError(
            f"judge_scores: query_id {first['query_id']}: the positive's score is {first['positive_score']}; expected "
            "one number in [0, 1]. `kedro run --pipelines=judge,select` makes scores and negatives anew."
        )


def check_mining(used: pl.DataFrame, queries: pl.DataFrame, judge_scores: pl.DataFrame) -> None:
    """Compare negatives with the queries and the scores that they were chosen by."""
    remedy = "The tables are of different minings; `kedro run --pipeline=select` makes negatives anew."
    unknown = used.join(queries, on="query_id", how="anti")
    if len(unknown):
        raise DataError(f"negatives: query_id {unknown['query_id'][0]} is not in queries. {remedy}")
    own = used.join(queries.select("query_id", "positive_item_id"), on="query_id")
    own = own.filter(pl.col("item_id") == pl.col("positive_item_id"))
    if len(own):
        first = own.row(0, named=True)
        raise DataError(
            f"negatives: query_id {first['query_id']}, slot {first['slot']}: item {first['item_id']} is the query's "
            f"own positive. {remedy}"
        )
    judged = used.filter(pl.col("origin") != "fallback").join(
        judge_scores.filter(~pl.col("is_positive")).select("query_id", "item_id", judged="score"),
        on=["query_id", "item_id"],
        how="left",
    )
    other = judged.filter(((pl.col("score") - pl.col("judged")).abs() <= _ROUNDING).fill_null(False).not_())
    if len(other):
        first = other.row(0, named=True)
        raise DataError(
            f"negatives: query_id {first['query_id']}, slot {first['slot']}: score {first['score']}, in judge_scores "
            f"it is {first['judged']}. {remedy}"
        )


def _metrics(table: pl.DataFrame, queries: pl.DataFrame, used: pl.DataFrame, fallbacks: pl.Series) -> dict[str, float]:
    train = table.filter(pl.col("split") == "train")
    duplicates = used.join(train, on="query_id", how="semi").filter(pl.col("origin") == "duplicate")
    return {
        "queries": len(train),
        "validation_queries": len(table) - len(train),
        "left_out": len(queries) - len(table),
        "datasets": train["dataset"].n_unique(),
        "fallback_queries": int(train["query_id"].is_in(fallbacks.implode()).sum()),
        "duplicate_negatives": len(duplicates),
        "mean_positive_score": float(train["positive_score"].mean() or 0.0),  # type: ignore[arg-type]
        "mean_negative_score": float(train["negative_scores"].explode().mean() or 0.0),  # type: ignore[arg-type]
    }
