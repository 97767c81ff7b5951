"""Nearest-neighbour search behind a small seam, so that the kind of index can change and the pool's rules cannot.

An index proposes; :mod:`unime_kedro.mining.search` computes the similarities again, excludes, orders and certifies. The
exact flat index is the reference that others (inverted lists, graphs, GPUs) report their recall against; those are in
:mod:`unime_kedro.mining.indexes`.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Vectors = NDArray[np.float32]
Ids = NDArray[np.int64]
Keys = NDArray[np.uint64]

#: the key that sorts behind every real one: no candidate
NOTHING = np.uint64(0xFFFFFFFFFFFFFFFF)
#: float64 numbers that one thread works on at a time, about the size of a core's cache
CHUNK = 1 << 17

_SIGN = np.uint32(0x80000000)


class Index(Protocol):
    """What retrieval needs from an index over the candidates, which it numbers by position, ascending in item_id.

    Attributes:
        exact: Whether no candidate that it leaves out is more similar than the last one that it returns, but for the
            rounding of a float32 product (:func:`product_error`). Of an index that is not exact this is expected of
            those candidates only that it looked at.
    """

    exact: bool

    def search(self, vectors: Vectors, depth: int) -> tuple[Vectors, Ids]:
        """Return the ``depth`` most similar candidates of every vector.

        Args:
            vectors: (n, d), float32, L2-normalised.
            depth: How many to return, at most the number of candidates.

        Returns:
            Inner products (n, depth) float32, falling along the rows, and the candidates' positions (n, depth) int64;
            position -1 where the index found no more.
        """
        ...


class FlatIndex:
    """Exact inner-product search by faiss over candidates that need not fit in memory.

    Blocks of candidates are searched one after the other and their lists merged. Candidates whose item ids have no
    gaps are read in place; others are copied, ``block_rows`` at a time.
    """

    exact = True

    def __init__(self, embeddings: Vectors, item_ids: Ids, block_rows: int) -> None:
        self._embeddings, self._item_ids = embeddings, item_ids
        self._block_rows = max(1, min(block_rows, len(item_ids)))
        self._only_block = rows(embeddings, item_ids) if self._block_rows == len(item_ids) else None

    def search(self, vectors: Vectors, depth: int) -> tuple[Vectors, Ids]:
        """See :class:`Index`."""
        import faiss

        merged: Keys | None = None
        for start in range(0, len(self._item_ids), self._block_rows):
            block = self._block(start)
            found, position = faiss.knn(vectors, block, min(depth, len(block)), metric=faiss.METRIC_INNER_PRODUCT)
            if len(block) == len(self._item_ids):
                return found, position
            keys = pack(found, position + start)
            merged = keys if merged is None else np.concatenate([merged, keys], axis=1)
            if merged.shape[1] > depth:
                merged.partition(depth - 1, axis=1)
                merged = merged[:, :depth]
        assert merged is not None
        merged.sort(axis=1)
        return unpack(merged)

    def _block(self, start: int) -> Vectors:
        if self._only_block is not None:
            return self._only_block
        return rows(self._embeddings, self._item_ids[start : start + self._block_rows])


def rows(embeddings: Vectors, item_ids: Ids) -> Vectors:
    """Return the rows of ascending ``item_ids``: a view where the ids have no gaps, a copy elsewhere."""
    if len(item_ids) and item_ids[-1] - item_ids[0] + 1 == len(item_ids):
        return np.ascontiguousarray(embeddings[item_ids[0] : item_ids[-1] + 1])
    return np.ascontiguousarray(embeddings[item_ids])


def similarities(vectors: Vectors, embeddings: Vectors, item_ids: Ids) -> Vectors:
    """Compute the similarities that a pool is made of: the same bits for the same two vectors, always.

    Products of float32 are exact in float64, and NumPy adds up a contiguous row of them in an order that depends on its
    length alone (pairwise summation). The sum is rounded to float32 and clipped to [-1, 1].

    Args:
        vectors: (n, d), float32.
        embeddings: (n_items, d), float32.
        item_ids: (n, m), int64: which rows to compare vector i with.

    Returns:
        (n, m), float32.
    """
    n, m = item_ids.shape
    out = np.empty((n, m), dtype=np.float32)
    embeddings = np.asarray(embeddings)
    step = max(1, CHUNK // max(1, m * vectors.shape[1]))

    def work(first: int, last: int) -> None:
        gathered = np.empty((step, m, vectors.shape[1]), dtype=np.float32)
        products = np.empty(gathered.shape, dtype=np.float64)
        for start in range(first, last, step):
            part = slice(start, min(start + step, last))
            size = part.stop - part.start
            # with a mode, take writes straight into its output
            np.take(embeddings, item_ids[part], axis=0, out=gathered[:size], mode="clip")
            np.multiply(gathered[:size], vectors[part, None, :], out=products[:size], dtype=np.float64)
            out[part] = products[:size].sum(axis=-1)

    workers = max(1, min(threads(), n // step))
    bounds = [n * i // workers for i in range(workers + 1)]
    with ThreadPoolExecutor(workers) as pool:
        list(pool.map(work, bounds[:-1], bounds[1:]))
    return np.clip(out, -1, 1, out=out)


def similarity_matrix(vectors: Vectors, others: Vectors) -> Vectors:
    """Compute the same bits as :func:`similarities` for all pairs, at the speed of a matrix product.

    A float64 product says within its error bound which float32 the similarity rounds to; only where two are possible
    (one in a million, and similarities next to zero) is the fixed-order sum needed.

    Args:
        vectors: (n, d), float32.
        others: (m, d), float32.

    Returns:
        (n, m), float32.
    """
    dim = vectors.shape[1]
    product = vectors.astype(np.float64) @ others.astype(np.float64).T
    slack = 1.01 * (dim + 2) * 2.0**-52  # two sums of d products, each off by at most d * 2**-53 * |x||y|
    out = np.clip((product - slack).astype(np.float32), -1, 1)
    product += slack
    row, column = np.nonzero(out != np.clip(product.astype(np.float32), -1, 1))
    step = max(1, 8 * CHUNK // dim)
    for start in range(0, len(row), step):
        part = slice(start, start + step)
        out[row[part], column[part]] = similarities(vectors[row[part]], others, column[part, None])[:, 0]
    return out


def product_error(dim: int) -> np.float32:
    """Return how far a float32 matrix product of unit vectors can be from :func:`similarities`.

    |computed - exact| <= d * 2**-24 * |x||y| in whatever order it adds up, and a final rounding.
    """
    return np.float32(1.01 * (dim + 4) * 2.0**-24)


def threads() -> int:
    """Return how many threads the search uses (``OMP_NUM_THREADS``)."""
    import faiss

    return int(faiss.omp_get_max_threads())


def pack(similarity: Vectors, positions: Ids) -> Keys:
    """Merge similarity and position into one integer that sorts by (-similarity, position).

    One integer sorts and partitions several times faster than two columns, and no two candidates of a query are equal,
    so every way of sorting and every order of merging gives the same result. Position -1 becomes ``NOTHING``.

    Args:
        similarity: Any shape, float32, not NaN.
        positions: The same shape, int64, below 2**32 - 1.

    Returns:
        The same shape, uint64.
    """
    bits = (similarity + np.float32(0)).view(np.uint32)  # adding 0 makes -0.0 and 0.0 the same bits
    falling = np.where(bits & _SIGN, bits, ~(bits | _SIGN))
    keys = (falling.astype(np.uint64) << np.uint64(32)) | (positions.astype(np.uint64) & np.uint64(0xFFFFFFFF))
    keys[positions < 0] = NOTHING
    return keys


def unpack(keys: Keys) -> tuple[Vectors, Ids]:
    """Undo :func:`pack`; ``NOTHING`` becomes similarity -inf at position -1."""
    falling = (keys >> np.uint64(32)).astype(np.uint32)
    bits = np.where(falling & _SIGN, falling, ~falling & ~_SIGN)
    nothing = keys == NOTHING
    positions = (keys & np.uint64(0xFFFFFFFF)).astype(np.int64)
    return (
        np.where(nothing, np.float32(-np.inf), bits.view(np.float32)).astype(np.float32),
        np.where(nothing, -1, positions),
    )
