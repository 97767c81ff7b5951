"""From rows to batches: equal items once, longest first, cut into chunks of one forward pass each."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from unime_kedro.learning.rows import TrainingRows
from unime_kedro.mllm.content import Content
from unime_kedro.mllm.images import read_image

if TYPE_CHECKING:
    from pathlib import Path

    from unime_kedro.mllm.adapters.base import Piece, ProcessedImage
    from unime_kedro.mllm.embedding import Embedder


@dataclass(frozen=True)
class Chunk:
    """What goes through the model in one pass.

    Attributes:
        pieces: Tokens of each content.
        files: The picture of each content, None for words alone.
        images: The processed pictures of ``files``.
    """

    pieces: list[Piece]
    files: list[Path | None]
    images: dict[Path, ProcessedImage]


@dataclass(frozen=True)
class Batch:
    """One step's queries of one process.

    Attributes:
        query_ids: (n,) int64.
        item_ids: (n, k+2) int64: query, positive, negatives.
        scores: (n, k+1) float32: the judge's scores of positive and negatives.
        chunks: The distinct contents.
        places: (n, k+2) int64: where in all chunks, one after the other, each item's content is.
    """

    query_ids: NDArray[np.int64]
    item_ids: NDArray[np.int64]
    scores: NDArray[np.float32]
    chunks: list[Chunk]
    places: NDArray[np.int64]

    @property
    def distinct(self) -> int:
        """How many contents are encoded, of ``places.size``."""
        return sum(len(chunk.pieces) for chunk in self.chunks)


class Collator:
    """Makes batches; a ``collate_fn`` of torch's DataLoader, also in worker processes.

    Args:
        embedder: Whose tokenizer, image processor and limits are used; its model is not.
        rows: The training queries.
        contents: item_id -> content, for all items of ``rows``.
        chunk: Contents per forward pass.
        cache_gb: Prepared contents kept for the next time they come, in GiB.
    """

    def __init__(
        self, embedder: Embedder, rows: TrainingRows, contents: dict[int, Content], *, chunk: int, cache_gb: float
    ) -> None:
        self._embedder, self._rows, self._contents, self._chunk = embedder, rows, contents, chunk
        self._prepared: OrderedDict[int, tuple[Piece, ProcessedImage | None]] = OrderedDict()
        self._budget, self._used = cache_gb * 2**30, 0

    def __call__(self, rows: Sequence[int]) -> Batch:
        """Return the batch of these rows, in their order."""
        at = np.asarray(rows, dtype=np.int64)
        item_ids = self._rows.item_ids[at]
        distinct, inverse = np.unique(item_ids, return_inverse=True)
        prepared = [self._prepare(int(item)) for item in distinct]
        # like lengths together: what is shorter than the longest of its chunk is padded
        order = np.argsort([-len(piece.ids) for piece, _ in prepared], kind="stable")
        place = np.empty(len(order), dtype=np.int64)
        place[order] = np.arange(len(order))
        chunks = [
            self._assemble(
                [(self._contents[int(distinct[i])], *prepared[i]) for i in order[start : start + self._chunk]]
            )
            for start in range(0, len(order), self._chunk)
        ]
        places = place[inverse].reshape(item_ids.shape)
        return Batch(self._rows.query_ids[at], item_ids, self._rows.scores[at], chunks, places)

    def _assemble(self, found: list[tuple[Content, Piece, ProcessedImage | None]]) -> Chunk:
        images = {
            content.image: image for content, _, image in found if content.image is not None and image is not None
        }
        return Chunk([piece for _, piece, _ in found], [content.image for content, _, _ in found], images)

    def _prepare(self, item: int) -> tuple[Piece, ProcessedImage | None]:
        """Read, resize and tokenize an item; the least recently used of those kept make room."""
        if item in self._prepared:
            self._prepared.move_to_end(item)
            return self._prepared[item]
        content = self._contents[item]
        image = None if content.image is None else read_image(self._embedder.adapter, content.image)
        piece = self._embedder.encode(content, image)
        self._prepared[item] = piece, image
        self._used += _size(piece, image)
        while self._used > self._budget and self._prepared:
            self._used -= _size(*self._prepared.popitem(last=False)[1])
        return piece, image


def _size(piece: Piece, image: ProcessedImage | None) -> int:
    """Bytes of a prepared content, without Python's own."""
    return int(piece.ids.nbytes + piece.positions.nbytes) + (0 if image is None else int(image.pixels.nbytes))
