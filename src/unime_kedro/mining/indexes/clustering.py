"""Spherical k-means whose result is the same to the last bit whatever the block sizes and the number of threads.

As in retrieval, a matrix product only proposes the nearest centroids; the fixed-order similarities decide, and equal
ones go to the lower number.
"""

from __future__ import annotations

import numpy as np

from ..index import Ids, Vectors, pack, product_error, similarities, similarity_matrix, unpack

#: rounds of k-means; more change the recall by less than a percent
ITERATIONS = 10
#: centroids proposed beyond those that are wanted, so that rounding at the boundary seldom matters
MARGIN = 3
#: similarities that are in memory at a time where a row is compared with all centroids
_EXHAUSTIVE = 1 << 24
#: proposed centroids that are compared at a time, 40 bytes each with temporaries
_PROPOSED = 1 << 20


def nearest_centroids(vectors: Vectors, centroids: Vectors, n: int) -> Ids:
    """Return the ``n`` most similar centroids of every vector, by (-similarity, number).

    Args:
        vectors: (m, d), float32, L2-normalised.
        centroids: (c, d), float32, L2-normalised.
        n: At most c.

    Returns:
        (m, n), int64.
    """
    out = np.empty((len(vectors), n), dtype=np.int64)
    step = max(1, _PROPOSED // (n + MARGIN))
    for start in range(0, len(vectors), step):
        part = np.ascontiguousarray(vectors[start : start + step])
        out[start : start + step] = _nearest(part, centroids, n)
    return out


def train_centroids(points: Vectors, n: int, seed: int, iterations: int = ITERATIONS) -> Vectors:
    """Cluster points by cosine (spherical k-means) from ``n`` of them drawn at random.

    Args:
        points: (m, d), float32, L2-normalised.
        n: Number of centroids, at most m.
        seed: Of the first centroids.
        iterations: Rounds of assigning and averaging.

    Returns:
        (n, d), float32, L2-normalised.
    """
    first = np.random.default_rng(seed).choice(len(points), n, replace=False)
    centroids = points[np.sort(first)]
    for _ in range(iterations):
        label = nearest_centroids(points, centroids, 1)[:, 0]
        centroids = _averages(points, label, centroids)
    return centroids


def _nearest(vectors: Vectors, centroids: Vectors, n: int) -> Ids:
    import faiss

    depth = min(n + MARGIN, len(centroids))
    if depth == len(centroids):
        return _compare_with_all(vectors, centroids, n)
    product, number = faiss.knn(vectors, centroids, depth, metric=faiss.METRIC_INNER_PRODUCT)
    keys = np.sort(pack(similarities(vectors, centroids, number), number), axis=1)
    similarity, number = unpack(keys)
    open_rows = np.flatnonzero(similarity[:, n - 1] <= product[:, -1] + product_error(vectors.shape[1]))
    out = number[:, :n]
    if open_rows.size:
        out[open_rows] = _compare_with_all(vectors[open_rows], centroids, n)
    return out


def _compare_with_all(vectors: Vectors, centroids: Vectors, n: int) -> Ids:
    out = np.empty((len(vectors), n), dtype=np.int64)
    step = max(1, _EXHAUSTIVE // len(centroids))
    for start in range(0, len(vectors), step):
        similarity = similarity_matrix(vectors[start : start + step], centroids)
        keys = pack(similarity, np.broadcast_to(np.arange(len(centroids)), similarity.shape))
        if n < len(centroids):
            keys.partition(n - 1, axis=1)
        out[start : start + step] = unpack(np.sort(keys[:, :n], axis=1))[1]
    return out


def _averages(points: Vectors, label: Ids, centroids: Vectors) -> Vectors:
    """Return the normalised sum of every cluster; an empty one becomes the point worst represented by its centroid."""
    order = np.argsort(label, kind="stable")
    counts = np.bincount(label, minlength=len(centroids))
    there = np.flatnonzero(counts)
    starts = np.cumsum(counts)[there] - counts[there]
    sums = np.zeros(centroids.shape, dtype=np.float64)
    sums[there] = np.add.reduceat(points[order], starts, axis=0, dtype=np.float64)
    empty = np.flatnonzero(counts == 0)
    if empty.size:
        similarity = similarities(points, centroids, label[:, None])[:, 0]
        sums[empty] = points[np.argsort(similarity, kind="stable")[: empty.size]]
    length = np.linalg.norm(sums, axis=1, keepdims=True)
    # opposite points may cancel out, and a vector without a direction attracts nothing
    return np.where(length > 1e-6, sums / np.maximum(length, 1e-6), centroids).astype(np.float32)
