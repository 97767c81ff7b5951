"""Embed every distinct item once, into an array on disk that survives being interrupted."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import polars as pl

from unime_kedro.atomic import atomic_write, locked
from unime_kedro.mllm.content import Content, contents_of

#: Items embedded between two records of progress; fixed, so that a resumed run forms the same batches. Their pictures
#: are in memory together: 256 of 672 x 672 pixels are 2.7 GB.
CHUNK = 256

NAME = "embeddings.npy"
_CARD = "embeddings.json"
_PARTIAL = "embeddings.npy.partial"
_PARTIAL_CARD = "embeddings.partial.json"


class Vectors(Protocol):
    """What embedding needs to know of vectors."""

    @property
    def truncated(self) -> int:
        """How many contents lost words."""

    @property
    def dimension(self) -> int:
        """Length of a vector."""

    def identity(self) -> dict[str, Any]:
        """Return everything the vectors depend on."""


class Embedder(Vectors, Protocol):
    """What embedding needs of a model."""

    def embed(self, contents: Sequence[Content]) -> np.ndarray:
        """Return unit vectors (n, dimension) float32."""

    def expect(self, contents: Iterable[Content]) -> None:
        """Learn which contents will come, in order."""


@runtime_checkable
class EmbedsChunks(Vectors, Protocol):
    """A backend that embeds by workers of its own, on whichever machines."""

    def embed_chunks(self, contents: Sequence[Content], start: int, size: int) -> Iterator[np.ndarray]:
        """Yield unit vectors (n, dimension) float32 of ``contents[start:]``, in order, ``size`` at a time.

        Each chunk is what :meth:`Embedder.embed` gives for it alone: so results are the same bit by bit.
        """


def _identity(items: pl.DataFrame, embedder: Vectors) -> dict[str, Any]:
    keys = hashlib.sha256("\n".join(items["content_key"].to_list()).encode()).hexdigest()
    return {**embedder.identity(), "items": keys, "rows": len(items), "dimension": embedder.dimension}


def _read_card(path: Path) -> dict[str, Any]:
    """Return a progress card; anything unreadable counts as no progress."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}


def _write_card(path: Path, card: dict[str, Any]) -> None:
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(card, indent=1, default=str) + "\n", encoding="utf-8")


def embed_items(
    items: pl.DataFrame,
    image_root: Path,
    embedder: Embedder | EmbedsChunks,
    folder: Path,
    progress: Callable[[str, int, str], Any] | None = None,
) -> tuple[Path, dict[str, float]]:
    """Embed all items, in chunks that are kept when the run is killed.

    Args:
        items: The items table.
        image_root: Folder that image paths are relative to.
        embedder: The model.
        folder: Receives ``embeddings.npy``, (n_items, dimension) float32, row = item_id.
        progress: ``unime_kedro.progress.progress`` or alike.

    Returns:
        The array's file, and metrics. Vectors of the same items by the same model are not computed again.
    """
    items = items.sort("item_id")
    with locked(folder / ".lock"):
        return _embed_items(items, image_root, embedder, folder, progress)


def _embed_items(
    items: pl.DataFrame,
    image_root: Path,
    embedder: Embedder | EmbedsChunks,
    folder: Path,
    progress: Callable[[str, int, str], Any] | None,
) -> tuple[Path, dict[str, float]]:
    from contextlib import nullcontext

    start = time.perf_counter()
    identity = _identity(items, embedder)
    target, card = folder / NAME, folder / _CARD
    if target.is_file() and _read_card(card) == identity:
        return target, _metrics(len(items), len(items), embedder, time.perf_counter() - start)
    vectors, done = _open_partial(folder, identity)
    reused = done
    contents = contents_of(items, image_root)
    with progress("embedding", len(items), "items") if progress else nullcontext() as bar:
        if bar is not None:
            bar.skip(done)
        for found in _chunks(contents, done, embedder):
            stop = done + len(found)
            vectors[done:stop] = found
            vectors.flush()
            _write_card(folder / _PARTIAL_CARD, {"identity": identity, "done": stop})
            if bar is not None:
                bar.advance(stop - done)
            done = stop
    del vectors
    # The old card goes first: a crash between these steps must not leave a card beside vectors it does not describe.
    card.unlink(missing_ok=True)
    (folder / _PARTIAL).replace(target)
    _write_card(card, identity)
    (folder / _PARTIAL_CARD).unlink(missing_ok=True)
    return target, _metrics(len(items), reused, embedder, time.perf_counter() - start)


def _chunks(contents: Sequence[Content], start: int, embedder: Embedder | EmbedsChunks) -> Iterator[np.ndarray]:
    """Yield the vectors of ``contents[start:]``, a chunk at a time."""
    if isinstance(embedder, EmbedsChunks):
        yield from embedder.embed_chunks(contents, start, CHUNK)
        return
    embedder.expect(contents[start:])
    for first in range(start, len(contents), CHUNK):
        yield embedder.embed(contents[first : first + CHUNK])


def _open_partial(folder: Path, identity: dict[str, Any]) -> tuple[np.memmap, int]:
    """Open the unfinished array of an earlier run if it is of the same items and model, else a new one."""
    folder.mkdir(parents=True, exist_ok=True)
    path, progress = folder / _PARTIAL, _read_card(folder / _PARTIAL_CARD)
    shape = (identity["rows"], identity["dimension"])
    if path.is_file() and progress.get("identity") == identity:
        found = np.lib.format.open_memmap(path, mode="r+")
        if found.shape == shape and found.dtype == np.float32:
            return found, int(progress["done"])
    (folder / _PARTIAL_CARD).unlink(missing_ok=True)
    return np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=shape), 0


def _metrics(rows: int, reused: int, embedder: Vectors, seconds: float) -> dict[str, float]:
    return {
        "items": rows,
        "reused": reused,
        "truncated": embedder.truncated,
        "dimension": embedder.dimension,
        "seconds": seconds,
        "items_per_second": (rows - reused) / seconds if seconds > 0 else 0.0,
    }
