"""The global pool: for every query its most similar candidates of the whole corpus (method 2.1).

Exact, and the same to the last bit whatever the block sizes, the number of threads and the order of the rows. A matrix
product's last bits depend on how it was blocked, so it only proposes: the similarities of the pool are computed again
in one fixed order (:func:`unime_kedro.mining.index.similarities`), equal ones are ordered by item_id, and a list counts
as final only when rounding cannot have hidden a better member (:mod:`unime_kedro.mining.search`).
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ..errors import ConfigurationError, DataError
from ..progress import Progress
from .index import FlatIndex, Ids, Index, Vectors
from .search import Blocks, Found, Search, Wanted

Exclude = Literal["positive", "known_positives"]

#: how far from 1 the length of an embedding may be
NORM_TOLERANCE = 1e-3
#: values of max_similarity whose effect is reported
DELTAS = (0.99, 0.95, 0.9)


@dataclass(frozen=True)
class PoolResult:
    """A pool and its figures.

    ``frame``: query_id Int64, rank Int32 (0 = most similar), item_id Int64, similarity Float32 (cosine in [-1, 1]),
    sorted by (query_id, rank). ``metrics``: flat, see :func:`retrieve_pool`.
    """

    frame: pl.DataFrame
    metrics: dict[str, float | int]


def retrieve_pool(
    embeddings: Vectors,
    queries: pl.DataFrame,
    candidates: Ids | pl.Series,
    *,
    k: int,
    max_similarity: float | None = None,
    exclude: Exclude = "positive",
    memory_gb: float = 2.0,
    progress: Progress | None = None,
    index: Index | None = None,
    blocks: Blocks | None = None,
) -> PoolResult:
    """Find every query's ``k`` most similar candidates.

    Never in a query's pool: its own positive; its own item (a candidate that *is* the query's content is the best
    match of all and no negative); candidates with a similarity of ``max_similarity`` or more; with
    ``exclude="known_positives"`` also the positives of all queries with the same item. The places of the excluded are
    filled from further down, so that a pool is shorter than ``k`` only when the candidates run out.

    Args:
        embeddings: (n_items, d), float32, L2-normalised; row = item_id. An array or a memory map.
        queries: query_id, item_id, positive_item_id, all Int64; any row order, distinct query ids.
        candidates: Item ids, Int64; any order, repetitions count once.
        k: Pool size, at least 1.
        max_similarity: delta of the paper; compared as float32, like the similarities. None is off.
        exclude: ``positive`` or ``known_positives``.
        memory_gb: Budget in GiB for what is copied and computed on the way; not for the result, nor for pages of a
            memory map, which the system takes back when it needs them.
        progress: Is advanced by the number of finished queries.
        index: Searches the candidates in ascending order of item_id; exact and flat by default. What an approximate
            one misses is missing from the pool; see :mod:`unime_kedro.mining.indexes.pool`.
        blocks: Block sizes in place of those derived from ``memory_gb``.

    Returns:
        The pool and its metrics: queries, candidates, pool_rows, short_queries (with fewer than k),
        distinct_query_items, deepened_queries (searched a second time), exhaustive_queries (compared with every
        candidate), seconds, queries_per_second, and those of :func:`pool_metrics`.

    Raises:
        ConfigurationError: ``k``, ``memory_gb``, ``max_similarity`` or ``exclude`` out of range.
        DataError: A zero, NaN or un-normalised embedding, an item id without an embedding, a null, or a query id twice.
    """
    started = time.perf_counter()
    _check_options(k, max_similarity, exclude, memory_gb)
    check_embeddings(embeddings)
    ids = candidate_ids(candidates, len(embeddings))
    table = _checked_queries(queries, len(embeddings)).sort("query_id")
    depth = min(len(ids), first_depth(k))
    wanted = Wanted(
        table["item_id"].to_numpy(),
        table["positive_item_id"].to_numpy(),
        k,
        None if max_similarity is None else np.float32(max_similarity),
        exclude == "known_positives",
    )
    blocks = blocks or Blocks.plan(memory_gb, len(ids), embeddings.shape[1], depth)
    search = Search(embeddings, ids, wanted, blocks, progress)
    found = search.run(index or FlatIndex(embeddings, ids, blocks.candidates), depth) if len(ids) else search.found
    frame = _pool_frame(table["query_id"].to_numpy(), found)
    seconds = time.perf_counter() - started
    metrics: dict[str, float | int] = {
        "queries": table.height,
        "candidates": len(ids),
        "pool_rows": frame.height,
        "short_queries": int(np.count_nonzero(found.sizes < k)),
        **found.figures,
        **pool_metrics(frame, delta_off=max_similarity is None),
        "seconds": seconds,
        "queries_per_second": table.height / max(seconds, 1e-9),
    }
    return PoolResult(frame, metrics)


def first_depth(k: int) -> int:
    """Return how many candidates a pool of ``k`` looks for: the two always excluded, and a margin for rounding."""
    return k + 2 + max(8, k // 8)


def pool_metrics(pool: pl.DataFrame, *, delta_off: bool = True) -> dict[str, float | int]:
    """Describe the similarities of a pool.

    Args:
        pool: In the pool's schema, sorted by (query_id, rank).
        delta_off: Whether to count what a delta would drop; it says nothing about a pool that a delta has cut.

    Returns:
        ``similarity_first_*`` at rank 0 and ``similarity_last_*`` at each query's last rank, each as mean, p05, p50 and
        p95; ``delta_99_would_drop``, ``_95_``, ``_90_``: pool rows with a similarity of that or more. An empty pool has
        no similarities to describe: an empty dictionary.
    """
    if pool.is_empty():
        return {}
    similarity = pool["similarity"].to_numpy()
    first = np.flatnonzero(pool["rank"].to_numpy() == 0)
    last = np.append(first[1:], pool.height) - 1
    metrics: dict[str, float | int] = {}
    for name, places in (("first", first), ("last", last)):
        values = similarity[places].astype(np.float64)
        metrics[f"similarity_{name}_mean"] = float(values.mean())
        for percent in (5, 50, 95):
            metrics[f"similarity_{name}_p{percent:02d}"] = float(np.percentile(values, percent))
    if delta_off:
        for delta in DELTAS:
            metrics[f"delta_{round(delta * 100)}_would_drop"] = int(np.count_nonzero(similarity >= np.float32(delta)))
    return metrics


def check_embeddings(embeddings: Vectors, block_rows: int = 16_384) -> None:
    """Raise unless every row is a finite vector of length 1.

    Raises:
        DataError: Wrong type or shape, or a bad row; names the item_id.
    """
    if embeddings.ndim != 2 or embeddings.dtype != np.float32 or not embeddings.shape[1]:
        raise DataError(
            f"embeddings: expected a float32 array (items, dimensions), got {embeddings.dtype} {embeddings.shape}; "
            "run the embedding stage again"
        )
    for start in range(0, len(embeddings), block_rows):
        block = np.asarray(embeddings[start : start + block_rows])
        length = np.sqrt(np.einsum("ij,ij->i", block, block, dtype=np.float64))
        bad = np.flatnonzero(~(np.abs(length - 1) <= NORM_TOLERANCE))
        if bad.size:
            row = int(bad[0])
            found = "NaN or infinite values" if not np.isfinite(length[row]) else f"length {length[row]:.6g}"
            raise DataError(
                f"embeddings: item_id {start + row} has {found}, expected an L2-normalised vector (length 1 within "
                f"{NORM_TOLERANCE:g}); embed this item again, or look at its row in the items table"
            )


def _check_options(k: int, max_similarity: float | None, exclude: str, memory_gb: float) -> None:
    if k < 1:
        raise ConfigurationError(f"k (pool size) must be at least 1, got {k}")
    if not memory_gb > 0:
        raise ConfigurationError(f"memory_gb must be above 0, got {memory_gb}")
    if max_similarity is not None and not -1 <= max_similarity <= 1.0001:
        raise ConfigurationError(f"max_similarity is a cosine; expected -1 to 1.0001 or null, got {max_similarity}")
    if exclude not in get_args(Exclude):
        raise ConfigurationError(f"exclude: expected one of {', '.join(get_args(Exclude))}, got {exclude!r}")


def candidate_ids(candidates: Ids | pl.Series, n_items: int) -> Ids:
    """Return the distinct candidates, ascending.

    Raises:
        DataError: A null, or an item without an embedding.
    """
    series = pl.Series("item_id", candidates)
    if series.null_count():
        raise DataError(f"candidates: row {int(series.is_null().arg_true()[0])} has no item_id")
    ids = np.unique(series.cast(pl.Int64).to_numpy())
    if ids.size and (ids[0] < 0 or ids[-1] >= n_items):
        wrong = int(ids[0] if ids[0] < 0 else ids[-1])
        raise DataError(f"candidates: item_id {wrong} has no embedding (there are {n_items}); run the embedding again")
    return ids


def _checked_queries(queries: pl.DataFrame, n_items: int) -> pl.DataFrame:
    """Return the three columns that retrieval reads, or say what is wrong with them."""
    names = ("query_id", "item_id", "positive_item_id")
    missing = [name for name in names if name not in queries.columns]
    if missing:
        raise DataError(f"queries: no column {', '.join(missing)}; expected {', '.join(names)}")
    table = queries.select(pl.col(name).cast(pl.Int64) for name in names)
    for name in names:
        column = table[name]
        if column.null_count():
            raise DataError(f"queries: row {int(column.is_null().arg_true()[0])} has no {name}")
        if name != "query_id":
            outside = table.filter((pl.col(name) < 0) | (pl.col(name) >= n_items))
            if outside.height:
                query, item = int(outside["query_id"][0]), int(outside[name][0])
                raise DataError(f"queries: {name} {item} of query_id {query} has no embedding (there are {n_items})")
    twice = table["query_id"].is_duplicated()
    if twice.any():
        repeated = int(table["query_id"].filter(twice).to_numpy().min())
        raise DataError(f"queries: query_id {repeated} stands there more than once; every query needs its own")
    return table


def _pool_frame(query_ids: Ids, found: Found) -> pl.DataFrame:
    n, k = found.item_ids.shape
    exists: NDArray[np.bool_] = np.arange(k) < found.sizes[:, None]
    full = bool(exists.all())  # then everything is in place and a mask would only copy
    ranks = np.broadcast_to(np.arange(k, dtype=np.int32), (n, k))
    return pl.DataFrame(
        {
            "query_id": np.repeat(query_ids, found.sizes),
            "rank": ranks.ravel() if full else ranks[exists],
            "item_id": found.item_ids.ravel() if full else found.item_ids[exists],
            "similarity": found.similarities.ravel() if full else found.similarities[exists],
        },
        schema={"query_id": pl.Int64, "rank": pl.Int32, "item_id": pl.Int64, "similarity": pl.Float32},
    )
