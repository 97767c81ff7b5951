"""The two forms of a data set behind one face: which candidates a block of queries has, and how similar they are."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import polars as pl
from numpy.typing import NDArray

from unime_kedro.errors import DataError
from unime_kedro.evaluation.encoding import Ids, Vectors, pair_similarities
from unime_kedro.evaluation.tasks import OwnCandidates, SharedCandidates, Task
from unime_kedro.mining.index import similarity_matrix

#: a matrix product takes about a sixteenth of the time that gathering both vectors of a pair does (64 to 512 numbers)
_DENSE = 16

Compared = tuple[NDArray[np.float32], NDArray[np.bool_]]


class Asked(Protocol):
    """One data set, checked, its queries by query_id.

    Attributes:
        dataset: Its name.
        queries: query_id, unit.
        sizes: (n_queries,) int64, candidates of each.
    """

    dataset: str
    queries: pl.DataFrame
    sizes: Ids

    def compare(self, part: Ids, vectors: Vectors, places: Ids) -> Compared:
        """Compare some queries with all their candidates.

        Args:
            part: Rows of ``queries``.
            vectors: (n, d) float32, unit length.
            places: Row of ``vectors`` for every row of the data set's contents.

        Returns:
            Similarities, the candidates of one query after those of the other, and which of them are right.
        """

    def content_ids(self, part: Ids, found: Ids) -> Ids:
        """Return the contents of candidates, (n, k), by their places among a query's; -1 for place -1."""


def prepare(task: Task) -> Asked:
    """Check a data set and look its contents up.

    Raises:
        DataError: If it has no queries, ids are not distinct, a query has no candidates or no right one, or a content
            id is unknown.
    """
    _check_ids(task.dataset, task.queries, "query_id")
    _check_ids(task.dataset, task.contents, "content_id")
    if not len(task.queries):
        raise DataError(f"{task.dataset}: there are no queries; expected one at least.")
    if task.queries["unit"].null_count():
        raise DataError(f"{task.dataset}: a query has no unit; expected what is resampled together with it.")
    return _Own(task) if isinstance(task, OwnCandidates) else _Shared(task)


class _Own:
    """Every query brings its own candidates, the target first."""

    def __init__(self, task: OwnCandidates) -> None:
        self.dataset = task.dataset
        queries = task.queries.sort("query_id")
        self.queries = queries.select("query_id", "unit")
        self.sizes = queries["candidates"].list.len().fill_null(0).to_numpy().astype(np.int64)
        if (self.sizes == 0).any():
            query = queries["query_id"][int(np.argmax(self.sizes == 0))]
            raise DataError(f"{self.dataset}, query_id {query}: no candidates; expected the target at least.")
        candidates = queries["candidates"].explode(empty_as_null=False)
        self._query_at = _look_up(task, queries["content_id"])
        self._candidate_at = _look_up(task, candidates)
        self._candidates = candidates.to_numpy()
        self._starts = np.cumsum(self.sizes) - self.sizes

    def compare(self, part: Ids, vectors: Vectors, places: Ids) -> Compared:
        """See :class:`Asked`."""
        sizes = self.sizes[part]
        starts = np.cumsum(sizes) - sizes
        flat = np.arange(sizes.sum()) + np.repeat(self._starts[part] - starts, sizes)
        left, candidates = places[self._query_at[part]], places[self._candidate_at[flat]]
        row = np.repeat(np.arange(len(part)), sizes)
        distinct, column = np.unique(candidates, return_inverse=True)
        if len(part) * len(distinct) <= _DENSE * len(flat):
            similarity = similarity_matrix(vectors[left], vectors[distinct])[row, column]
        else:
            similarity = pair_similarities(vectors, left[row], candidates)
        right = np.zeros(len(flat), dtype=bool)
        right[starts] = True
        return similarity, right

    def content_ids(self, part: Ids, found: Ids) -> Ids:
        """See :class:`Asked`."""
        return np.where(found < 0, -1, self._candidates[self._starts[part, None] + np.maximum(found, 0)])


class _Shared:
    """All targets are candidates of every query; those of its own group are right."""

    def __init__(self, task: SharedCandidates) -> None:
        self.dataset = task.dataset
        queries, targets = task.queries.sort("query_id"), task.targets
        self.queries = queries.select("query_id", "unit")
        self._check(queries, targets)
        self.sizes = np.full(len(queries), len(targets), dtype=np.int64)
        self._query_at = _look_up(task, queries["content_id"])
        self._target_at = _look_up(task, targets["content_id"])
        self._targets = targets["content_id"].to_numpy()
        self._groups, self._target_groups = queries["group"].to_numpy(), targets["group"].to_numpy()

    def _check(self, queries: pl.DataFrame, targets: pl.DataFrame) -> None:
        dense = pl.Series("target_id", np.arange(len(targets)))
        if not targets["target_id"].cast(pl.Int64).equals(dense, check_names=False):
            raise DataError(f"{self.dataset}: expected target_id to be 0, 1, 2, ... in the order of the rows.")
        bare = queries.join(targets.select("group"), on="group", how="anti")
        if len(bare):
            query, group = bare.row(0, named=True)["query_id"], bare["group"][0]
            raise DataError(
                f"{self.dataset}, query_id {query}: no target is of its group {group}; expected one at least. "
                f"{len(bare):,} queries are without."
            )

    def compare(self, part: Ids, vectors: Vectors, places: Ids) -> Compared:
        """See :class:`Asked`."""
        similarity = similarity_matrix(vectors[places[self._query_at[part]]], vectors[places[self._target_at]])
        right = self._groups[part, None] == self._target_groups
        return similarity.ravel(), right.ravel()

    def content_ids(self, part: Ids, found: Ids) -> Ids:
        """See :class:`Asked`."""
        return np.where(found < 0, -1, self._targets[np.maximum(found, 0)])


def _check_ids(dataset: str, table: pl.DataFrame, key: str) -> None:
    if table[key].n_unique() < len(table) or table[key].null_count():
        raise DataError(f"{dataset}: expected distinct {key}, some are missing or stand there twice.")


def _look_up(task: Task, content_ids: pl.Series) -> Ids:
    """Return the rows of a data set's contents that ids stand for."""
    table = task.contents.select("content_id", at=pl.int_range(pl.len(), dtype=pl.Int64))
    found = content_ids.to_frame("content_id").join(table, on="content_id", how="left", maintain_order="left")["at"]
    if found.null_count():
        unknown = content_ids.filter(found.is_null())[0]
        raise DataError(f"{task.dataset}: content_id {unknown} is mentioned by a query and not among its contents.")
    return found.to_numpy()
