"""From messages to tokens: the prompts of inference, and behind them the answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from unime_kedro.errors import ModelError
from unime_kedro.learning.reranking.batches import Prepared
from unime_kedro.mllm.adapters.base import Piece
from unime_kedro.mllm.listwise import Side, listwise_piece
from unime_kedro.mllm.pieces import chat_ends, joined
from unime_kedro.mllm.prompts import judge_candidate_part, judge_query_part
from unime_kedro.mllm.truncation import fit_text

if TYPE_CHECKING:
    from pathlib import Path

    from unime_kedro.learning.reranking.rows import Message
    from unime_kedro.mllm.adapters.base import BackboneAdapter, ProcessedImage
    from unime_kedro.mllm.content import Content


class MessageEncoder:
    """Tokenizes messages as :class:`.PrefixJudge` and :class:`.Reranker` do, and the answer as the model is to give it.

    The answer ends with the token that ends a turn: without it a model that answers freely would not know where to
    stop.

    Args:
        adapter: Whose tokenizer is used.
        max_tokens: Longest prompt.

    Raises:
        ModelError: If the tokenizer has no end token, or ``max_tokens`` has no room for words.
    """

    def __init__(self, adapter: BackboneAdapter, *, max_tokens: int) -> None:
        self._adapter, self._max_tokens = adapter, max_tokens
        self._head, self._tail = chat_ends(adapter)
        end = adapter.tokenizer.eos_token_id
        if end is None:
            raise ModelError("the model's tokenizer has no end token, with which an answer would end; set eos_token.")
        self._end = int(end)
        frame = (self._head + judge_query_part(""), self._tail)
        # half of what the instruction leaves for query and candidate each, as the judge does
        self._side_limit = (max_tokens - sum(len(adapter.encode(part, None).ids) for part in frame) - 8) // 2
        if self._side_limit < 1:
            raise ModelError(f"max_tokens: {max_tokens} leaves no room beside the judge's instruction; raise it.")

    def prepare(self, message: Message, sides: Sequence[Content], images: Mapping[Path, ProcessedImage]) -> Prepared:
        """Tokenize a message.

        Args:
            message: The message.
            sides: Contents of its query and candidates.
            images: Their processed pictures.
        """
        shown = [Side(side.text, None if side.image is None else images[side.image]) for side in sides]
        prompt = self._listwise(shown) if message.listwise else self._pairwise(*shown)
        answer = self._adapter.encode(message.answer, None).ids
        steps = np.tile(np.arange(len(answer)), (prompt.positions.shape[0], 1))
        return Prepared(
            joined([prompt, Piece(answer, steps, len(answer), 0)]),
            np.append(answer, self._end),
            [side.image for side in sides if side.image is not None],
            message.listwise,
        )

    def _listwise(self, sides: Sequence[Side]) -> Piece:
        return listwise_piece(self._adapter, sides[0], sides[1:], max_tokens=self._max_tokens)[0]

    def _pairwise(self, query: Side, candidate: Side) -> Piece:
        return joined(
            [
                self._adapter.encode(self._head + judge_query_part(self._fit(query)), query.image),
                self._adapter.encode(judge_candidate_part(self._fit(candidate)) + self._tail, candidate.image),
            ]
        )

    def _fit(self, side: Side) -> str:
        text, _ = fit_text(
            self._adapter,
            side.text,
            has_image=side.image is not None,
            n_image_tokens=side.image.n_tokens if side.image is not None else 0,
            limit=self._side_limit,
        )
        return text
