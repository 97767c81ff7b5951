"""Lengths of contents in tokens: counted on a sample, or assumed where there is nothing to count."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from unime_kedro.planning.interval import Interval

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from unime_kedro.mllm.content import Content
    from unime_kedro.planning.corpus import Corpus
    from unime_kedro.planning.models import PlannedModel

Tokens = NDArray[np.float64]


#: tokens of the judge's instruction and of Qwen2-VL's chat template: around the query, around the candidate
AROUND = (62, 12)


@dataclass(frozen=True)
class Lengths:
    """Tokens of sampled contents.

    Attributes:
        query: (n, 2) words and visual tokens of each sampled query.
        candidates: (n, k+1, 2) of its positive and pool members.
        singles: (m, 2) of sampled distinct contents, always without a prompt around them.
    """

    query: Tokens
    candidates: Tokens
    singles: Tokens

    @property
    def pictures(self) -> Tokens:
        """(p,) visual tokens of the sampled contents that have a picture."""
        visual = self.singles[:, 1]
        return visual[visual > 0]


def count_lengths(model: PlannedModel, corpus: Corpus, *, judged: bool = False) -> list[Lengths]:
    """Count the sample's tokens as ``model`` reads them.

    Args:
        model: The model.
        corpus: Its sample.
        judged: Whether queries and candidates stand in their parts of the judge's prompt, whose tokens count then.

    Returns:
        One of them; without a sample three: what is assumed at the low end, in the middle and at the high end.
    """
    if not corpus.groups:
        return assumed_lengths(model.pixels[1], corpus.k + 1, judged=judged)
    width = min(len(group.candidates) for group in corpus.groups)
    as_query, as_candidate = model.judged_parts() if judged else (str, str)

    def lengths(contents: Sequence[Content], wrap: Callable[[str], str] = str) -> Tokens:
        found = {content: model.length(content, wrap) for content in dict.fromkeys(contents)}
        return np.array([found[content] for content in contents], dtype=np.float64)

    candidates = [content for group in corpus.groups for content in group.candidates[:width]]
    return [
        Lengths(
            query=lengths([group.query for group in corpus.groups], as_query),
            candidates=lengths(candidates, as_candidate).reshape(len(corpus.groups), width, 2),
            singles=lengths(corpus.singles),
        )
    ]


#: what is assumed of contents that nobody has seen: words, and visual tokens as a share of the largest picture's
_WORDS = {"query": Interval(12, 30, 80), "candidate": Interval(3, 15, 60)}
_VISUAL = {"query": Interval(0.2, 0.5, 0.9), "candidate": Interval(0.05, 0.25, 0.6)}
#: largest area of a picture where the configuration names none, in pixels
_LARGEST = 1024 * 1024


def assumed_lengths(max_pixels: int | None, candidates: int, *, judged: bool) -> list[Lengths]:
    """Return what is assumed of contents that nobody has seen: at the low end, in the middle, at the high end.

    Args:
        max_pixels: Largest area of a picture; None for the model's own.
        candidates: Of a query, its positive included.
        judged: Whether they stand in the judge's prompt.
    """
    largest = (max_pixels or _LARGEST) / 28**2
    return [_assumed(level, largest, candidates, judged) for level in ("low", "middle", "high")]


def _assumed(level: str, largest: float, candidates: int, judged: bool) -> Lengths:
    query, candidate = (
        np.array([getattr(_WORDS[side], level), getattr(_VISUAL[side], level) * largest])
        for side in ("query", "candidate")
    )
    around = np.array([[words, 0] for words in AROUND]) * judged
    shown = np.tile(candidate + around[1], (1, candidates, 1))
    return Lengths((query + around[0])[None], shown, np.stack([query, candidate]))
