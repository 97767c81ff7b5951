"""A tiny mined corpus, worked out by hand, that keeps every rule.

Three queries. Query 0 has a pool of three of which two are kept, query 1 keeps one, query 2 none.
"""

from __future__ import annotations

import math

import polars as pl
from evaluation_tables import evaluation_tables

from unime_kedro.mining.partial import COVERAGE_SCHEMA

FILES = {
    "items": "02_intermediate/items.parquet",
    "queries": "02_intermediate/queries.parquet",
    "candidates": "02_intermediate/candidates.parquet",
    "pool": "03_primary/pool.parquet",
    "judge_scores": "03_primary/judge_scores.parquet",
    "judge_errors": "03_primary/judge_errors.parquet",
    "judge_coverage": "03_primary/judge_coverage.parquet",
    "selection": "05_model_input/selection.parquet",
    "skipped": "05_model_input/skipped.parquet",
    "negatives": "05_model_input/negatives.parquet",
    "training": "05_model_input/training.parquet",
    "evaluated_queries": "07_model_output/queries.parquet",
    "predictions": "07_model_output/predictions.parquet",
    "reranking": "05_model_input/reranking.parquet",
}
REFERENCES = {
    "items": (),
    "queries": ("items",),
    "pool": ("items", "queries", "candidates"),
    "judge_scores": ("items", "queries", "pool", "judge_errors", "judge_coverage"),
    "selection": ("queries", "skipped"),
    "negatives": ("items", "queries", "selection"),
    "training": ("items", "queries"),
    "evaluated_queries": (),
    "leaks": (),
    "predictions": ("evaluated_queries",),
    "rankings": ("predictions",),
    "reranking": ("items", "queries"),
}
ERRORS_SCHEMA = {"query_id": pl.Int64, "item_id": pl.Int64, "is_positive": pl.Boolean, "error": pl.String}
#: (yes_logit - no_logit) / temperature of a score: .9 = 9/(1+9), .75 = 3/(1+3)
LOGITS = {0.9: math.log(9), 0.75: math.log(3), 0.5: 0.0, 0.25: -math.log(3)}


