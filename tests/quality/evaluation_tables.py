"""The tables of an evaluation, worked out by hand, and changes that break a rule each.

Two models are asked three queries of two data sets. Model b reranks the first three candidates of the first query.
"""

from __future__ import annotations

from collections.abc import Callable

import polars as pl

_NAMES = ["model", "benchmark", "dataset"]
Change = Callable[[pl.DataFrame], pl.DataFrame]


def evaluation_tables() -> dict[str, pl.DataFrame]:
    """Return evaluated_queries, leaks, predictions and rankings."""
    queries = pl.DataFrame(
        {
            "benchmark": "mini",
            "dataset": ["A", "A", "B"],
            "query_id": [0, 1, 0],
            "text": ["q0", "", "q0"],
            "image": ["", "1.png", ""],
            "target_text": ["t0", "t1", "t0"],
            "target_image": "",
            "image_root": "images",
        }
    )
    rows = [
        ("a", "mini", "A", 0, 0, 1, False, 0.5, 0.75, 2, 3, 1),
        ("a", "mini", "A", 1, 0, 0, True, 0.5, 0.25, 1, 3, 2),
        ("a", "mini", "B", 0, 0, 0, True, 0.5, None, 1, 1, 1),
        ("b", "mini", "A", 0, 0, 0, True, 0.5, 0.75, 1, 3, 1),
        ("b", "mini", "A", 1, 0, 2, False, 0.25, 0.5, 2, 3, 2),
        ("b", "mini", "B", 0, 0, -1, False, None, None, 2, 1, 1),
    ]
    numbers = ["query_id", "unit", "predicted_index"]
    schema = {
        **dict.fromkeys(_NAMES, pl.String),
        **dict.fromkeys(numbers, pl.Int64),
        "correct": pl.Boolean,
        **dict.fromkeys(("target_similarity", "best_wrong_similarity"), pl.Float32),
        **dict.fromkeys(("rank", "n_candidates", "n_right"), pl.Int64),
    }
    predictions = pl.DataFrame(rows, schema=schema, orient="row")
    return {"evaluated_queries": queries, "leaks": _leaks(), "predictions": predictions, "rankings": _rankings()}


def _leaks() -> pl.DataFrame:
    rows = [
        ("mini", "A", 0, 4, "query", "exact", "text", 7, 0),
        ("mini", "A", 0, 5, "target", "near", "image", 3, 6),
        ("mini", "A", None, 5, "candidate", "near", "image", 3, 6),
        ("mini", "B", 1, 2, "query", "same_image", "image_text", 0, 0),
    ]
    schema = {
        **dict.fromkeys(("benchmark", "dataset"), pl.String),
        **dict.fromkeys(("query_id", "content_id"), pl.Int64),
        **dict.fromkeys(("role", "kind", "modality"), pl.String),
        "item_id": pl.Int64,
        "distance": pl.Int32,
    }
    return pl.DataFrame(rows, schema=schema, orient="row")


def _rankings() -> pl.DataFrame:
    def ranked(model, dataset, query, candidates, places):
        return [
            (model, "mini", dataset, query, i, index, 10 + index, 0.75 - i / 4, right, place, f"c{index}", "")
            for i, ((index, right), place) in enumerate(zip(candidates, places, strict=True))
        ]

    rows = [
        *ranked("a", "A", 0, [(1, False), (0, True), (2, False)], [None] * 3),
        *ranked("a", "A", 1, [(0, True), (1, True), (2, False)], [None] * 3),
        *ranked("a", "B", 0, [(0, True)], [None]),
        *ranked("b", "A", 0, [(1, False), (0, True), (2, False)], [1, 0, 2]),
        *ranked("b", "A", 1, [(2, False), (0, True), (1, True)], [0, 1, None]),
        *ranked("b", "B", 0, [(0, True)], [0]),
    ]
    schema = {
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
    }
    return pl.DataFrame(rows, schema=schema, orient="row")


