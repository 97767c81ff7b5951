"""Pictures for an engine that reads them by an image processor of its own."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from unime_kedro.mllm.images import open_picture, stream_images

if TYPE_CHECKING:
    from PIL.Image import Image

    from unime_kedro.mllm.adapters.base import BackboneAdapter, ProcessedImage


@dataclass(frozen=True)
class EnginePicture:
    """One picture.

    Attributes:
        image: RGB, already resized where the family allows it (:meth:`.BackboneAdapter.resized_picture`).
        key: Hash of the file's bytes, 32 hex digits. By it an engine knows the picture again without hashing its
            pixels: equal pictures under two names are encoded once.
    """

    image: Image
    key: str


class EnginePictures:
    """Pictures by file, the most recently used in memory.

    Args:
        adapter: The model, with or without weights.
        memory_gb: Pictures kept in memory, in GiB; others are read again.
        workers: Processes that prepare pictures ahead.
    """

    def __init__(self, adapter: BackboneAdapter, memory_gb: float, workers: int = 0) -> None:
        self.adapter, self.workers = adapter, workers
        self._budget, self._used = memory_gb * 2**30, 0
        self._memory: OrderedDict[Path, EnginePicture] = OrderedDict()
        self._grids: dict[Path, tuple[np.ndarray, int]] = {}
        self._stream: Iterator[tuple[Path, ProcessedImage]] | None = None
        self.prepared = 0

    def expect(self, files: Sequence[Path]) -> None:
        """Announce the pictures to come, in the order in which they will be needed for the first time."""
        self._stream = stream_images(self.adapter, list(dict.fromkeys(files)), self.workers) if self.workers else None

    def grid(self, file: Path) -> tuple[np.ndarray, int]:
        """Return what the family must know of a picture's shape (3,), and its number of visual tokens."""
        if file not in self._grids:
            self[file]
        return self._grids[file]

    def __getitem__(self, file: Path) -> EnginePicture:
        """Return a picture.

        Raises:
            DataError: If it cannot be read.
        """
        if file in self._memory:
            self._memory.move_to_end(file)
            return self._memory[file]
        return self._keep(file, self._processed(file))

    def _processed(self, file: Path) -> ProcessedImage:
        if self._stream is not None:
            for found, image in self._stream:
                if found == file:
                    return image
                self._keep(found, image)
            self._stream = None
        return next(stream_images(self.adapter, [file], 0))[1]

    def _keep(self, file: Path, processed: ProcessedImage) -> EnginePicture:
        self._grids[file] = (processed.grid, processed.n_tokens)
        self.prepared += 1
        image = self.adapter.resized_picture(processed)
        with file.open("rb") as stream:
            key = hashlib.file_digest(stream, lambda: hashlib.blake2b(digest_size=16)).hexdigest()
        picture = EnginePicture(open_picture(file) if image is None else image, key)
        self._memory[file] = picture
        self._used += _bytes(picture)
        while self._used > self._budget and len(self._memory) > 1:
            _, old = self._memory.popitem(last=False)
            self._used -= _bytes(old)
        return picture


def _bytes(picture: EnginePicture) -> int:
    width, height = picture.image.size
    return 3 * width * height
