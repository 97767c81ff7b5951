"""Embed contents: hidden state of the last real token of the last layer, L2-normalised (UniME-V2, VLM2Vec)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from unime_kedro.errors import ModelError
from unime_kedro.mllm.content import Content
from unime_kedro.mllm.images import read_image, stream_images
from unime_kedro.mllm.truncation import fit_text

if TYPE_CHECKING:
    from pathlib import Path

    import torch

    from unime_kedro.mllm.adapters.base import BackboneAdapter, Piece, ProcessedImage


class Embedder:
    """Turns contents into unit vectors.

    Args:
        adapter: The model.
        prompt: ``plain`` puts an item's words to the model as they are (VLM2Vec); ``chat`` wraps them in the model's
            chat template.
        max_tokens: Longest input in tokens; longer ones lose words at the end.
        batch_tokens: Padded tokens per forward pass; does not change results beyond rounding (1e-6).
        workers: Processes that prepare pictures ahead.
    """

    def __init__(
        self, adapter: BackboneAdapter, *, prompt: str, max_tokens: int, batch_tokens: int, workers: int = 0
    ) -> None:
        self.adapter, self.prompt, self.max_tokens = adapter, prompt, max_tokens
        self.batch_tokens, self.workers = batch_tokens, workers
        self.truncated = 0
        self._stream: Iterator[tuple[Path, ProcessedImage]] = iter(())
        self._ahead: dict[Path, None] = {}
        self._overhead = len(adapter.encode(adapter.chat(""), None).ids) if prompt == "chat" else 0

    @property
    def dimension(self) -> int:
        """Length of a vector."""
        return int(self.adapter.model.config.get_text_config().hidden_size)

    def identity(self) -> dict[str, str | int]:
        """Return everything that the vectors depend on, besides the contents."""
        return {
            "model": self.adapter.fingerprint,
            "dtype": str(self.adapter.model.dtype),
            "prompt": self.prompt,
            "max_tokens": self.max_tokens,
            "image_size": str(self.adapter.image_size),
        }

    def embed(self, contents: Sequence[Content]) -> np.ndarray:
        """Embed contents.

        Args:
            contents: Words, pictures, or both.

        Returns:
            (n, dimension) float32, unit length, in the order of ``contents``.

        Raises:
            ModelError: If the model gives something that is not finite.
            DataError: If a picture cannot be read.
        """
        import torch

        out = np.empty((len(contents), self.dimension), dtype=np.float32)
        images = self._images(list(dict.fromkeys(c.image for c in contents if c.image is not None)))
        pieces = [self.encode(c, images[c.image] if c.image is not None else None) for c in contents]
        order = np.argsort([-len(p.ids) for p in pieces], kind="stable")
        with torch.inference_mode():
            for batch in self._batches(order, pieces):
                out[batch] = self._forward([contents[i] for i in batch], [pieces[i] for i in batch], images)
        if not np.isfinite(out).all():
            row = int(np.flatnonzero(~np.isfinite(out).all(axis=1))[0])
            raise ModelError(
                f"the embedder gave numbers that are not finite for {contents[row]}; try dtype: float32 or bfloat16."
            )
        return out

    def expect(self, contents: Iterable[Content]) -> None:
        """Announce all contents to come, in order, so that worker processes start once and prepare pictures ahead."""
        if self.workers:
            self._ahead = dict.fromkeys(c.image for c in contents if c.image is not None)
            self._stream = stream_images(self.adapter, list(self._ahead), self.workers)

    def _images(self, files: list[Path]) -> dict[Path, ProcessedImage]:
        """Return processed pictures; those announced and not yet taken come from the workers, in their order."""
        found: dict[Path, ProcessedImage] = {}
        for file in files:
            while file in self._ahead:
                ready, image = next(self._stream)
                del self._ahead[ready]
                found[ready] = image
            if file not in found:
                found[file] = read_image(self.adapter, file)
        return found

    def encode(self, content: Content, image: ProcessedImage | None) -> Piece:
        """Tokenize a content as it is embedded; counts in ``truncated`` when words had to be cut.

        Args:
            content: Words, a picture, or both.
            image: Its processed picture, None if it has none.
        """
        text, cut = fit_text(
            self.adapter,
            content.text,
            has_image=image is not None,
            n_image_tokens=image.n_tokens if image else 0,
            limit=self.max_tokens - self._overhead,
        )
        self.truncated += cut
        return self.adapter.encode(self.adapter.chat(text) if self.prompt == "chat" else text, image)

    def _batches(self, order: np.ndarray, pieces: list[Piece]) -> list[np.ndarray]:
        """Cut items, longest first, into batches of at most ``batch_tokens`` padded tokens."""
        batches, start = [], 0
        while start < len(order):
            size = max(1, self.batch_tokens // max(len(pieces[order[start]].ids), 1))
            batches.append(order[start : start + size])
            start += size
        return batches

    def _forward(self, contents: list[Content], pieces: list[Piece], images: dict[Path, ProcessedImage]) -> np.ndarray:
        import torch.nn.functional as F

        hidden = last_hidden(self.adapter, pieces, [c.image for c in contents], images)
        return F.normalize(hidden.float(), dim=-1).cpu().numpy()


def last_hidden(
    adapter: BackboneAdapter,
    pieces: Sequence[Piece],
    files: Sequence[Path | None],
    images: Mapping[Path, ProcessedImage],
    features_of: Callable[[list[Path], Mapping[Path, ProcessedImage]], list[torch.Tensor]] | None = None,
) -> torch.Tensor:
    """Run one batch through the model; with a graph where gradients are on.

    Args:
        adapter: The model.
        pieces: Tokens of each content.
        files: The picture of each content, None for words alone; a picture that stands there twice goes through the
            vision tower once.
        images: The processed pictures of ``files``.
        features_of: Gives the visual features of distinct pictures, (n_tokens, hidden) each; None for the vision tower.

    Returns:
        (n, dimension) hidden states of the last layer at each content's last real token, as the model gives them.
    """
    import torch

    ids, positions, mask = right_padded(pieces, axes=pieces[0].positions.shape[0])
    shown = [file for file in files if file is not None]
    features = None
    if distinct := list(dict.fromkeys(shown)):
        made = features_of(distinct, images) if features_of else adapter.image_features([images[f] for f in distinct])
        found = dict(zip(distinct, made, strict=True))
        features = torch.cat([found[f] for f in shown])
    inputs = adapter.embed_tokens(ids, features)
    hidden = adapter.decode(inputs, positions, None if bool(mask.all()) else mask, None)
    return hidden[torch.arange(len(pieces)), mask.sum(1).to(hidden.device) - 1]


def right_padded(pieces: Sequence[Piece], axes: int, start: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Put pieces into one right-padded batch.

    Args:
        pieces: Tokens and positions.
        axes: Position axes (3 for M-RoPE).
        start: Added to all positions: where a cached prefix ends.

    Returns:
        ids (n, length), positions (axes, n, length) and mask (n, length), int64 tensors.
    """
    import torch

    length = max(len(p.ids) for p in pieces)
    ids = np.zeros((len(pieces), length), dtype=np.int64)
    positions = np.zeros((axes, len(pieces), length), dtype=np.int64)
    mask = np.zeros((len(pieces), length), dtype=np.int64)
    for row, piece in enumerate(pieces):
        n = len(piece.ids)
        ids[row, :n], positions[:, row, :n], mask[row, :n] = piece.ids, piece.positions + start, 1
    return torch.from_numpy(ids), torch.from_numpy(positions), torch.from_numpy(mask)
