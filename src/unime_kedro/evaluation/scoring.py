"""Score an embedder on a benchmark: every query's candidates ranked by cosine similarity, one way for all benchmarks.

Distinct contents of all data sets are embedded once, in a fixed order. Similarities have the same bits for the same two
vectors, whatever block they are computed in, so that results do not depend on the order of data sets, rows or wrong
candidates, nor on the size of a block.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from unime_kedro.errors import DataError
from unime_kedro.evaluation.asked import Asked, prepare
from unime_kedro.evaluation.encoding import CHUNK, Embed, Ids, Vectors, embed_distinct
from unime_kedro.evaluation.precision import (
    Spread,
    best_wrong,
    hit_at,
    rank_of_target,
    spread_of,
    warn_of_useless_spreads,
)
from unime_kedro.evaluation.tasks import Task
from unime_kedro.mining.images import ProgressFactory
from unime_kedro.mining.index import pack, unpack

#: pairs compared at a time: about 100 MiB with all that is computed of them
BLOCK_PAIRS = 1 << 20
#: in a packed key, what puts a right candidate behind wrong ones of the same similarity
_BEHIND = 1 << 31

PREDICTIONS_SCHEMA = {
    "dataset": pl.String,
    "query_id": pl.Int64,
    "unit": pl.Int64,
    "predicted_index": pl.Int64,
    "correct": pl.Boolean,
    "target_similarity": pl.Float32,
    "best_wrong_similarity": pl.Float32,
    "rank": pl.Int64,
    "n_candidates": pl.Int64,
    "n_right": pl.Int64,
}
TOP_SCHEMA = {
    "dataset": pl.String,
    "query_id": pl.Int64,
    "position": pl.Int32,
    "candidate_index": pl.Int64,
    "content_id": pl.Int64,
    "similarity": pl.Float32,
    "right": pl.Boolean,
}


class Scored(NamedTuple):
    """What an embedder made of a benchmark.

    Attributes:
        predictions: :data:`PREDICTIONS_SCHEMA`, one row per query, sorted by dataset and query_id. ``correct``: the
            most similar candidate is a right one, and no wrong one is as similar (Precision@1, Recall@1).
            ``predicted_index``: that candidate's place among the query's candidates (its target_id where all targets
            are candidates), else the most similar wrong one's, the first of equals; -1 for a query that is wrong
            without having a wrong candidate. ``target_similarity``: of the best right one. ``best_wrong_similarity``:
            NaN where there is no wrong one. ``rank``: of the best right one, pessimistic (see
            :func:`.precision.rank_of_target`).
        top: :data:`TOP_SCHEMA`, the first candidates of every query by position (0 = first): by similarity, wrong ones
            before right ones at equal similarity, then by candidate_index. NaN is the least similar, and in a query
            with a NaN right ones come last, by candidate_index.
    """

    predictions: pl.DataFrame
    top: pl.DataFrame


class _Block(NamedTuple):
    """Results of a block of queries, (n,) each; places (n, k), -1 behind the last candidate."""

    predicted: Ids
    target_similarity: NDArray[np.float32]
    wrong_similarity: NDArray[np.float32]
    rank: Ids
    n_right: Ids
    places: Ids
    similarity: NDArray[np.float32]
    right: NDArray[np.bool_]
    content_ids: Ids
    spread_nan: Ids
    spread_width: NDArray[np.float32]


def score_tasks(
    tasks: Sequence[Task],
    embed: Embed,
    image_root: str | Path,
    *,
    top: int = 10,
    chunk: int = CHUNK,
    block_pairs: int = BLOCK_PAIRS,
    progress: ProgressFactory | None = None,
) -> Scored:
    """Embed every distinct content once and rank the candidates of every query.

    Args:
        tasks: Data sets with distinct names.
        embed: The embedder; distinct contents over all data sets are embedded once, by picture and text.
        image_root: Folder that image paths are relative to.
        top: How many first candidates of every query are returned; at least 1.
        chunk: Contents per call of ``embed``.
        block_pairs: Pairs compared at a time. Changes memory alone.
        progress: ``unime_kedro.progress.progress`` or alike.

    Raises:
        DataError: If there is no data set, two have one name, one has no queries, ids are not distinct, a query has no
            candidates or no right one, or a content id is unknown. Nothing has been embedded then.
        ModelError: If the embedder's vectors have a wrong shape or are not of unit length. NaN is let through: such
            queries count as wrong, and a warning says so; as it does for an embedder that gives all contents the same
            vector, which scores 0.
    """
    ordered = sorted(tasks, key=lambda one: one.dataset)
    names = [one.dataset for one in ordered]
    if not names or len(set(names)) < len(names):
        raise DataError(f"expected data sets with distinct names, got {', '.join(names) or 'none'}.")
    asked = [prepare(one) for one in ordered]
    vectors, places = embed_distinct(contents_of(ordered), embed, image_root, chunk=chunk, progress=progress)
    ends = np.cumsum([len(one.contents) for one in ordered])[:-1]
    total = sum(len(one.sizes) for one in asked)
    parts = []
    with progress("scoring", total, "queries") if progress else nullcontext() as bar:
        for one, at in zip(asked, np.split(places, ends), strict=True):
            parts.append(_score(one, vectors, at, top, block_pairs))
            if bar is not None:
                bar.advance(len(one.sizes))
    return Scored(pl.concat([part.predictions for part in parts]), pl.concat([part.top for part in parts]))


def contents_of(tasks: Sequence[Task]) -> pl.DataFrame:
    """Return text and image of all contents of all data sets, in their order."""
    return pl.concat([one.contents.select("text", "image") for one in tasks])


def _score(asked: Asked, vectors: Vectors, places: Ids, top: int, block_pairs: int) -> Scored:
    """Rank the candidates of one data set; ``places``: the row in ``vectors`` of each row of its contents."""
    order = np.argsort(asked.sizes, kind="stable")
    blocks = [
        _score_block(asked, vectors, places, order[part], top)
        for part in _blocks(asked.sizes[order], max(1, block_pairs))
    ]
    # back from the order of sizes to that of the queries
    back = np.argsort(order, kind="stable")
    width = max(block.places.shape[1] for block in blocks)
    joined = _Block(
        *(np.concatenate([_widened(side, width) for side in sides])[back] for sides in zip(*blocks, strict=True))
    )
    warn_of_useless_spreads(asked.dataset, Spread(asked.sizes, joined.spread_nan, joined.spread_width))
    return Scored(_predictions(asked, joined), _top(asked, joined))


def _blocks(sizes: Ids, block_pairs: int) -> Iterator[slice]:
    """Cut queries with rising numbers of candidates so that a block of full width has at most ``block_pairs``."""
    start = 0
    while start < len(sizes):
        ahead = sizes[start : start + block_pairs]
        pairs = ahead * np.arange(1, len(ahead) + 1)
        stop = start + max(1, int(np.searchsorted(pairs, block_pairs, side="right")))
        yield slice(start, stop)
        start = stop


def _score_block(asked: Asked, vectors: Vectors, places: Ids, part: Ids, top: int) -> _Block:
    similarity, right = asked.compare(part, vectors, places)
    sizes = asked.sizes[part]
    offsets = np.append(0, np.cumsum(sizes))
    rank, wrong, spread = (
        rank_of_target(similarity, offsets, right),
        best_wrong(similarity, offsets, right),
        spread_of(similarity, offsets),
    )
    found, starts = _first(similarity, right, offsets, spread.nan > 0, top), offsets[:-1, None]
    at = np.minimum(starts + np.maximum(found, 0), max(len(similarity) - 1, 0))
    correct = hit_at(rank, 1)
    return _Block(
        np.where(correct | (wrong.place >= 0), found[:, 0], -1),
        np.maximum.reduceat(np.where(right, similarity, np.float32(-np.inf)), offsets[:-1]),
        wrong.similarity,
        rank,
        np.add.reduceat(right, offsets[:-1], dtype=np.int64),
        found,
        similarity[at],
        right[at],
        asked.content_ids(part, found),
        spread.nan,
        spread.width,
    )


def _first(
    similarity: NDArray[np.float32], right: NDArray[np.bool_], offsets: Ids, has_nan: NDArray[np.bool_], top: int
) -> Ids:
    """Return the places of every query's first candidates, (n_queries, k); -1 where there are fewer."""
    sizes, starts = np.diff(offsets), offsets[:-1]
    width = int(sizes.max())
    last = np.isnan(similarity) | (right & np.repeat(has_nan, sizes))
    place = np.arange(len(similarity)) - np.repeat(starts, sizes)
    flat = pack(np.where(last, np.float32(-np.inf), similarity), place + _BEHIND * right.astype(np.int64))
    if (sizes == width).all():
        keys = flat.reshape(-1, width)
    else:
        keys = np.full((len(sizes), width), np.iinfo(np.uint64).max, dtype=np.uint64)
        keys[np.arange(width) < sizes[:, None]] = flat
    if width > top:
        keys = np.partition(keys, top - 1, axis=1)[:, :top]
    found = unpack(np.sort(keys, axis=1))[1]
    return np.where(found >= _BEHIND, found - _BEHIND, found)


