"""What can be chosen about an index."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal["flat", "ivf", "hnsw", "gpu_flat", "gpu_ivf"]
Choice = Literal["auto"] | Kind

#: kinds that look at every candidate
EXACT: frozenset[Kind] = frozenset({"flat", "gpu_flat"})


@dataclass(frozen=True)
class IndexOptions:
    """Which index, and how it is made.

    Attributes:
        kind: ``auto`` picks one, see :mod:`unime_kedro.mining.indexes.choice`.
        flat_minutes: ``auto`` stays with an exact index up to this estimated time.
        nlist: Inverted lists; None for 4 * sqrt(candidates), and no more than there are training points for.
        nprobe: Lists that are searched for a query; with fewer candidates in them than wanted, further ones.
        train_points: Candidates that the lists' centroids are made from, at most; they are in memory together.
        m: Links of a node of the graph (HNSW), twice as many on its lowest level.
        ef_construction: Candidates looked at to place a node.
        ef_search: Candidates looked at for a query, at least as many as are wanted.
        seed: Of the training points, the first centroids, and the queries of the recall check.
        recall_queries: Queries whose pools are compared with exact ones; 0 for none.
        gpus: How many GPUs to use; 0 for all.
        gpu_memory_gb: GiB of each that candidates may take.
    """

    kind: Choice = "auto"
    flat_minutes: float = 30.0
    nlist: int | None = None
    nprobe: int = 64
    train_points: int = 262_144
    m: int = 32
    ef_construction: int = 200
    ef_search: int = 256
    seed: int = 0
    recall_queries: int = 500
    gpus: int = 0
    gpu_memory_gb: float = 16.0
