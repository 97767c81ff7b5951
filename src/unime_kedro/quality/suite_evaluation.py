"""Rules of the tables that evaluate makes.

What was asked, one row per query and model, every model's first candidates, and what was trained on.
"""

from __future__ import annotations

import polars as pl

from unime_kedro.quality.rules import Rule, between, holds, in_set, not_empty, same, unique
from unime_kedro.quality.suite import Coverage, References, Suite, with_occurrences

_NAMES = ("model", "benchmark", "dataset")
_QUERY = ("benchmark", "dataset", "query_id")
_KEY = (*_NAMES, "query_id")
_SIMILARITIES = ("target_similarity", "best_wrong_similarity")


def _exists(frame: pl.DataFrame, other: pl.DataFrame, keys: tuple[str, ...]) -> pl.DataFrame:
    """Add whether a row's query is in another table; true where a part of its name is missing."""
    known = other.select(keys).unique().with_columns(query_exists=pl.lit(True))
    found = frame.join(known, on=keys, how="left", maintain_order="left")
    no_name = pl.any_horizontal(pl.col(key).is_null() for key in keys)
    return found.with_columns(pl.col("query_exists").fill_null(False) | no_name)


def _derive_predictions(table: pl.DataFrame, references: References, slots: int | None) -> pl.DataFrame:
    frame = _exists(table, references.read("evaluated_queries", *_QUERY), _QUERY)
    last = pl.max_horizontal(pl.col("n_candidates") - pl.col("n_right") + 1, 2)
    return with_occurrences(frame, "occurrences", *_KEY).with_columns(
        is_first=pl.col("rank") == 1,
        rank_behind_last=pl.col("rank") - last,
        surplus_right=pl.col("n_right") - pl.col("n_candidates"),
        index_behind_last=pl.col("predicted_index") - pl.col("n_candidates") + 1,
    )


def _prediction_rules(rows: int) -> list[Rule]:
    return [
        *(not_empty(name) for name in _NAMES),
        holds("query_exists", "query_exists", "the query is in evaluated_queries", shown=["benchmark", "dataset"]),
        unique("rows_are_unique", "occurrences", "no query occurs twice for a model"),
        same("right_means_first", "correct", "is_first", "correct is true exactly where rank is 1"),
        between("rank_counts_from_one", "rank", 1, None, "rank is 1 at least"),
        between(
            "rank_is_possible",
            "rank_behind_last",
            None,
            0,
            "rank is at most one more than there are wrong candidates, or 2",
            shown=["rank", "n_candidates", "n_right"],
        ),
        between("has_a_right_one", "n_right", 1, None, "every query has a right candidate"),
        between(
            "right_ones_are_candidates",
            "surplus_right",
            None,
            0,
            "there are no more right ones than candidates",
            shown=["n_right", "n_candidates"],
        ),
        between("index_from_minus_one", "predicted_index", -1, None, "predicted_index is -1 at least"),
        between(
            "index_is_a_candidate",
            "index_behind_last",
            None,
            0,
            "predicted_index is one of the candidates",
            shown=["predicted_index", "n_candidates"],
        ),
        *(between(f"{name}_is_a_cosine", name, -1, 1, f"{name} lies within [-1, 1]") for name in _SIMILARITIES),
    ]


def _without_prediction(table: pl.DataFrame, references: References) -> pl.DataFrame:
    """Return the queries that a model was asked on a benchmark and has no row of."""
    queries = references.read("evaluated_queries", *_QUERY)
    asked = table.select("model", "benchmark").unique(maintain_order=True).join(queries, on="benchmark")
    return asked.join(table.select(_KEY), on=_KEY, how="anti", maintain_order="left").select(_KEY)


PREDICTIONS = Suite(
    columns={
        **dict.fromkeys(_NAMES, pl.String),
        "query_id": pl.Int64,
        "unit": pl.Int64,
        "predicted_index": pl.Int64,
        "correct": pl.Boolean,
        **dict.fromkeys(_SIMILARITIES, pl.Float32),
        **dict.fromkeys(("rank", "n_candidates", "n_right"), pl.Int64),
    },
    keys=_KEY,
    derive=_derive_predictions,
    rules=_prediction_rules,
    references=("evaluated_queries",),
    # a query may have no wrong candidate, and an embedder may give NaN
    nullable=_SIMILARITIES,
    may_be_empty=False,
    coverage=Coverage(
        "every_query_is_answered", "every model has a row of every query of a benchmark", _without_prediction
    ),
)


def _derive_rankings(table: pl.DataFrame, references: References, slots: int | None) -> pl.DataFrame:
    frame = _exists(table.sort(*_KEY, "position", nulls_last=True), references.read("predictions", *_KEY), _KEY)
    frame = with_occurrences(frame, "occurrences", *_KEY, "candidate_index")
    place = pl.coalesce("reranked_position", "position").cast(pl.Int64)
    frame = with_occurrences(frame.with_columns(place=place), "place_occurrences", *_KEY, "place")
    return frame.with_columns(
        position_expected=(pl.col("position").rank("ordinal").over(_KEY) - 1).cast(pl.Int32),
        similarity_rise=pl.col("similarity") - pl.col("similarity").shift(1).over(_KEY),
        place_limit=(pl.len().over(_KEY) - 1 - pl.col("place")).cast(pl.Int64),
        shows_something=(pl.col("text") != "") | (pl.col("image") != ""),
    )


