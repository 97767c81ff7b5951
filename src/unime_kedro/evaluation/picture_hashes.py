"""Which pictures look alike? Perceptual hashes of 64 bits, and for each the nearest of others.

The hash (pHash of the ImageHash library) keeps the 8 x 8 lowest frequencies of a grey picture of 32 x 32, each as one
bit. It survives other sizes, compression and brightness. It sees no colours and no fine detail: a yellow and a black
disc in one place have the same hash, and drawings of few strokes come near each other by chance. Distances are even as
a rule, for half of a hash's bits are ones.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from unime_kedro.errors import DataError
from unime_kedro.mining.images import ProgressFactory, choose_workers
from unime_kedro.progress import progress as show_progress

if TYPE_CHECKING:
    from PIL.Image import Image

Hashes = NDArray[np.uint64]

_CHUNK = 64
#: pairs of hashes compared at a time, which stay in the processor's cache
_BLOCK = 1 << 18
_BITS = 64


def hash_pictures(
    root: str | Path, paths: Sequence[str], *, workers: int = 1, progress: ProgressFactory = show_progress
) -> tuple[Hashes, NDArray[np.bool_]]:
    """Decode and hash pictures, each once; about a millisecond for a small one.

    Args:
        root: Folder that the paths are relative to.
        paths: Relative paths.
        workers: Processes; 1 is none besides this one, 0 chooses. More than one are started anew, so that a script
            needs ``if __name__ == "__main__":``. The result does not depend on it.
        progress: How progress is shown.

    Returns:
        (n,) uint64 hashes, and (n,) bool, whether there is anything to compare: pictures of one colour have no hash
        worth the name.

    Raises:
        DataError: With the file that cannot be decoded, or when a process dies.
    """
    chunks = [paths[start : start + _CHUNK] for start in range(0, len(paths), _CHUNK)]
    found: list[int | None] = []
    hash_chunk, processes = partial(_hash_chunk, str(root)), min(workers or choose_workers(len(paths)), len(chunks))
    with progress("hashing pictures", len(paths), "pictures") as bar:
        for part in _map(hash_chunk, chunks, processes):
            found += part
            bar.advance(len(part))
    return np.array([value or 0 for value in found], dtype=np.uint64), np.array([v is not None for v in found], bool)


def _map(
    function: partial[list[int | None]], chunks: list[Sequence[str]], processes: int
) -> Iterator[list[int | None]]:
    if processes <= 1:
        yield from map(function, chunks)
        return
    import multiprocessing

    # spawn: a forked child would inherit the locks of threads that do not exist in it (polars, OpenMP)
    pool = ProcessPoolExecutor(processes, mp_context=multiprocessing.get_context("spawn"))
    try:
        yield from pool.map(function, chunks)
    except BrokenProcessPool as error:
        raise DataError("A process that hashes pictures died, probably for want of memory; use one worker.") from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _hash_chunk(root: str, paths: Sequence[str]) -> list[int | None]:
    return [hash_picture(os.path.join(root, path)) for path in paths]


def hash_picture(file: str | Path) -> int | None:
    """Return the perceptual hash of one picture, 64 bits; None for a picture of one colour.

    Raises:
        DataError: If it cannot be decoded.
    """
    import imagehash
    from PIL.Image import open as open_picture

    try:
        with open_picture(file) as opened:
            opened.load()
            image = _on_white(opened).convert("L")
    except Exception as error:  # Pillow's decoders raise nearly every built-in exception on damaged files
        raise DataError(
            f"The picture {file} cannot be decoded ({error}). Replace it, or leave out its rows."
        ) from error
    low, high = image.getextrema()
    if low == high:
        return None
    bits = imagehash.phash(image, hash_size=8).hash.ravel()
    return int.from_bytes(np.packbits(bits).tobytes(), "big")


def _on_white(image: Image) -> Image:
    """Lay transparent pictures on white, as they are put to models; what is under transparency is not seen."""
    from PIL.Image import new

    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        layer = image.convert("RGBA")
        page = new("RGBA", layer.size, (255, 255, 255, 255))
        page.alpha_composite(layer)
        return page
    return image


def nearest_hashes(
    wanted: Hashes, known: Hashes, *, block: int = _BLOCK
) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    """Find for every hash the nearest of others.

    Every pair is compared, a block at a time. One core took 1 to 2 ns a pair: 100,000 against a million are two to four
    minutes, and never more memory than a block or one row of pairs needs.

    Args:
        wanted: (n,) uint64.
        known: (m,) uint64.
        block: Pairs compared at a time. Changes memory alone.

    Returns:
        (n,) place in ``known``, the first of those that are equally near, and (n,) Hamming distance in bits. Without
        any known hash: place -1 and distance 65.
    """
    place, distance = np.full(len(wanted), -1, dtype=np.int64), np.full(len(wanted), _BITS + 1, dtype=np.int32)
    if not len(known):
        return place, distance
    step = max(1, block // len(known))
    for start in range(0, len(wanted), step):
        part = slice(start, start + step)
        apart = np.bitwise_count(wanted[part, None] ^ known)
        place[part] = apart.argmin(axis=1)
        distance[part] = apart[np.arange(len(apart)), place[part]]
    return place, distance
