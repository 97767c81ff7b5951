"""From mined negatives to the queries that the reranker is trained on: the hardest negatives first."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import polars as pl

from unime_kedro.errors import DataError
from unime_kedro.mining.training import SCHEMA, check_mining, check_positives, check_scores


def reranking_table(
    negatives: pl.DataFrame,
    queries: pl.DataFrame,
    judge_scores: pl.DataFrame,
    *,
    n_negatives: int,
    fallback: Literal["use", "drop"] = "drop",
    validation: Sequence[int] | pl.Series = (),
) -> tuple[pl.DataFrame, dict[str, float]]:
    """Put a query, its positive and its mined negatives with the highest scores into one row (method section 4).

    False negatives are out already: mining dropped what scores like the positive or higher. Each negative counts once,
    however often mining repeated it.

    Args:
        negatives: query_id, slot, item_id, score, origin.
        queries: query_id, dataset, item_id, positive_item_id.
        judge_scores: query_id, item_id, is_positive, score.
        n_negatives: Most negatives of a query.
        fallback: ``drop`` leaves out negatives that were drawn at random (their score 1.0 says nothing of how hard they
            are, and any of them may be right); ``use`` takes them.
        validation: query_ids of split ``validation``; all others are split ``train``.

    Returns:
        The schema of the table ``training``, sorted by query_id; negatives by score descending, equal scores by slot,
        from 1 to ``n_negatives`` of them, the first being the hardest. And counts.

    Raises:
        DataError: If no query is left, a score is no number in [0, 1], a negative is its query's own positive, or
            negatives and scores are not of one mining; names table, query and slot.
    """
    check_scores(negatives)
    check_mining(negatives, queries, judge_scores)
    is_random = pl.col("origin") == "fallback"
    random = negatives.filter(is_random)
    kept = negatives.filter(~is_random) if fallback == "drop" else negatives
    if not len(kept):
        raise DataError(
            "reranking: no query has a negative that mining chose"
            + (" (rerank.fallback is drop, and all were drawn at random)." if len(negatives) else ".")
            + " `kedro run --pipeline=mine` makes negatives."
        )
    # where there were too few, mining repeated them
    kept = kept.sort("query_id", "slot").unique(["query_id", "item_id"], keep="first", maintain_order=True)
    hardest = kept.sort("query_id", "score", "slot", descending=[False, True, False])
    rows = hardest.group_by("query_id", maintain_order=True).agg(
        negative_item_ids=pl.col("item_id").head(n_negatives), negative_scores=pl.col("score").head(n_negatives)
    )
    positives = judge_scores.filter("is_positive").select("query_id", positive_score="score")
    check_positives(rows, positives)
    held_out = pl.col("query_id").is_in(pl.Series(validation, dtype=pl.Int64).implode())
    table = queries.join(rows, on="query_id").join(positives, on="query_id").sort("query_id")
    table = table.with_columns(split=pl.when(held_out).then(pl.lit("validation")).otherwise(pl.lit("train")))
    table = table.select(*SCHEMA).cast(SCHEMA)  # type: ignore[arg-type]
    return table, _metrics(table, queries, random["query_id"].unique(), n_negatives)


def _metrics(table: pl.DataFrame, queries: pl.DataFrame, fallbacks: pl.Series, n_negatives: int) -> dict[str, float]:
    train = table.filter(pl.col("split") == "train")
    lengths = train["negative_item_ids"].list.len()
    return {
        "queries": len(train),
        "validation_queries": len(table) - len(train),
        "without_negatives": len(queries) - len(table),
        "fallback_queries": len(fallbacks),
        "datasets": train["dataset"].n_unique(),
        "shorter_lists": int((lengths < n_negatives).sum()),
        "mean_negatives": float(lengths.mean() or 0.0),  # type: ignore[arg-type]
        "mean_positive_score": float(train["positive_score"].mean() or 0.0),  # type: ignore[arg-type]
        "mean_hardest_score": float(train["negative_scores"].list.first().mean() or 0.0),  # type: ignore[arg-type]
    }
