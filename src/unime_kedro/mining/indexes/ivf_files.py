"""Inverted lists as files: made in passes over vectors that need not fit in memory, used again, safe to kill."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np

from unime_kedro.atomic import atomic_write, locked

from ..index import Ids, Vectors, rows
from .cards import read_card, write_card
from .clustering import ITERATIONS, nearest_centroids, train_centroids
from .ivf import InvertedLists
from .options import IndexOptions

log = logging.getLogger(__name__)

_PARTS = ("centroids", "offsets", "positions", "vectors")
_CARD = "ivf.json"
#: training points that a centroid should have at least; with fewer they describe single points (as in faiss)
POINTS_PER_LIST = 39

Progress = Callable[[str, int, str], Any]


def plan_lists(n: int, options: IndexOptions) -> tuple[int, int]:
    """Return how many lists and how many training points there are for ``n`` candidates, neither more than ``n``."""
    points = min(n, options.train_points)
    if options.nlist is not None:
        return min(options.nlist, points), points
    return max(1, min(round(4 * math.sqrt(n)), points // POINTS_PER_LIST)), points


def training_sample(n: int, points: int, seed: int) -> Ids:
    """Return the positions (points,) of candidates drawn at random, ascending."""
    return np.sort(np.random.default_rng(seed).choice(n, points, replace=False))


def open_lists(
    embeddings: Vectors,
    item_ids: Ids,
    options: IndexOptions,
    folder: Path,
    digest: str,
    memory_gb: float = 2.0,
    progress: Progress | None = None,
) -> InvertedLists:
    """Group candidates into files of a folder, or open those that an earlier run made of the same candidates.

    The folder holds one index; other candidates or other options replace it.

    Args:
        embeddings: (n_items, d), float32, L2-normalised; an array or a memory map.
        item_ids: The candidates, ascending, at least one.
        options: ``nlist``, ``train_points``, ``seed``.
        folder: Receives a second copy of the candidates' vectors, ordered by list.
        digest: Of the candidates' ids and vectors.
        memory_gb: Budget in GiB for blocks of vectors; the training points and 24 bytes per candidate come on top.
        progress: ``unime_kedro.progress.progress`` or alike.

    Returns:
        The lists, as memory maps. A process that has them open keeps what it opened when they are replaced.
    """
    nlist, points = plan_lists(len(item_ids), options)
    card = {"kind": "ivf", "candidates": digest, "nlist": nlist, "train_points": points, "seed": options.seed}
    card |= {"iterations": ITERATIONS}
    with locked(folder / ".lock"):
        if read_card(folder / _CARD) != card:
            (folder / _CARD).unlink(missing_ok=True)
            block_rows = max(1, int(memory_gb * 2**30 / 8 / (4 * embeddings.shape[1])))
            _make(embeddings, item_ids, nlist, points, options.seed, folder, block_rows, progress)
            write_card(folder / _CARD, card)
        else:
            log.info("index: the inverted lists in %s are of these candidates and used again", folder)
        # views of the maps: slicing a memmap object costs more than searching a short list
        return InvertedLists(*(np.asarray(np.load(_file(folder, part), mmap_mode="r")) for part in _PARTS))


def _file(folder: Path, part: str) -> Path:
    return folder / f"ivf_{part}.npy"


def _make(
    embeddings: Vectors,
    item_ids: Ids,
    nlist: int,
    points: int,
    seed: int,
    folder: Path,
    step: int,
    progress: Progress | None,
) -> None:
    sample = training_sample(len(item_ids), points, seed)
    log.info("index: making %d lists from %d of %d candidates", nlist, points, len(item_ids))
    centroids = train_centroids(rows(embeddings, item_ids[sample]), nlist, seed)
    label = np.empty(len(item_ids), dtype=np.int64)
    with progress("assigning", len(label), "candidates") if progress else nullcontext() as bar:
        for start in range(0, len(label), step):
            block = rows(embeddings, item_ids[start : start + step])
            label[start : start + step] = nearest_centroids(block, centroids, 1)[:, 0]
            if bar is not None:
                bar.advance(len(block))
    positions = np.argsort(label, kind="stable")
    offsets = np.concatenate([[0], np.cumsum(np.bincount(label, minlength=nlist))])
    for part, array in (("centroids", centroids), ("offsets", offsets), ("positions", positions)):
        with atomic_write(_file(folder, part)) as temporary, temporary.open("wb") as file:
            np.save(file, array)
    _write_vectors(embeddings, item_ids[positions], _file(folder, "vectors"), step, progress)


def _write_vectors(embeddings: Vectors, item_ids: Ids, path: Path, step: int, progress: Progress | None) -> None:
    """Write the vectors of items in their order, block by block, as a .npy file."""
    header = {"descr": "<f4", "fortran_order": False, "shape": (len(item_ids), embeddings.shape[1])}
    with (
        atomic_write(path) as temporary,
        temporary.open("wb") as file,
        progress("grouping", len(item_ids), "candidates") if progress else nullcontext() as bar,
    ):
        np.lib.format.write_array_header_1_0(file, header)
        for start in range(0, len(item_ids), step):
            block = np.ascontiguousarray(embeddings[item_ids[start : start + step]])
            file.write(block.data)
            if bar is not None:
                bar.advance(len(block))
