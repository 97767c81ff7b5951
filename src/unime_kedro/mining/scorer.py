"""Scores of pairs of contents: from the judge store, or judged now, each distinct pair once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import polars as pl

from unime_kedro.errors import ConfigurationError
from unime_kedro.mining.store import JudgeStore
from unime_kedro.mllm.content import Content, contents_of
from unime_kedro.mllm.judgements import Judgements, score

#: one query and the candidates that it is judged with
Group = tuple[Content, Sequence[Content]]


class Judge(Protocol):
    """What judging needs of a backend; :class:`FillsStore` is another one."""

    def judge_all(self, groups: Sequence[Group]) -> Iterator[Judgements]:
        """Yield the logits of each group's candidates, in the order of ``groups``, as they are ready."""

    def identity(self) -> dict[str, Any]:
        """Return everything the scores depend on."""


@runtime_checkable
class FillsStore(Protocol):
    """A backend whose workers, on whichever machines, write shards of the judge store themselves."""

    def identity(self) -> dict[str, Any]:
        """Return everything the scores depend on."""

    def fill_store(self, missing: pl.DataFrame, contents: Sequence[Content], store: JudgeStore) -> Iterator[int]:
        """Judge ``missing`` into ``store.folder``, and yield how many more pairs are on disk, from time to time.

        Args:
            missing: query_key, query_item_id, item_id (list), candidate_key (list), a row per query.
            contents: By item_id.
            store: Where to; each worker opens one of its own on the same folder.
        """


class PairScorer:
    """Scores of pairs: from the store, or judged now, each distinct pair of contents once.

    All missing candidates of a query are judged together and kept together, so that a killed run, started again, judges
    only what is missing and ends with the identical table.

    Args:
        items: The items table.
        judge: The backend.
        store_root: Folder of the judge store.
        image_root: Folder that image paths are relative to.
        temperature: Scores are sigmoid((yes_logit - no_logit) / temperature). The store holds logits alone, so another
            temperature judges nothing again.
        flush_seconds: How often finished scores reach the disk.
        progress: ``unime_kedro.progress.progress`` or alike.

    Attributes:
        temperature: As the table's float32 column holds it.
        judged_now: How many pairs were judged by this object.

    Raises:
        ConfigurationError: If the temperature is not a finite number above 0 in float32.
    """

    def __init__(
        self,
        items: pl.DataFrame,
        judge: Judge | FillsStore,
        store_root: Path,
        image_root: Path,
        *,
        temperature: float = 1.0,
        flush_seconds: float = 10.0,
        progress: Callable[[str, int, str], Any] | None = None,
    ) -> None:
        self.temperature = _single_precision(temperature)
        self.judged_now = 0
        self._items, self._judge, self._image_root, self._progress = items.sort("item_id"), judge, image_root, progress
        self._store = JudgeStore(store_root, judge.identity(), flush_seconds)
        self._known = self._store.read()
        self._contents: list[Content] | None = None

    def score(self, pairs: pl.DataFrame) -> pl.DataFrame:
        """Score pairs.

        Args:
            pairs: query_item_id and item_id; other columns stay as they are.

        Returns:
            The rows of ``pairs`` in their order, with yes_logit, no_logit, score (float32; null where judging failed)
            and error ("" where it did not).
        """
        pairs = _with_keys(pairs, self._items)
        groups = _missing(pairs, self._known)
        if todo := int(groups["item_id"].list.len().sum()) if len(groups) else 0:
            if self._contents is None:
                self._contents = contents_of(self._items, self._image_root)
            distinct = pairs.select(pl.struct("query_key", "candidate_key").n_unique()).item()
            _judge_groups(groups, self._contents, self._judge, self._store, distinct - todo, self._progress)
            self._known = self._store.read()
            self.judged_now += todo
        judged = pairs.join(self._known, on=["query_key", "candidate_key"], how="left", maintain_order="left")
        judged = judged.with_columns(pl.col("error").fill_null("not judged"))
        values = score(judged["yes_logit"].to_numpy(), judged["no_logit"].to_numpy(), self.temperature)
        return judged.with_columns(
            score=pl.when(pl.col("error") == "").then(pl.Series(values, dtype=pl.Float32))
        )  # fmt: skip


