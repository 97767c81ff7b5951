"""What the reranker is asked about one query, and what it is to answer (UniME-V2, section on the reranker).

Three messages per query and epoch: the positive alone (Yes), the hardest negative alone (No), and the list of the
hardest negatives with the positive somewhere in it (its number).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from unime_kedro.errors import DataError
from unime_kedro.mllm.prompts import listwise_answer


@dataclass(frozen=True)
class RerankingRows:
    """Queries with their mined negatives, sorted by query_id.

    Attributes:
        query_ids: (n,) int64.
        item_ids: (n,) int64: the query's item.
        positive_item_ids: (n,) int64.
        negative_item_ids: Of each query, the negatives with the highest scores, hardest first, at least one.
    """

    query_ids: NDArray[np.int64]
    item_ids: NDArray[np.int64]
    positive_item_ids: NDArray[np.int64]
    negative_item_ids: list[list[int]]

    def __len__(self) -> int:
        return len(self.query_ids)

    @classmethod
    def from_table(cls, table: pl.DataFrame, split: Literal["train", "validation"]) -> RerankingRows:
        """Take the rows of a split.

        Args:
            table: The table ``reranking``, in any order.
            split: Which rows.

        Raises:
            DataError: If a row has no negative, or split ``train`` has no row.
        """
        rows = table.filter(pl.col("split") == split).sort("query_id")
        if split == "train" and not len(rows):
            raise DataError(
                "reranking: there are no training queries. Lower rerank.validation.queries, set rerank.fallback to "
                "use, or mine more queries."
            )
        empty = rows.filter(pl.col("negative_item_ids").list.len() == 0)
        if len(empty):
            raise DataError(f"reranking: query_id {empty['query_id'][0]} has no negatives; expected at least one.")
        query_ids, item_ids, positives = (rows[name].to_numpy() for name in ("query_id", "item_id", "positive_item_id"))
        return cls(query_ids, item_ids, positives, rows["negative_item_ids"].to_list())


class Message(NamedTuple):
    """One question to the reranker, with its answer.

    Attributes:
        query: Item of the query.
        candidates: Items of the candidates, in the order of the prompt; one in a pairwise message.
        answer: What the model is to say: ``Yes``, ``No``, or a number in the listwise form.
        listwise: Which of the two prompts is meant.
    """

    query: int
    candidates: tuple[int, ...]
    answer: str
    listwise: bool


def messages_of(rows: RerankingRows, row: int, *, epoch: int, seed: int, fewest: int) -> list[Message]:
    """Return the messages of a query: positive, hardest negative, list.

    Args:
        rows: The queries.
        row: Which of them.
        epoch: How often all queries came before; list and place of the positive are drawn anew each time.
        seed: Of the drawing.
        fewest: Negatives of the shortest lists: how many of the hardest ones are shown is drawn from here to all there
            are. Short lists are cheap, and a model that cannot do it yet learns from them first.
    """
    query, positive = int(rows.item_ids[row]), int(rows.positive_item_ids[row])
    negatives = rows.negative_item_ids[row]
    length, place = draw_list(int(rows.query_ids[row]), len(negatives), epoch=epoch, seed=seed, fewest=fewest)
    return [
        Message(query, (positive,), "Yes", False),
        Message(query, (negatives[0],), "No", False),
        listwise_message(query, positive, negatives[:length], place),
    ]


def listwise_message(query: int, positive: int, negatives: Sequence[int], place: int) -> Message:
    """Put the positive at a place, from 0, among the negatives."""
    candidates = (*negatives[:place], positive, *negatives[place:])
    return Message(query, candidates, listwise_answer(place + 1), True)


def draw_list(query_id: int, n_negatives: int, *, epoch: int, seed: int, fewest: int) -> tuple[int, int]:
    """Draw how many negatives a list shows and where the positive stands among them, every place being as likely.

    The release draws the place from 1 to n+1 with n itself random from 1 to 4, although five negatives are always
    shown: the later a place, the rarer it is the right one, the last never. A model learns that, too.

    Args:
        query_id: The query; each has a stream of its own, so that the order of the rows does not matter.
        n_negatives: How many negatives there are.
        epoch: How often all queries came before.
        seed: Of the drawing.
        fewest: Negatives of the shortest lists; all, where there are fewer.

    Returns:
        Number of negatives, and a place from 0 to this number.
    """
    rng = np.random.default_rng([seed, epoch, query_id])
    length = int(rng.integers(min(fewest, n_negatives), n_negatives + 1))
    return length, int(rng.integers(length + 1))
