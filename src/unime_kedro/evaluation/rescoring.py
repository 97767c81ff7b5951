"""A sample of queries whose pools are judged again, each time with one thing changed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
import polars as pl

from unime_kedro.mining.judging import Judge, pairs_to_judge
from unime_kedro.mllm.content import Content
from unime_kedro.mllm.judgements import score

#: what a scoring is made for: to compare with, the noise floor, another wording, another judge
Kind = Literal["reference", "noise", "wording", "second"]

SCHEMA = pl.Schema(
    {
        "kind": pl.String,
        "variant": pl.String,
        "query_id": pl.Int64,
        "item_id": pl.Int64,
        "is_positive": pl.Boolean,
        "yes_logit": pl.Float32,
        "no_logit": pl.Float32,
        "score": pl.Float32,
    }
)


def sample_queries(queries: pl.DataFrame, pool: pl.DataFrame, scores: pl.DataFrame, n: int, seed: int) -> list[int]:
    """Choose queries at random, the data sets taking turns.

    Args:
        queries: Table ``queries``.
        pool: Table ``pool``; a query without a pool is not chosen.
        scores: Table ``judge_scores``; nor is one whose positive has no score.
        n: How many, at most; fewer when there are fewer.
        seed: Seed; the choice does not depend on the order of rows.

    Returns:
        Query ids, ascending.
    """
    scored = scores.filter(pl.col("is_positive") & pl.col("score").is_finite())
    fit = (
        queries.select("query_id", "dataset")
        .join(pool, on="query_id", how="semi")
        .join(scored, on="query_id", how="semi")
        .sort("query_id")
    )
    shuffled = fit[np.random.default_rng(seed).permutation(fit.height)].with_row_index("drawn")
    turns = shuffled.with_columns(turn=pl.int_range(pl.len()).over("dataset")).sort("turn", "drawn")
    return turns.head(n)["query_id"].sort().to_list()


def sampled_pairs(queries: pl.DataFrame, pool: pl.DataFrame, query_ids: Sequence[int]) -> pl.DataFrame:
    """Return query_id, query_item_id, item_id, is_positive of some queries: their positives and pools."""
    wanted = pl.DataFrame({"query_id": query_ids}, schema={"query_id": pl.Int64})
    return pairs_to_judge(queries.join(wanted, on="query_id", how="semi"), pool.join(wanted, on="query_id", how="semi"))


def rescore(
    pairs: pl.DataFrame,
    contents: Sequence[Content],
    judge: Judge,
    *,
    temperature: float,
    kind: Kind,
    variant: str,
    backwards: bool = False,
    progress: Callable[[str, int, str], Any] | None = None,
) -> pl.DataFrame:
    """Judge pairs as the pipeline does, but whether or not they are in the store.

    Args:
        pairs: See :func:`sampled_pairs`.
        contents: By item_id.
        judge: The backend.
        temperature: Scores are sigmoid((yes_logit - no_logit) / temperature).
        kind: Stands in every row.
        variant: Likewise: what is different this time.
        backwards: Whether a query's candidates come in the opposite order.
        progress: ``unime_kedro.progress.progress`` or alike.

    Returns:
        Columns of :data:`SCHEMA`, in the order of ``pairs``; logits and score are null where judging failed.

    Raises:
        ValueError: If the pairs are not sorted by query_id.
    """
    from contextlib import nullcontext

    if not pairs["query_id"].is_sorted():
        raise ValueError("pairs are not sorted by query_id: logits would stand beside pairs of other queries")
    groups = pairs.group_by("query_id", maintain_order=True).agg(pl.col("query_item_id").first(), "item_id")
    found = []
    with progress(f"judging ({variant})", pairs.height, "pairs") if progress else nullcontext() as bar:
        step = -1 if backwards else 1
        wanted = [
            (contents[query], [contents[item] for item in members[::step]])
            for query, members in zip(groups["query_item_id"].to_list(), groups["item_id"].to_list(), strict=True)
        ]
        for judged in judge.judge_all(wanted):
            found.append(np.stack([judged.yes, judged.no], axis=1)[::step])
            if bar is not None:
                bar.advance(len(judged.errors))
    logits = np.concatenate(found) if found else np.empty((0, 2), dtype=np.float32)
    return (
        pairs.select(
            pl.lit(kind).alias("kind"),
            pl.lit(variant).alias("variant"),
            "query_id",
            "item_id",
            "is_positive",
            pl.Series("yes_logit", logits[:, 0]),
            pl.Series("no_logit", logits[:, 1]),
            pl.Series("score", score(logits[:, 0], logits[:, 1], temperature)),
        )
        .with_columns(pl.col("yes_logit", "no_logit", "score").fill_nan(None))
        .cast(SCHEMA)
    )
