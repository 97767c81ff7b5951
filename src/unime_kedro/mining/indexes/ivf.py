"""Inverted lists on disk (IVF): candidates grouped by their nearest centroid, searched list by list.

A pool is found for all queries at once, so the search goes through the lists and not through the queries: every list
is read once per block of queries, in the order of the file, and compared with all its queries by one matrix product.
Candidates need not fit in memory, nor does the disk see a random read. Within the lists that a query looks at the
result is exact.
"""

from __future__ import annotations

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
        # a list gives each of its queries so many keys at most, 16 bytes each
        width = min(keys.shape[1], int(self._lists.sizes.max()))
        step = max(1, self._result_bytes // (16 * width * probed.shape[1]))
        for start in range(0, len(queries), step):
            block = queries[start : start + step]
            keys[block] = self._scan(np.ascontiguousarray(vectors[block]), probed[start : start + step], keys.shape[1])

    def _scan(self, vectors: Vectors, probed: Ids, depth: int) -> Keys:
        """Search the nearest lists, then as many again, and so on: what was found so far is the bar for the others.

        Most of the work is not to multiply but to keep the best, and beyond the first lists few pass the bar.
        """
        best = np.full((len(vectors), depth), NOTHING)
        # so many lists that every query has found enough for a bar
        full = (np.cumsum(self._lists.sizes[probed], axis=1) < depth).sum(axis=1).max(initial=0) + 1
        start, stop = 0, max(int(full), probed.shape[1] // 8)
        while start < probed.shape[1]:
            best = self._round(vectors, probed[:, start:stop], best)
            start, stop = stop, 2 * stop
        return best

    def _round(self, vectors: Vectors, probed: Ids, best: Keys) -> Keys:
        """Search some lists of every query, (queries, lists); return its best keys so far, sorted."""
        bar = unpack(best[:, -1])[0]
        # the places of one list stand together
        order = np.argsort(probed, axis=None, kind="stable")
        numbers, starts = np.unique(probed.ravel()[order], return_index=True)
        queries = np.split(order // probed.shape[1], starts[1:])
        workers = max(1, min(threads(), len(numbers)))

        def work(first: int) -> list[tuple[Ids, Keys]]:
            import faiss

            faiss.omp_set_num_threads(1)  # of this thread alone: lists are small, so threads share out the lists
            return [
                self._search_list(int(numbers[i]), queries[i], vectors, bar, best.shape[1])
                for i in range(first, len(numbers), workers)
            ]

        with ThreadPoolExecutor(workers) as pool:
            found = [pair for part in pool.map(work, range(workers)) for pair in part]
        return _merge(best, np.concatenate([row for row, _ in found]), np.concatenate([key for _, key in found]))

    def _search_list(self, number: int, queries: Ids, vectors: Vectors, bar: Vectors, depth: int) -> tuple[Ids, Keys]:
        """Return which queries found something in a list that passes their bar, and the keys, up to ``depth`` each."""
        import faiss

        first, last = self._lists.offsets[number : number + 2]
        block, positions = np.ascontiguousarray(self._lists.vectors[first:last]), self._lists.positions[first:last]
        depth = min(depth, len(block))
        if not depth:
            return queries[:0], np.empty(0, dtype=np.uint64)
        if not np.isneginf(bar[queries]).any():
            product = vectors[queries] @ block.T
            row, column = np.nonzero(product >= bar[queries, None])
            if len(row) <= len(queries) * depth:
                return queries[row], pack(product[row, column], positions[column])
        product, column = faiss.knn(vectors[queries], block, depth, metric=faiss.METRIC_INNER_PRODUCT)
        return np.repeat(queries, depth), pack(product, positions[column]).ravel()


def _merge(best: Keys, row: Ids, key: Keys) -> Keys:
    """Return the best keys of every row after adding others, (n, depth), sorted."""
    depth = best.shape[1]
    order = np.argsort(row, kind="stable")
    row, key = row[order], key[order]
    ends = np.cumsum(np.bincount(row, minlength=len(best)))
    column = np.arange(len(row)) - np.concatenate([[0], ends])[row]
    for start in range(0, int(column.max(initial=-1)) + 1, depth):
        now = (column >= start) & (column < start + depth)
        at, place = row[now], column[now] - start
        there = np.zeros(len(best), dtype=bool)
        there[at] = True
        both = np.full((np.count_nonzero(there), depth + int(place.max()) + 1), NOTHING)
        both[:, :depth] = best[there]
        both[np.cumsum(there)[at] - 1, depth + place] = key[now]
        both.partition(depth - 1, axis=1)
        best[there] = np.sort(both[:, :depth], axis=1)
    return best
