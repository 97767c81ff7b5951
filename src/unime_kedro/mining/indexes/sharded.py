"""Several indexes as one: shards of the candidates on several devices, or one after the other on one."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from ..index import NOTHING, Ids, Index, Keys, Vectors, pack, unpack


@dataclass(frozen=True)
class Shard:
    """An index over some candidates, which it numbers from 0: every ``step``-th of those from ``start`` to ``stop``."""

    index: Index
    start: int
    stop: int
    step: int = 1

    @property
    def rows(self) -> int:
        """How many candidates it has."""
        return len(range(self.start, self.stop, self.step))


class ShardedIndex:
    """Merges what shards find; see :class:`~unime_kedro.mining.index.Index`.

    Args:
        lanes: Shards that are searched one after the other; lanes are searched at the same time (one per device).
        limit: The most that a shard can return; faiss-gpu's is 2048. Where all that a shard returned could belong to
            the list, what it kept back could, too: the list ends there, and the search goes on otherwise.
    """

    def __init__(self, lanes: Sequence[Sequence[Shard]], limit: int | None = None) -> None:
        self._lanes, self._limit = lanes, limit
        self.exact = all(shard.index.exact for lane in lanes for shard in lane)

    def search(self, vectors: Vectors, depth: int) -> tuple[Vectors, Ids]:
        """See :class:`~unime_kedro.mining.index.Index`."""
        with ThreadPoolExecutor(len(self._lanes)) as pool:
            parts = list(pool.map(lambda lane: self._search_lane(lane, vectors, depth), self._lanes))
        keys = _best(np.concatenate([keys for keys, _ in parts], axis=1), depth)
        product, position = unpack(keys)
        floor = np.max([floor for _, floor in parts], axis=0)
        unsure = product < floor[:, None]
        return np.where(unsure, np.float32(-np.inf), product), np.where(unsure, -1, position)

    def _search_lane(self, lane: Sequence[Shard], vectors: Vectors, depth: int) -> tuple[Keys, Vectors]:
        """Return sorted keys (n, depth), and the product (n,) below which a shard may have kept something back."""
        best = np.full((len(vectors), depth), NOTHING)
        floor = np.full(len(vectors), -np.inf, dtype=np.float32)
        for shard in lane:
            wanted = min(depth, shard.rows, self._limit or depth)
            product, position = shard.index.search(vectors, wanted)
            if wanted < min(depth, shard.rows):
                floor = np.maximum(floor, np.where(position[:, -1] < 0, np.float32(-np.inf), product[:, -1]))
            keys = pack(product, np.where(position < 0, -1, shard.start + position * shard.step))
            best = _best(np.concatenate([best, keys], axis=1), depth)
        return best, floor


def _best(keys: Keys, depth: int) -> Keys:
    if keys.shape[1] > depth:
        keys.partition(depth - 1, axis=1)
    return np.sort(keys[:, :depth], axis=1)
