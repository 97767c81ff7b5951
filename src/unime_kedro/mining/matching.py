"""Pools and judge scores side by side, as dense (queries, pool size) matrices of a chunk of queries.

Rows in the order in which the pipelines write them need neither a sort nor a join: whole slices are compared and then
read by position. Any other order is sorted and joined first and gives the same matrices.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ..errors import DataError

POOL_COLUMNS = {"query_id": pl.Int64, "rank": pl.Int32, "item_id": pl.Int64}
SCORE_COLUMNS = {"query_id": pl.Int64, "item_id": pl.Int64, "is_positive": pl.Boolean, "score": pl.Float32}


@dataclass(frozen=True)
class JudgedChunk:
    """The pools of some queries in retrieval order; k is the largest pool of the chunk.

    Attributes:
        query_ids: (n,), int64, ascending.
        item_ids: (n, k), int64, -1 beyond a pool's end.
        scores: (n, k), float32, the judge's; NaN where unjudged or beyond a pool's end.
        pool_mask: (n, k), bool, false beyond a pool's end.
        positive_scores: (n,), float32, NaN where the positive is unjudged.
    """

    query_ids: NDArray[np.int64]
    item_ids: NDArray[np.int64]
    scores: NDArray[np.float32]
    pool_mask: NDArray[np.bool_]
    positive_scores: NDArray[np.float32]

    def only(self, chosen: NDArray[np.bool_]) -> JudgedChunk:
        """Return the chosen queries."""
        if chosen.all():
            return self
        return JudgedChunk(
            self.query_ids[chosen],
            self.item_ids[chosen],
            self.scores[chosen],
            self.pool_mask[chosen],
            self.positive_scores[chosen],
        )


class JudgedPools:
    """Reads the pool and the judge's scores, in any row order, and hands them out in chunks of queries.

    Attributes:
        query_ids: Queries with a pool, ascending.
        positive_ids: Queries whose positive is among the scores, ascending.
        positive_scores: Its score, float32, NaN where the judge gave none.

    Raises:
        DataError: A column is missing or has nulls, a score is outside [0, 1], or one (query, rank), (query, item) or
            positive stands there twice; :meth:`chunk` raises it too.
    """

    def __init__(self, pool: pl.DataFrame, judge_scores: pl.DataFrame) -> None:
        pool = _in_order(_checked(pool, "pool", POOL_COLUMNS))
        scores = _checked(judge_scores, "judge_scores", SCORE_COLUMNS, nulls_in="score")
        if not scores["query_id"].is_sorted():
            scores = scores.sort("query_id")
        _check_range(scores)
        self._pool, self._scores = pool, scores
        query_ids = pool["query_id"].to_numpy()
        self._starts = np.flatnonzero(np.append(True, query_ids[1:] != query_ids[:-1])[: len(query_ids)])
        self._ends = np.append(self._starts[1:], len(query_ids))[: len(self._starts)]
        self.query_ids = query_ids[self._starts]
        self.positive_ids, self.positive_scores = _positives(scores)
        self._score_ids = scores["query_id"].to_numpy()

    def chunk(self, first: int, last: int) -> JudgedChunk:
        """Return the queries ``query_ids[first:last]``."""
        starts, ends = self._starts[first:last], self._ends[first:last]
        query_ids = self.query_ids[first:last]
        members = self._pool[int(starts[0]) : int(ends[-1])]
        low, high = np.searchsorted(self._score_ids, [query_ids[0], query_ids[-1] + 1])
        scores = self._scores[int(low) : int(high)].filter(~pl.col("is_positive"))
        mask = np.arange(int((ends - starts).max())) < (ends - starts)[:, None]
        item_ids = _dense(members["item_id"].to_numpy(), mask, np.int64(-1))
        _check_items(query_ids, item_ids)
        return JudgedChunk(
            query_ids,
            item_ids,
            _dense(_member_scores(members, scores), mask, np.float32(np.nan)),
            mask,
            self._positive_scores_of(query_ids),
        )

    def _positive_scores_of(self, query_ids: NDArray[np.int64]) -> NDArray[np.float32]:
        out = np.full(len(query_ids), np.nan, dtype=np.float32)
        if len(self.positive_ids):
            at = np.minimum(np.searchsorted(self.positive_ids, query_ids), len(self.positive_ids) - 1)
            known = self.positive_ids[at] == query_ids
            out[known] = self.positive_scores[at[known]]
        return out


def _checked(frame: pl.DataFrame, name: str, columns: dict, nulls_in: str = "") -> pl.DataFrame:
    """Return the columns that are read, in their types, each in one piece of memory."""
    missing = [column for column in columns if column not in frame.columns]
    if missing:
        raise DataError(f"{name}: no column {', '.join(missing)}; expected {', '.join(columns)}")
    table = frame.select(pl.col(column).cast(kind) for column, kind in columns.items()).rechunk()
    for column in columns:
        if column != nulls_in and table[column].null_count():
            raise DataError(f"{name}: row {int(table[column].is_null().arg_true()[0])} has no {column}")
    return table


def _in_order(pool: pl.DataFrame) -> pl.DataFrame:
    """Return the pool sorted by (query_id, rank); raise when one rank of a query stands there twice."""
    wrong = _out_of_order(pool)
    if wrong is not None:
        pool = pool.sort("query_id", "rank", "item_id")
        wrong = _out_of_order(pool)
    if wrong is not None:
        query_id, rank, _ = pool.row(wrong)
        raise DataError(f"pool: rank {rank} of query_id {query_id} stands there more than once; make the pool again")
    return pool


def _out_of_order(pool: pl.DataFrame) -> int | None:
    query_id, rank = pool["query_id"].to_numpy(), pool["rank"].to_numpy()
    falls = (query_id[1:] == query_id[:-1]) & (rank[1:] <= rank[:-1])
    falls |= query_id[1:] < query_id[:-1]
    return int(falls.argmax()) + 1 if falls.any() else None


def _check_range(scores: pl.DataFrame) -> None:
    score = scores["score"].to_numpy()
    wrong = (score < 0) | (score > 1)
    if wrong.any():
        row = scores.row(int(wrong.argmax()), named=True)
        raise DataError(
            f"judge_scores: score {row['score']} of query_id {row['query_id']}, item_id {row['item_id']} is outside "
            "[0, 1]; expected sigmoid((yes_logit - no_logit) / temperature)"
        )


def _positives(scores: pl.DataFrame) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Return the queries with a row for their positive, ascending, and its score."""
    table = scores.filter(pl.col("is_positive"))
    query_ids, score = table["query_id"].to_numpy(), table["score"].to_numpy()
    twice = query_ids[1:] == query_ids[:-1]
    if twice.any():
        query_id = int(query_ids[twice.argmax()])
        raise DataError(f"judge_scores: query_id {query_id} has more than one row with is_positive; expected one")
    return query_ids, score


