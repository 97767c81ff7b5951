"""From judged pools to negatives: filter and sample every query (method 2.3), chunk by chunk."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ..errors import ConfigurationError, DataError
from ..progress import Progress
from .filters import Reason, false_negative_threshold, filter_false_negatives
from .margins import Rule, check_margin
from .matching import JudgedChunk, JudgedPools
from .sampling import sample_negatives
from .taken import take, taken_columns

NEGATIVES_SCHEMA = {
    "query_id": pl.Int64,
    "slot": pl.Int32,
    "item_id": pl.Int64,
    "score": pl.Float32,
    "origin": pl.String,
}
SELECTION_SCHEMA = {
    "query_id": pl.Int64,
    "positive_score": pl.Float32,
    "threshold": pl.Float32,
    "pool_size": pl.Int32,
    "kept": pl.Int32,
    "dropped_false_negative": pl.Int32,
    "dropped_unjudged": pl.Int32,
    "outcome": pl.String,
}
SKIPPED_SCHEMA = {"query_id": pl.Int64, "reason": pl.String}
#: names of :class:`~unime_kedro.mining.sampling.Origin` in the negatives table, in its order
ORIGINS = ("sampled", "duplicate", "fallback")
#: what became of a query, named after its last slot
OUTCOMES = ("sampled", "duplicated", "fallback")

Columns = dict[str, NDArray]


@dataclass(frozen=True)
class Selection:
    """Negatives and how they came about; all frames are sorted by query_id (and slot).

    Attributes:
        negatives: query_id, slot Int32 (0..n-1), item_id, score Float32, origin in {sampled, duplicate, fallback}.
        selection: One row per query with negatives: query_id, positive_score, threshold (Float32, null without a
            rule), pool_size, kept, dropped_false_negative, dropped_unjudged (Int32), outcome in {sampled, duplicated,
            fallback}.
        skipped: Queries without negatives: query_id and reason, ``positive_unjudged`` or ``empty_pool``.
        metrics: Flat, see :func:`select_negatives`.
    """

    negatives: pl.DataFrame
    selection: pl.DataFrame
    skipped: pl.DataFrame
    metrics: dict[str, float | int]


@dataclass(frozen=True)
class _Options:
    n_negatives: int
    rule: Rule
    margin: float
    step: int
    seed: int
    coverage: pl.DataFrame | None


def select_negatives(
    pool: pl.DataFrame,
    judge_scores: pl.DataFrame,
    *,
    n_negatives: int = 10,
    rule: Rule,
    margin: float,
    step: int = 5,
    seed: int = 42,
    coverage: pl.DataFrame | None = None,
    chunk_queries: int = 16_384,
    progress: Progress | None = None,
) -> Selection:
    """Drop false negatives and sample every query's hard negatives.

    A query whose positive has no score gets no negatives (nothing says what is too good for it), nor does one whose
    positive is in ``judge_scores`` while it has no pool; both are listed in ``skipped``.

    Args:
        pool: query_id, rank, item_id (further columns are ignored); any row order.
        judge_scores: query_id, item_id, is_positive, score (further columns are ignored); any row order. A pool member
            without a row, or with a null or NaN score, is unjudged and dropped; rows of other items are ignored.
        n_negatives: Negatives per query.
        rule: False-negative rule, see :mod:`unime_kedro.mining.filters`.
        margin: Margin of the rule.
        step: Interval of the cyclical sampling.
        seed: Seed of the random fallback.
        coverage: Where pools were judged in part: query_id and taken, the item ids that the strategy of judging picked,
            in order (:mod:`unime_kedro.mining.partial`). They are the negatives, if they pass the filter; else None.
        chunk_queries: Queries worked on at a time. Changes memory and speed, not the result.
        progress: Is advanced by the number of finished queries of the pool.

    Returns:
        The tables and these metrics: queries (with negatives), skipped_queries, pool_rows (of the queries with
        negatives), unjudged, false_negatives_dropped, false_negative_share (of the judged pool rows),
        duplicated_queries, duplicate_slots, fallback_queries, fallback_share (of the queries), mean_negative_score
        (without fallbacks, whose score of 1.0 is not the judge's; 0.0 when nothing else is there), seconds.

    Raises:
        ConfigurationError: A parameter out of range.
        DataError: The tables are faulty, see :class:`~unime_kedro.mining.matching.JudgedPools`.
    """
    started = time.perf_counter()
    check_margin(rule, margin)
    for name, value in (("n_negatives", n_negatives), ("step", step), ("chunk_queries", chunk_queries)):
        if value < 1:
            raise ConfigurationError(f"{name} must be at least 1, got {value}")
    options = _Options(n_negatives, rule, margin, step, seed, coverage)
    judged = JudgedPools(pool, judge_scores)
    parts: list[tuple[Columns, Columns]] = []
    for first in range(0, len(judged.query_ids), chunk_queries):
        chunk = judged.chunk(first, first + chunk_queries)
        parts.append(_select_chunk(chunk.only(np.isfinite(chunk.positive_scores)), options))
        if progress is not None:
            progress.advance(len(chunk.query_ids))
    selection = _frame([part[0] for part in parts], SELECTION_SCHEMA)
    negatives = _frame([part[1] for part in parts], NEGATIVES_SCHEMA)
    if rule == "none":
        selection = selection.with_columns(pl.lit(None, dtype=pl.Float32).alias("threshold"))
    skipped = _skipped(judged)
    metrics = _metrics(selection, negatives, skipped)
    metrics["seconds"] = time.perf_counter() - started
    return Selection(negatives, selection, skipped, metrics)


def false_negatives_by_dataset(selection: pl.DataFrame, queries: pl.DataFrame) -> dict[str, float]:
    """Return the share of judged pool rows that were dropped as false negatives, per data set.

    Args:
        selection: The frame of :class:`Selection`.
        queries: query_id and dataset.

    Returns:
        Data set -> share in [0, 1], in alphabetical order; 0.0 for a data set of which nothing was judged.

    Raises:
        DataError: A selected query is not among ``queries``.
    """
    joined = selection.join(queries.select("query_id", "dataset"), on="query_id", how="left")
    unknown = joined.filter(pl.col("dataset").is_null())
    if unknown.height:
        raise DataError(f"queries: no data set for query_id {int(unknown['query_id'].to_numpy()[0])} of the selection")
    dropped = pl.col("dropped_false_negative").cast(pl.Int64).sum()
    judged = (pl.col("pool_size") - pl.col("dropped_unjudged")).cast(pl.Int64).sum()
    shares = joined.group_by("dataset").agg((dropped / judged).fill_nan(0.0).alias("share")).sort("dataset")
    return dict(zip(shares["dataset"].to_list(), shares["share"].to_list(), strict=True))


def _select_chunk(chunk: JudgedChunk, options: _Options) -> tuple[Columns, Columns]:
    """Return the columns of the selection and of the negatives of some queries; origin and outcome as codes."""
    n, slots = len(chunk.query_ids), options.n_negatives
    keep, reason = filter_false_negatives(
        chunk.scores, chunk.positive_scores, chunk.pool_mask, options.rule, options.margin
    )
    if options.coverage is None:
        positions, scores, origin = sample_negatives(
            keep, chunk.scores, chunk.pool_mask, slots, options.step, options.seed, chunk.query_ids
        )
    else:
        columns = taken_columns(chunk, options.coverage)
        positions, scores, origin = take(columns, keep, chunk, slots, options.seed)
    selection: Columns = {
        "query_id": chunk.query_ids,
        "positive_score": chunk.positive_scores,
        "threshold": false_negative_threshold(chunk.positive_scores, options.rule, options.margin),
        "pool_size": np.count_nonzero(chunk.pool_mask, axis=1),
        "kept": np.count_nonzero(keep, axis=1),
        "dropped_false_negative": np.count_nonzero(reason == Reason.FALSE_NEGATIVE, axis=1),
        "dropped_unjudged": np.count_nonzero(reason == Reason.UNJUDGED, axis=1),
        "outcome": origin[:, -1],
    }
    negatives: Columns = {
        "query_id": np.repeat(chunk.query_ids, slots),
        "slot": np.tile(np.arange(slots, dtype=np.int32), n),
        "item_id": np.take_along_axis(chunk.item_ids, positions.astype(np.int64), axis=1).ravel(),
        "score": scores.ravel(),
        "origin": origin.ravel(),
    }
    return selection, negatives


def _frame(parts: list[Columns], schema: dict) -> pl.DataFrame:
    """Put chunks together, with names for codes."""
    names = {"origin": ORIGINS, "outcome": OUTCOMES}
    if not parts:
        return pl.DataFrame(schema=schema)
    columns = []
    for name, kind in schema.items():
        values = pl.Series(name, np.concatenate([part[name] for part in parts]))
        columns.append(pl.Series(name, names[name]).gather(values) if name in names else values.cast(kind))
    return pl.DataFrame(columns)


def _skipped(judged: JudgedPools) -> pl.DataFrame:
    """List the queries of either table that get no negatives."""
    scored = judged.positive_ids[np.isfinite(judged.positive_scores)]
    unjudged = np.setdiff1d(judged.query_ids, scored, assume_unique=True)
    empty = np.setdiff1d(judged.positive_ids, judged.query_ids, assume_unique=True)
    reasons = ["positive_unjudged"] * len(unjudged) + ["empty_pool"] * len(empty)
    table = {"query_id": np.concatenate([unjudged, empty]), "reason": reasons}
    return pl.DataFrame(table, schema=SKIPPED_SCHEMA).sort("query_id")


def _metrics(selection: pl.DataFrame, negatives: pl.DataFrame, skipped: pl.DataFrame) -> dict[str, float | int]:
    counted = ("pool_size", "dropped_false_negative", "dropped_unjudged")
    total = {name: int(selection[name].cast(pl.Int64).sum()) for name in counted}
    outcomes = {name: int((selection["outcome"] == name).sum()) for name in OUTCOMES}
    judged = total["pool_size"] - total["dropped_unjudged"]
    mean = negatives.filter(pl.col("origin") != "fallback")["score"].cast(pl.Float64).mean()
    return {
        "queries": selection.height,
        "skipped_queries": skipped.height,
        "pool_rows": total["pool_size"],
        "unjudged": total["dropped_unjudged"],
        "false_negatives_dropped": total["dropped_false_negative"],
        "false_negative_share": total["dropped_false_negative"] / max(judged, 1),
        "duplicated_queries": outcomes["duplicated"],
        "duplicate_slots": int((negatives["origin"] == "duplicate").sum()),
        "fallback_queries": outcomes["fallback"],
        "fallback_share": outcomes["fallback"] / max(selection.height, 1),
        "mean_negative_score": float(mean) if isinstance(mean, float) else 0.0,
    }