def _ranking_rules(rows: int) -> list[Rule]:
    return [
        holds(
            "query_exists", "query_exists", "the query of this model is in predictions", shown=["model", "benchmark"]
        ),
        same("positions_have_no_gaps", "position", "position_expected", "the positions of a query are 0, 1, 2, ..."),
        unique("candidates_are_unique", "occurrences", "no candidate stands twice in the ranking of a query"),
        between("similarity_is_a_cosine", "similarity", -1, 1, "similarity lies within [-1, 1]"),
        between(
            "similarity_falls",
            "similarity_rise",
            None,
            0,
            "similarity never rises from one position of a query to the next",
            shown=["similarity"],
        ),
        unique("places_are_unique", "place_occurrences", "a reranker puts no two candidates on one place"),
        between("places_have_no_gaps", "place_limit", 0, None, "a reranker puts no candidate behind the last place"),
        holds("contents_are_known", "shows_something", "every candidate has words or a picture"),
    ]


RANKINGS = Suite(
    columns={
        **dict.fromkeys(_NAMES, pl.String),
        "query_id": pl.Int64,
        "position": pl.Int32,
        "candidate_index": pl.Int64,
        "content_id": pl.Int64,
        "similarity": pl.Float32,
        "right": pl.Boolean,
        "reranked_position": pl.Int32,
        "text": pl.String,
        "image": pl.String,
    },
    keys=(*_KEY, "position"),
    derive=_derive_rankings,
    rules=_ranking_rules,
    references=("predictions",),
    nullable=("similarity", "reranked_position"),
    may_be_empty=False,
)


def _derive_queries(table: pl.DataFrame, references: References, slots: int | None) -> pl.DataFrame:
    return with_occurrences(table, "occurrences", *_QUERY).with_columns(
        asks_something=(pl.col("text") != "") | (pl.col("image") != ""),
        target_shows_something=(pl.col("target_text") != "") | (pl.col("target_image") != ""),
        # pictures are found by it
        root_is_named=(pl.col("image_root") != "") | ((pl.col("image") == "") & (pl.col("target_image") == "")),
    )


def _query_rules(rows: int) -> list[Rule]:
    return [
        *(not_empty(name) for name in ("benchmark", "dataset")),
        unique("queries_are_unique", "occurrences", "no query occurs twice in a data set"),
        holds("asks_something", "asks_something", "every query has words or a picture"),
        holds("target_shows_something", "target_shows_something", "the right answer has words or a picture"),
        holds("root_is_named", "root_is_named", "image_root names the folder of pictures where there are some"),
    ]


EVALUATED_QUERIES = Suite(
    columns={
        "benchmark": pl.String,
        "dataset": pl.String,
        "query_id": pl.Int64,
        **dict.fromkeys(("text", "image", "target_text", "target_image", "image_root"), pl.String),
    },
    keys=_QUERY,
    derive=_derive_queries,
    rules=_query_rules,
    may_be_empty=False,
)

_PLACE = ("benchmark", "dataset", "role", "query_id", "content_id")


def _derive_leaks(table: pl.DataFrame, references: References, slots: int | None) -> pl.DataFrame:
    near, candidate = pl.col("kind") == "near", pl.col("role") == "candidate"
    # a candidate of several queries is one row, without a query
    return with_occurrences(table, "occurrences", *_PLACE).with_columns(
        query_is_named=pl.col("query_id").is_null() == candidate,
        distance_is_of_its_kind=near | (pl.col("distance") == 0),
        # words alone have no picture to be near to
        kind_is_possible=(pl.col("kind") == "exact") | (pl.col("modality") != "text"),
    )


def _leak_rules(rows: int) -> list[Rule]:
    return [
        *(not_empty(name) for name in ("benchmark", "dataset")),
        in_set("role_is_known", "role", ["query", "target", "candidate"], "role is query, target or candidate"),
        in_set("kind_is_known", "kind", ["exact", "same_image", "near"], "kind is exact, same_image or near"),
        in_set("modality_is_known", "modality", ["text", "image", "image_text"], "modality is one of the three"),
        unique("places_are_unique", "occurrences", "no place of a leaked content is listed twice"),
        holds("query_is_named", "query_is_named", "query_id is null for candidates, and only for them"),
        between("distance_is_of_64_bits", "distance", 0, 64, "distance lies within 0 and 64 bits"),
        holds("distance_is_of_its_kind", "distance_is_of_its_kind", "distance is 0 unless kind is near"),
        holds("kind_is_possible", "kind_is_possible", "contents of words alone are exact or no leak"),
        between("item_ids_from_zero", "item_id", 0, None, "item_id is 0 at least"),
    ]


LEAKS = Suite(
    columns={
        "benchmark": pl.String,
        "dataset": pl.String,
        "query_id": pl.Int64,
        "content_id": pl.Int64,
        **dict.fromkeys(("role", "kind", "modality"), pl.String),
        "item_id": pl.Int64,
        "distance": pl.Int32,
    },
    keys=_PLACE,
    derive=_derive_leaks,
    rules=_leak_rules,
    nullable=("query_id",),
)
