"""Visual features of pictures, computed once per run: kept in memory up to a budget, spilled to disk beyond it."""

from __future__ import annotations

import tempfile
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING

import numpy as np

from unime_kedro.mllm.images import stream_images

if TYPE_CHECKING:
    import torch

    from unime_kedro.mllm.adapters.base import BackboneAdapter, ProcessedImage


class FeatureStore:
    """Visual tokens by file.

    One picture goes through the vision tower at a time: then its features do not depend on which pictures happened to
    come together, and a resumed run has the same bits as an uninterrupted one.

    Args:
        adapter: The model.
        memory_gb: Features kept in memory, in GiB; the least recently used beyond that are moved to a temporary file.
        workers: Processes that prepare pictures ahead.
    """

    def __init__(self, adapter: BackboneAdapter, memory_gb: float, workers: int = 0) -> None:
        self.adapter, self.workers = adapter, workers
        self._budget, self._used = memory_gb * 2**30, 0
        self._memory: OrderedDict[Path, torch.Tensor] = OrderedDict()
        self._spilled: dict[Path, tuple[int, tuple[int, int]]] = {}
        self._grids: dict[Path, tuple[np.ndarray, int]] = {}
        self._spill: IO[bytes] | None = None
        self._stream: Iterator[tuple[Path, ProcessedImage]] | None = None
        self.computed = self.spilled = 0

    def expect(self, files: Sequence[Path]) -> None:
        """Announce the pictures to come, in the order in which they will be needed for the first time."""
        self._stream = stream_images(self.adapter, list(dict.fromkeys(files)), self.workers) if self.workers else None

    def __getitem__(self, file: Path) -> torch.Tensor:
        """Return the (n_tokens, hidden) features of a picture."""
        if file in self._memory:
            self._memory.move_to_end(file)
            return self._memory[file]
        features = self._load(file) if file in self._spilled else self._compute(file)
        self._keep(file, features)
        return features

    def grid(self, file: Path) -> tuple[np.ndarray, int]:
        """Return a picture's patch grid (3,) and its number of visual tokens."""
        if file not in self._grids:
            self[file]
        return self._grids[file]

    def _compute(self, file: Path) -> torch.Tensor:
        image = None
        if self._stream is not None:
            for found, image in self._stream:
                if found == file:
                    break
                self._put(found, image)
            else:
                self._stream = None
        if image is None:
            _, image = next(stream_images(self.adapter, [file], 0))
        return self._put(file, image, keep=False)

    def _put(self, file: Path, image: ProcessedImage, keep: bool = True) -> torch.Tensor:
        features = self.adapter.image_features([image])[0]
        self._grids[file] = (image.grid, image.n_tokens)
        self.computed += 1
        if keep:
            self._keep(file, features)
        return features

    def _keep(self, file: Path, features: torch.Tensor) -> None:
        self._memory[file] = features
        self._used += features.nbytes
        while self._used > self._budget and len(self._memory) > 1:
            old, tensor = self._memory.popitem(last=False)
            self._used -= tensor.nbytes
            if old not in self._spilled:
                self._write(old, tensor)

    def _write(self, file: Path, tensor: torch.Tensor) -> None:
        if self._spill is None:
            self._spill = tempfile.TemporaryFile(prefix="unime-features-")  # noqa: SIM115  (lives as long as the store)
        offset = self._spill.seek(0, 2)
        self._spill.write(tensor.detach().float().cpu().numpy().tobytes())
        self._spilled[file] = (offset, (tensor.shape[0], tensor.shape[1]))
        self.spilled += 1

    def _load(self, file: Path) -> torch.Tensor:
        import torch

        assert self._spill is not None
        offset, shape = self._spilled[file]
        self._spill.seek(offset)
        data = np.frombuffer(self._spill.read(4 * shape[0] * shape[1]), dtype=np.float32).reshape(shape)
        return torch.from_numpy(data.copy()).to(self.adapter.device, self.adapter.model.dtype)
