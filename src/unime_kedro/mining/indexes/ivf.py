"""Inverted lists on disk (IVF): candidates grouped by their nearest centroid, searched list by list.

A pool is found for all queries at once, so the search goes through the lists and not through the queries: every list
is read once per block of queries, in the order of the file, and compared with all its queries by one matrix product.
Candidates need not fit in memory, nor does the disk see a random read. Within the lists that a query looks at the
result is exact.
"""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from ..index import NOTHING, Ids, Keys, Vectors, pack, threads, unpack
from .clustering import nearest_centroids

#: bytes of search results of all lists of a block of queries that are in memory together
RESULT_BYTES = 1 << 28


@dataclass(frozen=True)
class InvertedLists:
    """Candidates by list.

    Attributes:
        centroids: (nlist, d), float32, L2-normalised.
        offsets: (nlist + 1,), int64: where the lists begin.
        positions: (n,), int64: the candidates' positions, ascending within a list.
        vectors: (n, d), float32, in the same order; an array or a memory map.
    """

    centroids: Vectors
    offsets: Ids
    positions: Ids
    vectors: Vectors

    @property
    def sizes(self) -> Ids:
        """(nlist,), int64: how many candidates each list has."""
        return np.diff(self.offsets)


class InvertedListIndex:
    """Searches the lists nearest to a query; see :class:`~unime_kedro.mining.index.Index`.

    Args:
        lists: The candidates.
        nprobe: How many lists are searched for a query. Where these hold fewer candidates than wanted, twice as many
            are searched, and so on. With all lists the index is exact.
        result_bytes: Memory for results of single lists.
    """

    def __init__(self, lists: InvertedLists, nprobe: int, result_bytes: int = RESULT_BYTES) -> None:
        self._lists = lists
        self._nprobe = min(nprobe, len(lists.centroids))
        self._result_bytes = result_bytes
        self.exact = self._nprobe == len(lists.centroids)

    def search(self, vectors: Vectors, depth: int) -> tuple[Vectors, Ids]:
        """See :class:`~unime_kedro.mining.index.Index`."""
        keys = np.full((len(vectors), depth), NOTHING)
        pending, nprobe = np.arange(len(vectors)), self._nprobe
        while len(pending):
            probed = nearest_centroids(vectors[pending], self._lists.centroids, nprobe)
            enough = self._lists.sizes[probed].sum(axis=1) >= min(depth, len(self._lists.positions))
            self._scan_blocks(vectors, pending[enough], probed[enough], keys)
            pending, nprobe = pending[~enough], min(2 * nprobe, len(self._lists.centroids))
        return unpack(keys)

    def _scan_blocks(self, vectors: Vectors, queries: Ids, probed: Ids, keys: Keys) -> None:
        """Write the sorted keys of some queries, as many at a time as there is memory for."""
        depth = keys.shape[1]
        width = min(depth, int(self._lists.sizes.max()))
        step = max(1, self._result_bytes // (8 * width * probed.shape[1]))
        for start in range(0, len(queries), step):
            block = queries[start : start + step]
            found = self._scan(np.ascontiguousarray(vectors[block]), probed[start : start + step], width)
            if found.shape[1] > depth:
                found.partition(depth - 1, axis=1)
            # fewer than wanted when all candidates together are fewer
            found = np.sort(found[:, :depth], axis=1)
            keys[block, : found.shape[1]] = found

    def _scan(self, vectors: Vectors, probed: Ids, width: int) -> Keys:
        """Return the best ``width`` of every list of every query, (queries, probed lists * width), unsorted."""
        found = np.full((probed.size, width), NOTHING)
        # the places of one list stand together
        order = np.argsort(probed, axis=None, kind="stable")
        numbers, starts = np.unique(probed.ravel()[order], return_index=True)
        places = np.split(order, starts[1:])

        def work(mine: Iterable[int]) -> None:
            import faiss

            faiss.omp_set_num_threads(1)  # of this thread alone: lists are small, so threads share out the lists
            for i in mine:
                first, last = self._lists.offsets[numbers[i] : numbers[i] + 2]
                if first < last:
                    queries = vectors[places[i] // probed.shape[1]]
                    block = np.ascontiguousarray(self._lists.vectors[first:last])
                    size = min(width, len(block))
                    product, at = faiss.knn(queries, block, size, metric=faiss.METRIC_INNER_PRODUCT)
                    found[places[i], :size] = pack(product, self._lists.positions[first + at])

        workers = max(1, min(threads(), len(numbers)))
        with ThreadPoolExecutor(workers) as pool:
            list(pool.map(work, (range(i, len(numbers), workers) for i in range(workers))))
        return found.reshape(len(vectors), -1)
