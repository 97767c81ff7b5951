"""The listwise prompt as tokens: the same for the training of a reranker and for asking it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from unime_kedro.errors import ModelError
from unime_kedro.mllm.pieces import chat_ends, joined
from unime_kedro.mllm.prompts import IMAGE_PLACEHOLDER, listwise_parts, listwise_prompt
from unime_kedro.mllm.truncation import clean_text, first_tokens

if TYPE_CHECKING:
    from unime_kedro.mllm.adapters.base import BackboneAdapter, Piece, ProcessedImage

#: tokens of the longest prompt that are left free for the answer
ANSWER_TOKENS = 12

#: words whose ends a tokenizer could join with what stands beside them
_PROBES = (
    ["a query", "a candidate", "another"],
    ["a question?", "An answer", "42"],
    ["line\n", "...", "(2)", "space "],
)
_IN_BRACKETS = re.compile(r"\(([0-9]+)\)")
_BARE = re.compile(r"(?<![\w.-])([0-9]+)(?!\w|\.[0-9])")


class Side(NamedTuple):
    """A query or a candidate: its words, and its picture (of which only the size counts here) or None."""

    text: str
    image: ProcessedImage | None


def listwise_piece(
    adapter: BackboneAdapter, query: Side, candidates: Sequence[Side], *, max_tokens: int
) -> tuple[Piece, int]:
    """Return the tokens and positions of a listwise prompt in the chat template, ready for the answer.

    A prompt that is too long loses words at the ends of its longest contents: they are all cut to the same length,
    those that are shorter stay whole.

    Args:
        adapter: The model.
        query: The query.
        candidates: The candidates in their order, at least one.
        max_tokens: Longest prompt, with room for :data:`ANSWER_TOKENS` more.

    Returns:
        The piece, and how many contents lost words.

    Raises:
        ModelError: If it does not fit without any words.
    """
    sides, limit = [query, *candidates], max_tokens - ANSWER_TOKENS
    texts = [clean_text(adapter, side.text, side.image is not None) for side in sides]
    pieces = _encoded(adapter, texts, sides)
    if (excess := _length(pieces) - limit) <= 0:
        return joined(pieces), 0
    words = [len(adapter.encode(text.replace(IMAGE_PLACEHOLDER, ""), None).ids) for text in texts]
    # cut texts may be tokenized into more tokens than were kept of them, hence the search
    for level in range(_fair_level(words, sum(words) - excess), 0, -1):
        shorter = [first_tokens(adapter, text, level) for text in texts]
        pieces = _encoded(adapter, shorter, sides)
        if _length(pieces) <= limit:
            return joined(pieces), sum(a != b for a, b in zip(texts, shorter, strict=True))
    raise ModelError(
        f"a query and {len(candidates)} candidates take {limit + excess - sum(words)} tokens without their words, of "
        f"which the pictures take {sum(piece.n_image_tokens for piece in pieces)}; there is room for {limit}. Raise "
        "max_tokens, lower max_pixels, or rerank fewer candidates."
    )


def _encoded(adapter: BackboneAdapter, texts: Sequence[str], sides: Sequence[Side]) -> list[Piece]:
    head, tail = chat_ends(adapter)
    parts = listwise_parts(texts[0], texts[1:])
    parts[0], parts[-1] = head + parts[0], parts[-1] + tail
    return [adapter.encode(part, side.image) for part, side in zip(parts, sides, strict=True)]


def _length(pieces: Sequence[Piece]) -> int:
    return sum(len(piece.ids) for piece in pieces)


def _fair_level(lengths: Sequence[int], room: int) -> int:
    """Return the largest length such that all of ``lengths``, cut to it, take at most ``room``; 0 if there is none."""
    for shorter, length in enumerate(ordered := sorted(lengths)):
        share = (room - sum(ordered[:shorter])) // (len(ordered) - shorter)
        if share < length:
            return max(share, 0)
    return max(lengths)


def check_tokenization(adapter: BackboneAdapter) -> None:
    """Make sure that the parts of a listwise prompt, tokenized apart, are the tokens of the whole prompt.

    Raises:
        ModelError: If they are not.
    """
    head, tail = chat_ends(adapter)
    for query, *candidates in _PROBES:
        sides = [Side(text, None) for text in (query, *candidates)]
        whole = adapter.encode(head + listwise_prompt(query, candidates) + tail, None).ids
        if not np.array_equal(whole, joined(_encoded(adapter, [side.text for side in sides], sides)).ids):
            raise ModelError(
                "this model's tokenizer joins tokens across the ends of candidates: listwise prompts cannot be "
                "tokenized in parts; its family needs an adapter that knows where prompts may be cut."
            )


def parse_answer(answer: str, n: int) -> int | None:
    """Return the candidate that a free answer names: the first number in brackets, else the first one without.

    Args:
        answer: The model's words.
        n: How many candidates there are.

    Returns:
        A number from 1 to ``n``; None if there is none, or it is another.
    """
    found = _IN_BRACKETS.search(answer) or _BARE.search(answer)
    number = int(found[1]) if found else 0
    return number if 1 <= number <= n else None
