"""Rules of the table that train makes: one row per query, its negatives and their scores in lists."""

from __future__ import annotations

import polars as pl

from unime_kedro.quality.rules import Rule, between, holds, in_set, same, unique
from unime_kedro.quality.suite import References, Suite, known, with_occurrences
from unime_kedro.quality.suite_pairs import reference_rules

SPLITS = ("train", "validation")
#: what a row repeats of its query
_OF_QUERY = ("dataset", "item_id", "positive_item_id")
_IDS, _SCORES = "negative_item_ids", "negative_scores"


def derive_training(table: pl.DataFrame, references: References, slots: int | None) -> pl.DataFrame:
    """Add the helper columns of a table with one row per query, its negatives in lists."""
    items = references.ids("items", "item_id")
    ids, scores, n = pl.col(_IDS), pl.col(_SCORES), pl.col(_IDS).list.len().cast(pl.Int64)
    value = pl.element()
    expected = references.once("queries", *_OF_QUERY).rename({name: f"{name}_expected" for name in _OF_QUERY})
    frame = table.join(expected, on="query_id", how="left", maintain_order="left")
    return with_occurrences(frame, "query_id_occurrences", "query_id").with_columns(
        query_exists=pl.col("item_id_expected").is_not_null() | pl.col("query_id").is_null(),
        item_exists=known("item_id", items),
        positive_exists=known("positive_item_id", items),
        # rows after a null or before one are judged by that null alone
        query_id_before=pl.col("query_id").shift(1),
        in_order=(pl.col("query_id") >= pl.col("query_id").shift(1)).fill_null(True),
        negatives=n,
        negatives_expected=n.first(),
        n_scores=scores.list.len().cast(pl.Int64),
        missing_negatives=_count(_IDS, value.is_null()),
        unknown_negatives=_count(_IDS, value.is_in(items.implode()).not_().fill_null(False)),
        missing_scores=_count(_SCORES, value.is_null() | value.is_nan()),
        lowest_score=scores.list.eval(value.fill_nan(None)).list.min(),
        highest_score=scores.list.eval(value.fill_nan(None)).list.max(),
        is_own_positive=ids.list.contains(pl.col("positive_item_id")),
    )


def _count(lists: str, wrong: pl.Expr) -> pl.Expr:
    """How many elements of each list are wrong; null where there is no list."""
    return pl.col(lists).list.eval(wrong).list.sum().cast(pl.Int64)


def training_rules(rows: int) -> list[Rule]:
    """Return the rules of the table ``training`` over these helpers."""
    return [
        *reference_rules(),
        unique("query_id_is_unique", "query_id_occurrences", "no query_id occurs twice"),
        holds("rows_are_sorted", "in_order", "rows are sorted by query_id", shown=["query_id_before"]),
        *(
            same(f"{name}_is_the_querys", name, f"{name}_expected", f"{name} is the one that queries has")
            for name in _OF_QUERY
        ),
        holds("positive_exists", "positive_exists", "positive_item_id is in items", shown=["positive_item_id"]),
        in_set("split_is_known", "split", SPLITS, f"split is one of {', '.join(SPLITS)}"),
        between("positive_score_is_a_probability", "positive_score", 0, 1, "positive_score lies in [0, 1]"),
        *_list_rules(),
    ]


def _list_rules() -> list[Rule]:
    return [
        between("has_negatives", "negatives", 1, None, "every query has at least one negative"),
        same(
            "negatives_per_query",
            "negatives",
            "negatives_expected",
            "every query has as many negatives as the first one",
        ),
        same("one_score_per_negative", "n_scores", "negatives", "there are as many negative_scores as negatives"),
        between("negative_ids_are_present", "missing_negatives", 0, 0, f"no id in {_IDS} is null", shown=[_IDS]),
        between("negatives_exist", "unknown_negatives", 0, 0, f"all of {_IDS} are in items", shown=[_IDS]),
        between(
            "negative_scores_are_present",
            "missing_scores",
            0,
            0,
            f"no score in {_SCORES} is null or NaN",
            shown=[_SCORES],
        ),
        between("negative_scores_from_zero", "lowest_score", 0, None, f"none of {_SCORES} is below 0"),
        between("negative_scores_up_to_one", "highest_score", None, 1, f"none of {_SCORES} is above 1"),
        in_set(
            "own_positive_is_absent",
            "is_own_positive",
            [False],
            "a query's own positive is never among its negatives",
            shown=["positive_item_id", _IDS],
        ),
    ]


TRAINING = Suite(
    columns={
        "query_id": pl.Int64,
        "dataset": pl.String,
        "split": pl.String,
        "item_id": pl.Int64,
        "positive_item_id": pl.Int64,
        "positive_score": pl.Float32,
        _IDS: pl.List(pl.Int64),
        _SCORES: pl.List(pl.Float32),
    },
    keys=("query_id",),
    derive=derive_training,
    rules=training_rules,
    references=("items", "queries"),
    may_be_empty=False,
)
