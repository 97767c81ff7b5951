"""The judge: does the candidate meet the requirements of the query? Scores from the logits of Yes and No.

*Shared prefix*: instruction and query (with its picture) run once per query into a key-value cache, which all
candidates of the query then read. The scores are those of the plain forward pass (equal to 1e-4 in float32, tested).
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from unime_kedro.errors import UnimeError
from unime_kedro.mllm.content import Content
from unime_kedro.mllm.embedding import right_padded
from unime_kedro.mllm.features import FeatureStore
from unime_kedro.mllm.judge_prompts import JudgePrompts
from unime_kedro.mllm.judgements import (
    JudgeCounts,
    Judgements,
    batches,
    failure_reason,
    free_memory,
    is_out_of_memory,
)
from unime_kedro.mllm.pieces import joined
from unime_kedro.mllm.prompts import JUDGE_INSTRUCTION

if TYPE_CHECKING:
    from unime_kedro.mllm.adapters.base import BackboneAdapter, Piece

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Group:
    """One query, its candidates and their tokens (of those that can be judged)."""

    query: Content
    head: Piece
    candidates: Sequence[Content]
    pieces: dict[int, Piece]


class PrefixJudge:
    """Scores the candidates of a query.

    Args:
        adapter: The judge's model.
        batch_size: Most candidates per forward pass; halved by itself, for good, when memory runs out.
        share_prefix: False computes every prompt in full.
        max_tokens: Longest prompt; query and candidate may each take half of what the instruction leaves.
        vision_cache_gb: Visual features kept in memory, in GiB.
        workers: Processes that prepare pictures ahead.
        instruction: What the judge is told to do. It was trained, or chosen, for the paper's words.
        features: Pictures of somebody who shares them; then ``vision_cache_gb`` and ``workers`` say nothing.

    Raises:
        ModelError: If Yes or No is not a single token of the model, or its prompts cannot be tokenized in two parts.
    """

    def __init__(
        self,
        adapter: BackboneAdapter,
        *,
        batch_size: int,
        share_prefix: bool = True,
        max_tokens: int = 4096,
        vision_cache_gb: float = 2.0,
        workers: int = 0,
        instruction: str = JUDGE_INSTRUCTION,
        features: FeatureStore | None = None,
    ) -> None:
        self.adapter, self.batch_size, self.share_prefix = adapter, batch_size, share_prefix
        self.features = FeatureStore(adapter, vision_cache_gb, workers) if features is None else features
        self.counts = JudgeCounts()
        self._weights = adapter.answer_weights(("Yes", "No"))
        self.prompts = JudgePrompts(
            adapter, self.features.grid, max_tokens=max_tokens, instruction=instruction, counts=self.counts
        )

    def identity(self) -> dict[str, Any]:
        """Return everything that the scores depend on, besides the contents; the store's key is made of it."""
        return self.prompts.identity()

    def metrics(self) -> dict[str, float]:
        """Return what was computed: share of prompt tokens that sharing saved, pictures encoded, texts cut."""
        counts = self.counts
        return {
            "prompt_tokens": counts.prompt_tokens,
            "run_tokens": counts.run_tokens,
            "padded_tokens": counts.padded_tokens,
            "prefix_reuse_share": 1 - counts.run_tokens / counts.prompt_tokens if counts.prompt_tokens else 0.0,
            "pictures_encoded": self.features.computed,
            "pictures_spilled": self.features.spilled,
            "truncated": counts.truncated,
            "retries": counts.retries,
        }

    def expect(self, contents: Sequence[Content]) -> None:
        """Announce contents in the order in which they will be judged, so that pictures are prepared ahead."""
        self.features.expect([c.image for c in contents if c.image is not None])

    def judge_all(self, groups: Sequence[tuple[Content, Sequence[Content]]]) -> Iterator[Judgements]:
        """Judge the candidates of each query, one query after the other; see :meth:`judge`."""
        self.expect([content for query, candidates in groups for content in (query, *candidates)])
        for query, candidates in groups:
            yield self.judge(query, candidates)

    def judge(self, query: Content, candidates: Sequence[Content]) -> Judgements:
        """Judge every candidate of one query.

        Running out of memory or a number that is not finite is tried again with fewer candidates at a time; what fails
        alone becomes an error, not a number.

        Args:
            query: The query.
            candidates: What to judge, at least one.

        Returns:
            Logits in the order of ``candidates``.
        """
        import torch

        logits = np.full((len(candidates), 2), np.nan, dtype=np.float32)
        errors = [""] * len(candidates)
        with torch.inference_mode():
            try:
                head = self.prompts.query_piece(query)
            except (UnimeError, RuntimeError) as error:
                return Judgements(logits[:, 0], logits[:, 1], [failure_reason(error)] * len(candidates))
            pieces: dict[int, Piece] = {}
            for i, candidate in enumerate(candidates):
                try:
                    pieces[i] = self.prompts.candidate_piece(candidate)
                except (UnimeError, RuntimeError) as error:  # one bad picture must not cost the others
                    errors[i] = failure_reason(error)
            # longest first: a batch that is too large for the memory is met at once
            order = sorted(pieces, key=lambda i: (-len(pieces[i].ids), i))
            self._run(_Group(query, head, candidates, pieces), order, logits, errors)
        return Judgements(logits[:, 0], logits[:, 1], errors)

    def _run(self, group: _Group, order: list[int], logits: np.ndarray, errors: list[str]) -> None:
        """Judge ``order`` into ``logits`` and ``errors``; what fails is tried again in smaller batches, then alone."""
        size = self.batch_size
        while order:
            failed, out_of_memory = self._pass(group, order, size, logits, errors)
            if not failed or size == 1:
                return
            self.counts.retries += 1
            if out_of_memory:
                # kept: the next query would run out of memory just the same
                self.batch_size = size = max(1, size // 2)
            else:
                size = 1
            for row in failed:
                errors[row] = ""
            order = failed

    def _pass(
        self, group: _Group, order: list[int], size: int, logits: np.ndarray, errors: list[str]
    ) -> tuple[list[int], bool]:
        """Judge every candidate of ``order`` once; returns those that failed, and whether memory was the reason."""
        cache, failed, out_of_memory = None, [], False
        for rows in batches(order, group.pieces, size):
            problem = "the model's logits are not finite"
            try:
                if self.share_prefix and cache is None:
                    cache = self._prefix(group.query, group.head)
                logits[rows] = self._forward(group, rows, cache)
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    raise
                problem, out_of_memory = f"out of memory: {str(error).splitlines()[0]}", True
                free_memory()
            for row in rows:
                if not np.isfinite(logits[row]).all():
                    logits[row], errors[row] = np.nan, problem
                    failed.append(row)
        return failed, out_of_memory

    def _prefix(self, query: Content, head: Piece) -> Any:
        """Run instruction and query once; returns the key-value cache."""
        import torch

        cache = self.adapter.new_cache()
        ids, positions = torch.from_numpy(head.ids)[None], torch.from_numpy(head.positions)[:, None]
        features = self.features[query.image] if query.image is not None else None
        self.adapter.decode(self.adapter.embed_tokens(ids, features), positions, None, cache)
        self.counts.run_tokens += len(head.ids)
        return cache

    def _forward(self, group: _Group, rows: list[int], cache: Any) -> np.ndarray:
        """Run one batch of candidates; returns (rows, 2) float32 logits of Yes and No."""
        import torch

        query, head, candidates, pieces = group.query, group.head, group.candidates, group.pieces
        chosen = [pieces[i] for i in rows]
        images = [candidates[i].image for i in rows]
        if cache is None:
            chosen = [joined([head, piece]) for piece in chosen]
            images = [image for i in rows for image in (query.image, candidates[i].image)]
        start = head.span if cache is not None else 0
        ids, positions, mask = right_padded(chosen, axes=head.positions.shape[0], start=start)
        found = [self.features[image] for image in images if image is not None]
        inputs = self.adapter.embed_tokens(ids, torch.cat(found) if found else None)
        lengths = mask.sum(1)
        shared = None
        if cache is not None:
            shared = self.adapter.expand_cache(cache, len(rows))
            mask = torch.cat([torch.ones(len(rows), len(head.ids), dtype=mask.dtype), mask], dim=1)
        hidden = self.adapter.decode(inputs, positions, None if bool(mask.all()) else mask, shared)
        last = hidden[torch.arange(len(rows)), lengths.to(hidden.device) - 1].float()
        self.counts.prompt_tokens += sum(len(pieces[i].ids) + len(head.ids) for i in rows)
        self.counts.run_tokens += int(lengths.sum())
        self.counts.padded_tokens += int(ids.numel())
        return (last @ self._weights.to(last.device).T).cpu().numpy()
