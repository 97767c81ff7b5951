"""The reranker as a torch module: chunks of messages in, how unlikely their answers are out."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F

from unime_kedro.learning.model import FrozenFeatures, length_groups
from unime_kedro.mllm.embedding import right_padded

if TYPE_CHECKING:
    from pathlib import Path

    from unime_kedro.learning.reranking.batches import Chunk, Prepared
    from unime_kedro.mllm.adapters.base import BackboneAdapter, ProcessedImage


#: messages that are padded together at least: lists are three times as long as pairs, and of all lengths
_GROUP = 8


class RerankerModel(torch.nn.Module):
    """A backbone whose forward pass gives the negative log-likelihood of answers.

    Args:
        adapter: The loaded model; what is to be trained requires gradients already.
        cache_gb: Visual features kept where the vision tower is not trained, in GiB.
    """

    def __init__(self, adapter: BackboneAdapter, cache_gb: float = 1.0) -> None:
        super().__init__()
        self.adapter = adapter
        self.backbone = adapter.model
        trained = any(p.requires_grad for p in adapter.vision_parameters())
        self._features = None if trained else FrozenFeatures(adapter, cache_gb)

    def begin_step(self) -> None:
        """Say that another batch begins."""
        if self._features is not None:
            self._features.begin_step()

    def forward(self, chunk: Chunk) -> torch.Tensor:
        """Return how unlikely each message's answer is: the sum of its tokens' cross entropies.

        Args:
            chunk: Messages, longest first.

        Returns:
            (messages,) float32, in nats.
        """
        groups = length_groups([len(message.piece.ids) for message in chunk.messages], at_least=_GROUP)
        return torch.cat([self._answers(chunk.messages[group], chunk.images) for group in groups])

    def _answers(self, messages: list[Prepared], images: dict[Path, ProcessedImage]) -> torch.Tensor:
        """Run messages that are padded together; their common head, the instruction, runs once."""
        pieces = [message.piece for message in messages]
        n_shared = common_head(messages, self.adapter.image_id)
        cache = None
        if n_shared:
            cache = self.adapter.new_cache()
            head = pieces[0]
            ids, positions = torch.from_numpy(head.ids[None, :n_shared]), torch.from_numpy(head.positions[:, None])
            self.adapter.decode(self.adapter.embed_tokens(ids, None), positions[..., :n_shared], None, cache)
            cache = self.adapter.expand_cache(cache, len(messages))
        ids, positions, mask = right_padded(pieces, axes=pieces[0].positions.shape[0])
        inputs = self.adapter.embed_tokens(ids[:, n_shared:], self._visual(messages, images))
        real_mask = None if bool(mask.all()) else mask
        hidden = self.adapter.decode(inputs, positions[..., n_shared:], real_mask, cache)
        places, targets, real = _padded_targets(messages)
        rows = torch.arange(len(messages))[:, None]
        logits = self.backbone.get_output_embeddings()(hidden[rows, (places - n_shared).clamp(min=0)]).float()
        losses = F.cross_entropy(logits.transpose(1, 2), targets.to(logits.device), reduction="none")
        return (losses * real.to(losses.device)).sum(1)

    def _visual(self, messages: list[Prepared], images: dict[Path, ProcessedImage]) -> torch.Tensor | None:
        """Return the features of all pictures in the order in which they are shown; each is computed once."""
        shown = [file for message in messages for file in message.files]
        if not shown:
            return None
        distinct = list(dict.fromkeys(shown))
        if self._features is not None:
            made = self._features(distinct, images)
        else:
            made = self.adapter.image_features([images[file] for file in distinct])
        found = dict(zip(distinct, made, strict=True))
        return torch.cat([found[file] for file in shown])


def common_head(messages: list[Prepared], image_id: int) -> int:
    """Return how many tokens all messages begin with alike: words alone, and before the places that predict answers.

    Pictures end it: equal tokens need not be equal pictures.
    """
    first = messages[0].piece.ids
    length = min(len(message.piece.ids) - len(message.target) for message in messages)
    same = first[:length] != image_id
    for message in messages[1:]:
        same &= message.piece.ids[:length] == first[:length]
    return int(length if same.all() else np.argmin(same))


def _padded_targets(messages: list[Prepared]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return where answers are predicted, what they are, and which of both is real, (messages, longest answer) each.

    A token is predicted at the place before it; the last token of an answer is no input, so that the last place of
    the piece predicts it.
    """
    longest = max(len(message.target) for message in messages)
    places = np.zeros((len(messages), longest), dtype=np.int64)
    targets, real = np.zeros_like(places), np.zeros(places.shape, dtype=np.float32)
    for row, message in enumerate(messages):
        n = len(message.target)
        places[row, :n] = np.arange(len(message.piece.ids) - n, len(message.piece.ids))
        targets[row, :n], real[row, :n] = message.target, 1
    return torch.from_numpy(places), torch.from_numpy(targets), torch.from_numpy(real)
