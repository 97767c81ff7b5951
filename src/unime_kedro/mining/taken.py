"""Negatives that a judging strategy has picked already: where they stand in the pools, and that they may be taken."""

from __future__ import annotations

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ..errors import DataError
from .matching import JudgedChunk
from .sampling import FALLBACK_SCORE, Origin, draw


def taken_columns(chunk: JudgedChunk, coverage: pl.DataFrame) -> NDArray[np.int64]:
    """Return where the members that a strategy took stand, in its order.

    Args:
        chunk: Some queries.
        coverage: query_id and taken (item ids), see :mod:`unime_kedro.mining.partial`.

    Returns:
        (n, m): columns of the pool matrix, -1 behind the last; m is the longest list's length.

    Raises:
        DataError: A query is not in ``coverage``, or an item is not in its pool.
    """
    rows = pl.DataFrame({"query_id": chunk.query_ids, "row": np.arange(len(chunk.query_ids))})
    lists = rows.join(coverage.select("query_id", "taken"), on="query_id", how="left", maintain_order="left")
    if lists["taken"].null_count():
        query = int(lists.filter(pl.col("taken").is_null())["query_id"].to_numpy()[0])
        raise DataError(f"judge_coverage: nothing is said of query_id {query}; run `kedro run --pipeline=judge` again")
    lengths = lists["taken"].list.len()
    picks = lists.select("row", "query_id", item_id="taken").explode("item_id", empty_as_null=False)
    picks = picks.with_columns(slot=pl.int_range(pl.len()).over("row"))
    row, column = np.nonzero(chunk.pool_mask)
    members = pl.DataFrame({"row": row, "item_id": chunk.item_ids[row, column], "column": column})
    found = picks.join(members, on=["row", "item_id"], how="left", maintain_order="left")
    if found["column"].null_count():
        query, item = found.filter(pl.col("column").is_null()).select("query_id", "item_id").row(0)
        raise DataError(
            f"judge_coverage: item_id {item} of query_id {query} is not in its pool; run `kedro run --pipeline=judge`"
        )
    columns = np.full((len(lists), max(int(lengths.max() or 0), 1)), -1, dtype=np.int64)  # type: ignore[arg-type]
    columns[found["row"].to_numpy(), found["slot"].to_numpy()] = found["column"].to_numpy()
    return columns


def take(
    columns: NDArray[np.int64], keep: NDArray[np.bool_], chunk: JudgedChunk, n_negatives: int, seed: int
) -> tuple[NDArray[np.int32], NDArray[np.float32], NDArray[np.uint8]]:
    """Take the negatives that a strategy picked; what it does not say is as in :func:`.sampling.sample_negatives`.

    Args:
        columns: Of :func:`taken_columns`.
        keep: (n, k), bool: judged, and no false negative.
        chunk: The queries.
        n_negatives: Negatives per query.
        seed: Seed of the random draw for a query without any.

    Returns:
        See :func:`.sampling.sample_negatives`.

    Raises:
        DataError: A member that was picked is not kept.
    """
    there = columns >= 0
    wrong = there & ~np.take_along_axis(keep, np.maximum(columns, 0), axis=1)
    if wrong.any():
        row, slot = (int(x[0]) for x in np.nonzero(wrong))
        raise DataError(
            f"judge_coverage: item_id {chunk.item_ids[row, columns[row, slot]]} was taken for query_id "
            f"{chunk.query_ids[row]}, but by judge_scores it is a false negative or was not judged; run "
            "`kedro run --pipelines=judge,select`"
        )
    counts = np.minimum(there.sum(axis=1), n_negatives)
    slots = np.arange(n_negatives)
    taken = np.take_along_axis(columns, slots % np.maximum(counts, 1)[:, None], axis=1)
    origin = np.where(slots < counts[:, None], Origin.SAMPLED, Origin.DUPLICATE).astype(np.uint8)
    empty = np.flatnonzero(counts == 0)
    taken[empty] = draw(chunk.pool_mask[empty], n_negatives, seed, chunk.query_ids[empty])
    scores = np.take_along_axis(chunk.scores, taken, axis=1)
    scores[empty], origin[empty] = FALLBACK_SCORE, Origin.FALLBACK
    return taken.astype(np.int32), scores, origin
