"""What a judge gives: logits and scores; and how its work is cut into batches."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from unime_kedro.mllm.adapters.base import Piece


def score(yes_logits: np.ndarray, no_logits: np.ndarray) -> np.ndarray:
    """Return exp(yes) / (exp(yes) + exp(no)), computed without overflow (UniME-V2, the judge's matching score)."""
    difference = np.asarray(yes_logits, dtype=np.float64) - np.asarray(no_logits, dtype=np.float64)
    small = np.exp(-np.abs(difference))
    return np.where(difference >= 0, 1 / (1 + small), small / (1 + small)).astype(np.float32)


@dataclass(frozen=True)
class Judgements:
    """Logits of one query's candidates; where ``errors`` is not empty, the logits are NaN.

    Attributes:
        yes: (n,) float32.
        no: (n,) float32.
        errors: (n,) texts, "" where all went well.
    """

    yes: np.ndarray
    no: np.ndarray
    errors: list[str]


@dataclass
class JudgeCounts:
    """What was computed: tokens of full prompts, tokens really run, the same with padding, texts cut, retries."""

    prompt_tokens: int = 0
    run_tokens: int = 0
    padded_tokens: int = 0
    truncated: int = 0
    retries: int = 0


def batches(order: list[int], pieces: dict[int, Piece], size: int) -> Iterator[list[int]]:
    """Cut candidates, longest first, into batches of at most ``size`` whose shortest is at least half as long.

    Without the second limit one very long candidate would be padded into all others of its batch.
    """
    batch: list[int] = []
    for row in order:
        if batch and (len(batch) == size or 2 * len(pieces[row].ids) < len(pieces[batch[0]].ids)):
            yield batch
            batch = []
        batch.append(row)
    if batch:
        yield batch


def is_out_of_memory(error: Exception) -> bool:
    """Tell whether torch ran out of memory, on any device: the exception types differ, the words do not."""
    text = str(error).lower()
    return any(words in text for words in ("out of memory", "allocate memory", "alloc_failed"))
