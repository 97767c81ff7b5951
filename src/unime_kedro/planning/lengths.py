"""Lengths of contents in tokens: counted on a sample, or assumed where there is nothing to count."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from unime_kedro.planning.interval import Interval

if TYPE_CHECKING:
    from collections.abc import Sequence

    from unime_kedro.mllm.content import Content
    from unime_kedro.planning.corpus import Corpus
    from unime_kedro.planning.models import PlannedModel

Tokens = NDArray[np.float64]


@dataclass(frozen=True)
class Lengths:
    """Tokens of sampled contents.

    Attributes:
        query: (n, 2) words and visual tokens of each sampled query.
        candidates: (n, k+1, 2) of its positive and pool members.
        singles: (m, 2) of sampled distinct contents.
        around: Tokens of the judge's prompt around a query and around a candidate.
    """

    query: Tokens
    candidates: Tokens
    singles: Tokens
    around: tuple[int, int]

    @property
    def pictures(self) -> Tokens:
        """(p,) visual tokens of the sampled contents that have a picture."""
        visual = self.singles[:, 1]
        return visual[visual > 0]


def count_lengths(model: PlannedModel, corpus: Corpus) -> list[Lengths]:
    """Count the sample's tokens as ``model`` reads them.

    Returns:
        One of them; without a sample three: what is assumed at the low end, in the middle and at the high end.
    """
    around = model.around()
    if not corpus.groups:
        return assumed_lengths(model.pixels[1], around)
    width = min(len(group.candidates) for group in corpus.groups)
    found: dict[Content, tuple[int, int]] = {}

    def lengths(contents: Sequence[Content]) -> Tokens:
        for content in contents:
            if content not in found:
                found[content] = tuple(model.length(content))  # type: ignore[assignment]
        return np.array([found[content] for content in contents], dtype=np.float64).reshape(len(contents), 2)

    return [
        Lengths(
            query=lengths([group.query for group in corpus.groups]),
            candidates=np.stack([lengths(group.candidates[:width]) for group in corpus.groups]),
            singles=lengths(corpus.singles),
            around=around,
        )
    ]


#: what is assumed of contents that nobody has seen: words, and visual tokens as a share of the largest picture's
_WORDS = {"query": Interval(12, 30, 80), "candidate": Interval(3, 15, 60)}
_VISUAL = {"query": Interval(0.2, 0.5, 0.9), "candidate": Interval(0.05, 0.25, 0.6)}
#: largest area of a picture where the configuration names none, in pixels
_LARGEST = 1024 * 1024


def assumed_lengths(max_pixels: int | None, around: tuple[int, int]) -> list[Lengths]:
    """Return what is assumed of contents that nobody has seen: at the low end, in the middle, at the high end.

    Args:
        max_pixels: Largest area of a picture; None for the model's own.
        around: Tokens of the judge's prompt around a query and around a candidate.
    """
    return [_assumed(level, (max_pixels or _LARGEST) / 28**2, around) for level in ("low", "middle", "high")]


def _assumed(level: str, largest: float, around: tuple[int, int]) -> Lengths:
    query, candidate = (
        np.array([getattr(_WORDS[side], level), getattr(_VISUAL[side], level) * largest])
        for side in ("query", "candidate")
    )
    return Lengths(query[None], candidate[None, None], np.stack([query, candidate]), around)
