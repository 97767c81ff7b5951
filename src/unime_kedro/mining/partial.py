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
from unime_kedro.mining.strategies import Pools, Sheet, Wanted, budget, cascade, lazy

COVERAGE_SCHEMA: dict[str, pl.DataType | type[pl.DataType]] = {
    "query_id": pl.Int64,
    "pool_size": pl.Int32,
    "judged": pl.Int32,
    "taken": pl.List(pl.Int64),
}


@dataclass(frozen=True)
class Strategy:
    """How pairs are chosen.

    Attributes:
        kind: ``lazy``, ``cascade`` or ``budget``.
        n_negatives: Negatives per query, as ``select`` will take them.
        rule: The false-negative rule, likewise.
        margin: Its margin.
        step: Interval of the sampling, likewise.
        look: ``lazy`` and ``budget``: how many members of every pool are judged in any case.
        calls_per_query: ``budget``: calls about candidates, per query on average.
        band: ``cascade``: a pair whose small score is this near the threshold is judged by the large judge too.
    """

    kind: Literal["lazy", "cascade", "budget"]
    n_negatives: int
    rule: Rule
    margin: float
    step: int
    look: int = 0
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
        judge_calls, judge_calls_exhaustive, judge_calls_share, judge_calls_per_query, taken_per_query, and for a
        cascade small_judge_calls. And a table: query_id, pool_size, judged (how many of the pool have a score or an
        error), taken (item ids of the negatives, in the sampler's order).

    Raises:
        DataError: If more than ``max_error_share`` of the pairs could not be judged, or the pool is empty.
    """
    start = time.perf_counter()
    if pool.is_empty():
        raise DataError("pool.parquet has no rows: there is nothing to judge.")
    book = _Book(queries, pool, scorer, strategy.look if strategy.kind != "cascade" else 0)
    sheet = Sheet(book.pools(strategy), book.ask)
    taken = _run(strategy, sheet, book, small)
    found = judged_tables(book.judged(), scorer, max_error_share, start)
    calls = len(queries) + int(sheet.asked.sum())
    exhaustive = len(queries) + len(pool)
    metrics: dict[str, float] = {
        "judge_calls": calls,
        "judge_calls_exhaustive": exhaustive,
        "judge_calls_share": calls / exhaustive,
        "judge_calls_per_query": calls / max(len(queries), 1),
        "taken_per_query": float((taken >= 0).sum()) / max(len(book.query_ids), 1),
    }
    if small is not None:
        metrics["small_judge_calls"] = exhaustive
    return Judged(found.scores, found.errors, found.metrics | metrics), book.coverage(sheet.asked, taken)


def whole_coverage(pool: pl.DataFrame) -> pl.DataFrame:
    """Return the coverage table of pools that were judged exhaustively: what is taken of them is for ``select``."""
    sizes = pool.group_by("query_id").agg(pool_size=pl.len()).sort("query_id")
    columns = sizes.with_columns(judged="pool_size", taken=None)
    return columns.select(pl.col(name).cast(kind) for name, kind in COVERAGE_SCHEMA.items())


def _run(strategy: Strategy, sheet: Sheet, book: _Book, small: PairScorer | None) -> NDArray[np.int32]:
    wanted = Wanted(strategy.n_negatives, strategy.step)
    if strategy.kind == "lazy":
        return lazy(sheet, wanted, strategy.look)
    if strategy.kind == "budget":
        return budget(sheet, wanted, strategy.look, round(strategy.calls_per_query * len(book.query_ids)))
    assert small is not None
    other = _Book(book.queries, book.pool, small, int(sheet.open.shape[1]))
    return cascade(sheet, other.pools(strategy), other.ask(sheet.pools.mask), wanted, strategy.band)


class _Book:
    """Tables as matrices, and back."""

    def __init__(self, queries: pl.DataFrame, pool: pl.DataFrame, scorer: PairScorer, look: int) -> None:
        """Judge the positives, and with them, while the query is at hand, what will be asked for first anyway."""
        self.queries, self.pool = queries, pool.sort("query_id", "rank")
        self._scorer = scorer
        first = self.pool.filter(pl.int_range(pl.len()).over("query_id") < look)
        self._positives = scorer.score(pairs_to_judge(queries, first)).filter("is_positive")
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

    def judged(self) -> pl.DataFrame:
        """Return all answers, after each query's positive, in pool order."""
        positives = self._positives.with_columns(rank=pl.lit(-1, dtype=pl.Int32))
        answers = [one.select(positives.columns) for one in self._answers]
        return pl.concat([positives, *answers]).sort("query_id", "rank").drop("rank")

    def coverage(self, asked: NDArray[np.bool_], taken: NDArray[np.int32]) -> pl.DataFrame:
        """Return the coverage table."""
        rows, slots = np.nonzero(taken >= 0)
        items = pl.DataFrame({"row": rows, "item_id": self._item_ids[rows, taken[rows, slots]]})
        lists = items.group_by("row", maintain_order=True).agg(taken="item_id")
        table = pl.DataFrame(
            {
                "row": np.arange(len(self.query_ids)),
                "query_id": self.query_ids,
                "pool_size": np.count_nonzero(self._mask, axis=1),
                "judged": np.count_nonzero(asked, axis=1),
            }
        ).join(lists, on="row", how="left", maintain_order="left")
        table = table.with_columns(pl.col("taken").fill_null([]))
        return table.select(pl.col(name).cast(kind) for name, kind in COVERAGE_SCHEMA.items())
