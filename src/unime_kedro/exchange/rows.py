"""Mined negatives, a row per query: what every other trainer's format is made of."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import polars as pl

from unime_kedro.errors import DataError

Images = Literal["relative", "absolute"]

#: reasons for which a query is not exported, in the order in which they are looked for
NO_NEGATIVES = "no negatives"
NO_POSITIVE_SCORE = "no score of its positive"
TOO_FEW = "fewer negatives than asked for"


@dataclass(frozen=True)
class MinedRows:
    """What is exported.

    Attributes:
        frame: A row per query, by query_id: query_id, dataset; query_text, query_image; positive_id, positive_text,
            positive_image, positive_score (float64); negative_ids, negative_texts, negative_images, negative_scores:
            lists of equal length, by slot. A side without a picture has image "".
        left_out: Reason -> number of queries that are not in it.
    """

    frame: pl.DataFrame
    left_out: dict[str, int]

    def only(self, keep: pl.Expr, reason: str) -> MinedRows:
        """Keep the rows for which an expression is true; the others are counted under ``reason``."""
        kept = self.frame.filter(keep)
        if dropped := len(self.frame) - len(kept):
            return MinedRows(kept, {**self.left_out, reason: dropped})
        return self


def mined_rows(
    negatives: pl.DataFrame,
    queries: pl.DataFrame,
    items: pl.DataFrame,
    judge_scores: pl.DataFrame,
    *,
    count: int | None = None,
    fallback: bool = True,
    image_root: Path | None = None,
) -> MinedRows:
    """Put queries, positives and mined negatives side by side.

    Args:
        negatives: The negatives table.
        queries: The queries table.
        items: The items table.
        judge_scores: The judge_scores table; the positives' rows are used.
        count: Keep each query's first so many negatives, and only queries that have them; None: all there are.
        fallback: Whether negatives that were drawn at random, because nothing was left, stay. Their score is 1.0, as
            in the paper, and not a judge's.
        image_root: Put in front of image paths; None leaves them as they are, relative to it.

    Returns:
        The rows, and why queries are not among them.

    Raises:
        DataError: If tables do not belong together: an id that its table does not have.
    """
    chosen = negatives if fallback else negatives.filter(pl.col("origin") != "fallback")
    if count is not None:
        chosen = chosen.filter(pl.int_range(pl.len()).over("query_id", order_by="slot") < count)
    sides = items.select("item_id", "text", image=_placed(image_root))
    positive = judge_scores.filter(pl.col("is_positive")).select("query_id", positive_score="score")
    frame = (
        queries.select("query_id", "dataset", "item_id", "positive_item_id")
        .join(_side(sides, "query", "item_id"), on="item_id", how="left")
        .join(_side(sides, "positive", "positive_item_id"), on="positive_item_id", how="left")
        .join(positive.with_columns(pl.col("positive_score").cast(pl.Float64)), on="query_id", how="left")
        .join(_negatives(chosen, sides), on="query_id", how="left")
        .rename({"positive_item_id": "positive_id"})
        .drop("item_id")
        .sort("query_id")
    )
    _check(frame, negatives, queries)
    has = pl.col("negative_ids").list.len().fill_null(0)
    rows = MinedRows(frame, {}).only(has > 0, NO_NEGATIVES).only(has >= (count or 1), TOO_FEW)
    return rows.only(pl.col("positive_score").is_finite().fill_null(False), NO_POSITIVE_SCORE)


def _placed(image_root: Path | None) -> pl.Expr:
    image = pl.col("image").fill_null("")
    if image_root is None:
        return image
    return pl.when(image == "").then(image).otherwise(pl.lit(f"{image_root.as_posix()}/") + image)


def _side(sides: pl.DataFrame, name: str, key: str) -> pl.DataFrame:
    return sides.select(pl.col("item_id").alias(key), **{f"{name}_{part}": part for part in ("text", "image")})


def _negatives(chosen: pl.DataFrame, sides: pl.DataFrame) -> pl.DataFrame:
    found = chosen.sort("query_id", "slot").join(sides, on="item_id", how="left", maintain_order="left")
    if unknown := found.filter(pl.col("text").is_null()).height:
        row = found.filter(pl.col("text").is_null()).row(0, named=True)
        raise DataError(
            f"negatives.parquet: {unknown:,} rows name items that items.parquet does not have, such as item_id "
            f"{row['item_id']} of query_id {row['query_id']}. Run `kedro run --pipeline=mine` to make both agree."
        )
    return found.group_by("query_id", maintain_order=True).agg(
        negative_ids="item_id",
        negative_texts="text",
        negative_images="image",
        negative_scores=pl.col("score").cast(pl.Float64),
    )


def _check(frame: pl.DataFrame, negatives: pl.DataFrame, queries: pl.DataFrame) -> None:
    for side in ("query", "positive"):
        if lost := frame.filter(pl.col(f"{side}_text").is_null())["query_id"].to_list():
            raise DataError(
                f"queries.parquet: the {side} of query_id {lost[0]} is an item that items.parquet does not have. Run "
                "`kedro run --pipeline=ingest` and what follows it anew."
            )
    if strange := negatives.join(queries, on="query_id", how="anti")["query_id"].to_list():
        raise DataError(
            f"negatives.parquet: query_id {strange[0]} is not in queries.parquet. Run `kedro run --pipeline=mine` to "
            "make both agree."
        )
