"""Qwen2-VL and Qwen2.5-VL."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from types import MethodType
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from unime_kedro.mllm.adapters import pixel_limits
from unime_kedro.mllm.adapters.base import ImageWorker, ProcessedImage
from unime_kedro.mllm.adapters.transformers_adapter import TransformersAdapter
from unime_kedro.mllm.content import ModelSpec

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image


def mrope_positions(ids: np.ndarray, grid: np.ndarray | None, image_id: int, merge: int) -> tuple[np.ndarray, int]:
    """Compute multimodal rotary positions of a sequence with at most one picture, from 0.

    Words advance all three axes by one; a picture's tokens share a time, count rows and columns, and the words behind
    it go on after the larger of rows and columns (Qwen2-VL, section on M-RoPE).

    Args:
        ids: (length,) token ids, visual tokens expanded.
        grid: (3,) frames, rows, columns of patches, or None.
        image_id: Id of the image token.
        merge: Patches per visual token along one side.

    Returns:
        Positions (3, length) int64 and the first position behind the sequence.
    """
    if grid is None:
        return np.tile(np.arange(len(ids)), (3, 1)), len(ids)
    rows, columns = int(grid[1]) // merge, int(grid[2]) // merge
    first, n = int(np.argmax(ids == image_id)), rows * columns
    cell = np.arange(n)
    image = first + np.stack([np.zeros_like(cell), cell // columns, cell % columns])
    before = np.tile(np.arange(first), (3, 1))
    behind = first + max(rows, columns)
    after = np.tile(np.arange(len(ids) - first - n) + behind, (3, 1))
    return np.concatenate([before, image, after], axis=1), behind + len(ids) - first - n


def _embed_patches_by_matrix(patch_embed: Any) -> None:
    """Let the vision tower's first layer be the matrix product that it is.

    It is a convolution whose kernel covers its whole input, one patch. torch takes the long way for it: 40 % of a
    training step of the tiny models on a CPU. Weights and their names stay.
    """

    def forward(self: Any, pixels: torch.Tensor) -> torch.Tensor:
        import torch

        weight = self.proj.weight
        return torch.nn.functional.linear(pixels.to(weight.dtype), weight.flatten(1), self.proj.bias)

    patch_embed.forward = MethodType(forward, patch_embed)  # bound: a copy of the model has its own


class PatchWorker(ImageWorker):
    """Cuts pictures into the patches of a Qwen-VL.

    Args:
        image_processor: ``Qwen2VLImageProcessorPil``.
        merge: Patches per visual token along one side.
    """

    def __init__(self, image_processor: Any, merge: int) -> None:
        self.image_processor, self.merge = image_processor, merge

    def process_image(self, image: Image) -> ProcessedImage:
        """Resize one RGB picture and cut it into patches."""
        out = self.image_processor(images=[image], return_tensors="np", do_rescale=False, do_normalize=False)
        grid = np.asarray(out["image_grid_thw"])[0].astype(np.int64)
        patches = np.asarray(out["pixel_values"])
        frames = patches.reshape(len(patches), 3, self.image_processor.temporal_patch_size, -1)
        pixels = frames[:, :, 0].astype(np.uint8)
        return ProcessedImage(np.ascontiguousarray(pixels), grid, int(grid.prod()) // self.merge**2)


class QwenVLAdapter(TransformersAdapter):
    """Qwen2-VL and Qwen2.5-VL, of any size, from a folder or the hub.

    Attributes:
        merge: Patches per visual token along one side.
    """

    architectures: ClassVar[Mapping[str, str]] = {
        "qwen2_vl": "Qwen2VLForConditionalGeneration",
        "qwen2_5_vl": "Qwen2_5_VLForConditionalGeneration",
    }
    image_block = "<|vision_start|><|image_pad|><|vision_end|>"

    def __init__(self, model: Any, tokenizer: Any, image_processor: Any, fingerprint: str) -> None:
        super().__init__(model, tokenizer, image_processor, fingerprint)
        self.merge = int(model.config.vision_config.spatial_merge_size)
        _embed_patches_by_matrix(self._core.visual.patch_embed)

    @classmethod
    def read_image_processor(cls, source: str | Path, spec: ModelSpec) -> Any:
        """Load the image processor; see :class:`BackboneAdapter`."""
        from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

        return Qwen2VLImageProcessorPil.from_pretrained(source, revision=spec.revision, **pixel_limits(spec))

    def image_worker(self) -> PatchWorker:
        """Return the part that cuts pictures into patches."""
        return PatchWorker(self.image_processor, self.merge)

    def resized_picture(self, image: ProcessedImage) -> Image:
        """Put the patches back together; see :class:`BackboneAdapter`."""
        from PIL import Image

        _, rows, columns = (int(n) for n in image.grid)
        side = math.isqrt(image.pixels.shape[-1])
        # patches come in blocks of merge x merge, row by row
        blocks = image.pixels.reshape(rows // self.merge, columns // self.merge, self.merge, self.merge, 3, side, side)
        return Image.fromarray(blocks.transpose(0, 2, 5, 1, 3, 6, 4).reshape(rows * side, columns * side, 3))

    def positions(self, ids: np.ndarray, image: ProcessedImage | None) -> tuple[np.ndarray, int]:
        """Return the three axes of M-RoPE; see :func:`mrope_positions`."""
        return mrope_positions(ids, None if image is None else image.grid, self.image_id, self.merge)

    def image_features(self, images: list[ProcessedImage]) -> list[torch.Tensor]:
        """Run the vision tower; see :class:`BackboneAdapter`."""
        return list(self._vision(images).pooler_output)

    def _vision(self, images: list[ProcessedImage]) -> Any:
        """Run the vision tower; what transformers' model gives."""
        import torch

        pixels = self._normalised(torch.from_numpy(np.concatenate([i.pixels for i in images])).to(self.device))
        grids = torch.from_numpy(np.stack([i.grid for i in images]))
        return self._core.get_image_features(pixels, grids.to(self.device), return_dict=True)

    def _normalised(self, pixels: torch.Tensor) -> torch.Tensor:
        """(patches, 3, values) uint8 -> (patches, 3 * frames * values) float32, as the image processor gives it."""
        import torch

        processor = self.image_processor
        mean, std = (
            torch.tensor(values, device=pixels.device)[:, None]
            for values in (processor.image_mean, processor.image_std)
        )
        found = ((pixels.float() * processor.rescale_factor - mean) / std)[:, :, None]
        return found.expand(-1, -1, processor.temporal_patch_size, -1).flatten(1)
