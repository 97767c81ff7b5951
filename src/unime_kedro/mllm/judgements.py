"""What a judge gives: logits and scores; and how its work is cut into batches."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from unime_kedro.errors import UnimeError

if TYPE_CHECKING:
    from unime_kedro.mllm.adapters.base import Piece


def score(yes_logits: np.ndarray, no_logits: np.ndarray, temperature: float = 1.0) -> np.ndarray:
    """Return the judge's matching score: :func:`yes_probability` as float32.

    At temperature 1 it is UniME-V2's exp(yes) / (exp(yes) + exp(no)). Other temperatures calibrate it (Guo et al.
    2017); they never turn the order of two scores round.

    Args:
        yes_logits: (n,) logits of Yes.
        no_logits: (n,) logits of No.
        temperature: Above 0.

    Returns:
        (n,) float32 in [0, 1].
    """
    return yes_probability(yes_logits, no_logits, temperature).astype(np.float32)


def yes_probability(yes_logits: np.ndarray, no_logits: np.ndarray, temperature: float = 1.0) -> np.ndarray:
    """Return sigmoid((yes - no) / temperature), (n,) float64, computed without overflow; see :func:`score`."""
    difference = np.asarray(yes_logits, dtype=np.float64) - np.asarray(no_logits, dtype=np.float64)
    difference /= temperature
    small = np.exp(-np.abs(difference))
    return np.where(difference >= 0, 1 / (1 + small), small / (1 + small))


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


def failure_reason(error: Exception) -> str:
    """Word an error that costs one pair its score; an unknown one is raised again."""
    if isinstance(error, UnimeError):
        return str(error)
    if not is_out_of_memory(error):
        raise error
    free_memory()
    return f"out of memory in the vision tower: {str(error).splitlines()[0]}"


def free_memory() -> None:
    """Give cached blocks back to the GPU, so that a smaller batch has room."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.empty_cache()
