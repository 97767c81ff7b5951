"""Before an engine is trusted with millions of contents: does it agree with transformers on a few of them?"""

from __future__ import annotations

import gc
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from unime_kedro.errors import ModelError
from unime_kedro.mllm.content import Content, ModelSpec
from unime_kedro.mllm.judgements import free_memory, score

if TYPE_CHECKING:
    from unime_kedro.mllm.judge_prompts import JudgePrompts

#: Largest difference of two scores in [0, 1], or of two numbers of unit vectors, by precision of the model. In half
#: precision engines round after every layer, each in its own order.
TOLERANCES = {"torch.float32": 1e-4, "torch.float16": 1e-2, "torch.bfloat16": 5e-2}


def sample_pairs(groups: Sequence[tuple[Content, Sequence[Content]]], n: int) -> list[tuple[Content, Content]]:
    """Return ``n`` pairs, evenly spaced over all of them; all where there are no more."""
    sizes = np.array([len(candidates) for _, candidates in groups])
    ends = np.cumsum(sizes)
    total = int(ends[-1]) if len(ends) else 0
    chosen = np.unique(np.linspace(0, total - 1, min(n, total)).round().astype(np.int64))
    rows = np.searchsorted(ends, chosen, side="right")
    return [
        (groups[row][0], groups[row][1][pair - (ends[row] - sizes[row])])
        for pair, row in zip(chosen, rows, strict=True)
    ]


def transformers_logits(spec: ModelSpec, pairs: Sequence[tuple[Content, Content]], prompts: JudgePrompts) -> np.ndarray:
    """Judge pairs by :class:`.PrefixJudge`, with the same weights and on the same kind of device, and forget the model.

    Args:
        spec: The judge's model.
        pairs: Query and candidate.
        prompts: Says how long prompts may be, and with which instruction.

    Returns:
        (n, 2) float32 logits of Yes and No; NaN where a pair cannot be judged.
    """
    from unime_kedro.mllm.adapters import load_adapter
    from unime_kedro.mllm.judge import PrefixJudge

    judge = PrefixJudge(
        load_adapter(spec), batch_size=1, max_tokens=prompts.max_tokens, instruction=prompts.instruction
    )
    found = [judge.judge(query, [candidate]) for query, candidate in pairs]
    del judge
    gc.collect()
    free_memory()
    return np.array([[f.yes[0], f.no[0]] for f in found], dtype=np.float32)


def check_agreement(
    pairs: Sequence[tuple[Content, Content]], wanted: np.ndarray, found: np.ndarray, dtype: str
) -> float:
    """Compare the logits of transformers and of an engine.

    Differences of logits are compared, not scores: near 0 and 1 scores hide them. A score's slope is at most 1/4, so a
    quarter of the difference bounds that of the scores.

    Args:
        pairs: Query and candidate.
        wanted: (n, 2) logits of Yes and No by transformers; a pair with NaN on both sides agrees.
        found: The same by the engine.
        dtype: Of the model, as torch names it.

    Returns:
        The largest difference, in scores.

    Raises:
        ModelError: If one is larger than :data:`TOLERANCES` allows; it shows the worst pair.
    """
    gaps = [np.subtract(logits[:, 0], logits[:, 1], dtype=np.float64) for logits in (wanted, found)]
    difference = np.abs(gaps[0] - gaps[1]) / 4
    failed = [np.isnan(gap) for gap in gaps]
    difference[failed[0] & failed[1]] = 0.0
    worst = int(np.argmax(difference))  # NaN on one side alone counts as the largest, and is no less than any limit
    if difference[worst] <= TOLERANCES[dtype]:
        return float(difference[worst])
    scores = [float(score(logits[worst, :1], logits[worst, 1:])[0]) for logits in (wanted, found)]
    query, candidate = pairs[worst]
    raise ModelError(
        f"vLLM does not agree with transformers: of {len(pairs)} pairs the worst has score {scores[0]:.6f} by "
        f"transformers and {scores[1]:.6f} by vLLM (logits of Yes, No {wanted[worst].tolist()} and "
        f"{found[worst].tolist()}; {dtype.removeprefix('torch.')} allows {TOLERANCES[dtype]:g}). Query: {query}. "
        f"Candidate: {candidate}. Use backend: transformers, or, if you know that vLLM is right, vllm.check_pairs: 0."
    )


def check_vectors(contents: Sequence[Content], wanted: np.ndarray, found: np.ndarray, dtype: str) -> float:
    """Compare embeddings by transformers and by an engine.

    Args:
        contents: What was embedded.
        wanted: (n, dimension) unit vectors by transformers.
        found: The same by the engine.
        dtype: Of the model, as torch names it.

    Returns:
        The largest difference of two numbers.

    Raises:
        ModelError: If it is larger than :data:`TOLERANCES` allows; it shows the worst content.
    """
    difference = np.abs(wanted.astype(np.float64) - found).max(axis=1)
    worst = int(np.argmax(difference))
    if difference[worst] <= TOLERANCES[dtype]:
        return float(difference[worst])
    cosine = float(wanted[worst].astype(np.float64) @ found[worst])
    raise ModelError(
        f"vLLM does not agree with transformers: of {len(wanted)} embeddings the worst differs by "
        f"{difference[worst]:.3g} (cosine {cosine:.6f}; {dtype.removeprefix('torch.')} allows {TOLERANCES[dtype]:g}): "
        f"{contents[worst]}. Use backend: transformers, or, if you know that vLLM is right, vllm.check_items: 0."
    )
