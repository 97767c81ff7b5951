"""Judge as many pairs as the negatives need: the strategies of :mod:`unime_kedro.mining.strategies` on our tables."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray

from unime_kedro.errors import DataError
from unime_kedro.mining.filters import false_negative_threshold
from unime_kedro.mining.judging import Judged, PairScorer, judged_tables, pairs_to_judge
from unime_kedro.mining.margins import Rule
from unime_kedro.mining.matching import JudgedPools
from unime_kedro.mining.strategies import Cascade, Pools, Sheet, budget, cascade, lazy

COVERAGE_SCHEMA = {"query_id": pl.Int64, "pool_size": pl.Int32, "judged": pl.Int32}


@dataclass(frozen=True)
class Strategy:
    """How pairs are chosen.

    Attributes:
        kind: ``lazy``, ``cascade`` or ``budget``.
        n_negatives: Negatives per query, as ``select`` will take them.
        rule: The false-negative rule, likewise.
        margin: Its margin.
        step: Interval of the sampling, likewise.
        calls_per_query: ``budget``: calls about candidates, per query on average.
        band: ``cascade``: a pair whose small score is this near the threshold is judged by the large judge too.
    """

    kind: Literal["lazy", "cascade", "budget"]
    n_negatives: int
    rule: Rule
    margin: float
    step: int
    calls_per_query: float = 0.0
    band: float = 0.0


def judge_some(
    queries: pl.DataFrame,
    pool: pl.DataFrame,
    scorer: PairScorer,
    strategy: Strategy,
    *,
    small: PairScorer | None = None,
    max_error_share: float = 0.0,
) -> tuple[Judged, pl.DataFrame]:
    """Score every query with its positive, and with as many pool members as its negatives need.

    Args:
        queries: The queries table.
        pool: The pool table.
        scorer: Where scores come from.
        strategy: Which members are judged.
        small: ``cascade``: where the small judge's scores come from.
        max_error_share: Largest share of pairs without a score, of those asked for.

    Returns:
        What :func:`unime_kedro.mining.judging.judge_pairs` returns, for the pairs that were asked for; metrics besides:
        judge_calls, judge_calls_exhaustive, judge_calls_share, judge_calls_per_query, accepted_per_query, and for a
        cascade small_judge_calls. And a table: query_id, pool_size, judged: how many of a query's pool have a score or
        an error.

    Raises:
        DataError: If more than ``max_error_share`` of the pairs could not be judged, or the pool is empty.
    """
    start = time.perf_counter()
    if pool.is_empty():
        raise DataError("pool.parquet has no rows: there is nothing to judge.")
    book = _Book(queries, pool, scorer)
    sheet = Sheet(book.pools(strategy), book.ask)
    published = _run(strategy, sheet, book, small)
    judged = book.judged(published)
    found = judged_tables(judged, scorer, max_error_share, start)
    calls = len(queries) + int(sheet.asked.sum())
    exhaustive = len(queries) + len(pool)
    metrics: dict[str, float] = {
        "judge_calls": calls,
        "judge_calls_exhaustive": exhaustive,
        "judge_calls_share": calls / exhaustive,
        "judge_calls_per_query": calls / max(len(queries), 1),
        "accepted_per_query": float((sheet.kept & published).sum()) / max(len(book.query_ids), 1),
    }
    if small is not None:
        metrics["small_judge_calls"] = exhaustive
    return Judged(found.scores, found.errors, found.metrics | metrics), book.coverage(published)


def whole_coverage(pool: pl.DataFrame) -> pl.DataFrame:
    """Return the coverage table of a pool that was judged exhaustively."""
    sizes = pool.group_by("query_id").agg(pool_size=pl.len().cast(pl.Int32)).sort("query_id")
    return sizes.with_columns(judged="pool_size").select(
        pl.col(name).cast(kind) for name, kind in COVERAGE_SCHEMA.items()
    )


def _run(strategy: Strategy, sheet: Sheet, book: _Book, small: PairScorer | None) -> NDArray[np.bool_]:
    """Ask; returns which of the answers count: with all others, a cascade's choice would not be what is sampled."""
    if strategy.kind == "lazy":
        lazy(sheet, strategy.n_negatives, strategy.step)
    elif strategy.kind == "budget":
        calls = round(strategy.calls_per_query * len(book.query_ids))
        budget(sheet, strategy.n_negatives, strategy.step, calls)
    else:
        assert small is not None
        other = _Book(book.queries, book.pool, small)
        small_pools = other.pools(strategy)
        options = Cascade(strategy.n_negatives, strategy.step, strategy.band)
        chosen = cascade(sheet, small_pools, other.ask(sheet.pools.mask), options)
        return chosen | (sheet.asked & ~sheet.kept)
    return sheet.asked


