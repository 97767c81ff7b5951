"""Families whose vision tower reads square tiles of one size: a picture is cut into some, and stands there whole, too.

``min_pixels`` and ``max_pixels`` are limits of the area that a picture has in tiles, without the small one that shows
all of it: with tiles of 448 x 448, ``max_pixels: 602112`` allows three.
"""

from __future__ import annotations

from abc import abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from unime_kedro.mllm.adapters.base import ImageWorker, ProcessedImage
from unime_kedro.mllm.adapters.transformers_adapter import TransformersAdapter

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image


class TileWorker(ImageWorker):
    """Cuts pictures into tiles.

    Args:
        image_processor: The family's image processor, the one that needs PIL only.
    """

    def __init__(self, image_processor: Any) -> None:
        self.image_processor = image_processor

    def process_image(self, image: Image) -> ProcessedImage:
        """Resize one RGB picture and cut it into tiles."""
        tiles = self.tiles(image).astype(np.uint8)
        grid = np.array([len(tiles), image.height, image.width], dtype=np.int64)
        pixels = np.ascontiguousarray(tiles.reshape(len(tiles), 3, -1))
        return ProcessedImage(pixels, grid, self.count_tokens(grid))

    @abstractmethod
    def tiles(self, image: Image) -> np.ndarray:
        """Return the tiles of a picture, (tiles, 3, side, side), values from 0 to 255."""

    @abstractmethod
    def count_tokens(self, grid: np.ndarray) -> int:
        """Return how many visual tokens a picture becomes; ``grid``: tiles, height and width."""


class TileAdapter(TransformersAdapter):
    """What these families share: ordinary positions, tiles to pixels, the processor's chat template."""

    vision_parts = ("vision_tower", "multi_modal_projector", "image_newline")
    reads_tiles = True

    @classmethod
    def read_tokenizer(cls, source: str | Path, revision: str | None) -> Any:
        """Load the tokenizer with the processor's chat template.

        These models' published folders keep it in a file of its own (``chat_template.json`` or ``.jinja``); that of
        the tokenizer, where there is one, is of the language model before it learned to see.
        """
        from transformers import ProcessorMixin

        tokenizer = super().read_tokenizer(source, revision)
        template = ProcessorMixin.get_processor_dict(str(source), revision=revision)[0].get("chat_template")
        tokenizer.chat_template = template or tokenizer.chat_template
        return tokenizer

    def positions(self, ids: np.ndarray, image: ProcessedImage | None) -> tuple[np.ndarray, int]:
        """Return one axis that counts tokens, visual ones like words; see :class:`TransformersAdapter`."""
        return np.arange(len(ids))[None], len(ids)

    def _normalised(self, images: list[ProcessedImage]) -> torch.Tensor:
        """Return the tiles of all pictures, (tiles, 3, side, side) float32, as the image processor gives them."""
        import torch

        processor = self.image_processor
        pixels = torch.from_numpy(np.concatenate([image.pixels for image in images])).to(self.device)
        mean, std = (
            torch.tensor(values, device=pixels.device)[:, None]
            for values in (processor.image_mean, processor.image_std)
        )
        side = processor.size["height"]
        return ((pixels.float() * processor.rescale_factor - mean) / std).unflatten(-1, (side, -1))
