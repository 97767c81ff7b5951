"""Rules of the tables that select makes: selection and negatives."""

from __future__ import annotations

import polars as pl

from unime_kedro.quality.rules import Rule, between, holds, in_set, same, unique
from unime_kedro.quality.suite import Coverage, References, Suite, in_order, known, position, repeats, with_occurrences
from unime_kedro.quality.suite_pairs import no_own_positive, reference_rules, with_query

OUTCOMES = ("sampled", "duplicated", "fallback")
ORIGINS = ("sampled", "duplicate", "fallback")
COUNTS = ("kept", "dropped_false_negative", "dropped_unjudged")


def _derive_selection(table: pl.DataFrame, references: References, slots: int | None) -> pl.DataFrame:
    return with_occurrences(table, "query_id_occurrences", "query_id").with_columns(
        query_exists=known("query_id", references.ids("queries", "query_id")),
        is_skipped=known("query_id", references.once("skipped")["query_id"]) & pl.col("query_id").is_not_null(),
        pool_size_expected=pl.sum_horizontal(*COUNTS, ignore_nulls=False).cast(pl.Int32),
        is_fallback=pl.col("outcome") == "fallback",
        nothing_kept=pl.col("kept") == 0,
        threshold_is_nan=pl.col("threshold").is_nan().fill_null(False),
    )


def _selection_rules(rows: int) -> list[Rule]:
    counts = ("pool_size", *COUNTS)
    return [
        unique("query_id_is_unique", "query_id_occurrences", "no query_id occurs twice"),
        holds("query_exists", "query_exists", "query_id is in queries"),
        in_set("query_is_not_skipped", "is_skipped", [False], "no query of skipped is selected"),
        between("positive_score_is_a_probability", "positive_score", 0, 1, "positive_score lies in [0, 1]"),
        in_set("threshold_is_a_number", "threshold_is_nan", [False], "threshold is a number, or null for no filter"),
        *(between(f"{name}_is_a_count", name, 0, None, f"{name} is not negative") for name in counts),
        same(
            "counts_add_up",
            "pool_size",
            "pool_size_expected",
            "kept + dropped_false_negative + dropped_unjudged = pool_size",
        ),
        in_set("outcome_is_known", "outcome", OUTCOMES, f"outcome is one of {', '.join(OUTCOMES)}"),
        same(
            "fallback_means_nothing_kept", "is_fallback", "nothing_kept", "outcome is fallback exactly when kept is 0"
        ),
    ]


def _neither_selected_nor_skipped(table: pl.DataFrame, references: References) -> pl.DataFrame:
    there = pl.concat([table.select("query_id"), references.read("skipped", "query_id")])
    return references.read("queries", "query_id").join(there, on="query_id", how="anti", maintain_order="left")


SELECTION = Suite(
    columns={
        "query_id": pl.Int64,
        "positive_score": pl.Float32,
        "threshold": pl.Float32,
        **dict.fromkeys(("pool_size", *COUNTS), pl.Int32),
        "outcome": pl.String,
    },
    keys=("query_id",),
    derive=_derive_selection,
    rules=_selection_rules,
    references=("queries", "skipped"),
    nullable=("threshold",),
    coverage=Coverage(
        "every_query_is_selected_or_skipped",
        "every query is here or in skipped",
        _neither_selected_nor_skipped,
    ),
)


def _derive_negatives(table: pl.DataFrame, references: References, slots: int | None) -> pl.DataFrame:
    frame = with_query(in_order(table, "query_id", "slot"), references)
    frame = references.attach(frame, "selection", "threshold", "outcome")
    score, origin = pl.col("score"), pl.col("origin")
    fallback = origin == "fallback"
    # rows of a query stand in the order of their slots
    is_repeat = repeats(frame, "query_id", "item_id")
    return frame.with_columns(
        query_selected=pl.col("outcome").is_not_null() | pl.col("query_id").is_null(),
        slot_expected=position("query_id"),
        slots=pl.when(pl.col("query_id").is_not_null()).then(pl.len().over("query_id").cast(pl.Int64)),
        slots_expected=pl.lit(_slots(table) if slots is None else slots, dtype=pl.Int64),
        # how far a score lies above what the filter allows; null where there is no threshold or it does not count
        above_threshold=pl.when(~fallback).then(score.cast(pl.Float64) - pl.col("threshold")),
        fallback_score=pl.when(fallback).then(score),
        is_fallback=fallback,
        fallback_expected=pl.col("outcome") == "fallback",
        is_unmarked_repeat=is_repeat & (origin == "sampled"),
        is_false_duplicate=~is_repeat & (origin == "duplicate"),
    )


def _slots(table: pl.DataFrame) -> int | None:
    """Return the most common number of rows per query, the larger of equally common ones."""
    return table.group_by("query_id").len()["len"].mode().max()  # type: ignore[return-value]


def _negative_rules(rows: int) -> list[Rule]:
    return [
        *reference_rules(),
        holds("query_selected", "query_selected", "query_id is in selection"),
        same("slots_have_no_gaps", "slot", "slot_expected", "the slots of a query are 0, 1, 2, ..., each once"),
        same("slots_per_query", "slots", "slots_expected", "every query has the same number of slots"),
        no_own_positive("among its negatives"),
        in_set("origin_is_known", "origin", ORIGINS, f"origin is one of {', '.join(ORIGINS)}"),
        between("score_is_a_probability", "score", 0, 1, "score lies in [0, 1]"),
        between(
            "score_is_below_threshold",
            "above_threshold",
            None,
            0,
            "no score is above its query's threshold in selection, unless origin is fallback",
            shown=["score", "threshold"],
        ),
        between("fallback_scores_one", "fallback_score", 1, 1, "the score of a fallback is 1.0"),
        same(
            "fallback_as_selected",
            "is_fallback",
            "fallback_expected",
            "origin is fallback exactly where the query's outcome in selection is",
        ),
        in_set(
            "repeats_are_marked",
            "is_unmarked_repeat",
            [False],
            "an item that is in a query's earlier slots has origin duplicate or fallback",
            shown=["origin"],
        ),
        in_set(
            "duplicates_repeat",
            "is_false_duplicate",
            [False],
            "origin duplicate stands only at an item that is in an earlier slot of the query",
            shown=["origin"],
        ),
    ]


def _without_negatives(table: pl.DataFrame, references: References) -> pl.DataFrame:
    there = table.select("query_id").unique()
    return references.read("selection", "query_id").join(there, on="query_id", how="anti", maintain_order="left")


NEGATIVES = Suite(
    columns={
        "query_id": pl.Int64,
        "slot": pl.Int32,
        "item_id": pl.Int64,
        "score": pl.Float32,
        "origin": pl.String,
    },
    keys=("query_id", "slot", "item_id"),
    derive=_derive_negatives,
    rules=_negative_rules,
    references=("items", "queries", "selection"),
    coverage=Coverage(
        "every_selected_query_has_negatives", "every query of selection has negatives", _without_negatives
    ),
)
