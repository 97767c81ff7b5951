"""Rules of the tables that ingest makes: items and queries."""

from __future__ import annotations

import polars as pl

from unime_kedro.quality.rules import Rule, between, holds, in_set, not_empty, same, unique
from unime_kedro.quality.suite import References, Suite, known, with_occurrences

MODALITIES = ("text", "image", "image_text")
#: stands in a text for the image of the same item
PLACEHOLDER = "<|image_1|>"


def _dense(column: str, rows: int) -> list[Rule]:
    """``column`` numbers the rows 0..n-1: n distinct numbers within that range."""
    return [
        between(f"{column}_in_range", column, 0, max(rows - 1, 0), f"{column} is dense: within 0..{rows - 1:,}"),
        unique(f"{column}_is_unique", f"{column}_occurrences", f"no {column} occurs twice"),
    ]


def _derive_items(table: pl.DataFrame, references: References, slots: int | None) -> pl.DataFrame:
    text, has_image = pl.col("text"), pl.col("image") != ""
    # beside an image, the mark that stands for it is no text of its own
    own_text = text.str.replace_all(PLACEHOLDER, "", literal=True)
    modality = (
        pl.when(has_image)
        .then(pl.when(_is_blank(own_text)).then(pl.lit("image")).otherwise(pl.lit("image_text")))
        .otherwise(pl.when(_is_blank(text)).then(pl.lit("nothing")).otherwise(pl.lit("text")))
    )
    frame = with_occurrences(table, "item_id_occurrences", "item_id")
    frame = with_occurrences(frame, "content_key_occurrences", "content_key")
    given = text.is_not_null() & pl.col("image").is_not_null()
    return frame.with_columns(modality_of_content=pl.when(given).then(modality))


def _is_blank(text: pl.Expr) -> pl.Expr:
    return text.str.strip_chars() == ""


def _item_rules(rows: int) -> list[Rule]:
    return [
        *_dense("item_id", rows),
        not_empty("content_key"),
        unique("content_key_is_unique", "content_key_occurrences", "equal content is one item"),
        in_set("modality_is_known", "modality", MODALITIES, f"modality is one of {', '.join(MODALITIES)}"),
        same(
            "modality_fits_content",
            "modality",
            "modality_of_content",
            "modality says which of text and image are there, and at least one is",
        ),
    ]


ITEMS = Suite(
    columns={
        "item_id": pl.Int64,
        "text": pl.String,
        "image": pl.String,
        "content_key": pl.String,
        "modality": pl.String,
    },
    keys=("item_id",),
    derive=_derive_items,
    rules=_item_rules,
    may_be_empty=False,
)


def _derive_queries(table: pl.DataFrame, references: References, slots: int | None) -> pl.DataFrame:
    items = references.ids("items", "item_id")
    return with_occurrences(table, "query_id_occurrences", "query_id").with_columns(
        item_exists=known("item_id", items),
        positive_exists=known("positive_item_id", items),
    )


def _query_rules(rows: int) -> list[Rule]:
    return [
        *_dense("query_id", rows),
        not_empty("dataset"),
        not_empty("meta_task"),
        holds("item_exists", "item_exists", "item_id is in items", shown=["item_id"]),
        holds("positive_exists", "positive_exists", "positive_item_id is in items", shown=["positive_item_id"]),
    ]


QUERIES = Suite(
    columns={
        "query_id": pl.Int64,
        "dataset": pl.String,
        "meta_task": pl.String,
        "item_id": pl.Int64,
        "positive_item_id": pl.Int64,
    },
    keys=("query_id",),
    derive=_derive_queries,
    rules=_query_rules,
    references=("items",),
    may_be_empty=False,
)