def good_tables() -> dict[str, pl.DataFrame]:
    """Return the eight guarded tables, the candidates, judge's errors and skipped queries, of which there are none."""
    items = pl.DataFrame(
        {
            "item_id": range(8),
            "text": ["a dog", "", "a cat", "a hat", "a bat", "a rat", "a mat", "a car"],
            "image": ["", "img/1.png", "img/2.png", "", "", "", "", ""],
            "content_key": [f"key-{i}" for i in range(8)],
            "modality": ["text", "image", "image_text", "text", "text", "text", "text", "text"],
        },
        schema_overrides={"item_id": pl.Int64},
    )
    queries = pl.DataFrame(
        {
            "query_id": [0, 1, 2],
            "dataset": ["MSCOCO", "MSCOCO", "OK-VQA"],
            "meta_task": ["retrieval", "retrieval", "vqa"],
            "item_id": [0, 1, 2],
            "positive_item_id": [3, 4, 5],
        }
    )
    pool = pl.DataFrame(
        {
            "query_id": [0, 0, 0, 1, 1, 1, 2, 2, 2],
            "rank": [0, 1, 2] * 3,
            "item_id": [6, 7, 4, 3, 6, 7, 7, 6, 3],
            "similarity": [0.9, 0.8, 0.7, 0.5, 0.5, -0.25, 1.0, 0.0, -1.0],
        },
        schema_overrides={"rank": pl.Int32, "similarity": pl.Float32},
    )
    scores = [0.9, 0.5, 0.25, 0.9, 0.9, 0.75, 0.9, 0.5, 0.9, 0.9, 0.9, 0.9]
    judge_scores = pl.DataFrame(
        {
            "query_id": [0] * 4 + [1] * 4 + [2] * 4,
            "item_id": [3, 6, 7, 4, 4, 3, 6, 7, 5, 7, 6, 3],
            "is_positive": [True, False, False, False] * 3,
            "yes_logit": [2 * LOGITS[score] - 1 for score in scores],
            "no_logit": [-1.0] * 12,
            "temperature": [2.0] * 12,
            "score": scores,
        },
        schema_overrides=dict.fromkeys(("yes_logit", "no_logit", "temperature", "score"), pl.Float32),
    )
    selection = pl.DataFrame(
        {
            "query_id": [0, 1, 2],
            "positive_score": [0.9, 0.9, 0.9],
            "threshold": [0.89, 0.89, 0.89],
            "pool_size": [3, 3, 3],
            "kept": [2, 1, 0],
            "dropped_false_negative": [1, 1, 3],
            "dropped_unjudged": [0, 1, 0],
            "outcome": ["sampled", "duplicated", "fallback"],
        },
        schema_overrides={"positive_score": pl.Float32, "threshold": pl.Float32}
        | dict.fromkeys(("pool_size", "kept", "dropped_false_negative", "dropped_unjudged"), pl.Int32),
    )
    negatives = pl.DataFrame(
        {
            "query_id": [0, 0, 1, 1, 2, 2],
            "slot": [0, 1] * 3,
            "item_id": [6, 7, 3, 3, 7, 6],
            "score": [0.5, 0.25, 0.75, 0.75, 1.0, 1.0],
            "origin": ["sampled", "sampled", "sampled", "duplicate", "fallback", "fallback"],
        },
        schema_overrides={"slot": pl.Int32, "score": pl.Float32},
    )
    training = pl.DataFrame(
        {
            "query_id": [0, 1, 2],
            "dataset": ["MSCOCO", "MSCOCO", "OK-VQA"],
            "split": ["train", "validation", "train"],
            "item_id": [0, 1, 2],
            "positive_item_id": [3, 4, 5],
            "positive_score": [0.9, 0.9, 0.9],
            "negative_item_ids": [[6, 7], [3, 3], [7, 6]],
            "negative_scores": [[0.5, 0.25], [0.75, 0.75], [1.0, 1.0]],
        },
        schema_overrides={"positive_score": pl.Float32, "negative_scores": pl.List(pl.Float32)},
    )
    return {
        **evaluation_tables(),
        "items": items,
        "queries": queries,
        "candidates": pl.DataFrame({"item_id": [3, 4, 5, 6, 7]}),
        "pool": pool,
        "judge_scores": judge_scores,
        "judge_errors": pl.DataFrame(schema=ERRORS_SCHEMA),
        "judge_coverage": pl.DataFrame(
            {"query_id": [0, 1, 2], "pool_size": [3, 3, 3], "judged": [3, 3, 3], "taken": [None] * 3},
            schema=COVERAGE_SCHEMA,
        ),
        "selection": selection,
        "skipped": pl.DataFrame(schema={"query_id": pl.Int64, "reason": pl.String}),
        "negatives": negatives,
        "training": training,
        "reranking": training.with_columns(
            pl.Series("negative_item_ids", [[6, 7], [3, 6], [7, 6]]),
            pl.Series("negative_scores", [[0.5, 0.25], [0.75, 0.25], [1.0, 1.0]], dtype=pl.List(pl.Float32)),
        ),
    }


def edit(table: pl.DataFrame, row: int, **values: object) -> pl.DataFrame:
    """Return the table with some values of one row replaced, types kept."""
    here = pl.int_range(pl.len()) == row
    return table.with_columns(
        pl.when(here).then(_literal(value, table.schema[name])).otherwise(pl.col(name)).alias(name)
        for name, value in values.items()
    )


def _literal(value: object, kind: pl.DataType) -> pl.Expr:
    return pl.lit(pl.Series([value], dtype=kind)).first() if isinstance(value, list) else pl.lit(value, dtype=kind)
