"""The row format of the authors' release (GaryGuTC/UniME-v2), written for their trainer and read into our tables.

One JSON array, one object per query: ``query_text``, ``query_image`` (relative path or ""), ``pos_text``,
``pos_image``, ``query_pos_scores`` (the judge's score of the positive), ``hard_negatives`` (list of [text, image
path]), ``hard_negatives_scores`` (list of the same length).
"""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl

from unime_kedro.atomic import atomic_write, save_parquet
from unime_kedro.io.mmeb import MMEB_META_TASKS
from unime_kedro.io.release_rows import KEYS, read_rows
from unime_kedro.mining.images import hash_bytes, read_images
from unime_kedro.mining.items import number_items
from unime_kedro.mining.lineage import corpus_digest, table_digest

log = logging.getLogger(__name__)

#: beta of the paper: a negative scored above the positive's score minus this counts as a false negative
BETA = 0.01
#: score of a negative that was drawn at random, because the query had no candidate left
FALLBACK_SCORE = 1.0
ORIGINS = ("sampled", "duplicate", "fallback")


class Imported(NamedTuple):
    """A release file as tables.

    Attributes:
        items: item_id, text, image, content_key, modality, as :func:`unime_kedro.mining.items.build_items` makes them.
        queries: query_id (the row of the file, from 0), dataset, meta_task, item_id, positive_item_id.
        negatives: query_id, slot, item_id, score, origin ("fallback" where all scores of the row are exactly 1,
            "duplicate" for content that stands earlier in the row, else "sampled").
        judge_scores: query_id, item_id, is_positive, score: what the file says of positives and negatives.
        violations: query_id, slot, score, threshold (float64, as in the file): negatives above the paper's threshold,
            positive's score - 0.01. Fallback negatives are not among them, their 1.0 is not a judge's score.
        metrics: Counts, flat.
    """

    items: pl.DataFrame
    queries: pl.DataFrame
    negatives: pl.DataFrame
    judge_scores: pl.DataFrame
    violations: pl.DataFrame
    metrics: dict[str, float]


def release_table(
    negatives: pl.DataFrame, queries: pl.DataFrame, items: pl.DataFrame, judge_scores: pl.DataFrame
) -> pl.DataFrame:
    """Put mined negatives into the release's rows, as a table that :class:`unime_kedro.io.JsonFile` writes.

    Args:
        negatives: query_id, slot, item_id, score.
        queries: query_id, item_id, positive_item_id.
        items: item_id, text, image.
        judge_scores: query_id, is_positive, score; the positives' rows are used.

    Returns:
        One row per query in order of query_id, negatives in order of slot, scores as float64. Queries without
        negatives, or whose positive has no finite score, are left out, and a logged warning counts them: the format
        has no room for them.
    """
    positive = judge_scores.filter(pl.col("is_positive") & pl.col("score").is_finite())
    positive = positive.select("query_id", query_pos_scores=pl.col("score").cast(pl.Float64))
    sides = items.select("item_id", side=pl.concat_list("text", "image"))
    mined = (
        negatives.sort("query_id", "slot")
        .join(sides, on="item_id", how="left", maintain_order="left")
        .group_by("query_id", maintain_order=True)
        .agg(hard_negatives="side", hard_negatives_scores=pl.col("score").cast(pl.Float64))
    )
    rows = queries.join(positive, on="query_id").join(mined, on="query_id")
    if left_out := len(queries) - len(rows):
        log.warning("%d queries have no negatives or no scored positive and are not exported", left_out)
    query = items.select("item_id", query_text="text", query_image="image")
    target = items.select(positive_item_id="item_id", pos_text="text", pos_image="image")
    return rows.join(query, on="item_id").join(target, on="positive_item_id").sort("query_id").select(KEYS)


def export_release(
    negatives: pl.DataFrame, queries: pl.DataFrame, items: pl.DataFrame, judge_scores: pl.DataFrame
) -> list[dict[str, Any]]:
    """Return the rows of :func:`release_table` as objects: keys and order of keys as in the release."""
    return release_table(negatives, queries, items, judge_scores).to_dicts()


