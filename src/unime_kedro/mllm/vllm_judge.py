"""The judge on vLLM: the prompts of :class:`.PrefixJudge`, the logits of Yes and No from a classification head.

Prompts come sorted by query, so that the engine's prefix cache finds instruction and query of all but the first
candidate; how much it found is the metric ``prefix_hit_rate``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from unime_kedro.errors import UnimeError
from unime_kedro.mllm.agreement_check import check_agreement, sample_pairs, transformers_logits
from unime_kedro.mllm.content import Content, ModelSpec
from unime_kedro.mllm.engine_pictures import EnginePictures
from unime_kedro.mllm.judge_prompts import JudgePrompts
from unime_kedro.mllm.judgements import Judgements, failure_reason
from unime_kedro.mllm.pieces import joined
from unime_kedro.mllm.prompts import JUDGE_INSTRUCTION
from unime_kedro.mllm.vllm_engine import WORDS, EngineOptions, EnginePrompt, VllmEngine, engine_prompt
from unime_kedro.mllm.vllm_process import need_vllm
from unime_kedro.mllm.weightless import load_without_weights

#: one query and the candidates that it is judged with
Group = tuple[Content, Sequence[Content]]


class VllmJudge:
    """Scores pairs by vLLM.

    Args:
        spec: The judge's model.
        options: How the engine runs.
        max_tokens: Longest prompt; query and candidate may each take half of what the instruction leaves.
        chunk_pairs: Pairs that the engine gets at a time, in whole queries. What is done of a chunk is lost when the
            engine dies; a chunk must be large enough to keep it busy.
        check_pairs: Pairs that transformers judges, too, before the engine is trusted; 0: none.
        vision_cache_gb: Pictures kept in memory, in GiB.
        workers: Processes that prepare pictures ahead.
        instruction: See :class:`.PrefixJudge`.

    Raises:
        ConfigurationError: If vLLM is not installed.
        ModelError: If the model cannot be read, or Yes or No is not a single token of it.
    """

    def __init__(
        self,
        spec: ModelSpec,
        options: EngineOptions,
        *,
        max_tokens: int,
        chunk_pairs: int = 2048,
        check_pairs: int = 10,
        vision_cache_gb: float = 2.0,
        workers: int = 0,
        instruction: str = JUDGE_INSTRUCTION,
    ) -> None:
        need_vllm()
        self.spec, self.chunk_pairs, self.check_pairs = spec, chunk_pairs, check_pairs
        self.adapter = load_without_weights(spec)
        self.adapter.answer_weights(WORDS)  # both are single tokens, or this says so
        self.pictures = EnginePictures(self.adapter, vision_cache_gb, workers)
        self.prompts = JudgePrompts(self.adapter, self.pictures.grid, max_tokens=max_tokens, instruction=instruction)
        self.engine = VllmEngine(spec, self.adapter, self.pictures, options, task="classify", max_tokens=max_tokens)
        self.checked, self.difference = 0, 0.0

    def identity(self) -> dict[str, Any]:
        """Return everything that the scores depend on, besides the contents.

        The logits mean what those of transformers mean. Yet they are summed in another order: so they have a store of
        their own, and a table never depends on which engine judged which half of it.
        """
        return {**self.prompts.identity(), "engine": "vllm"}

    def metrics(self) -> dict[str, float]:
        """Return what was computed; ``prefix_hit_rate`` is the share of prompt tokens that the cache had."""
        prompt, cached = self.engine.prompt_tokens, self.engine.cached_tokens
        return {
            "prompt_tokens": prompt,
            "run_tokens": prompt - cached,
            "prefix_hit_rate": self.engine.hit_rate,
            "prefix_reuse_share": self.engine.hit_rate,  # the name that the judge on transformers has for it
            "pictures_prepared": self.pictures.prepared,
            "truncated": self.prompts.counts.truncated,
            "checked_pairs": self.checked,
            "checked_difference": self.difference,
        }

    def close(self) -> None:
        """End the engine; it starts again when it is needed."""
        self.engine.close()

    def judge_all(self, groups: Sequence[Group]) -> Iterator[Judgements]:
        """Judge the candidates of each query; yields in the order of ``groups``, chunk by chunk.

        Raises:
            ModelError: If the engine does not start, does not agree with transformers, or dies. What was yielded before
                counts.
        """
        if not groups:
            return
        self._check(groups)
        self.pictures.expect([c.image for query, found in groups for c in (query, *found) if c.image is not None])
        for chunk in _chunks(groups, self.chunk_pairs):
            yield from self._judge(chunk)

    def _check(self, groups: Sequence[Group]) -> None:
        """Once per run: judge a few of the pairs by transformers as well."""
        if self.checked or not self.check_pairs:
            return
        pairs = sample_pairs(groups, self.check_pairs)
        # transformers first, and out of memory before the engine takes what there is
        wanted = transformers_logits(self.spec, pairs, self.prompts)
        found = np.stack([np.stack([f.yes, f.no], axis=1)[0] for f in self._judge([(q, [c]) for q, c in pairs])])
        self.difference = check_agreement(pairs, wanted, found, str(self.adapter.model.dtype))
        self.checked = len(pairs)
        self.engine.prompt_tokens = self.engine.cached_tokens = 0

    def _judge(self, groups: Sequence[Group]) -> list[Judgements]:
        """Judge whole queries in one go."""
        prompts: list[EnginePrompt] = []
        places: list[tuple[int, int]] = []
        logits = [np.full((len(candidates), 2), np.nan, dtype=np.float32) for _, candidates in groups]
        errors = [[""] * len(candidates) for _, candidates in groups]
        for row, (query, candidates) in enumerate(groups):
            for column, prompt in enumerate(self._prompts(query, candidates)):
                if isinstance(prompt, EnginePrompt):
                    prompts.append(prompt)
                    places.append((row, column))
                else:
                    errors[row][column] = prompt
        for (row, column), answer in zip(places, self.engine.run(prompts), strict=True):
            errors[row][column] = answer.error
            if answer.values is not None:
                logits[row][column] = answer.values
        return [Judgements(f[:, 0], f[:, 1], e) for f, e in zip(logits, errors, strict=True)]

    def _prompts(self, query: Content, candidates: Sequence[Content]) -> Iterator[EnginePrompt | str]:
        """Yield a prompt per candidate, or why there is none: one bad picture must not cost the others."""
        try:
            head = self.prompts.query_piece(query)
        except UnimeError as error:
            yield from [failure_reason(error)] * len(candidates)
            return
        for candidate in candidates:
            try:
                whole = joined([head, self.prompts.candidate_piece(candidate)])
            except UnimeError as error:
                yield failure_reason(error)
            else:
                yield engine_prompt(whole, (query.image, candidate.image), self.adapter.image_id)


def _chunks(groups: Sequence[Group], size: int) -> Iterator[list[Group]]:
    """Cut queries into chunks of at least ``size`` pairs; the last one may have fewer."""
    chunk: list[Group] = []
    pairs = 0
    for group in groups:
        chunk.append(group)
        pairs += len(group[1])
        if pairs >= size:
            yield chunk
            chunk, pairs = [], 0
    if chunk:
        yield chunk
