"""Judge every (query, pool member) and every (query, positive), each distinct pair of contents once."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import polars as pl

from unime_kedro.errors import ConfigurationError, DataError
from unime_kedro.mining.store import SCHEMA, JudgeStore
from unime_kedro.mllm.content import Content, contents_of
from unime_kedro.mllm.judgements import Judgements, score

#: one query and the candidates that it is judged with
Group = tuple[Content, Sequence[Content]]


class Judge(Protocol):
    """What judging needs of a backend.

    A backend that fills the store by workers of its own, on whichever machines, has a method ``fill_store`` besides
    (:class:`FillsStore`), which is used instead of ``judge_all``.
    """

    def judge_all(self, groups: Sequence[Group]) -> Iterator[Judgements]:
        """Yield the logits of each group's candidates, in the order of ``groups``, as they are ready."""

    def identity(self) -> dict[str, Any]:
        """Return everything the scores depend on."""


@runtime_checkable
class FillsStore(Protocol):
    """A backend whose workers write shards of the judge store themselves."""

    def fill_store(self, missing: pl.DataFrame, contents: Sequence[Content], store: JudgeStore) -> Iterator[int]:
        """Judge ``missing`` into ``store.folder``, and yield how many more pairs are on disk, from time to time.

        Args:
            missing: query_key, query_item_id, item_id (list), candidate_key (list), a row per query.
            contents: By item_id.
            store: Where to; each worker opens one of its own on the same folder.
        """


@dataclass(frozen=True)
class Judged:
    """Result of :func:`judge_pairs`.

    Attributes:
        scores: The judge_scores table: one row per judged (query, item), positives first, then in pool order.
        errors: query_id, item_id, is_positive, error: pairs without a score.
        metrics: Flat numbers.
    """

    scores: pl.DataFrame
    errors: pl.DataFrame
    metrics: dict[str, float]


def pairs_to_judge(queries: pl.DataFrame, pool: pl.DataFrame) -> pl.DataFrame:
    """List what needs a score: query_id, query_item_id, item_id, is_positive; positives first, then in pool order."""
    positives = queries.select(
        "query_id",
        pl.col("item_id").alias("query_item_id"),
        pl.col("positive_item_id").alias("item_id"),
        is_positive=pl.lit(True),
        rank=pl.lit(-1, dtype=pl.Int32),
    )
    members = pool.join(
        queries.select("query_id", pl.col("item_id").alias("query_item_id")), on="query_id", how="inner"
    ).select("query_id", "query_item_id", "item_id", pl.lit(False).alias("is_positive"), "rank")
    return pl.concat([positives, members]).sort("query_id", "rank").drop("rank")


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


def missing_pairs(
    queries: pl.DataFrame, items: pl.DataFrame, pool: pl.DataFrame, known: pl.DataFrame | None
) -> pl.DataFrame:
    """Return the distinct pairs of contents that :func:`judge_pairs` would judge.

    Args:
        queries: The queries table.
        items: The items table.
        pool: The pool table.
        known: What a store has (:meth:`JudgeStore.read`); None for nothing.

    Returns:
        query_key, query_item_id, item_id (list), candidate_key (list), a row per query.
    """
    known = pl.DataFrame(schema=SCHEMA) if known is None else known
    return _missing(_with_keys(pairs_to_judge(queries, pool), items), known)


def _rows(query_key: str, candidate_keys: list[str], found: Judgements) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "query_key": [query_key] * len(candidate_keys),
            "candidate_key": candidate_keys,
            "yes_logit": found.yes,
            "no_logit": found.no,
            "error": found.errors,
        }
    )