def import_release(path: str | Path, image_root: str | Path | None = None) -> Imported:
    """Read a file in the release's format.

    Args:
        path: The JSON file.
        image_root: Folder that the file's image paths are relative to, if the images are at hand.

    Returns:
        The tables. Content keys are made of text and image bytes, as everywhere, for images found under
        ``image_root``; for the others, of text and image *path*: the keys then differ from those of the same images
        read from disk, and two names of one picture count as two.

    Raises:
        DataError: When the file is missing, is not JSON or a row is not of the format; names file, row, key and what
            was expected. Rows that break the paper's false-negative rule are no error: see ``violations``.
    """
    rows = read_rows(Path(path))
    sides = _sides(rows)
    hashes, read = _image_hashes(sides["image"], image_root)
    sides = sides.join(hashes, on="image", how="left", maintain_order="left")
    items, sides = number_items(sides.with_columns(pl.col("image_hash").fill_null("")))
    negatives = _negatives(sides.filter(pl.col("position") >= 2))
    violations = negatives.filter((pl.col("origin") != "fallback") & (pl.col("score") > pl.col("threshold")))
    violations = violations.select("query_id", "slot", "score", "threshold")
    negatives = negatives.select("query_id", "slot", "item_id", pl.col("score").cast(pl.Float32), "origin")
    queries = _queries(sides)
    judge_scores = _judge_scores(sides, negatives)
    metrics = _metrics(queries, items, negatives, violations) | {"images": len(hashes), "images_read": read}
    return Imported(items, queries, negatives, judge_scores, violations, metrics)


def _sides(rows: list[dict[str, Any]]) -> pl.DataFrame:
    """Return query_id, position (query 0, positive 1, negatives from 2), text, image, score, positive_score."""
    table = pl.DataFrame(
        {
            "query_id": range(len(rows)),
            "text": [
                [row["query_text"], row["pos_text"], *(text for text, _ in row["hard_negatives"])] for row in rows
            ],
            "image": [[row["query_image"], row["pos_image"], *(i for _, i in row["hard_negatives"])] for row in rows],
            "score": [[None, None, *row["hard_negatives_scores"]] for row in rows],
            "positive_score": [row["query_pos_scores"] for row in rows],
        },
        schema={
            "query_id": pl.Int64,
            "text": pl.List(pl.String),
            "image": pl.List(pl.String),
            "score": pl.List(pl.Float64),
            "positive_score": pl.Float64,
        },
        strict=False,  # scores may be integers in JSON
    )
    table = table.with_columns(position=pl.int_ranges(pl.col("text").list.len()))
    return table.explode("position", "text", "image", "score")


def _image_hashes(images: pl.Series, image_root: str | Path | None) -> tuple[pl.DataFrame, int]:
    """Return (image, image_hash) of every distinct image, and how many of them were read from the disk."""
    paths = images.filter(images != "").unique().sort().to_list()
    found: dict[str, str] = {}
    if image_root is not None:
        facts = read_images(image_root, paths, "header")
        found = {fact.path: fact.content_hash for fact in facts if not fact.problem}
    hashes = [found.get(path) or hash_bytes(b"path:", path.encode()) for path in paths]
    return pl.DataFrame(
        {"image": paths, "image_hash": hashes}, schema=dict.fromkeys(("image", "image_hash"), pl.String)
    ), len(found)


def _negatives(sides: pl.DataFrame) -> pl.DataFrame:
    """Return query_id, slot, item_id, score, origin, threshold."""
    fallback = (pl.col("score") == FALLBACK_SCORE).all().over("query_id")
    repeated = ~pl.struct("query_id", "item_id").is_first_distinct()
    origin = (
        pl.when(fallback).then(pl.lit("fallback")).when(repeated).then(pl.lit("duplicate")).otherwise(pl.lit("sampled"))
    )
    return sides.with_columns(
        slot=(pl.col("position") - 2).cast(pl.Int32), origin=origin, threshold=pl.col("positive_score") - BETA
    )


def _judge_scores(sides: pl.DataFrame, negatives: pl.DataFrame) -> pl.DataFrame:
    """Return query_id, item_id, is_positive, score of every pair that the file has a score of, each once."""
    positives = sides.filter(pl.col("position") == 1)
    scored = [
        positives.select("query_id", "item_id", score="positive_score", is_positive=pl.lit(True)),
        negatives.select("query_id", "item_id", "score", is_positive=pl.lit(False)),
    ]
    table = pl.concat([part.with_columns(pl.col("score").cast(pl.Float32)) for part in scored])
    table = table.unique(["query_id", "item_id", "is_positive"], keep="first", maintain_order=True)
    return table.sort("query_id", "is_positive", "item_id", descending=[False, True, False]).select(
        "query_id", "item_id", "is_positive", "score"
    )


