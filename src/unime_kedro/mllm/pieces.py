"""Pieces of a prompt, put together behind each other and into the chat template."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from unime_kedro.mllm.adapters.base import BackboneAdapter, Piece


def joined(pieces: Sequence[Piece]) -> Piece:
    """Put pieces behind each other.

    Args:
        pieces: At least one; each counts its positions from 0.

    Returns:
        One piece; the positions of each go on where those of the piece before it end (its ``span``, which behind a
        picture is less than its number of tokens).
    """
    from unime_kedro.mllm.adapters.base import Piece

    starts = np.cumsum([0, *(piece.span for piece in pieces)])
    return Piece(
        np.concatenate([piece.ids for piece in pieces]),
        np.concatenate([piece.positions + start for piece, start in zip(pieces, starts[:-1], strict=True)], axis=1),
        int(starts[-1]),
        sum(piece.n_image_tokens for piece in pieces),
    )


def chat_ends(adapter: BackboneAdapter) -> tuple[str, str]:
    """Return what the chat template puts before and behind a user's words."""
    mark = "\u241fwords\u241f"
    head, _, tail = adapter.chat(mark).partition(mark)
    return head, tail