def evaluation_cases(at: Callable[..., Change]) -> list[tuple[str, str, Change, int, str]]:
    """Return suite, rules, change, rows that break the first rule, and what the message shows.

    Args:
        at: ``at(row, **values)`` makes a change of one row.
    """
    found = [
        ("has_rows", lambda t: t.clear(), 0, "the table is empty"),
        ("model_is_not_empty every_query_is_answered", at(0, model=""), 1, "model=''"),
        ("dataset_is_not_empty query_exists every_query_is_answered", at(0, dataset=""), 1, "dataset=''"),
        ("benchmark_is_not_empty query_exists every_query_is_answered", at(0, benchmark=""), 1, "benchmark=''"),
        ("query_exists every_query_is_answered", at(1, query_id=5), 1, "query_id=5 query_exists=False"),
        ("rows_are_unique every_query_is_answered", at(1, query_id=0), 2, "query_id=0 occurrences=2"),
        (
            "every_query_is_answered",
            lambda t: t.head(5),
            1,
            "1 missing, for example: model='b' benchmark='mini' dataset='B'",
        ),
        ("right_means_first", at(1, correct=False), 1, "correct=False is_first=True"),
        ("right_means_first", at(0, correct=True), 1, "correct=True is_first=False"),
        ("rank_counts_from_one", at(0, rank=0), 1, "rank=0"),
        ("rank_is_possible", at(0, rank=4), 1, "rank_behind_last=1 rank=4"),
        ("rank_is_possible", at(4, rank=3), 1, "rank=3 n_candidates=3 n_right=2"),
        ("has_a_right_one", at(0, n_right=0), 1, "n_right=0"),
        ("right_ones_are_candidates", at(1, n_right=4), 1, "surplus_right=1"),
        ("index_from_minus_one", at(0, predicted_index=-2), 1, "predicted_index=-2"),
        ("index_is_a_candidate", at(0, predicted_index=3), 1, "predicted_index=3 n_candidates=3"),
        ("target_similarity_is_a_cosine", at(0, target_similarity=1.5), 1, "target_similarity=1.5"),
        ("best_wrong_similarity_is_a_cosine", at(0, best_wrong_similarity=-1.5), 1, "best_wrong_similarity=-1.5"),
    ]
    ranked = [
        ("has_rows", lambda t: t.clear(), 0, "the table is empty"),
        ("query_exists", at(6, query_id=5), 1, "query_id=5 position=0 query_exists=False"),
        ("positions_have_no_gaps places_have_no_gaps", at(2, position=3), 1, "position=3 position_expected=2"),
        ("candidates_are_unique", at(2, candidate_index=1), 2, "occurrences=2"),
        ("similarity_is_a_cosine", at(6, similarity=1.25), 1, "similarity=1.25"),
        ("similarity_falls", at(5, similarity=0.625), 1, "similarity_rise=0.125 similarity=0.625"),
        ("places_are_unique", at(7, reranked_position=0), 2, "place_occurrences=2"),
        ("places_have_no_gaps", at(13, reranked_position=1), 1, "place_limit=-1"),
        ("contents_are_known", at(0, text=""), 1, "shows_something=False"),
    ]
    cases = {"predictions": found, "rankings": ranked, "evaluated_queries": _query_cases(at), "leaks": _leak_cases(at)}
    return [(suite, *row) for suite, rows in cases.items() for row in rows]


def _query_cases(at: Callable[..., Change]) -> list[tuple[str, Change, int, str]]:
    return [
        ("has_rows", lambda t: t.clear(), 0, "the table is empty"),
        ("benchmark_is_not_empty", at(0, benchmark=""), 1, "benchmark=''"),
        ("dataset_is_not_empty", at(0, dataset=""), 1, "dataset=''"),
        ("queries_are_unique", at(1, query_id=0), 2, "query_id=0 occurrences=2"),
        ("asks_something", at(0, text=""), 1, "asks_something=False"),
        ("target_shows_something", at(1, target_text=""), 1, "target_shows_something=False"),
        ("root_is_named", at(1, image_root=""), 1, "root_is_named=False"),
    ]


def _leak_cases(at: Callable[..., Change]) -> list[tuple[str, Change, int, str]]:
    return [
        ("benchmark_is_not_empty", at(0, benchmark=""), 1, "benchmark=''"),
        ("dataset_is_not_empty", at(0, dataset=""), 1, "dataset=''"),
        ("role_is_known", at(0, role="answer"), 1, "role='answer'"),
        ("kind_is_known distance_is_of_its_kind", at(1, kind="alike"), 1, "kind='alike'"),
        ("modality_is_known", at(0, modality="sound"), 1, "modality='sound'"),
        ("places_are_unique", at(1, role="query", content_id=4), 2, "occurrences=2"),
        ("query_is_named", at(0, query_id=None), 1, "query_is_named=False"),
        ("query_is_named", at(2, query_id=1), 1, "query_is_named=False"),
        ("distance_is_of_64_bits", at(1, distance=65), 1, "distance=65"),
        ("distance_is_of_its_kind", at(3, distance=1), 1, "distance_is_of_its_kind=False"),
        ("kind_is_possible", at(1, modality="text"), 1, "kind_is_possible=False"),
        ("item_ids_from_zero", at(0, item_id=-1), 1, "item_id=-1"),
    ]