def _queries(sides: pl.DataFrame) -> pl.DataFrame:
    """Return the queries table; the data set is the folder below ``images/`` of the row's first image."""
    # images/<data set>/Train/<file>: the release keeps MMEB's image folders
    folder = pl.col("image").str.extract(r"^(?:\./)?images/([^/]+)/", 1)
    origin = sides.select("query_id", dataset=folder).drop_nulls().unique("query_id", keep="first", maintain_order=True)
    positive = sides.filter(pl.col("position") == 1).select("query_id", positive_item_id="item_id")
    queries = sides.filter(pl.col("position") == 0).select("query_id", "item_id").join(positive, on="query_id")
    queries = queries.join(origin, on="query_id", how="left").sort("query_id")
    meta_task = pl.col("dataset").replace_strict(MMEB_META_TASKS, default="unknown", return_dtype=pl.String)
    queries = queries.with_columns(pl.col("dataset").fill_null("unknown"))
    return queries.with_columns(meta_task=meta_task).select(
        "query_id", "dataset", "meta_task", "item_id", "positive_item_id"
    )


def _metrics(
    queries: pl.DataFrame, items: pl.DataFrame, negatives: pl.DataFrame, violations: pl.DataFrame
) -> dict[str, float]:
    origins = dict(negatives.group_by("origin").len().iter_rows())
    per_row = queries.join(negatives.group_by("query_id").len(), on="query_id", how="left")["len"].fill_null(0)
    return {
        "rows": len(queries),
        "items": len(items),
        "negatives": len(negatives),
        "negatives_per_row_min": int(per_row.to_numpy().min()),
        "negatives_per_row_max": int(per_row.to_numpy().max()),
        **{f"origin_{name}": origins.get(name, 0) for name in ORIGINS},
        "violations": len(violations),
        "violating_rows": violations["query_id"].n_unique(),
    }


def format_import_report(imported: Imported, limit: int = 10) -> str:
    """Say in a few lines what was imported, and which negatives break the paper's rule (at most ``limit`` of them)."""
    m = {name: int(value) for name, value in imported.metrics.items()}
    low, high = m["negatives_per_row_min"], m["negatives_per_row_max"]
    lines = [
        f"{m['rows']:,} rows, {m['negatives']:,} negatives ({low if low == high else f'{low} to {high}'} per row), "
        f"{m['items']:,} distinct items",
        "origin: " + ", ".join(f"{m[f'origin_{name}']:,} {name}" for name in ORIGINS),
        f"images: {m['images']:,} paths, {m['images_read']:,} read from disk; the others are told apart by path",
    ]
    rule = f"score > score of the positive - {BETA}"
    if not m["violations"]:
        return "\n".join([*lines, f"violations: 0. No negative is a false one by the paper's rule ({rule})."])
    lines += [
        f"violations: {m['violations']:,}, in {m['violating_rows']:,} of {m['rows']:,} rows. By the paper's rule these "
        f"are false negatives ({rule}); they are imported as they are:",
        f"{'row':>8} {'slot':>5} {'score':>8} {'threshold':>10}",
    ]
    shown = imported.violations.head(limit).iter_rows()
    lines += [f"{row:>8} {slot:>5} {score:>8.4f} {threshold:>10.4f}" for row, slot, score, threshold in shown]
    more = m["violations"] - limit
    return "\n".join([*lines, *([f"... and {more:,} more"] if more > 0 else [])])


#: table -> its place below a data root
_PLACES = {
    "items": "02_intermediate/items.parquet",
    "queries": "02_intermediate/queries.parquet",
    "judge_scores": "03_primary/judge_scores.parquet",
    "negatives": "05_model_input/negatives.parquet",
    "violations": "05_model_input/violations.parquet",
}


def write_imported(imported: Imported, out_dir: str | Path) -> list[Path]:
    """Write the tables, each atomically, as a data root that ``kedro run --pipeline=train`` can be pointed to.

    Returns:
        The files, the last of which is ``03_primary/judge_origin.json``: what the tables were made from.
    """
    folder = Path(out_dir)
    paths = []
    for name, place in _PLACES.items():
        paths.append(folder / place)
        save_parquet(getattr(imported, name), paths[-1])
    origin = {
        "corpus": corpus_digest(imported.items, imported.queries),
        "judge_scores": table_digest(imported.judge_scores),
        "model": "unknown (imported scores)",
    }
    paths.append(folder / "03_primary/judge_origin.json")
    with atomic_write(paths[-1]) as temporary:
        temporary.write_text(json.dumps(origin, indent=1) + "\n", encoding="utf-8")
    return paths