def _widened(side: NDArray, width: int) -> NDArray:
    """Pad the places of a block to the width of the widest one."""
    if side.ndim == 1 or side.shape[1] == width:
        return side
    # of what follows the padding of places, -1, tells that it means nothing
    return np.pad(side, ((0, 0), (0, width - side.shape[1])), constant_values=-1 if side.dtype == np.int64 else 0)


def _predictions(asked: Asked, block: _Block) -> pl.DataFrame:
    columns = {
        "dataset": np.repeat(asked.dataset, len(asked.sizes)),
        "query_id": asked.queries["query_id"],
        "unit": asked.queries["unit"],
        "predicted_index": block.predicted,
        "correct": hit_at(block.rank, 1),
        "target_similarity": block.target_similarity,
        "best_wrong_similarity": block.wrong_similarity,
        "rank": block.rank,
        "n_candidates": asked.sizes,
        "n_right": block.n_right,
    }
    return pl.DataFrame(columns, schema=PREDICTIONS_SCHEMA)


def _top(asked: Asked, block: _Block) -> pl.DataFrame:
    there = block.places >= 0
    query, position = np.nonzero(there)
    columns = {
        "dataset": np.repeat(asked.dataset, len(query)),
        "query_id": asked.queries["query_id"].to_numpy()[query],
        "position": position.astype(np.int32),
        "candidate_index": block.places[there],
        "content_id": block.content_ids[there],
        "similarity": block.similarity[there],
        "right": block.right[there],
    }
    return pl.DataFrame(columns, schema=TOP_SCHEMA)
