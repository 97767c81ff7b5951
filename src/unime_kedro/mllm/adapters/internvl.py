"""InternVL3 and InternVL 2.5 in transformers' own layout (hub ids that end in ``-hf``).

A picture is resized to the grid of at most twelve tiles whose shape is nearest to its own, and cut; with more than one
tile a small copy of the whole follows. Each tile becomes ``image_seq_length`` visual tokens (256 of InternVL3).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from unime_kedro.errors import ModelError
from unime_kedro.mllm.adapters.base import ProcessedImage
from unime_kedro.mllm.adapters.tiles import TileAdapter, TileWorker
from unime_kedro.mllm.content import ModelSpec

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image


class InternVLWorker(TileWorker):
    """Cuts pictures into tiles.

    Args:
        image_processor: ``GotOcr2ImageProcessorPil``, which InternVL shares with another model.
        tokens_per_tile: Visual tokens that a tile becomes.
    """

    def __init__(self, image_processor: Any, tokens_per_tile: int) -> None:
        super().__init__(image_processor)
        self.tokens_per_tile = tokens_per_tile

    def tiles(self, image: Image) -> np.ndarray:
        """Return the tiles of a picture; see :class:`TileWorker`."""
        # The published image processors say crop_to_patches: false; transformers' InternVLProcessor sets it all the
        # same, as the model was trained.
        out = self.image_processor(
            images=[image], return_tensors="np", do_rescale=False, do_normalize=False, crop_to_patches=True
        )
        return np.asarray(out["pixel_values"])

    def count_tokens(self, grid: np.ndarray) -> int:
        """Return how many visual tokens a picture becomes; see :class:`TileWorker`."""
        return int(grid[0]) * self.tokens_per_tile


class InternVLAdapter(TileAdapter):
    """InternVL of any size, from a folder or the hub."""

    architectures: ClassVar[Mapping[str, str]] = {"internvl": "InternVLForConditionalGeneration"}
    image_block = "<img><IMG_CONTEXT></img>"

    @classmethod
    def read_image_processor(cls, source: str | Path, spec: ModelSpec) -> Any:
        """Load the image processor; limits of the area become limits of the number of tiles."""
        from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import GotOcr2ImageProcessorPil

        found = GotOcr2ImageProcessorPil.from_pretrained(source, revision=spec.revision)
        tile = int(found.size["height"]) * int(found.size["width"])
        if spec.min_pixels is not None:
            found.min_patches = -(-spec.min_pixels // tile)
        if spec.max_pixels is not None:
            found.max_patches = spec.max_pixels // tile
        if not 1 <= found.min_patches <= found.max_patches:
            raise ModelError(
                f"min_pixels {spec.min_pixels} and max_pixels {spec.max_pixels} allow {found.min_patches} to "
                f"{found.max_patches} tiles of {tile} pixels; model '{spec.model}' needs room for one: max_pixels of "
                f"{tile} or more, and not below min_pixels."
            )
        return found

    @property
    def image_size(self) -> Any:
        """Return the size of a tile, and how many there may be."""
        processor = self.image_processor
        return {"size": processor.size, "min_patches": processor.min_patches, "max_patches": processor.max_patches}

    def image_worker(self) -> InternVLWorker:
        """Return the part that cuts pictures into tiles."""
        config = self.model.config
        sides = zip(config.vision_config.image_size, config.vision_config.patch_size, strict=True)
        rows, columns = (int(side // patch * config.downsample_ratio) for side, patch in sides)
        return InternVLWorker(self.image_processor, rows * columns)

    def image_features(self, images: list[ProcessedImage]) -> list[torch.Tensor]:
        """Run the vision tower; see :class:`BackboneAdapter`."""
        found = self._core.get_image_features(self._normalised(images), return_dict=True).pooler_output
        parts = found.split([int(image.grid[0]) for image in images])
        return [part.flatten(0, 1) for part in parts]
