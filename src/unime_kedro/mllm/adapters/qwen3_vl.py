"""Qwen3-VL: as Qwen2-VL, and features from within the vision tower are added inside the decoder (DeepStack).

DeepStack (arXiv 2406.04334): what leaves some inner layers of the vision tower is added to the hidden states of the
visual tokens behind the first layers of the language model. Here these features travel beside the visual tokens
themselves, as further columns: (n_tokens, hidden * (1 + levels)). So stores and batches of features need not know.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from unime_kedro.mllm.adapters.base import ProcessedImage
from unime_kedro.mllm.adapters.qwen_vl import QwenVLAdapter

if TYPE_CHECKING:
    import torch


class Qwen3VLAdapter(QwenVLAdapter):
    """Qwen3-VL (dense), of any size, from a folder or the hub."""

    architectures: ClassVar[Mapping[str, str]] = {"qwen3_vl": "Qwen3VLForConditionalGeneration"}

    def image_features(self, images: list[ProcessedImage]) -> list[torch.Tensor]:
        """Run the vision tower; (n_tokens, hidden * (1 + levels)) per picture, the visual tokens first."""
        import torch

        found = self._vision(images)
        levels = [found.pooler_output, *found.deepstack_features]
        return [torch.cat(columns, dim=-1) for columns in zip(*levels, strict=True)]

    def embed_tokens(self, ids: torch.Tensor, features: torch.Tensor | None) -> torch.Tensor:
        """Embed words and put visual features in; with pictures (batch, length, hidden * (1 + levels)).

        Zeros stand in the further columns of words.
        """
        import torch

        embedded = self._core.get_input_embeddings()(ids.to(self.device))
        if features is None:
            return embedded
        wide = torch.nn.functional.pad(embedded, (0, features.shape[-1] - embedded.shape[-1]))
        where = (ids == self.image_id).to(self.device)[..., None].expand_as(wide)
        return wide.masked_scatter(where, features.to(wide.dtype))

    def decode(
        self, inputs: torch.Tensor, positions: torch.Tensor, mask: torch.Tensor | None, cache: Any | None
    ) -> torch.Tensor:
        """Run the language model; see :class:`BackboneAdapter`. ``inputs`` are those of :meth:`embed_tokens`."""
        hidden = self.model.config.get_text_config().hidden_size
        if inputs.shape[-1] == hidden:
            return self._run(inputs, positions, mask, cache)
        added = inputs[..., hidden:]
        where = added.any(dim=-1)  # adding zeros changes nothing, so words are left out
        levels = list(added[where].split(hidden, dim=-1))
        return self._run(
            inputs[..., :hidden], positions, mask, cache, visual_pos_masks=where, deepstack_visual_embeds=levels
        )
