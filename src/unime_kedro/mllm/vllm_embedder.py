"""The pool's embedder on vLLM: the inputs of :class:`.embedding.Embedder`, its last hidden state, normalised."""

from __future__ import annotations

import gc
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from unime_kedro.errors import ModelError
from unime_kedro.mllm.agreement_check import check_vectors
from unime_kedro.mllm.content import Content, ModelSpec
from unime_kedro.mllm.embedding import Embedder
from unime_kedro.mllm.engine_pictures import EnginePictures
from unime_kedro.mllm.judgements import free_memory
from unime_kedro.mllm.vllm_engine import EngineOptions, EnginePrompt, VllmEngine, engine_prompt
from unime_kedro.mllm.vllm_process import need_vllm
from unime_kedro.mllm.weightless import load_without_weights


class VllmEmbedder:
    """Turns contents into unit vectors by vLLM; see :class:`unime_kedro.mining.embedding.Embedder`.

    Args:
        spec: The model.
        options: How the engine runs.
        prompt: ``plain`` or ``chat``, see :class:`.embedding.Embedder`.
        max_tokens: Longest input in tokens; longer ones lose words at the end.
        check_items: Contents that transformers embeds, too, before the engine is trusted; 0: none.
        vision_cache_gb: Pictures kept in memory, in GiB.
        workers: Processes that prepare pictures ahead.

    Raises:
        ConfigurationError: If vLLM is not installed.
        ModelError: If the model cannot be read.
    """

    def __init__(
        self,
        spec: ModelSpec,
        options: EngineOptions,
        *,
        prompt: str,
        max_tokens: int,
        check_items: int = 10,
        vision_cache_gb: float = 2.0,
        workers: int = 0,
    ) -> None:
        need_vllm()
        self.spec, self.check_items = spec, check_items
        self.adapter = load_without_weights(spec)
        self.pictures = EnginePictures(self.adapter, vision_cache_gb, workers)
        self._inputs = Embedder(self.adapter, prompt=prompt, max_tokens=max_tokens, batch_tokens=1)
        self.engine = VllmEngine(spec, self.adapter, self.pictures, options, task="embed", max_tokens=max_tokens)
        self.checked, self.difference = 0, 0.0

    @property
    def truncated(self) -> int:
        """How many contents lost words."""
        return self._inputs.truncated

    @property
    def dimension(self) -> int:
        """Length of a vector."""
        return self._inputs.dimension

    def identity(self) -> dict[str, Any]:
        """Return everything that the vectors depend on, besides the contents."""
        return {**self._inputs.identity(), "engine": "vllm"}

    def metrics(self) -> dict[str, float]:
        """Return what was computed; ``prefix_hit_rate`` is the share of prompt tokens that the cache had."""
        return {
            "prompt_tokens": self.engine.prompt_tokens,
            "prefix_hit_rate": self.engine.hit_rate,
            "checked_items": self.checked,
            "checked_difference": self.difference,
        }

    def close(self) -> None:
        """End the engine; it starts again when it is needed."""
        self.engine.close()

    def expect(self, contents: Iterable[Content]) -> None:
        """Announce all contents to come, in order, so that pictures are prepared ahead."""
        self.pictures.expect([c.image for c in contents if c.image is not None])

    def embed(self, contents: Sequence[Content]) -> np.ndarray:
        """Embed contents.

        Args:
            contents: Words, pictures, or both.

        Returns:
            (n, dimension) float32, unit length, in the order of ``contents``.

        Raises:
            ModelError: If the engine refuses a content, does not agree with transformers, or dies.
            DataError: If a picture cannot be read.
        """
        if not self.checked and self.check_items and contents:
            wanted = self._by_transformers(contents[: self.check_items])
            found = self._embed(contents[: self.check_items])
            self.difference = check_vectors(contents, wanted, found, str(self.adapter.model.dtype))
            self.checked = len(wanted)
        return self._embed(contents)

    def _embed(self, contents: Sequence[Content]) -> np.ndarray:
        answers = self.engine.run([self._prompt(content) for content in contents])
        out = np.empty((len(contents), self.dimension), dtype=np.float32)
        for row, (content, answer) in enumerate(zip(contents, answers, strict=True)):
            if answer.values is None:
                raise ModelError(f"{content} cannot be embedded: {answer.error}")
            out[row] = answer.values
        return out

    def _by_transformers(self, contents: Sequence[Content]) -> np.ndarray:
        """Embed a few contents by transformers, and forget the model before the engine takes the memory there is."""
        from unime_kedro.mllm.adapters import load_adapter

        embedder = Embedder(
            load_adapter(self.spec), prompt=self._inputs.prompt, max_tokens=self._inputs.max_tokens, batch_tokens=1
        )
        found = embedder.embed(contents)
        del embedder
        gc.collect()
        free_memory()
        return found

    def _prompt(self, content: Content) -> EnginePrompt:
        from unime_kedro.mllm.adapters.base import ProcessedImage

        image = None
        if content.image is not None:
            grid, n = self.pictures.grid(content.image)
            image = ProcessedImage(np.zeros((0, 0), dtype=np.uint8), grid, n)
        return engine_prompt(self._inputs.encode(content, image), [content.image], self.adapter.image_id)
