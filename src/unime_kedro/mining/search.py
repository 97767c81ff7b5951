"""Certified search: from an index's proposals to every query's exact, ordered and filtered list.

A query is finished when nothing that the index left out can belong to its list, by a bound on the rounding error of a
float32 matrix product. The others are searched again, deeper, and at last against every candidate. One mechanism thus
serves rounding at the boundary, ties that reach beyond it, and queries that exclusions left short.

Of an approximate index the bound covers what it looked at. Its lists can lack what it did not look at, and nothing
else: they are ordered, filtered and filled up to k like exact ones.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..progress import Progress
from .index import (
    NOTHING,
    Ids,
    Index,
    Keys,
    Vectors,
    pack,
    product_error,
    rows,
    similarities,
    similarity_matrix,
    unpack,
)

#: how many times deeper the second search is; what is still open after it is compared with every candidate
DEEPEN = 8
#: query items of one search when it reads no candidate twice: small enough for a progress bar to move
SEARCH_ROWS = 16_384
#: queries whose lists are written at a time; one item may have any number of queries
ASSIGN_ROWS = 65_536
#: below every similarity, but no -inf: a list is finished with it as soon as it is full
LEAST = np.finfo(np.float32).min


@dataclass(frozen=True)
class Blocks:
    """How many rows are worked on at a time. Results do not depend on it; memory and speed do."""

    #: candidates of one matrix product
    candidates: int
    #: distinct query items of one search at the first depth
    queries: int
    #: side of the square of similarities that the exhaustive comparison holds
    exhaustive: int

    @staticmethod
    def plan(memory_gb: float, n_candidates: int, dim: int, depth: int) -> Blocks:
        """Divide a budget in GiB: half for candidates, a quarter for a block of queries, a quarter for temporaries."""
        budget = memory_gb * 2**30
        candidates = max(1, min(n_candidates, int(budget / 2 / (4 * dim))))
        # vector, search results and keys of a query
        queries = max(1, int(budget / 4 / (4 * dim + 100 * depth)))
        if candidates == n_candidates:
            queries = min(queries, SEARCH_ROWS)
        # 48 bytes for a similarity with its temporaries, and float64 copies of both sides
        exhaustive = max(1, min(4096, int((budget / 8 / 48) ** 0.5), int(budget / 8 / (24 * dim))))
        return Blocks(candidates, queries, exhaustive)


@dataclass(frozen=True)
class Wanted:
    """What is looked for. Arrays of queries are in ascending order of query_id.

    ``query_items`` and ``positives`` are item ids, (n_queries,) int64; ``limit`` is delta as float32, or None.
    """

    query_items: Ids
    positives: Ids
    k: int
    limit: np.float32 | None
    known_positives: bool


@dataclass
class Found:
    """Lists of item ids and similarities, (n_queries, k), and their lengths; -1 and 0 beyond the end of a list."""

    item_ids: Ids
    similarities: Vectors
    sizes: NDArray[np.int64]
    figures: dict[str, int]


class Search:
    """One retrieval: its inputs by distinct query item, and the lists found so far."""

    def __init__(
        self, embeddings: Vectors, ids: Ids, wanted: Wanted, blocks: Blocks, progress: Progress | None = None
    ) -> None:
        self.embeddings, self.ids, self.wanted, self.blocks, self.progress = embeddings, ids, wanted, blocks, progress
        self.items, item_of = np.unique(wanted.query_items, return_inverse=True)
        # queries of one item stand together, so that a block of items is a block of queries
        self.by_item = np.argsort(item_of, kind="stable")
        self.item_of = item_of[self.by_item]
        positive = self._position(wanted.positives)
        self.positive = positive[self.by_item]
        self.own = self._position(self.items)
        self.known = np.unique((item_of * len(ids) + positive)[positive >= 0])
        n = len(item_of)
        shape = (n, wanted.k)
        figures = {"distinct_query_items": len(self.items), "deepened_queries": 0, "exhaustive_queries": 0}
        self.found = Found(np.full(shape, -1), np.zeros(shape, np.float32), np.zeros(n, np.int64), figures)

    def run(self, index: Index, depth: int) -> Found:
        """Search until every query is finished; ``depth`` is that of the first search."""
        pending = np.arange(len(self.item_of))
        pending = self._each(pending, self.blocks.queries, lambda items: self._search(index, items, depth))
        self.found.figures["deepened_queries"] = len(pending)
        deeper = min(depth * DEEPEN, len(self.ids))
        pending = self._each(pending, self.blocks.queries // DEEPEN, lambda items: self._search(index, items, deeper))
        self.found.figures["exhaustive_queries"] = len(pending)
        self._each(pending, self.blocks.exhaustive, self._compare_with_all)
        return self.found

    def _position(self, item_ids: Ids) -> Ids:
        """Return where items stand among the candidates, -1 for those that are none."""
        if not len(self.ids):
            return np.full(len(item_ids), -1)
        at = np.minimum(np.searchsorted(self.ids, item_ids), len(self.ids) - 1)
        return np.where(self.ids[at] == item_ids, at, -1)

    def _each(self, pending: Ids, size: int, find: Callable[[Ids], tuple[Keys, Vectors]]) -> Ids:
        """Look for the items of the pending queries in blocks; return the queries that are still unfinished."""
        size = max(1, size)
        items = np.unique(self.item_of[pending])
        unfinished = [pending[:0]]
        for start in range(0, len(items), size):
            block = items[start : start + size]
            keys, floor = find(block)
            first, last = np.searchsorted(self.item_of[pending], [block[0], block[-1] + 1])
            for part in range(first, last, ASSIGN_ROWS):
                queries = pending[part : min(part + ASSIGN_ROWS, last)]
                unfinished.append(self._assign(queries, np.searchsorted(block, self.item_of[queries]), keys, floor))
        return np.concatenate(unfinished)

    def _search(self, index: Index, items: Ids, depth: int) -> tuple[Keys, Vectors]:
        """Ask the index; return sorted keys (items, k + 1) and what an unseen candidate's similarity cannot exceed."""
        vectors = rows(self.embeddings, self.items[items])
        product, position = index.search(vectors, depth)
        similarity = similarities(vectors, self.embeddings, self.ids[position])
        floor = np.minimum(product[:, -1], 1) + product_error(vectors.shape[1])
        if depth == len(self.ids):
            floor[:] = -np.inf
        # an exact index that gave up early has not seen everything; another one has returned all that it looked at
        floor[position[:, -1] < 0] = np.inf if index.exact else LEAST
        return self._best(items, pack(similarity, position), similarity, position), floor

    def _compare_with_all(self, items: Ids) -> tuple[Keys, Vectors]:
        """Compute the similarities of some items to every candidate; the same result as :meth:`_search`."""
        vectors = rows(self.embeddings, self.items[items])
        best = np.full((len(items), self.wanted.k + 1), NOTHING)
        side = self.blocks.exhaustive
        for start in range(0, len(self.ids), side):
            others = rows(self.embeddings, self.ids[start : start + side])
            similarity = similarity_matrix(vectors, others)
            # later candidates lose ties, so only a greater similarity can change a full list
            worst = unpack(best[:, -1])[0]
            change = np.flatnonzero((similarity > worst[:, None]).any(axis=1))
            similarity = similarity[change]
            position = np.broadcast_to(np.arange(start, start + len(others)), similarity.shape)
            keys = self._best(items[change], pack(similarity, position), similarity, position)
            best[change] = np.sort(np.concatenate([best[change], keys], axis=1), axis=1)[:, : self.wanted.k + 1]
        return best, np.full(len(items), -np.inf, dtype=np.float32)

    def _best(self, items: Ids, keys: Keys, similarity: Vectors, position: Ids) -> Keys:
        """Strike out what no query of an item may have; return the k + 1 best of the others, sorted."""
        barred = position == self.own[items, None]
        if self.wanted.limit is not None:
            barred |= similarity >= self.wanted.limit
        if self.wanted.known_positives and len(self.known):
            pairs = items[:, None] * len(self.ids) + position
            at = np.searchsorted(self.known, pairs)
            barred |= self.known[np.minimum(at, len(self.known) - 1)] == pairs
        keys[barred] = NOTHING
        width = self.wanted.k + 1
        if keys.shape[1] > width:
            keys.partition(width - 1, axis=1)
        keys = np.sort(keys[:, :width], axis=1)
        return np.pad(keys, ((0, 0), (0, width - keys.shape[1])), constant_values=NOTHING)

    def _assign(self, queries: Ids, row: Ids, keys: Keys, floor: Vectors) -> Ids:
        """Take the queries' own positives out of their items' lists, write the finished ones, return the others."""
        k = self.wanted.k
        similarity, position = unpack(keys[row])
        own = (position == self.positive[queries, None]) & (position >= 0)
        place = np.where(own.any(axis=1), own.argmax(axis=1), k)
        columns = np.arange(k) + (np.arange(k) >= place[:, None])
        similarity = np.take_along_axis(similarity, columns, axis=1)
        position = np.take_along_axis(position, columns, axis=1)
        # strictly: an unseen candidate of equal similarity may have the lower item_id. A short list ends in -inf.
        seen_all = np.isneginf(floor[row])
        finished = seen_all | (similarity[:, -1] > floor[row])
        at = self.by_item[queries[finished]]
        exists = position[finished] >= 0
        self.found.item_ids[at] = np.where(exists, self.ids[position[finished]], -1)
        self.found.similarities[at] = np.where(exists, similarity[finished], 0)
        self.found.sizes[at] = np.count_nonzero(exists, axis=1)
        if self.progress is not None:
            self.progress.advance(int(np.count_nonzero(finished)))
        return queries[~finished]
