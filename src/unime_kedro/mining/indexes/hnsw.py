"""The graph index of faiss (HNSW, Malkov and Yashunin 2018): fast for single queries, and held in memory as a whole."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from unime_kedro.atomic import atomic_write, locked
from unime_kedro.errors import ConfigurationError

from ..index import Ids, Vectors, rows, threads
from .cards import read_card, write_card
from .options import IndexOptions

log = logging.getLogger(__name__)

_NAME, _CARD = "hnsw.faiss", "hnsw.json"
#: the first faiss measured to build the same graph with any number of threads (its pull requests 5486 and 5611);
#: in earlier ones threads that insert side by side see more or less of each other's nodes
REPRODUCIBLE = (1, 15, 1)
#: candidates that are added at a time; fixed, since the order of insertion shapes the graph
_ROWS = 65_536


class GraphIndex:
    """Searches a graph of near neighbours; see :class:`~unime_kedro.mining.index.Index`."""

    exact = False

    def __init__(self, graph: Any, ef_search: int) -> None:
        self._graph, self._ef_search = graph, ef_search

    def search(self, vectors: Vectors, depth: int) -> tuple[Vectors, Ids]:
        """See :class:`~unime_kedro.mining.index.Index`."""
        import faiss

        settings = faiss.SearchParametersHNSW(efSearch=max(self._ef_search, depth))  # type: ignore[attr-defined]
        product, position = self._graph.search(vectors, depth, params=settings)
        return product, position


def open_graph(
    embeddings: Vectors, item_ids: Ids, options: IndexOptions, folder: Path, digest: str, memory_gb: float
) -> GraphIndex:
    """Build the graph, or load the one that an earlier run built of the same candidates.

    Nodes are inserted in ascending order of item_id, and the graph is the same whatever the number of threads.

    Args:
        embeddings: (n_items, d), float32, L2-normalised.
        item_ids: The candidates, ascending.
        options: ``m``, ``ef_construction``, ``ef_search``.
        folder: Keeps the graph.
        digest: Of the candidates' ids and vectors.
        memory_gb: What it may take.

    Raises:
        ConfigurationError: If the graph would be larger than ``memory_gb``.
    """
    import faiss

    dim = embeddings.shape[1]
    size = len(item_ids) * (4 * dim + 4 * 2 * options.m + 16) / 2**30
    if size > memory_gb:
        raise ConfigurationError(
            f"pool.index.kind hnsw keeps all candidates in memory: {len(item_ids):,} of {dim} numbers and their links "
            f"take {size:.3g} GiB, and pool.memory_gb is {memory_gb:g}. Raise it, or choose ivf, which reads from disk"
        )
    card = {"kind": "hnsw", "candidates": digest, "m": options.m, "ef_construction": options.ef_construction}
    card |= {"faiss": faiss.__version__}
    file = folder / _NAME
    with locked(folder / ".lock"):
        if file.is_file() and read_card(folder / _CARD) == card:
            log.info("index: the graph in %s is of these candidates and used again", file)
            return GraphIndex(faiss.read_index(str(file)), options.ef_search)
        graph = _build(embeddings, item_ids, options)
        (folder / _CARD).unlink(missing_ok=True)
        with atomic_write(file) as temporary:
            faiss.write_index(graph, str(temporary))
        write_card(folder / _CARD, card)
    return GraphIndex(graph, options.ef_search)


def _build(embeddings: Vectors, item_ids: Ids, options: IndexOptions) -> Any:
    import faiss

    graph = faiss.IndexHNSWFlat(embeddings.shape[1], options.m, faiss.METRIC_INNER_PRODUCT)
    graph.hnsw.efConstruction = options.ef_construction
    version = tuple(int(part) for part in faiss.__version__.split(".")[:3])
    with _threads(threads() if version >= REPRODUCIBLE else 1):
        for start in range(0, len(item_ids), _ROWS):
            graph.add(rows(embeddings, item_ids[start : start + _ROWS]))
            log.info("index: %d of %d candidates in the graph", graph.ntotal, len(item_ids))
    return graph


@contextmanager
def _threads(number: int) -> Iterator[None]:
    """Let faiss use another number of threads for a while."""
    import faiss

    before = threads()
    faiss.omp_set_num_threads(number)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)