def judge_pairs(
    queries: pl.DataFrame,
    items: pl.DataFrame,
    pool: pl.DataFrame,
    judge: Judge,
    store_root: Path,
    image_root: Path,
    *,
    temperature: float = 1.0,
    flush_seconds: float = 10.0,
    max_error_share: float = 0.0,
    progress: Callable[[str, int, str], Any] | None = None,
) -> Judged:
    """Score all pairs, taking from the store what is there.

    All missing candidates of a query are judged together and kept together, so that a killed run, started again, judges
    only what is missing and ends with the identical table.

    Args:
        queries: The queries table.
        items: The items table.
        pool: The pool table.
        judge: The backend.
        store_root: Folder of the judge store.
        image_root: Folder that image paths are relative to.
        temperature: Scores are sigmoid((yes_logit - no_logit) / temperature). The store holds logits alone, so another
            temperature judges nothing again.
        flush_seconds: How often finished scores reach the disk.
        max_error_share: Largest share of pairs without a score.
        progress: ``unime_kedro.progress.progress`` or alike.

    Returns:
        Scores, errors and metrics.

    Raises:
        ConfigurationError: If the temperature is not a finite number above 0 in float32.
        DataError: If more than ``max_error_share`` of the pairs could not be judged.
    """
    start = time.perf_counter()
    temperature = _single_precision(temperature)
    store = JudgeStore(store_root, judge.identity(), flush_seconds)
    pairs = _with_keys(pairs_to_judge(queries, pool), items)
    distinct = pairs.select(pl.struct("query_key", "candidate_key").n_unique()).item()
    groups = _missing(pairs, store.read())
    todo = int(groups["item_id"].list.len().sum()) if len(groups) else 0
    if todo:
        _judge_groups(groups, contents_of(items, image_root), judge, store, distinct - todo, progress)
    judged = pairs.join(store.read(), on=["query_key", "candidate_key"], how="left", maintain_order="left")
    errors = judged.filter((pl.col("error") != "") | pl.col("error").is_null()).select(
        "query_id", "item_id", "is_positive", pl.col("error").fill_null("not judged")
    )
    _enforce_error_share(errors, len(judged), max_error_share)
    good = judged.filter(pl.col("error") == "")
    values = score(good["yes_logit"].to_numpy(), good["no_logit"].to_numpy(), temperature)
    scores = good.select("query_id", "item_id", "is_positive", "yes_logit", "no_logit").with_columns(
        temperature=pl.lit(temperature, dtype=pl.Float32), score=pl.Series(values, dtype=pl.Float32)
    )
    seconds = time.perf_counter() - start
    metrics = {**_metrics(scores, errors, distinct, todo, seconds), "temperature": temperature}
    return Judged(scores, errors, metrics)


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
    judge: Judge,
    store: JudgeStore,
    known: int,
    progress: Callable[[str, int, str], Any] | None,
) -> None:
    from contextlib import nullcontext

    total = known + int(groups["item_id"].list.len().sum())
    with store, progress("judging", total, "pairs") if progress else nullcontext() as bar:
        if bar is not None:
            bar.skip(known)
        filling = judge.fill_store(groups, contents, store) if isinstance(judge, FillsStore) else None
        for done in filling or _judge_here(groups, contents, judge, store):
            if bar is not None:
                bar.advance(done)


def _judge_here(groups: pl.DataFrame, contents: list[Content], judge: Judge, store: JudgeStore) -> Iterator[int]:
    """Judge in this process into the store; yields how many more pairs are done, query by query."""
    members = groups["item_id"].to_list()
    queries = groups["query_item_id"].to_list()
    wanted = [(contents[q], [contents[i] for i in found]) for q, found in zip(queries, members, strict=True)]
    keys = zip(groups["query_key"].to_list(), groups["candidate_key"].to_list(), strict=True)
    for (query_key, candidate_keys), found in zip(keys, judge.judge_all(wanted), strict=True):
        store.add(_rows(query_key, candidate_keys, found))
        yield len(candidate_keys)


def _enforce_error_share(errors: pl.DataFrame, n_pairs: int, limit: float) -> None:
    share = len(errors) / max(n_pairs, 1)
    if share <= limit:
        return
    common = errors["error"].value_counts(sort=True).head(3).rows()
    reasons = "; ".join(f"{n} x {text}" for text, n in common)
    raise DataError(
        f"{len(errors):,} of {n_pairs:,} pairs ({share:.2%}) could not be judged, judge.max_error_share allows "
        f"{limit:.2%}. Most common: {reasons}. All scores are kept in the store; run again to retry the others, "
        "or raise judge.max_error_share."
    )


def _metrics(
    scores: pl.DataFrame, errors: pl.DataFrame, distinct: int, judged_now: int, seconds: float
) -> dict[str, float]:
    values = scores["score"].to_numpy()
    positive = scores["is_positive"].to_numpy()

    def mean(part: np.ndarray) -> float:
        return float(part.mean()) if len(part) else 0.0

    return {
        "pairs": len(scores) + len(errors),
        "distinct_pairs": distinct,
        "judged_now": judged_now,
        "from_store": distinct - judged_now,
        "errors": len(errors),
        "mean_positive_score": mean(values[positive]),
        "mean_pool_score": mean(values[~positive]),
        "yes_share_pool": mean(values[~positive] > 0.5),
        "score_share_between_05_95": mean((values > 0.05) & (values < 0.95)),
        "seconds": seconds,
        "pairs_per_second": judged_now / seconds if seconds > 0 else 0.0,
    }
