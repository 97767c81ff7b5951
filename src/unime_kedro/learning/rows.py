"""What one training query is made of, and the order in which queries come."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from unime_kedro.errors import DataError


@dataclass(frozen=True)
class TrainingRows:
    """Training queries as arrays, sorted by query_id.

    Attributes:
        query_ids: (n,) int64.
        item_ids: (n, k+2) int64: the query's item, its positive, its k negatives.
        scores: (n, k+1) float32: the judge's scores of positive and negatives.
    """

    query_ids: NDArray[np.int64]
    item_ids: NDArray[np.int64]
    scores: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.query_ids)

    @classmethod
    def from_table(cls, training: pl.DataFrame, negatives: int) -> TrainingRows:
        """Take the rows of split ``train``.

        Args:
            training: The table ``training``, in any order.
            negatives: k, how many of each query's negatives are used: the first ones. 0 for a loss that takes none.

        Raises:
            DataError: If there is no row, or one has fewer negatives.
        """
        rows = training.filter(pl.col("split") == "train").sort("query_id")
        if not len(rows):
            raise DataError("there are no training queries; see skipped.parquet and train.validation.queries.")
        short = rows.filter(pl.col("negative_item_ids").list.len() < negatives)
        if len(short):
            has = short["negative_item_ids"].list.len()[0]
            raise DataError(f"query_id {short['query_id'][0]} has {has} negatives, {negatives} are to be used.")
        item_ids = np.empty((len(rows), negatives + 2), dtype=np.int64)
        item_ids[:, 0], item_ids[:, 1] = rows["item_id"], rows["positive_item_id"]
        scores = np.empty((len(rows), negatives + 1), dtype=np.float32)
        scores[:, 0] = rows["positive_score"]
        if negatives:
            item_ids[:, 2:] = rows["negative_item_ids"].list.head(negatives).list.to_array(negatives).to_numpy()
            scores[:, 1:] = rows["negative_scores"].list.head(negatives).list.to_array(negatives).to_numpy()
        return cls(rows["query_id"].to_numpy(), item_ids, scores)


def batch_order(n: int, *, batch: int, steps: int, seed: int, section: str = "train") -> NDArray[np.int64]:
    """Return the rows of every step: each epoch is another permutation, what does not fill a batch waits for the next.

    It depends on these four numbers alone, so that runs that differ in anything else see the same queries in the same
    order.

    Args:
        n: Training queries.
        batch: Queries per step.
        steps: Steps.
        seed: Of the permutations.
        section: Top-level key of the parameters, for messages.

    Returns:
        (steps, batch) int64, no row twice in a step.

    Raises:
        DataError: If there are fewer queries than one batch.
    """
    if n < batch:
        raise DataError(
            f"there are {n:,} training queries, one batch is {batch:,}; lower {section}.batch to at most {n:,}."
        )
    per_epoch = n // batch
    epochs = -(-steps // per_epoch)
    order = [np.random.default_rng([seed, epoch]).permutation(n)[: per_epoch * batch] for epoch in range(epochs)]
    return np.concatenate(order).reshape(-1, batch)[:steps]
