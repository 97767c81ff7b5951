"""The global pool by any kind of index: choose, build, retrieve, and measure what was missed."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl

from ..index import Ids, Index, Vectors, rows, threads
from ..retrieval import Exclude, PoolResult, candidate_ids, check_embeddings, first_depth, retrieve_pool
from .cards import candidates_digest
from .choice import Work, choose
from .options import EXACT, IndexOptions, Kind
from .recall import recall_per_query, recall_with_interval, sample_queries

log = logging.getLogger(__name__)

Progress = Callable[[str, int, str], Any]


@dataclass(frozen=True)
class IndexedPool:
    """A pool and what its index was.

    ``figures``: index (the kind), index_reason, index_build_seconds; of an approximate index also index_recall (value,
    low, high: the share of the exact pools that it found, with a 95 % interval) and index_recall_queries.
    """

    result: PoolResult
    figures: dict[str, Any]


def retrieve_indexed(
    embeddings: Vectors,
    queries: pl.DataFrame,
    candidates: Ids | pl.Series,
    *,
    options: IndexOptions,
    folder: Path,
    k: int,
    max_similarity: float | None = None,
    exclude: Exclude = "positive",
    memory_gb: float = 2.0,
    progress: Progress | None = None,
) -> IndexedPool:
    """Find every query's ``k`` most similar candidates by the chosen index.

    The pool's rules are those of :func:`~unime_kedro.mining.retrieval.retrieve_pool` for every index. A query that an
    approximate one leaves with fewer than ``k`` is searched deeper and at last compared with every candidate (metrics
    deepened_queries, exhaustive_queries), so that its pool, too, is shorter only when the candidates run out.

    Args:
        embeddings: (n_items, d), float32, L2-normalised; row = item_id. An array or a memory map.
        queries: query_id, item_id, positive_item_id.
        candidates: Item ids.
        options: Which index, and how it is made.
        folder: Keeps an index for the next run, where building takes long (ivf, hnsw).
        k: Pool size.
        max_similarity: delta.
        exclude: ``positive`` or ``known_positives``.
        memory_gb: Budget in GiB.
        progress: ``unime_kedro.progress.progress`` or alike.

    Raises:
        ConfigurationError: Options out of range, no GPU for an index that needs one, or too little memory.
        DataError: See :func:`~unime_kedro.mining.retrieval.retrieve_pool`.
    """
    retrieve = partial(
        retrieve_pool,
        embeddings,
        candidates=candidates,
        k=k,
        max_similarity=max_similarity,
        exclude=exclude,
        memory_gb=memory_gb,
    )
    ids = candidate_ids(candidates, len(embeddings))
    kind, reason = _choose(embeddings, queries, ids, options)
    log.info("index: %s, %s", kind, reason)
    started = time.perf_counter()
    options = replace(options, kind=kind)
    index = build_index(embeddings, ids, options, folder, k, memory_gb, progress) if len(ids) else None
    figures: dict[str, Any] = {
        "index": kind,
        "index_reason": reason,
        "index_build_seconds": time.perf_counter() - started,
    }
    with progress("searching", len(queries), "queries") if progress else nullcontext() as bar:
        result = retrieve(queries=queries, progress=bar, index=index)
    if kind not in EXACT and options.recall_queries and len(ids):
        figures |= _recall(result, queries, options, retrieve)
    return IndexedPool(result, figures)


def build_index(
    embeddings: Vectors,
    item_ids: Ids,
    options: IndexOptions,
    folder: Path,
    k: int,
    memory_gb: float,
    progress: Progress | None = None,
) -> Index | None:
    """Build an index, or open one that lies in the folder; None for the flat one, which needs no building.

    Args:
        embeddings: (n_items, d), float32, L2-normalised.
        item_ids: The candidates, ascending.
        options: Their kind is not ``auto``.
        folder: Where an index lies.
        k: Size of the pools that it is for; nothing that is kept depends on it.
        memory_gb: Budget in GiB for blocks of vectors and results, and what a graph may take as a whole.
        progress: ``unime_kedro.progress.progress`` or alike.
    """
    if options.kind == "flat":
        return None
    check_embeddings(embeddings)
    if options.kind == "gpu_flat":
        from .gpu import gpu_flat

        return gpu_flat(embeddings, item_ids, options, first_depth(k))
    if options.kind == "gpu_ivf":
        return _gpu_lists(embeddings, item_ids, options, first_depth(k))
    digest = candidates_digest(embeddings, item_ids)
    if options.kind == "hnsw":
        from .hnsw import open_graph

        return open_graph(embeddings, item_ids, options, folder, digest, memory_gb)
    from .ivf import InvertedListIndex
    from .ivf_files import open_lists

    lists = open_lists(embeddings, item_ids, options, folder, digest, memory_gb, progress)
    return InvertedListIndex(lists, options.nprobe, result_bytes=int(memory_gb * 2**27))


def _gpu_lists(embeddings: Vectors, item_ids: Ids, options: IndexOptions, depth: int) -> Index:
    from .clustering import train_centroids
    from .gpu import gpu_lists, gpus_to_use
    from .ivf_files import plan_lists, training_sample

    gpus_to_use(options)  # says so before the centroids are made
    nlist, points = plan_lists(len(item_ids), options)
    sample = rows(embeddings, item_ids[training_sample(len(item_ids), points, options.seed)])
    return gpu_lists(embeddings, item_ids, train_centroids(sample, nlist, options.seed), options, depth)


def _choose(embeddings: Vectors, queries: pl.DataFrame, ids: Ids, options: IndexOptions) -> tuple[Kind, str]:
    from .gpu import gpu_count

    distinct = queries["item_id"].n_unique() if "item_id" in queries.columns else len(queries)
    return choose(Work(distinct, len(ids), embeddings.shape[1], threads(), gpu_count()), options)


def _recall(
    found: PoolResult, queries: pl.DataFrame, options: IndexOptions, retrieve: Callable[..., PoolResult]
) -> dict[str, Any]:
    """Compare the pools of some queries with exact ones."""
    some = sample_queries(queries, options.recall_queries, options.seed)
    shares = recall_per_query(found.frame, retrieve(queries=some).frame)
    if not len(shares):
        return {}
    recall = recall_with_interval(shares)
    log.info(
        "index: recall %.4f (%.4f to %.4f) against exact search, on %d queries",
        *(recall["value"], recall["low"], recall["high"], len(shares)),
    )
    return {"index_recall": recall, "index_recall_queries": len(shares)}
