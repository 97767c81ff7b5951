"""Pools and scores that others made, as our tables: another retriever, another judge, an annotator."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import polars as pl

from unime_kedro.errors import DataError

#: a score of exactly 0 or 1 has no finite logit; this one gives it back in float32
_LARGEST_LOGIT = 104.0
_SHOWN = 3


def read_pool(file: Path, items: pl.DataFrame, queries: pl.DataFrame) -> pl.DataFrame:
    """Read candidates of queries.

    Args:
        file: parquet with query_id, item_id and similarity, in any order; other columns are left alone. A rank may be
            among them and is not used: the pool's order is by similarity, ties by item_id.
        items: The items table, which item_id means.
        queries: The queries table, which query_id means.

    Returns:
        The pool table: query_id, rank (int32, from 0), item_id, similarity (float32).

    Raises:
        DataError: A column is missing or of another kind, an id is unknown, a value is null or not finite, a pair is
            there twice, or a query's own positive is in its pool.
    """
    frame = _read(file, {"query_id": pl.Int64, "item_id": pl.Int64, "similarity": pl.Float32})
    _check_ids(file, frame, items, queries)
    _refuse(file, frame, ~pl.col("similarity").is_finite(), "similarity is not a finite number")
    _refuse(file, frame, ~pl.col("similarity").is_between(-1, 1), "similarity is not a cosine, within [-1, 1]")
    own = frame.join(queries.select("query_id", "positive_item_id"), on="query_id", how="left", maintain_order="left")
    _refuse(file, own, pl.col("item_id") == pl.col("positive_item_id"), "the candidate is the query's own positive")
    ordered = frame.sort("query_id", "similarity", "item_id", descending=[False, True, False])
    rank = pl.int_range(pl.len(), dtype=pl.Int32).over("query_id").alias("rank")
    return ordered.select("query_id", rank, "item_id", "similarity")


def read_scores(
    file: Path, items: pl.DataFrame, queries: pl.DataFrame, pool: pl.DataFrame, *, missing: bool = False
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Read a judge's scores of all pool pairs and positives.

    Args:
        file: parquet with query_id, item_id, and score in [0, 1] or yes_logit and no_logit; in any order.
        items: The items table.
        queries: The queries table.
        pool: The pool table.
        missing: Whether pairs may be without a score; they count as pairs that the judge failed on.

    Returns:
        The judge_scores table (positives first, then in pool order; a score without logits stands as the logit that
        gives it back, temperature 1), and the judge_errors table.

    Raises:
        DataError: As for :func:`read_pool`; a score outside [0, 1]; a pair of the pool or a positive without a score.
    """
    from unime_kedro.mining.judging import pairs_to_judge

    logits = {"yes_logit": pl.Float32, "no_logit": pl.Float32}
    has_logits = set(logits) <= set(pl.read_parquet_schema(file)) if file.is_file() else False
    frame = _read(
        file, {"query_id": pl.Int64, "item_id": pl.Int64, **(logits if has_logits else {"score": pl.Float64})}
    )
    _check_ids(file, frame, items, queries)
    for name in frame.columns[2:]:
        _refuse(file, frame, ~pl.col(name).is_finite(), f"{name} is not a finite number")
    if not has_logits:
        _refuse(file, frame, ~pl.col("score").is_between(0, 1), "score is not within [0, 1]")
        frame = frame.with_columns(yes_logit=pl.Series(_logit(frame["score"].to_numpy())), no_logit=pl.lit(0.0))
    pairs = pairs_to_judge(queries, pool).drop("query_item_id")
    judged = pairs.join(frame, on=["query_id", "item_id"], how="left", maintain_order="left")
    absent = judged.filter(pl.col("yes_logit").is_null())
    if len(absent) and not missing:
        shown = ", ".join(f"({q}, {i})" for q, i in absent.select("query_id", "item_id").head(_SHOWN).rows())
        raise DataError(
            f"{file}: {len(absent):,} of {len(judged):,} pairs have no score, such as (query_id, item_id) {shown}. "
            "Every positive and every item of a query's pool needs one; --allow-missing takes them for failures."
        )
    errors = absent.select("query_id", "item_id", "is_positive", error=pl.lit(f"no score in {file.name}"))
    return _score_table(judged.filter(pl.col("yes_logit").is_not_null())), errors


def _score_table(judged: pl.DataFrame) -> pl.DataFrame:
    from unime_kedro.mllm.judgements import score

    frame = judged.with_columns(pl.col("yes_logit", "no_logit").cast(pl.Float32))
    values = score(frame["yes_logit"].to_numpy(), frame["no_logit"].to_numpy())
    return frame.select(
        "query_id",
        "item_id",
        "is_positive",
        "yes_logit",
        "no_logit",
        temperature=pl.lit(1.0, dtype=pl.Float32),
        score=pl.Series(values, dtype=pl.Float32),
    )


def _logit(score: np.ndarray) -> np.ndarray:
    with np.errstate(divide="ignore"):
        logit = np.log(score) - np.log1p(-score)
    return np.clip(logit, -_LARGEST_LOGIT, _LARGEST_LOGIT)


def file_digest(file: Path) -> str:
    """Return the sha256 of a file's bytes."""
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def _read(file: Path, columns: dict[str, pl.DataType | type[pl.DataType]]) -> pl.DataFrame:
    try:
        schema = pl.read_parquet_schema(file)
        missing = [name for name in columns if name not in schema]
        if missing:
            raise DataError(
                f"{file}: no column {', '.join(missing)}; expected {', '.join(columns)}, found {', '.join(schema)}."
            )
        wrong = [name for name in columns if not schema[name].is_numeric()]
        if wrong:
            raise DataError(f"{file}: column {wrong[0]} is {schema[wrong[0]]}; expected numbers.")
        frame = pl.read_parquet(file, columns=list(columns))
    except (OSError, pl.exceptions.PolarsError) as error:
        raise DataError(f"{file} cannot be read as parquet: {error}.") from error
    for name in columns:
        _refuse(file, frame, pl.col(name).is_null(), f"{name} is null")
    for name in ("query_id", "item_id"):
        _refuse(file, frame, pl.col(name) != pl.col(name).round(0), f"{name} is not a whole number")
    frame = frame.select(pl.col(name).cast(kind) for name, kind in columns.items())
    twice = frame.select("query_id", "item_id").is_duplicated()
    _refuse(file, frame, twice, "this pair of query_id and item_id is there more than once")
    return frame


def _check_ids(file: Path, frame: pl.DataFrame, items: pl.DataFrame, queries: pl.DataFrame) -> None:
    for name, table, known in (("query_id", "queries", queries), ("item_id", "items", items)):
        _refuse(file, frame, ~pl.col(name).is_in(known[name].implode()), f"{name} is not in {table}.parquet")


def _refuse(file: Path, frame: pl.DataFrame, wrong: pl.Expr | pl.Series, what: str) -> None:
    found = frame.with_row_index("row").filter(wrong)
    if found.is_empty():
        return
    first = found.row(0, named=True)
    row = first.pop("row")
    values = ", ".join(f"{name} {value}" for name, value in first.items())
    more = f"; {len(found) - 1:,} more rows like it" if len(found) > 1 else ""
    raise DataError(f"{file}: row {row}: {what} ({values}){more}. Nothing was imported.")
