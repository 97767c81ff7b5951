"""Judge every (query, pool member) and every (query, positive), each distinct pair of contents once."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from unime_kedro.errors import DataError
from unime_kedro.mining.scorer import FillsStore, Group, Judge, PairScorer, without_score
from unime_kedro.mining.store import SCHEMA

__all__ = ["FillsStore", "Group", "Judge", "Judged", "PairScorer", "judge_pairs", "judged_tables", "pairs_to_judge"]


@dataclass(frozen=True)
class Judged:
    """Result of :func:`judge_pairs`.

    Attributes:
        scores: The judge_scores table: one row per judged (query, item), positives first, then in pool order.
        errors: query_id, item_id, is_positive, error: pairs without a score.
        metrics: Flat numbers.
    """

    scores: pl.DataFrame
    errors: pl.DataFrame
    metrics: dict[str, float]


def pairs_to_judge(queries: pl.DataFrame, pool: pl.DataFrame) -> pl.DataFrame:
    """List what needs a score: query_id, query_item_id, item_id, is_positive; positives first, then in pool order."""
    positives = queries.select(
        "query_id",
        pl.col("item_id").alias("query_item_id"),
        pl.col("positive_item_id").alias("item_id"),
        is_positive=pl.lit(True),
        rank=pl.lit(-1, dtype=pl.Int32),
    )
    members = pool.join(
        queries.select("query_id", pl.col("item_id").alias("query_item_id")), on="query_id", how="inner"
    ).select("query_id", "query_item_id", "item_id", pl.lit(False).alias("is_positive"), "rank")
    return pl.concat([positives, members]).sort("query_id", "rank").drop("rank")


def missing_pairs(
    queries: pl.DataFrame, items: pl.DataFrame, pool: pl.DataFrame, known: pl.DataFrame | None
) -> pl.DataFrame:
    """Return the distinct pairs of contents that :func:`judge_pairs` would judge.

    Args:
        queries: The queries table.
        items: The items table.
        pool: The pool table.
        known: What a store has (:meth:`JudgeStore.read`); None for nothing.

    Returns:
        query_key, query_item_id, item_id (list), candidate_key (list), a row per query.
    """
    known = pl.DataFrame(schema=SCHEMA) if known is None else known
    return without_score(pairs_to_judge(queries, pool), items, known)


def judge_pairs(
    queries: pl.DataFrame,
    items: pl.DataFrame,
    pool: pl.DataFrame,
    judge: Judge | FillsStore,
    store_root: Path,
    image_root: Path,
    *,
    max_error_share: float = 0.0,
    **options: Any,
) -> Judged:
    """Score every query with its positive and with every member of its pool.

    Args:
        queries: The queries table.
        items: The items table.
        pool: The pool table.
        judge: The backend.
        store_root: Folder of the judge store.
        image_root: Folder that image paths are relative to.
        max_error_share: Largest share of pairs without a score.
        **options: Of :class:`unime_kedro.mining.scorer.PairScorer`.

    Returns:
        Scores, errors and metrics.

    Raises:
        ConfigurationError: If the temperature is not a finite number above 0 in float32.
        DataError: If more than ``max_error_share`` of the pairs could not be judged.
    """
    start = time.perf_counter()
    scorer = PairScorer(items, judge, store_root, image_root, **options)
    return judged_tables(scorer.score(pairs_to_judge(queries, pool)), scorer, max_error_share, start)


def judged_tables(judged: pl.DataFrame, scorer: PairScorer, max_error_share: float, start: float) -> Judged:
    """Make the tables of what :meth:`PairScorer.score` returned, and check the share of failures.

    Args:
        judged: With query_id and is_positive.
        scorer: What scored it.
        max_error_share: Largest share of pairs without a score.
        start: When judging began, by ``time.perf_counter``.
    """
    errors = judged.filter(pl.col("error") != "").select("query_id", "item_id", "is_positive", "error")
    _enforce_error_share(errors, len(judged), max_error_share)
    scores = judged.filter(pl.col("error") == "").select(
        "query_id",
        "item_id",
        "is_positive",
        "yes_logit",
        "no_logit",
        pl.lit(scorer.temperature, dtype=pl.Float32).alias("temperature"),
        "score",
    )
    distinct = judged.select(pl.struct("query_key", "candidate_key").n_unique()).item()
    seconds = time.perf_counter() - start
    metrics = _metrics(scores, errors, distinct, scorer.judged_now, seconds)
    return Judged(scores, errors, {**metrics, "temperature": scorer.temperature})


def _enforce_error_share(errors: pl.DataFrame, n_pairs: int, limit: float) -> None:
    share = len(errors) / max(n_pairs, 1)
    if share <= limit:
        return
    common = errors["error"].value_counts(sort=True).head(3).rows()
    reasons = "; ".join(f"{n} x {text}" for text, n in common)
    raise DataError(
        f"{len(errors):,} of {n_pairs:,} pairs ({share:.2%}) could not be judged, judge.max_error_share allows "
        f"{limit:.2%}. Most common: {reasons}. All scores are kept in the store; run again to retry the others, "
        "or raise judge.max_error_share."
    )


def _metrics(
    scores: pl.DataFrame, errors: pl.DataFrame, distinct: int, judged_now: int, seconds: float
) -> dict[str, float]:
    values = scores["score"].to_numpy()
    positive = scores["is_positive"].to_numpy()

    def mean(part: np.ndarray) -> float:
        return float(part.mean()) if len(part) else 0.0

    return {
        "pairs": len(scores) + len(errors),
        "distinct_pairs": distinct,
        "judged_now": judged_now,
        "from_store": distinct - judged_now,
        "errors": len(errors),
        "mean_positive_score": mean(values[positive]),
        "mean_pool_score": mean(values[~positive]),
        "yes_share_pool": mean(values[~positive] > 0.5),
        "score_share_between_05_95": mean((values > 0.05) & (values < 0.95)),
        "seconds": seconds,
        "pairs_per_second": judged_now / seconds if seconds > 0 else 0.0,
    }
