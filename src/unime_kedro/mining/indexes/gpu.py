"""Flat and inverted-list search by faiss-gpu, on one or several GPUs.

Written against the interface of faiss-gpu 1.14. faiss multiplies float32 in float32 there, not in a shorter format, so
that the bound on rounding (:func:`~unime_kedro.mining.index.product_error`) holds and a flat search stays exact.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

from unime_kedro.errors import ConfigurationError

from ..index import Ids, Vectors, rows
from .options import IndexOptions
from .sharded import Shard, ShardedIndex

#: the most neighbours and the most lists that a search on a GPU takes
LIMIT = 2048
#: numbers of a block of vectors that is copied to a GPU: 1 GiB
_BLOCK = 1 << 28


def gpu_count() -> int:
    """Return how many GPUs faiss can use; 0 where it was built without."""
    import faiss

    return int(faiss.get_num_gpus()) if hasattr(faiss, "StandardGpuResources") else 0


def gpus_to_use(options: IndexOptions) -> int:
    """Return how many GPUs are to be used.

    Raises:
        ConfigurationError: If there are none, or fewer than ``options.gpus``.
    """
    there = gpu_count()
    if not there or options.gpus > there:
        raise ConfigurationError(
            f"pool.index.kind {options.kind} with {options.gpus or 'all'} GPUs: faiss sees {there}. It needs a build "
            "for GPUs (`pip install 'unime-kedro[gpu]'` in place of `[cpu]`) and a driver; or choose flat, ivf or auto"
        )
    return options.gpus or there


class GpuFlatShard:
    """Exact search of candidates that stay on one GPU."""

    exact = True

    def __init__(self, embeddings: Vectors, item_ids: Ids, device: int) -> None:
        import faiss

        self._resources = faiss.StandardGpuResources()  # must live as long as the index
        config = faiss.GpuIndexFlatConfig()
        config.device = device
        self._index = faiss.GpuIndexFlatIP(self._resources, embeddings.shape[1], config)
        _add(self._index, embeddings, item_ids)

    def search(self, vectors: Vectors, depth: int) -> tuple[Vectors, Ids]:
        """See :class:`~unime_kedro.mining.index.Index`."""
        product, position = self._index.search(vectors, depth)
        return product, position


class GpuStreamedShard:
    """Exact search of candidates that are copied to a GPU for every block of queries: for more than it can hold."""

    exact = True

    def __init__(self, embeddings: Vectors, item_ids: Ids, device: int, resources: Any) -> None:
        self._embeddings, self._item_ids, self._device, self._resources = embeddings, item_ids, device, resources

    def search(self, vectors: Vectors, depth: int) -> tuple[Vectors, Ids]:
        """See :class:`~unime_kedro.mining.index.Index`."""
        import faiss

        block = rows(self._embeddings, self._item_ids)
        product, position = faiss.knn_gpu(
            self._resources, vectors, block, depth, metric=faiss.METRIC_INNER_PRODUCT, device=self._device
        )
        return product, position


class GpuListsShard:
    """Inverted lists on one GPU, their centroids shared with the other shards."""

    def __init__(self, embeddings: Vectors, item_ids: Ids, device: int, centroids: Vectors, nprobe: int) -> None:
        import faiss

        nlist, dim = centroids.shape
        quantizer = faiss.IndexFlatIP(dim)
        quantizer.add(centroids)
        empty = faiss.IndexIVFFlat(quantizer, dim, nlist, faiss.METRIC_INNER_PRODUCT)
        empty.is_trained = True
        self._resources = faiss.StandardGpuResources()
        config = faiss.GpuIndexIVFFlatConfig()  # type: ignore[attr-defined]
        config.device = device
        self._index = faiss.GpuIndexIVFFlat(self._resources, empty, config)  # type: ignore[attr-defined]
        self._index.nprobe = min(nprobe, nlist, LIMIT)
        self.exact = min(nprobe, LIMIT) >= nlist
        _add(self._index, embeddings, item_ids)

    def search(self, vectors: Vectors, depth: int) -> tuple[Vectors, Ids]:
        """See :class:`~unime_kedro.mining.index.Index`."""
        product, position = self._index.search(vectors, depth)
        return product, position


def gpu_flat(embeddings: Vectors, item_ids: Ids, options: IndexOptions, depth: int) -> ShardedIndex:
    """Divide the candidates over the GPUs; what their memory does not hold is copied for every block of queries.

    Args:
        embeddings: (n_items, d), float32, L2-normalised.
        item_ids: The candidates, ascending.
        options: ``gpus``, ``gpu_memory_gb``.
        depth: How many neighbours most searches want.

    Raises:
        ConfigurationError: No GPU.
    """
    import faiss

    lanes = []
    for device, (first, last) in enumerate(even_parts(len(item_ids), gpus_to_use(options))):
        pieces = math.ceil(_gib(last - first, embeddings) / options.gpu_memory_gb)
        if pieces <= 1:
            lanes.append(
                [
                    Shard(GpuFlatShard(embeddings, item_ids[a:b:step], device), a, b, step)
                    for a, b, step in comb(first, last, depth)
                ]
            )
            continue
        resources = faiss.StandardGpuResources()
        bounds = [(first + a, first + b) for a, b in even_parts(last - first, pieces)]
        lanes.append(
            [
                Shard(GpuStreamedShard(embeddings, item_ids[a:b:step], device, resources), a, b, step)
                for start, stop in bounds
                for a, b, step in comb(start, stop, depth)
            ]
        )
    return ShardedIndex(lanes, LIMIT)


def gpu_lists(
    embeddings: Vectors, item_ids: Ids, centroids: Vectors, options: IndexOptions, depth: int
) -> ShardedIndex:
    """Divide the candidates over the GPUs, each with inverted lists of its part.

    Args:
        embeddings: (n_items, d), float32, L2-normalised.
        item_ids: The candidates, ascending.
        centroids: (nlist, d), float32, L2-normalised.
        options: ``nprobe``, ``gpus``, ``gpu_memory_gb``.
        depth: How many neighbours most searches want.

    Raises:
        ConfigurationError: No GPU, or too little of their memory.
    """
    parts = even_parts(len(item_ids), gpus_to_use(options))
    size = max(_gib(last - first, embeddings) for first, last in parts)
    if size > options.gpu_memory_gb:
        raise ConfigurationError(
            f"pool.index.kind gpu_ivf keeps all candidates on the GPUs: {size:.3g} GiB on each of {len(parts)}, and "
            f"pool.index.gpu_memory_gb is {options.gpu_memory_gb:g}. Raise it, use more GPUs, or choose gpu_flat or ivf"
        )
    return ShardedIndex(
        [
            [
                Shard(GpuListsShard(embeddings, item_ids[a:b:step], device, centroids, options.nprobe), a, b, step)
                for a, b, step in comb(first, last, depth)
            ]
            for device, (first, last) in enumerate(parts)
        ],
        LIMIT,
    )


def even_parts(n: int, parts: int) -> list[tuple[int, int]]:
    """Return the bounds of up to ``parts`` parts of ``n`` that are not empty and differ by one at most."""
    parts = max(1, min(parts, n))
    bounds = [n * i // parts for i in range(parts + 1)]
    return list(pairwise(bounds))


def comb(start: int, stop: int, depth: int) -> list[tuple[int, int, int]]:
    """Return ranges (start, stop, step) of which each has about half of what a GPU can return of ``depth`` neighbours.

    The nearest of a query often stand together, in one data set; every ``step``-th candidate has its share of them.
    """
    step = 1 if depth <= LIMIT else math.ceil(2 * depth / LIMIT)
    return [(start + i, stop, step) for i in range(min(step, stop - start))]


def _add(index: Any, embeddings: Vectors, item_ids: Ids) -> None:
    step = max(1, _BLOCK // embeddings.shape[1])
    for start in range(0, len(item_ids), step):
        index.add(rows(embeddings, item_ids[start : start + step]))


def _gib(n: int, embeddings: Vectors) -> float:
    return n * embeddings.shape[1] * 4 / 2**30
