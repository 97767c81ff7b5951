"""From queries to batches of messages: tokenized, longest first, cut into chunks of one forward and backward pass."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from unime_kedro.learning.reranking.rows import Message, RerankingRows, messages_of
from unime_kedro.mllm.content import Content
from unime_kedro.mllm.images import read_image

if TYPE_CHECKING:
    from pathlib import Path

    from unime_kedro.learning.reranking.prompts import MessageEncoder
    from unime_kedro.mllm.adapters.base import BackboneAdapter, Piece, ProcessedImage


class Prepared(NamedTuple):
    """One message as the model reads it.

    Attributes:
        piece: Prompt and answer without its last token, which is no input.
        target: (tokens,) int64: the answer.
        files: The pictures in the order in which they are shown.
        listwise: Whether it is a listwise message.
    """

    piece: Piece
    target: NDArray[np.int64]
    files: list[Path]
    listwise: bool


@dataclass(frozen=True)
class Chunk:
    """What goes through the model in one pass: messages, longest first, and their pictures."""

    messages: list[Prepared]
    images: dict[Path, ProcessedImage]


@dataclass(frozen=True)
class Batch:
    """One step's queries of one process.

    Attributes:
        query_ids: (n,) int64.
        chunks: Their messages.
        pairwise: How many pairwise messages there are in all chunks.
        listwise: How many listwise ones.
    """

    query_ids: NDArray[np.int64]
    chunks: list[Chunk]
    pairwise: int
    listwise: int

    @property
    def tokens(self) -> int:
        """Tokens of all messages, visual ones included, without padding."""
        return sum(len(message.piece.ids) for chunk in self.chunks for message in chunk.messages)


class Collator:
    """Makes batches; a ``collate_fn`` of torch's DataLoader, also in worker processes.

    It is given numbers that mean a query and an epoch, see :func:`numbered`.

    Args:
        encoder: Tokenizes messages.
        rows: The training queries.
        contents: item_id -> content, for all items of ``rows``.
        pictures: Reads pictures.
        listwise: Whether listwise messages are made.
        chunk: Messages per pass.
        seed: Of lists and places of the positives.
        fewest: Negatives of the shortest lists.
    """

    def __init__(
        self,
        encoder: MessageEncoder,
        rows: RerankingRows,
        contents: Mapping[int, Content],
        pictures: Pictures,
        *,
        listwise: bool,
        chunk: int,
        seed: int,
        fewest: int,
    ) -> None:
        self._encoder, self._rows, self._contents, self._pictures = encoder, rows, contents, pictures
        self._listwise, self._chunk, self._seed, self._fewest = listwise, chunk, seed, fewest

    def __call__(self, numbers: Sequence[int]) -> Batch:
        """Return the batch of these queries."""
        images: dict[Path, ProcessedImage] = {}
        messages = [
            self.prepare(message, images)
            for number in numbers
            for message in self._messages(number)
            if self._listwise or not message.listwise
        ]
        # like lengths together: what is shorter than the longest of its group is padded
        order = sorted(range(len(messages)), key=lambda i: (-len(messages[i].piece.ids), i))
        chunks = [
            self._assemble([messages[i] for i in order[start : start + self._chunk]], images)
            for start in range(0, len(order), self._chunk)
        ]
        n_listwise = sum(message.listwise for message in messages)
        at = np.asarray(numbers, dtype=np.int64) % len(self._rows)
        return Batch(self._rows.query_ids[at], chunks, len(messages) - n_listwise, n_listwise)

    def _messages(self, number: int) -> list[Message]:
        epoch, row = divmod(number, len(self._rows))
        return messages_of(self._rows, row, epoch=epoch, seed=self._seed, fewest=self._fewest)

    def prepare(self, message: Message, images: dict[Path, ProcessedImage]) -> Prepared:
        """Read a message's pictures, into ``images``, and tokenize it."""
        sides = [self._contents[item] for item in (message.query, *message.candidates)]
        files = [side.image for side in sides if side.image is not None]
        images.update((file, self._pictures[file]) for file in files if file not in images)
        return self._encoder.prepare(message, sides, images)

    def _assemble(self, messages: list[Prepared], images: Mapping[Path, ProcessedImage]) -> Chunk:
        return Chunk(messages, {file: images[file] for message in messages for file in message.files})


def numbered(order: NDArray[np.int64], n: int) -> NDArray[np.int64]:
    """Turn the rows of every step into numbers that also say how often all queries came before.

    Args:
        order: (steps, batch) rows, as :func:`unime_kedro.learning.rows.batch_order` gives them.
        n: Number of queries.

    Returns:
        (steps, batch) int64, ``epoch * n + row``.
    """
    steps, batch = order.shape
    epochs = np.arange(steps, dtype=np.int64) // (n // batch)
    return order + n * epochs[:, None]


class Pictures:
    """Processed pictures, kept up to a budget; the least recently used make room.

    Args:
        adapter: Whose image processor is used.
        memory_gb: The budget in GiB.
    """

    def __init__(self, adapter: BackboneAdapter, memory_gb: float) -> None:
        self._adapter, self._budget, self._used = adapter, memory_gb * 2**30, 0
        self._kept: OrderedDict[Path, ProcessedImage] = OrderedDict()

    def __getitem__(self, file: Path) -> ProcessedImage:
        """Return a picture, read where it is not kept."""
        if file in self._kept:
            self._kept.move_to_end(file)
            return self._kept[file]
        image = read_image(self._adapter, file)
        self._kept[file] = image
        self._used += image.pixels.nbytes
        while self._used > self._budget and self._kept:
            self._used -= self._kept.popitem(last=False)[1].pixels.nbytes
        return image
