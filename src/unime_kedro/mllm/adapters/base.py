"""What the embedder and the judge need of a backbone, whatever its family."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from pathlib import Path

    import torch
    from PIL.Image import Image

    from unime_kedro.mllm.content import ModelSpec


@dataclass(frozen=True)
class ProcessedImage:
    """A picture as the vision tower wants it.

    Attributes:
        pixels: (patches, 3, values) uint8: resized, in the order of the vision tower, not normalised yet. A still
            picture is one frame, however many the tower wants. An eighth of the bytes of what the tower reads: whole
            batches of pictures wait in memory, and travel between processes.
        grid: (3,) int64: frames, rows and columns of patches.
        n_tokens: Visual tokens it becomes in the language model.
    """

    pixels: np.ndarray
    grid: np.ndarray
    n_tokens: int


@dataclass(frozen=True)
class Piece:
    """Tokens of a piece of prompt, visual tokens expanded.

    Attributes:
        ids: (length,) int64; the image token's id repeated once per visual token.
        positions: (axes, length) int64, counted from 0 at the start of the piece.
        span: First position behind the piece.
        n_image_tokens: How many of the ids are visual tokens.
    """

    ids: np.ndarray
    positions: np.ndarray
    span: int
    n_image_tokens: int


class ImageWorker:
    """The part of an adapter that travels to worker processes: its image processor, without the model."""

    def __init__(self, image_processor: Any, merge: int) -> None:
        self.image_processor, self.merge = image_processor, merge

    @classmethod
    def of(cls, adapter: BackboneAdapter) -> ImageWorker:
        """Return the picklable part of ``adapter``."""
        return cls(adapter.image_processor, adapter.merge)

    def process_image(self, image: Image) -> ProcessedImage:
        """Resize one RGB picture and cut it into patches."""
        out = self.image_processor(images=[image], return_tensors="np", do_rescale=False, do_normalize=False)
        grid = np.asarray(out["image_grid_thw"])[0].astype(np.int64)
        patches = np.asarray(out["pixel_values"])
        frames = patches.reshape(len(patches), 3, self.image_processor.temporal_patch_size, -1)
        pixels = frames[:, :, 0].astype(np.uint8)
        return ProcessedImage(np.ascontiguousarray(pixels), grid, int(grid.prod()) // self.merge**2)


class BackboneAdapter(ABC):
    """A loaded multimodal LLM behind one interface.

    Attributes:
        model: The transformers model, in evaluation mode.
        tokenizer: Its tokenizer.
        image_processor: Its image processor (the one that needs PIL only).
        merge: Patches per visual token along one side.
        image_id: Id of the image token, which stands once per visual token.
        fingerprint: Hash or revision that changes whenever the model's outputs could.
    """

    model: Any
    tokenizer: Any
    image_processor: Any
    merge: int
    image_id: int
    fingerprint: str

    @classmethod
    @abstractmethod
    def load(cls, source: str | Path, spec: ModelSpec, config: Any) -> BackboneAdapter:
        """Load weights, tokenizer and image processor."""

    def process_image(self, image: Image) -> ProcessedImage:
        """Resize one RGB picture and cut it into patches."""
        return ImageWorker.of(self).process_image(image)

    @abstractmethod
    def encode(self, text: str, image: ProcessedImage | None) -> Piece:
        """Tokenize a piece of prompt; ``<|image_1|>`` in it becomes the picture's visual tokens."""

    @abstractmethod
    def chat(self, text: str) -> str:
        """Put ``text`` into the model's own chat template as one user turn, ready for the answer."""

    @abstractmethod
    def image_features(self, images: list[ProcessedImage]) -> list[torch.Tensor]:
        """Run the vision tower; one (n_tokens, hidden) tensor per picture."""

    @abstractmethod
    def embed_tokens(self, ids: torch.Tensor, features: torch.Tensor | None) -> torch.Tensor:
        """Return input embeddings (batch, length, hidden), ``features`` in the places of image tokens, in order."""

    @abstractmethod
    def decode(
        self, inputs: torch.Tensor, positions: torch.Tensor, mask: torch.Tensor | None, cache: Any | None
    ) -> torch.Tensor:
        """Run the language model; last-layer hidden states (batch, length, hidden).

        Args:
            inputs: (batch, length, hidden) input embeddings.
            positions: (axes, batch, length) positions.
            mask: (batch, cached + length), 1 for real tokens; None when there is no padding.
            cache: Key-value cache that is read and extended, or None.
        """

    @abstractmethod
    def new_cache(self) -> Any:
        """Return an empty key-value cache."""

    @abstractmethod
    def expand_cache(self, cache: Any, n: int) -> Any:
        """Return a cache that shows the one row of ``cache`` to ``n`` rows, without copying it."""

    @abstractmethod
    def answer_weights(self, words: tuple[str, ...]) -> torch.Tensor:
        """Return the output head's rows of single-token ``words``, (words, hidden) float32.

        Raises:
            ModelError: If a word is not one token.
        """

    @property
    @abstractmethod
    def device(self) -> torch.device:
        """Where the model is."""
