"""Qwen2-VL and Qwen2.5-VL.

The processor is put together here from tokenizer and PIL image processor: transformers' own one needs torchvision for
videos, which nothing of this project does.
"""

from __future__ import annotations

from pathlib import Path
from types import MethodType
from typing import TYPE_CHECKING, Any

import numpy as np

from unime_kedro.errors import ModelError
from unime_kedro.mllm.adapters import pixel_limits
from unime_kedro.mllm.adapters.base import BackboneAdapter, Piece, ProcessedImage
from unime_kedro.mllm.adapters.meta import META, build_without_weights
from unime_kedro.mllm.content import ModelSpec
from unime_kedro.mllm.fingerprint import model_fingerprint
from unime_kedro.mllm.prompts import IMAGE_PLACEHOLDER

if TYPE_CHECKING:
    import torch

_IMAGE_BLOCK = "<|vision_start|><|image_pad|><|vision_end|>"


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


def _precision(spec: ModelSpec) -> tuple[str, Any]:
    """Return device and dtype that ``spec`` means on this machine."""
    import torch

    cuda = torch.cuda.is_available()
    if spec.device == META:
        return META, (torch.bfloat16 if cuda else torch.float32) if spec.dtype == "auto" else getattr(torch, spec.dtype)
    if spec.device == "cuda" and not cuda:
        raise ModelError("device 'cuda' was asked for, but torch finds no GPU; use device: auto or cpu.")
    device = ("cuda" if cuda else "cpu") if spec.device == "auto" else spec.device
    if spec.dtype == "auto":
        return device, torch.bfloat16 if device == "cuda" else torch.float32
    return device, getattr(torch, spec.dtype)


class QwenVLAdapter(BackboneAdapter):
    """Qwen2-VL and Qwen2.5-VL, of any size, from a folder or the hub."""

    def __init__(self, model: Any, tokenizer: Any, image_processor: Any, fingerprint: str) -> None:
        self.model, self.tokenizer, self.image_processor = model.eval(), tokenizer, image_processor
        self.fingerprint = fingerprint
        self.image_id = int(model.config.image_token_id)
        self.merge = int(model.config.vision_config.spatial_merge_size)
        self._core, self._decoder = model.model, model.model.language_model
        _embed_patches_by_matrix(self._core.visual.patch_embed)

    @classmethod
    def load(cls, source: str | Path, spec: ModelSpec, config: Any) -> QwenVLAdapter:
        """Load from a folder or the hub; see :class:`BackboneAdapter`."""
        import transformers
        from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

        device, dtype = _precision(spec)
        try:
            tokenizer = transformers.AutoTokenizer.from_pretrained(source, revision=spec.revision)
            processor = Qwen2VLImageProcessorPil.from_pretrained(source, revision=spec.revision, **pixel_limits(spec))
            if device == META:
                model = build_without_weights(config, dtype)
            else:
                model = getattr(transformers, config.architectures[0]).from_pretrained(
                    source, revision=spec.revision, dtype=dtype, attn_implementation="sdpa"
                )
            fingerprint = model_fingerprint(source, spec.revision)
        except (OSError, ValueError) as error:
            raise ModelError(f"cannot load model '{spec.model}': {error}") from error
        return cls(model.to(device), tokenizer, processor, fingerprint)

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self.model.device

    def encode(self, text: str, image: ProcessedImage | None) -> Piece:
        """Tokenize a piece of prompt; see :class:`BackboneAdapter`."""
        ids = np.asarray(self._tokenize(text.replace(IMAGE_PLACEHOLDER, _IMAGE_BLOCK)), dtype=np.int64)
        n_pictures = int((ids == self.image_id).sum())
        if n_pictures != (image is not None):
            raise ModelError(f"a text asks for {n_pictures} pictures, {int(image is not None)} given: {text[:200]!r}")
        if image is not None:
            first = int(np.argmax(ids == self.image_id))
            ids = np.concatenate([ids[:first], np.full(image.n_tokens, self.image_id), ids[first + 1 :]])
        positions, span = mrope_positions(ids, None if image is None else image.grid, self.image_id, self.merge)
        return Piece(ids, positions, span, 0 if image is None else image.n_tokens)

    def _tokenize(self, text: str) -> list[int]:
        return self.tokenizer(text, add_special_tokens=False)["input_ids"]

    def chat(self, text: str) -> str:
        """Apply the model's chat template; see :class:`BackboneAdapter`."""
        turn = [{"role": "user", "content": text}]
        return self.tokenizer.apply_chat_template(turn, tokenize=False, add_generation_prompt=True)

    def image_features(self, images: list[ProcessedImage]) -> list[torch.Tensor]:
        """Run the vision tower; see :class:`BackboneAdapter`."""
        import torch

        pixels = self._normalised(torch.from_numpy(np.concatenate([i.pixels for i in images])).to(self.device))
        grids = torch.from_numpy(np.stack([i.grid for i in images]))
        out = self._core.get_image_features(pixels, grids.to(self.device), return_dict=True)
        return list(out.pooler_output)

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

    def embed_tokens(self, ids: torch.Tensor, features: torch.Tensor | None) -> torch.Tensor:
        """Embed words and put visual features in; see :class:`BackboneAdapter`."""
        embedded = self._core.get_input_embeddings()(ids.to(self.device))
        if features is None:
            return embedded
        where = (ids == self.image_id).to(self.device)[..., None].expand_as(embedded)
        return embedded.masked_scatter(where, features.to(embedded.dtype))

    def decode(
        self, inputs: torch.Tensor, positions: torch.Tensor, mask: torch.Tensor | None, cache: Any | None
    ) -> torch.Tensor:
        """Run the language model; see :class:`BackboneAdapter`."""
        # Positions are always given: without them the model goes on from those of an earlier call.
        return self._decoder(
            inputs_embeds=inputs,
            position_ids=positions.to(self.device),
            attention_mask=None if mask is None else mask.to(self.device),
            past_key_values=cache,
            use_cache=cache is not None,
        ).last_hidden_state

    def new_cache(self) -> Any:
        """Return an empty key-value cache."""
        from transformers import DynamicCache

        return DynamicCache(config=self.model.config.get_text_config())

    def expand_cache(self, cache: Any, n: int) -> Any:
        """Show one cached row to ``n`` rows; see :class:`BackboneAdapter`."""
        from transformers import DynamicCache

        layers = [(layer.keys.expand(n, -1, -1, -1), layer.values.expand(n, -1, -1, -1)) for layer in cache.layers]
        return DynamicCache(layers, config=self.model.config.get_text_config())

    def answer_weights(self, words: tuple[str, ...]) -> torch.Tensor:
        """Return the output head's rows of single-token words; see :class:`BackboneAdapter`."""
        ids = []
        for word in words:
            tokens = self._tokenize(word)
            if len(tokens) != 1:
                raise ModelError(
                    f"'{word}' is {len(tokens)} tokens in this model's vocabulary; a Yes/No judge needs one."
                )
            ids.append(tokens[0])
        return self.model.get_output_embeddings().weight[ids].detach().float()