def without_score(pairs: pl.DataFrame, items: pl.DataFrame, known: pl.DataFrame) -> pl.DataFrame:
    """Return the distinct pairs of contents without a score.

    Args:
        pairs: query_item_id and item_id.
        items: The items table.
        known: What a store has (:meth:`JudgeStore.read`).

    Returns:
        query_key, query_item_id, item_id (list), candidate_key (list), a row per query in order of first need.
    """
    return _missing(_with_keys(pairs, items), known)


def _with_keys(pairs: pl.DataFrame, items: pl.DataFrame) -> pl.DataFrame:
    keys = items.sort("item_id")["content_key"]
    return pairs.with_columns(
        query_key=keys.gather(pairs["query_item_id"]), candidate_key=keys.gather(pairs["item_id"])
    )


def _missing(pairs: pl.DataFrame, known: pl.DataFrame) -> pl.DataFrame:
    """Return the distinct pairs of contents without a score, grouped by query in order of first need."""
    scored = known.filter(pl.col("error") == "").select("query_key", "candidate_key")
    return (
        pairs.unique(["query_key", "candidate_key"], keep="first", maintain_order=True)
        .join(scored, on=["query_key", "candidate_key"], how="anti", maintain_order="left")
        .group_by("query_key", maintain_order=True)
        .agg(pl.col("query_item_id").first(), "item_id", "candidate_key")
    )


def rows_of(query_key: str, candidate_keys: list[str], found: Judgements) -> pl.DataFrame:
    """Return the rows of a judge store for one query's judgements."""
    return pl.DataFrame(
        {
            "query_key": [query_key] * len(candidate_keys),
            "candidate_key": candidate_keys,
            "yes_logit": found.yes,
            "no_logit": found.no,
            "error": found.errors,
        }
    )


def _single_precision(temperature: float) -> float:
    """Round the temperature to what the table's float32 column can hold, so that the table says what was used."""
    with np.errstate(over="ignore", under="ignore"):
        rounded = float(np.float32(temperature))
    if not 0 < rounded < np.inf:
        raise ConfigurationError(
            f"judge.temperature: {temperature} is not a finite number above 0 in single precision; 1.0 leaves scores "
            "as the judge gives them."
        )
    return rounded


def _judge_groups(
    groups: pl.DataFrame,
    contents: list[Content],
    judge: Judge | FillsStore,
    store: JudgeStore,
    known: int,
    progress: Callable[[str, int, str], Any] | None,
) -> None:
    from contextlib import nullcontext

    total = known + int(groups["item_id"].list.len().sum())
    with store, progress("judging", total, "pairs") if progress else nullcontext() as bar:
        if bar is not None:
            bar.skip(known)
        if isinstance(judge, FillsStore):
            filling = judge.fill_store(groups, contents, store)
        else:
            filling = _judge_here(groups, contents, judge, store)
        for done in filling:
            if bar is not None:
                bar.advance(done)


def _judge_here(groups: pl.DataFrame, contents: list[Content], judge: Judge, store: JudgeStore) -> Iterator[int]:
    """Judge in this process into the store; yields how many more pairs are done, query by query."""
    members = groups["item_id"].to_list()
    queries = groups["query_item_id"].to_list()
    wanted = [(contents[q], [contents[i] for i in found]) for q, found in zip(queries, members, strict=True)]
    keys = zip(groups["query_key"].to_list(), groups["candidate_key"].to_list(), strict=True)
    for (query_key, candidate_keys), found in zip(keys, judge.judge_all(wanted), strict=True):
        store.add(rows_of(query_key, candidate_keys, found))
        yield len(candidate_keys)