class _Book:
    """Tables as matrices, and back."""

    def __init__(self, queries: pl.DataFrame, pool: pl.DataFrame, scorer: PairScorer) -> None:
        self.queries, self.pool = queries, pool.sort("query_id", "rank")
        self._scorer = scorer
        self._positives = scorer.score(pairs_to_judge(queries, pool.clear()))
        known = self._positives.filter(pl.col("error") == "")
        pools = JudgedPools(self.pool, known)
        chunk = pools.chunk(0, len(pools.query_ids))
        self.query_ids, self._mask = chunk.query_ids, chunk.pool_mask
        self._positive_scores, self._item_ids = chunk.positive_scores, chunk.item_ids
        items = queries.sort("query_id")
        at = np.searchsorted(items["query_id"].to_numpy(), self.query_ids)
        self._query_items = items["item_id"].to_numpy()[at]
        self._answers: list[pl.DataFrame] = []

    def pools(self, strategy: Strategy) -> Pools:
        """Return what is known before a candidate is judged."""
        thresholds = np.full(len(self.query_ids), np.nan, dtype=np.float32)
        known = np.isfinite(self._positive_scores)
        thresholds[known] = false_negative_threshold(self._positive_scores[known], strategy.rule, strategy.margin)
        return Pools(self.query_ids, self._mask, thresholds)

    def ask(self, wanted: NDArray[np.bool_]) -> NDArray[np.float32]:
        """See :data:`unime_kedro.mining.strategies.Ask`."""
        rows, columns = np.nonzero(wanted)
        pairs = pl.DataFrame(
            {
                "query_id": self.query_ids[rows],
                "query_item_id": self._query_items[rows],
                "item_id": self._item_ids[rows, columns],
            }
        )
        answers = self._scorer.score(pairs.with_columns(is_positive=pl.lit(False)))
        self._answers.append(answers.with_columns(rank=pl.Series(columns, dtype=pl.Int32)))
        scores = np.full(wanted.shape, np.nan, dtype=np.float32)
        scores[rows, columns] = answers["score"].fill_null(np.nan).to_numpy()
        return scores

    def judged(self, published: NDArray[np.bool_]) -> pl.DataFrame:
        """Return the answers that count, after each query's positive, in pool order."""
        place = np.flatnonzero(published)
        wanted = pl.DataFrame(
            {"query_id": self.query_ids[place // published.shape[1]], "rank": place % published.shape[1]}
        )
        positives = self._positives.with_columns(rank=pl.lit(-1, dtype=pl.Int32))
        parts = [positives]
        if self._answers:
            answers = pl.concat(self._answers).select(positives.columns)
            parts.append(answers.join(wanted, on=["query_id", "rank"], how="semi"))
        return pl.concat(parts).sort("query_id", "rank").drop("rank")

    def coverage(self, published: NDArray[np.bool_]) -> pl.DataFrame:
        """Return the coverage table."""
        return pl.DataFrame(
            {
                "query_id": self.query_ids,
                "pool_size": np.count_nonzero(self._mask, axis=1),
                "judged": np.count_nonzero(published, axis=1),
            },
            schema=COVERAGE_SCHEMA,
        )