def _member_scores(members: pl.DataFrame, scores: pl.DataFrame) -> NDArray[np.float32]:
    """Return the score of every pool row of a chunk, NaN where there is none."""
    keys = ["query_id", "item_id"]
    if members.height == scores.height and all(
        np.array_equal(members[key].to_numpy(), scores[key].to_numpy()) for key in keys
    ):
        return scores["score"].to_numpy()
    twice = scores.filter(pl.struct(keys).is_duplicated())
    if twice.height:
        query_id, item_id = twice.select(keys).sort(keys).row(0)
        raise DataError(f"judge_scores: query_id {query_id} and item_id {item_id} stand there more than once")
    joined = members.select(keys).join(scores.select(*keys, "score"), on=keys, how="left", maintain_order="left")
    return joined["score"].to_numpy()


def _dense(values: NDArray, mask: NDArray[np.bool_], fill: np.generic) -> NDArray:
    """Lay the rows of a chunk out as a matrix, ``fill`` beyond the end of a pool."""
    if mask.all():
        return values.reshape(mask.shape)
    out = np.full(mask.shape, fill)
    out[mask] = values
    return out


def _check_items(query_ids: NDArray[np.int64], item_ids: NDArray[np.int64]) -> None:
    ordered = np.sort(item_ids, axis=1)
    twice = (ordered[:, 1:] == ordered[:, :-1]) & (ordered[:, 1:] >= 0)
    if twice.any():
        row, column = (int(at[0]) for at in np.nonzero(twice))
        raise DataError(
            f"pool: item_id {ordered[row, column]} stands more than once in the pool of query_id {query_ids[row]}; "
            "make the pool again"
        )
