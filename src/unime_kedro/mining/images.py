"""Reading the image files of a corpus once each: are they there, can they be decoded, what is in them?

Kept free of table libraries: worker processes are started anew and import this module alone.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
import stat
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Literal, NamedTuple

from unime_kedro.errors import DataError
from unime_kedro.progress import Progress
from unime_kedro.progress import progress as show_progress

#: how a step announces its progress: ``(description, total, unit) -> context with advance(n)``
ProgressFactory = Callable[[str, int, str], AbstractContextManager[Progress]]
CheckImages = Literal["full", "header"]

#: below this many images, starting worker processes costs more than it saves
MANY_IMAGES = 2000
MAX_WORKERS = 8
#: longest side over shortest side; the image processor of Qwen2-VL refuses pictures beyond it
MAX_ASPECT = 200
_CHUNK = 64

#: raster formats only: Pillow would hand an EPS file to an external interpreter
FORMATS = ("JPEG", "MPO", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "AVIF", "JPEG2000")


class ImageFact(NamedTuple):
    """What is known of one image path.

    Attributes:
        path: The path as the corpus gives it.
        content_hash: Hash of the file's bytes (32 hex digits), "" when there is a problem.
        problem: "", or ``image_outside_root``, ``image_missing``, ``image_undecodable``, ``image_too_large``,
            ``image_too_narrow``.
        detail: What exactly is wrong, in words.
    """

    path: str
    content_hash: str
    problem: str = ""
    detail: str = ""


def hash_bytes(*parts: bytes) -> str:
    """Return the BLAKE2b-128 hash of the joined parts as 32 hex digits."""
    digest = hashlib.blake2b(digest_size=16)
    for part in parts:
        digest.update(part)
    return digest.hexdigest()


def read_images(
    root: str | Path,
    paths: Sequence[str],
    check: CheckImages,
    workers: int = 0,
    progress: ProgressFactory = show_progress,
) -> list[ImageFact]:
    """Read every image once: hash its bytes and see whether it can be decoded.

    Args:
        root: Folder that the paths are relative to.
        paths: Distinct relative paths.
        check: ``full`` decodes every pixel and so finds truncated files; ``header`` stops after the header.
        workers: Worker processes; 1 reads in this process, 0 chooses by the number of images and cores.
        progress: How progress is shown.

    Returns:
        One fact per path, in the order of ``paths``, the same for any number of workers.

    Raises:
        DataError: When a worker process dies.
    """
    chunks = [paths[start : start + _CHUNK] for start in range(0, len(paths), _CHUNK)]
    read_chunk = partial(_read_chunk, os.path.realpath(root), check)
    processes = min(workers or choose_workers(len(paths)), len(chunks))
    facts: list[ImageFact] = []
    with progress("reading images", len(paths), "images") as bar:
        for part in _map(read_chunk, chunks, processes):
            facts += part
            bar.advance(len(part))
    return facts


def choose_workers(images: int) -> int:
    """Return how many processes to use for so many images: 1 (this one) for few, else one per core, 8 at most."""
    if images < MANY_IMAGES:
        return 1
    # the cores this process may use, which in containers and batch jobs are fewer than the machine has
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores, MAX_WORKERS)


def _map(
    read_chunk: Callable[[Sequence[str]], list[ImageFact]], chunks: list[Sequence[str]], processes: int
) -> Iterator[list[ImageFact]]:
    if processes <= 1:
        yield from map(read_chunk, chunks)
        return
    import multiprocessing

    # spawn: a forked child would inherit the locks of threads that do not exist in it (polars, OpenMP)
    pool = ProcessPoolExecutor(processes, mp_context=multiprocessing.get_context("spawn"))
    try:
        yield from pool.map(read_chunk, chunks)
    except BrokenProcessPool as error:
        raise DataError(
            "A process that reads images died, probably for want of memory. Set ingest.workers to 1 to read them one "
            "after the other, or ingest.check_images to header."
        ) from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _read_chunk(root: str, check: CheckImages, paths: Sequence[str]) -> list[ImageFact]:
    return [read_image(root, path, check) for path in paths]


def read_image(root: str, path: str, check: CheckImages) -> ImageFact:
    """Check and hash one image; ``root`` is a resolved folder (no symbolic links in it)."""
    try:
        outside = _outside(root, path)
        if outside:
            return ImageFact(path, "", "image_outside_root", outside)
        data = _read_file(os.path.join(root, path))
    except (OSError, ValueError) as error:  # ValueError: a path that no file can have, such as one with a NUL
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        return ImageFact(path, "", "image_missing", reason)
    problem, detail = _decode(data, check)
    return ImageFact(path, "" if problem else hash_bytes(data), problem, detail)


def _outside(root: str, path: str) -> str:
    """Return how a path leaves the image root, or "" when it stays inside."""
    if os.path.isabs(path):
        return "an absolute path"
    if ".." in re.split(r"[/\\]", path):
        return "a path with .."
    real = os.path.realpath(os.path.join(root, path))
    if os.path.commonpath([root, real]) != root:
        return f"a symbolic link to {real}"
    return ""


def _read_file(path: str) -> bytes:
    if not stat.S_ISREG(os.stat(path).st_mode):  # reading a pipe or a device could block for ever
        raise ValueError("not a regular file")
    with open(path, "rb") as file:
        return file.read()


def _decode(data: bytes, check: CheckImages) -> tuple[str, str]:
    """Return ``(problem, detail)``, both "" for a sound image."""
    from PIL import Image, UnidentifiedImageError

    Image.init()  # open() knows only the formats that are registered, and stumbles over others
    formats = [name for name in FORMATS if name in Image.OPEN]
    try:
        with warnings.catch_warnings():
            # remarks on metadata and palettes; also those on half-size decompression bombs, which are still decoded
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(data), formats=formats) as image:
                width, height = image.size
                image.load() if check == "full" else image.verify()
    except UnidentifiedImageError:
        return "image_undecodable", f"not an image in a known format ({', '.join(formats)})"
    except Image.DecompressionBombError as error:
        return "image_too_large", str(error)
    except MemoryError:
        return "image_too_large", "not enough memory to decode it"
    except Exception as error:  # Pillow's decoders raise nearly every built-in exception on damaged files
        return "image_undecodable", f"{type(error).__name__}: {error}"
    if max(width, height) > MAX_ASPECT * min(width, height):
        return "image_too_narrow", f"{width} x {height}, one side more than {MAX_ASPECT} times the other"
    return "", ""
