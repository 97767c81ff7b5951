"""From the embeddings of a batch to the loss that the parameters name.

The trainer hands over what all processes have gathered: per query its own embedding, its positive's and those of its
hard negatives, with the ids of all these contents. Equal ids are equal content: a candidate that has the content of a
query's positive is a false negative of that query, wherever in the batch it comes from, and is left out of its sum.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

from unime_kedro.learning.losses import (
    Divergence,
    check_options,
    combined_info_nce,
    hard_negative_cross_entropy,
    in_batch_info_nce,
    soft_label_loss,
)

if TYPE_CHECKING:
    import torch

#: ``in_batch``: the positives of all other queries, one-hot; ``hard``: a query's own hard negatives, one-hot;
#: ``combined``: all positives and hard negatives of the batch, one-hot; ``soft``: own hard negatives, judge's scores.
Kind = Literal["in_batch", "hard", "combined", "soft"]

_NEEDS_NEGATIVES: dict[Kind, bool] = {"in_batch": False, "hard": True, "combined": True, "soft": True}


def needs_negatives(kind: Kind) -> bool:
    """Tell whether a kind of loss looks at hard negatives; where it does not, none need be embedded.

    Raises:
        ValueError: If the kind is unknown.
    """
    if kind not in _NEEDS_NEGATIVES:
        raise ValueError(f"unknown loss {kind!r}; known are {', '.join(get_args(Kind))}")
    return _NEEDS_NEGATIVES[kind]


@dataclass(frozen=True)
class Objective:
    """A loss of a batch, see :mod:`.losses` for the equations.

    ==========  ======================================================  =====================================
    kind        function                                                left out as false negatives of a query
    ==========  ======================================================  =====================================
    in_batch    :func:`.losses.in_batch_info_nce`                       other queries' equal positives
    hard        :func:`.losses.hard_negative_cross_entropy`             nothing: mining has done it
    combined    :func:`.losses.combined_info_nce`                       positives and hard negatives of all
                                                                        queries that equal its positive
    soft        :func:`.losses.soft_label_loss`                         nothing: mining has done it
    ==========  ======================================================  =====================================

    ``combined`` keeps its terms apart by place, not by content: a hard negative that two queries share counts twice.

    Attributes:
        kind: One of :data:`Kind`.
        student_temperature: Divides the cosines, in every kind.
        judge_temperature: Divides the judge's scores; ``soft`` alone reads it.
        probability_floor: Of the divergence, in [0, 1); ``soft`` alone reads it.
        divergence: One of :data:`.losses.Divergence`; ``soft`` alone reads it.
        in_batch_weight: Adds so much of the loss ``in_batch`` to ``hard`` or ``soft``, whose negatives are a query's
            own alone; 0 is the paper's.

    Raises:
        ValueError: If the kind or the divergence is unknown, or a number is out of range, whether it is read or not.
    """

    kind: Kind = "soft"
    student_temperature: float = 0.02
    judge_temperature: float = 0.02
    probability_floor: float = 1e-8
    divergence: Divergence = "symmetric"
    in_batch_weight: float = 0.0

    def __post_init__(self) -> None:
        """Refuse what no batch could be trained with before the first one."""
        needs_negatives(self.kind)
        if not 0 <= self.in_batch_weight < math.inf:
            raise ValueError(f"in_batch_weight is {self.in_batch_weight}; expected a finite number of at least 0")
        check_options(self.student_temperature, self.judge_temperature, self.probability_floor, self.divergence)

    def __call__(self, embeddings: torch.Tensor, judge_scores: torch.Tensor, item_ids: torch.Tensor) -> torch.Tensor:
        """Compute the loss.

        Args:
            embeddings: (n, k+2, d), of any length and type: query, positive, k hard negatives. ``in_batch`` reads the
                first two alone; k may be 0 for it, and for no other kind.
            judge_scores: (n, k+1) scores of positive and hard negatives. ``soft`` alone reads them.
            item_ids: (n, k+2) int64, the content of each embedding.

        Returns:
            A scalar, float32, in nats, mean over the n queries.

        Raises:
            ValueError: If the shapes do not fit each other or the kind, or what the loss itself refuses.
        """
        self._check(embeddings, judge_scores, item_ids)
        query, candidates = embeddings[:, 0], embeddings[:, 1:]
        positive, others = item_ids[:, 1], item_ids[:, 1:]
        tau = self.student_temperature
        if self.kind == "combined":
            same = positive[:, None] == others.reshape(1, -1)
            return combined_info_nce(query, candidates, temperature=tau, same=same)
        own = None if self.kind == "in_batch" else self._own(query, candidates, judge_scores)
        if own is not None and self.in_batch_weight == 0:
            return own
        same = positive[:, None] == positive[None, :]
        others_of_batch = in_batch_info_nce(query, candidates[:, 0], temperature=tau, same=same)
        return others_of_batch if own is None else own + self.in_batch_weight * others_of_batch

    def _own(self, query: torch.Tensor, candidates: torch.Tensor, judge_scores: torch.Tensor) -> torch.Tensor:
        """Compute the loss over a query's own candidates."""
        tau = self.student_temperature
        if self.kind == "hard":
            return hard_negative_cross_entropy(query, candidates, temperature=tau)
        return soft_label_loss(
            query,
            candidates,
            judge_scores,
            student_temperature=tau,
            judge_temperature=self.judge_temperature,
            probability_floor=self.probability_floor,
            divergence=self.divergence,
        )

    def _check(self, embeddings: torch.Tensor, judge_scores: torch.Tensor, item_ids: torch.Tensor) -> None:
        least = 3 if needs_negatives(self.kind) else 2
        shape = tuple(embeddings.shape)
        if embeddings.ndim != 3 or 0 in shape or shape[1] < least:
            raise ValueError(
                f"embeddings are {shape}; expected (n, k+2, d) with k >= {least - 2} for loss {self.kind}: query, "
                "positive, k hard negatives"
            )
        if item_ids.shape != shape[:2] or item_ids.is_floating_point():
            raise ValueError(f"item_ids are {tuple(item_ids.shape)} of {item_ids.dtype}; expected {shape[:2]} of int64")
        if judge_scores.shape != (shape[0], shape[1] - 1):
            raise ValueError(f"judge_scores are {tuple(judge_scores.shape)}; expected {(shape[0], shape[1] - 1)}")
