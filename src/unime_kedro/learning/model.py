"""The embedder as a torch module: chunks of contents in, embeddings with a graph out."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import torch

from unime_kedro.mllm.embedding import last_hidden

if TYPE_CHECKING:
    from pathlib import Path

    from unime_kedro.learning.batches import Chunk
    from unime_kedro.mllm.adapters.base import BackboneAdapter, ProcessedImage

#: rows of a pass that are padded together at least; fewer make a GPU and a CPU wait
_GROUP = 32
#: a pass is divided where rows become shorter than this share of the longest before them
_SHORTER = 0.75


class EmbeddingModel(torch.nn.Module):
    """A backbone whose forward pass gives embeddings.

    Wrappers that exchange gradients between processes want one module with one forward method; the adapter is neither.

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
        """Say that another batch begins: what is kept for the second pass over the last one is not needed any more."""
        if self._features is not None:
            self._features.begin_step()

    def forward(self, chunk: Chunk) -> torch.Tensor:
        """Embed contents.

        Args:
            chunk: Contents, longest first.

        Returns:
            (n, dimension) float32, not normalised: the losses take the cosine themselves.
        """
        parts = []
        for group in length_groups([len(piece.ids) for piece in chunk.pieces]):
            pieces, files = chunk.pieces[group], chunk.files[group]
            parts.append(last_hidden(self.adapter, pieces, files, chunk.images, self._features).float())
        return torch.cat(parts)


class FrozenFeatures:
    """Visual features of pictures by a vision tower that does not change: computed once, kept up to a budget.

    With the gradient cache every picture goes through the tower twice per step otherwise. One picture at a time: its
    features must not depend on which others it came with, or a training that is resumed, with nothing kept, would end
    with other weights.

    Args:
        adapter: The model.
        memory_gb: Features kept from step to step, on the CPU, in GiB; the least recently used make room. Those of the
            current step are kept besides: the gradient cache comes to them a second time.
    """

    def __init__(self, adapter: BackboneAdapter, memory_gb: float) -> None:
        self._adapter, self._budget, self._used = adapter, memory_gb * 2**30, 0
        self._kept: OrderedDict[Path, torch.Tensor] = OrderedDict()
        self._current: dict[Path, torch.Tensor] = {}

    def begin_step(self) -> None:
        """Forget what was kept for the last step alone."""
        self._current = {}

    def __call__(self, files: list[Path], images: Mapping[Path, ProcessedImage]) -> list[torch.Tensor]:
        """Return the features of pictures, (n_tokens, hidden) each, on the model's device.

        Args:
            files: Distinct pictures.
            images: The same, processed.
        """
        return [self._get(file, images[file]).to(self._adapter.device) for file in files]

    def _get(self, file: Path, image: ProcessedImage) -> torch.Tensor:
        if file in self._current:
            return self._current[file]
        if file in self._kept:
            self._kept.move_to_end(file)
            self._current[file] = self._kept[file]
            return self._kept[file]
        with torch.no_grad():
            found = self._adapter.image_features([image])[0].cpu()
        self._kept[file] = self._current[file] = found
        self._used += found.nbytes
        while self._used > self._budget and self._kept:
            self._used -= self._kept.popitem(last=False)[1].nbytes
        return found


def length_groups(lengths: list[int], at_least: int | None = None) -> Iterator[slice]:
    """Divide rows, longest first, into groups of like length, so that little is computed on padding.

    On the tiny models a step takes half the time of one padded batch.

    Args:
        lengths: Tokens of each row, descending.
        at_least: Rows of every group but the last; None for 32.

    Yields:
        Slices that cover all rows in order.
    """
    least = _GROUP if at_least is None else at_least
    start = 0
    for end in range(1, len(lengths) + 1):
        full = end - start >= least
        if end == len(lengths) or (full and lengths[end] < _SHORTER * lengths[start]):
            yield slice(start, end)
            start = end
