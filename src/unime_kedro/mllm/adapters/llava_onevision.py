"""LLaVA-OneVision in transformers' layout (``llava-hf/llava-onevision-qwen2-*-hf``).

"Any resolution": of a list of resolutions the one that fits a picture best is taken; the picture is resized into it,
cut into tiles, and its small copy goes in front. The tiles' features are put together to one map again, what only
padding shows is cut off, a map of more than the area of nine tiles is made smaller, and a learned vector
(``image_newline``) ends every row. The number of visual tokens follows from the picture's height and width.
"""

from __future__ import annotations

import math
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

#: a map may be larger than its limit by this factor along a side before it is made smaller (as in transformers)
_TOLERANCE = 1.1


class LlavaOnevisionWorker(TileWorker):
    """Cuts pictures into tiles.

    Args:
        image_processor: ``LlavaOnevisionImageProcessorPil``.
        side: Patches along a side of a tile, each of them a visual token.
        most_tiles: Area of the largest map, in tiles.
    """

    def __init__(self, image_processor: Any, side: int, most_tiles: int) -> None:
        super().__init__(image_processor)
        self.side, self.most_tiles = side, most_tiles

    def tiles(self, image: Image) -> np.ndarray:
        """Return the tiles of a picture; see :class:`TileWorker`."""
        out = self.image_processor(images=[image], return_tensors="np", do_rescale=False, do_normalize=False)
        return np.asarray(out["pixel_values"])[0]

    def count_tokens(self, grid: np.ndarray) -> int:
        """Return how many visual tokens a picture becomes; see :class:`TileWorker`."""
        rows, columns = self._map(int(grid[1]), int(grid[2]))
        ratio = math.sqrt(rows * columns / (self.most_tiles * self.side**2))
        if ratio > _TOLERANCE:
            rows, columns = int(rows // ratio), int(columns // ratio)
        return self.side**2 + rows * (columns + 1)

    def _map(self, height: int, width: int) -> tuple[int, int]:
        """Return rows and columns of the map of all tiles, without what only padding shows."""
        from transformers.image_processing_utils import select_best_resolution

        processor = self.image_processor
        best = select_best_resolution((height, width), processor.image_grid_pinpoints)
        rows, columns = (self.side * (length // processor.size["height"]) for length in best)
        if width / height > columns / rows:
            rows -= (rows - _rounded_down(height * (columns / width))) // 2 * 2
        else:
            columns -= (columns - _rounded_down(width * (rows / height))) // 2 * 2
        return rows, columns


def _rounded_down(length: float) -> int:
    """Drop what is behind the point; what lacks less than 1e-7 to a whole number is one (as in transformers)."""
    return int(round(length, 7))


class LlavaOnevisionAdapter(TileAdapter):
    """LLaVA-OneVision of any size, from a folder or the hub."""

    architectures: ClassVar[Mapping[str, str]] = {"llava_onevision": "LlavaOnevisionForConditionalGeneration"}
    image_block = "<image>"
    # features are taken in front of SigLIP's last norm
    idle_parts = ("vision_tower.post_layernorm",)

    @classmethod
    def read_image_processor(cls, source: str | Path, spec: ModelSpec) -> Any:
        """Load the image processor; limits of the area choose among its resolutions."""
        from transformers.models.llava_onevision.image_processing_pil_llava_onevision import (
            LlavaOnevisionImageProcessorPil,
        )

        found = LlavaOnevisionImageProcessorPil.from_pretrained(source, revision=spec.revision)
        low, high = spec.min_pixels or 0, spec.max_pixels or math.inf
        areas = [height * width for height, width in found.image_grid_pinpoints]
        kept = [r for r, area in zip(found.image_grid_pinpoints, areas, strict=True) if low <= area <= high]
        if not kept:
            raise ModelError(
                f"model '{spec.model}' has no resolution between min_pixels {spec.min_pixels} and max_pixels "
                f"{spec.max_pixels}; it has {len(areas)} of {min(areas)} to {max(areas)} pixels."
            )
        found.image_grid_pinpoints = [list(resolution) for resolution in kept]
        return found

    def use_image_processor(self, image_processor: Any) -> None:
        """Take another image processor, and tell the model, which puts the tiles together again, its resolutions."""
        super().use_image_processor(image_processor)
        self.model.config.image_grid_pinpoints = [list(r) for r in image_processor.image_grid_pinpoints]

    @property
    def image_size(self) -> Any:
        """Return the size of a tile, and the resolutions."""
        return {"size": self.image_processor.size, "image_grid_pinpoints": self.image_processor.image_grid_pinpoints}

    def image_worker(self) -> LlavaOnevisionWorker:
        """Return the part that cuts pictures into tiles."""
        vision = self.model.config.vision_config
        most_tiles = int(self.model.config.vision_aspect_ratio.removeprefix("anyres_max_"))
        return LlavaOnevisionWorker(self.image_processor, vision.image_size // vision.patch_size, most_tiles)

    def image_features(self, images: list[ProcessedImage]) -> list[torch.Tensor]:
        """Run the vision tower; see :class:`BackboneAdapter`."""
        import torch

        sizes = torch.from_numpy(np.stack([image.grid[1:] for image in images]))
        found = self._core.get_image_features(self._normalised(images), sizes, return_dict=True)
        return list(found.pooler_output)
