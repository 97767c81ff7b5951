"""What the embedder and the judge need of a backbone, whatever its family."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

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
            batches of pictures wait in memory, and travel between processes. Where a tower reads whole tiles
            (LLaVA-OneVision, InternVL) a tile stands in the place of a patch.
        grid: (3,) int64, what else the family must know of the picture's shape. Qwen: frames, rows and columns of
            patches; of tiles: their number, and the picture's own height and width in pixels.
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


class ImageWorker(ABC):
    """The part of an adapter that travels to worker processes: its image processor, without the model."""

    @staticmethod
    def of(adapter: BackboneAdapter) -> ImageWorker:
        """Return the picklable part of ``adapter``."""
        return adapter.image_worker()

    @abstractmethod
    def process_image(self, image: Image) -> ProcessedImage:
        """Resize one RGB picture and cut it as the vision tower wants it."""


class BackboneAdapter(ABC):
    """A loaded multimodal LLM behind one interface.

    Attributes:
        architectures: ``model_type`` in config.json -> class in transformers, of all models that the adapter loads.
            The registry finds an adapter by them; empty in classes that only others are built on.
        vision_parts: Names, below ``model.model``, of everything that turns pictures into visual tokens.
        idle_parts: Names, below ``model.model``, of what takes no part in the forward pass, and so cannot train.
        reads_tiles: Whether the vision tower reads square tiles of one size (and not patches of a whole picture).
        model: The transformers model, in evaluation mode.
        tokenizer: Its tokenizer.
        image_processor: Its image processor (the one that needs PIL only).
        image_id: Id of the image token, which stands once per visual token.
        fingerprint: Hash or revision that changes whenever the model's outputs could.
    """

    architectures: ClassVar[Mapping[str, str]] = {}
    vision_parts: ClassVar[tuple[str, ...]] = ("visual",)
    idle_parts: ClassVar[tuple[str, ...]] = ()
    reads_tiles: ClassVar[bool] = False

    model: Any
    tokenizer: Any
    image_processor: Any
    image_id: int
    fingerprint: str

    @classmethod
    @abstractmethod
    def load(cls, source: str | Path, spec: ModelSpec, config: Any) -> BackboneAdapter:
        """Load weights, tokenizer and image processor."""

    @classmethod
    @abstractmethod
    def read_image_processor(cls, source: str | Path, spec: ModelSpec) -> Any:
        """Load the image processor of a folder or hub id, with the limits of ``spec`` on a picture's area.

        Raises:
            ModelError: If the family cannot keep to these limits.
        """

    def use_image_processor(self, image_processor: Any) -> None:
        """Take another image processor of the same family, as a LoRA adapter's folder may bring one."""
        self.image_processor = image_processor

    @property
    def image_size(self) -> Any:
        """Return everything in the image processor that decides how large a picture becomes; part of identities."""
        return getattr(self.image_processor, "size", None)

    @abstractmethod
    def image_worker(self) -> ImageWorker:
        """Return the picklable part that processes pictures."""

    def process_image(self, image: Image) -> ProcessedImage:
        """Resize one RGB picture and cut it as the vision tower wants it."""
        return self.image_worker().process_image(image)

    def resized_picture(self, image: ProcessedImage) -> Image | None:
        """Return a processed picture as a picture again, resized, for an engine that has an image processor of its own.

        That one then finds nothing to resize, and so cannot resize otherwise. None where the family cuts pictures into
        tiles: there the engine gets the picture as it is.
        """
        return None

    def vision_parameters(self) -> Iterator[torch.nn.Parameter]:
        """Yield the parameters of :attr:`vision_parts`."""
        for name, parameter in self.model.model.named_parameters():
            if name.split(".", 1)[0] in self.vision_parts:
                yield parameter

    def without_special_tokens(self, text: str) -> str:
        """Take out of a data set's words what this tokenizer would read as a control token, ``<|name|>`` aside.

        Those are taken out by :func:`.prompts.with_placeholder`, whatever the model.
        """
        return text

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
