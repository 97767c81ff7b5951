"""The judge's prompts as tokens: instruction and query, then the candidate; the same for every engine."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from unime_kedro.errors import ModelError
from unime_kedro.mllm.content import Content
from unime_kedro.mllm.judgements import JudgeCounts
from unime_kedro.mllm.pieces import chat_ends
from unime_kedro.mllm.prompts import JUDGE_INSTRUCTION, judge_candidate_part, judge_prompt, judge_query_part
from unime_kedro.mllm.truncation import fit_text

if TYPE_CHECKING:
    from unime_kedro.mllm.adapters.base import BackboneAdapter, Piece

#: query and candidate ends that a tokenizer could join with what stands beside them
_PROBES = (("a query", "a candidate"), ("a question?", "An answer"), ("line\n", "42"), ("space ", "..."))
#: candidates whose tokens are kept
_KEPT = 500_000


class JudgePrompts:
    """Tokenizes queries and candidates as the judge reads them.

    Args:
        adapter: The judge's model, with or without weights.
        grid: Gives a picture's shape and its number of visual tokens.
        max_tokens: Longest prompt; query and candidate may each take half of what the instruction leaves.
        instruction: What the judge is told to do. It was trained, or chosen, for the paper's words.
        counts: Counts texts that had to be cut.

    Attributes:
        side_limit: Tokens that a query, or a candidate, may take.

    Raises:
        ModelError: If ``max_tokens`` leaves no room, or the prompts cannot be tokenized in two parts.
    """

    def __init__(
        self,
        adapter: BackboneAdapter,
        grid: Callable[[Path], tuple[np.ndarray, int]],
        *,
        max_tokens: int,
        instruction: str = JUDGE_INSTRUCTION,
        counts: JudgeCounts | None = None,
    ) -> None:
        self.adapter, self.max_tokens, self.instruction = adapter, max_tokens, instruction
        self.counts = JudgeCounts() if counts is None else counts
        self._grid = grid
        self._head, self._tail = chat_ends(adapter)
        self._pieces: dict[Content, Piece] = {}
        empty = adapter.encode(self._query_words(""), None)
        self.side_limit = (max_tokens - len(empty.ids) - len(adapter.encode(self._tail, None).ids) - 8) // 2
        if self.side_limit < 1:
            raise ModelError(f"max_tokens: {max_tokens} leaves no room beside the judge's instruction; raise it.")
        for query, candidate in _PROBES:
            self.check_tokenization(query, candidate)

    def identity(self) -> dict[str, Any]:
        """Return everything that the scores depend on, besides the contents and the engine."""
        prompt = judge_prompt("<query>", "<candidate>", self.instruction)
        return {
            "model": self.adapter.fingerprint,
            "dtype": str(self.adapter.model.dtype),
            "prompt": hashlib.sha256(prompt.encode()).hexdigest()[:16],
            "chat": [self._head, self._tail],
            "max_tokens": self.max_tokens,
            "image_size": json.dumps(self.adapter.image_size, default=str, sort_keys=True),
        }

    def query_piece(self, query: Content) -> Piece:
        """Tokenize what stands before the candidate: the chat's head, the instruction and the query."""
        text, image = self._fit(query)
        return self.adapter.encode(self._query_words(text), image)

    def candidate_piece(self, candidate: Content) -> Piece:
        """Tokenize a candidate's part of the prompt and the chat's tail, once per candidate."""
        if candidate not in self._pieces:
            if len(self._pieces) >= _KEPT:
                self._pieces.clear()
            text, image = self._fit(candidate)
            self._pieces[candidate] = self.adapter.encode(judge_candidate_part(text) + self._tail, image)
        return self._pieces[candidate]

    def check_tokenization(self, query: str, candidate: str) -> None:
        """Make sure that both parts of the prompt, tokenized apart, are the tokens of the whole prompt.

        Raises:
            ModelError: If they are not.
        """
        prompt = judge_prompt(query, candidate, self.instruction)
        whole = self.adapter.encode(self._head + prompt + self._tail, None).ids
        parts = [
            self.adapter.encode(self._query_words(query), None).ids,
            self.adapter.encode(judge_candidate_part(candidate) + self._tail, None).ids,
        ]
        if not np.array_equal(whole, np.concatenate(parts)):
            raise ModelError(
                "this model's tokenizer joins tokens across the end of the query: prompts cannot be tokenized in "
                "two parts; its family needs an adapter that knows where prompts may be cut."
            )

    def _query_words(self, text: str) -> str:
        return self._head + judge_query_part(text, self.instruction)

    def _fit(self, content: Content) -> tuple[str, Any]:
        """Return a content's words, cut if need be, and the size of its picture."""
        from unime_kedro.mllm.adapters.base import ProcessedImage

        image = None
        if content.image is not None:
            grid, n = self._grid(content.image)
            image = ProcessedImage(np.zeros((0, 0), dtype=np.float32), grid, n)
        text, cut = fit_text(
            self.adapter,
            content.text,
            has_image=image is not None,
            n_image_tokens=image.n_tokens if image else 0,
            limit=self.side_limit,
        )
        self.counts.truncated += cut
        return text, image
