"""The gallery: queries with their mined negatives, as one HTML page that opens anywhere.

The page needs no network and no other file. Every distinct picture is in it once, as a data URI behind a CSS class:
a picture that stands on many cards costs its bytes once, and shows without JavaScript.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from unime_kedro.errors import DataError
from unime_kedro.io.page_parts import environment, face
from unime_kedro.io.pictures import Pictures

#: members of a pool's profile, and dropped members that a query shows at most
_LONGEST_PROFILE = 200
_MOST_DROPPED = 20
_BINS = 20
_PROFILE_HEIGHT = 60
_PAIR = ["query_id", "item_id"]


def render_gallery(
    queries: pl.DataFrame,
    items: pl.DataFrame,
    pool: pl.DataFrame,
    judge_scores: pl.DataFrame,
    negatives: pl.DataFrame,
    selection: pl.DataFrame,
    *,
    image_root: str | Path,
    n_queries: int,
    seed: int,
    title: str,
    facts: dict[str, str],
    truth: pl.DataFrame | None = None,
    note: str | None = None,
) -> str:
    """Render queries with their positive, pool, mined negatives and dropped false negatives as one HTML page.

    The same tables, in any row order, and the same pictures give the same bytes.

    Args:
        queries: Table ``queries``.
        items: Table ``items``.
        pool: Table ``pool``; where it has no rows the page shows no ranks, similarities and dropped members.
        judge_scores: Table ``judge_scores``.
        negatives: Table ``negatives``.
        selection: Table ``selection``.
        image_root: Folder that the items' image paths are relative to. A picture that is not in it, or cannot be
            decoded, becomes a placeholder that names its path.
        n_queries: How many queries to show (see :func:`choose_queries`).
        seed: Seed of that choice.
        title: Heading of the page.
        facts: What was mined and with which settings, shown at the top in this order.
        truth: query_id, item_id, relevance in [0, 1] or null, where it is known; stands beside the judge's score, and a
            mark on the candidates that judge and filter got wrong.
        note: What a reader must know before believing the numbers, shown below the facts.

    Returns:
        The page, text to be written as UTF-8.

    Raises:
        DataError: If a table refers to an item that is not in ``items``.
    """
    shown = choose_queries(queries, selection, n_queries, seed)
    facing, members, chosen = _tables(shown, queries, pool, judge_scores, negatives, selection, truth)
    pictures = Pictures(image_root)
    seen = [facing["item_id"], facing["positive_item_id"], members["item_id"], chosen["item_id"]]
    faces = _faces(
        pl.concat([column.rename("item_id") for column in seen]).unique(maintain_order=True), items, pictures
    )
    views = [_view(row, members, chosen, faces) for row in facing.to_dicts()]
    names = sorted({view["dataset"] for view in views})
    return environment().get_template("gallery.html.j2").render(
        title=title,
        facts=facts,
        note=note,
        seed=seed,
        queries=views,
        n_all=queries.height,
        n_datasets=queries["dataset"].n_unique(),
        datasets=[(name, sum(view["dataset"] == name for view in views)) for name in names],
        histogram=_histogram(judge_scores, selection),
        has_truth=truth is not None,
        pictures=pictures.encoded(),
    )  # fmt: skip


def choose_queries(queries: pl.DataFrame, selection: pl.DataFrame, n: int, seed: int) -> list[int]:
    """Choose the queries to show: at random, the data sets taking turns.

    One query that fell back to random negatives and one with repeated negatives come first, where there are any and
    ``n`` has room.

    Args:
        queries: Table ``queries``.
        selection: Table ``selection``.
        n: How many, at most; fewer when there are fewer.
        seed: Seed; the choice does not depend on the order of rows.

    Returns:
        Query ids by data set, those with fallback or repeated negatives last, then by id.
    """
    table = queries.select("query_id", "dataset").join(
        selection.select("query_id", "outcome"), on="query_id", how="left"
    )
    shuffled = table.sort("query_id")[np.random.default_rng(seed).permutation(table.height)]
    special = pl.lit(value=False)
    for outcome in ("fallback", "duplicated"):
        is_it = (pl.col("outcome") == outcome).fill_null(value=False)
        special = special | (is_it & (is_it.cum_sum() == 1))
    turns = (
        shuffled.with_row_index("drawn")
        .with_columns(later=~special)
        .sort("later", "drawn")
        .with_columns(turn=pl.int_range(pl.len()).over("dataset"))
        .sort("later", "turn", "drawn")
    )
    ordinary_first = (pl.col("outcome") != "sampled").fill_null(value=False)
    return turns.head(n).sort("dataset", ordinary_first, "query_id")["query_id"].to_list()


def _tables(
    shown: list[int],
    queries: pl.DataFrame,
    pool: pl.DataFrame,
    judge_scores: pl.DataFrame,
    negatives: pl.DataFrame,
    selection: pl.DataFrame,
    truth: pl.DataFrame | None,
) -> tuple[pl.DataFrame, pl.DataFrame, pl.DataFrame]:
    """Return what the page needs of every shown query: its own row with the positive, its pool, its negatives."""
    order = pl.DataFrame({"query_id": shown}, schema={"query_id": pl.Int64})
    nothing = pl.DataFrame(schema={"query_id": pl.Int64, "item_id": pl.Int64, "relevance": pl.Float32})
    known = (nothing if truth is None else truth).select(*_PAIR, "relevance").join(order, on="query_id", how="semi")
    known = known.unique(_PAIR)
    judged = judge_scores.join(order, on="query_id", how="semi").select(*_PAIR, "score").unique(_PAIR)
    taken = negatives.join(order, on="query_id", how="semi")
    of_positive = known.rename({"item_id": "positive_item_id"})
    facing = (
        order.join(queries, on="query_id", how="left", maintain_order="left")
        .join(selection, on="query_id", how="left", maintain_order="left")
        .join(of_positive, on=["query_id", "positive_item_id"], how="left", maintain_order="left")
    )
    members = (
        pool.join(order, on="query_id", how="semi")
        .join(judged, on=_PAIR, how="left")
        .join(known, on=_PAIR, how="left")
        .join(selection.select("query_id", "threshold", "kept"), on="query_id", how="left")
        .join(taken.select(*_PAIR, chosen=pl.lit(value=True)).unique(), on=_PAIR, how="left")
        .with_columns(_fate(), pl.col("chosen").fill_null(value=False))
        .sort("query_id", "rank")
    )
    chosen = (
        taken.join(members.select(*_PAIR, "rank", "similarity"), on=_PAIR, how="left")
        .join(judged.rename({"score": "judged"}), on=_PAIR, how="left")
        .join(known, on=_PAIR, how="left")
        .sort("query_id", "slot")
    )
    return facing, members, chosen


def _fate() -> pl.Expr:
    """Return what became of a pool member as column ``fate``: kept, dropped (a false negative), or unjudged.

    A query that kept nothing although a member scored within the threshold is one whose positive was not judged.
    """
    score = pl.col("score").fill_nan(None)
    return (
        pl.when(score.is_null())
        .then(pl.lit("unjudged"))
        .when(score > pl.col("threshold"))
        .then(pl.lit("dropped"))
        .when(pl.col("kept") == 0)
        .then(pl.lit("unjudged"))
        .otherwise(pl.lit("kept"))
        .alias("fate")
    )


def _faces(item_ids: pl.Series, items: pl.DataFrame, pictures: Pictures) -> dict[int, dict[str, Any]]:
    """Return how each item looks: the parts of its text between placeholders, and its picture."""
    rows = item_ids.to_frame().join(items, on="item_id", how="left", maintain_order="left")
    missing = rows.filter(pl.col("text").is_null() & pl.col("image").is_null())
    if missing.height:
        raise DataError(f"item_id {missing['item_id'][0]} is shown in the gallery but is not in table 'items'")
    return {row["item_id"]: face(row["text"] or "", row["image"] or "", pictures) for row in rows.to_dicts()}


def _view(row: dict[str, Any], members: pl.DataFrame, chosen: pl.DataFrame, faces: dict[int, Any]) -> dict[str, Any]:
    """Return one query as the template wants it."""
    of_query = pl.col("query_id") == row["query_id"]
    pool = members.filter(of_query)
    dropped = pool.filter(pl.col("fate") != "kept")
    threshold = row["threshold"]

    def cards(table: pl.DataFrame) -> list[dict[str, Any]]:
        return [card | faces[card["item_id"]] for card in table.to_dicts()]

    return {
        **row,
        "threshold": None if threshold is None or np.isinf(threshold) else threshold,
        "query": faces[row["item_id"]],
        "positive": faces[row["positive_item_id"]],
        "negatives": cards(chosen.filter(of_query)),
        "dropped": cards(dropped.head(_MOST_DROPPED)),
        "n_hidden": max(0, dropped.height - _MOST_DROPPED),
        "profile": _profile(pool.head(_LONGEST_PROFILE)),
    }


def _profile(pool: pl.DataFrame) -> dict[str, Any]:
    """Return the pool's scores in retrieval order as SVG paths: one per fate, and the marks below the chosen."""
    step, bar = 8, 6
    x = np.arange(pool.height) * step + 1
    heights = np.maximum(pool["score"].fill_null(0).to_numpy() * _PROFILE_HEIGHT, 1.5)
    kinds = pool.select(pl.when(pl.col("chosen") & (pl.col("fate") == "kept")).then(pl.lit("taken")).otherwise("fate"))
    kind, chosen = kinds.to_series().to_numpy(), pool["chosen"].to_numpy()
    bars = [
        f"M{left} {_PROFILE_HEIGHT}v-{height:.1f}h{bar}v{height:.1f}z" for left, height in zip(x, heights, strict=True)
    ]
    marks = [f"M{left} {_PROFILE_HEIGHT + 4}h{bar}v3h-{bar}z" for left in x]
    return {
        "width": pool.height * step,
        "n": pool.height,
        "bars": {name: "".join(np.array(bars)[kind == name]) for name in ("kept", "taken", "dropped", "unjudged")},
        "marks": "".join(np.array(marks)[chosen]),
    }


def _histogram(judge_scores: pl.DataFrame, selection: pl.DataFrame) -> list[dict[str, Any]]:
    """Return the scores of the whole corpus in bins over [0, 1]: of positives, kept and dropped pool members.

    Arrays in slices instead of a join: the paper's corpus has 34 million scores.
    """
    ids = selection["query_id"].to_numpy()
    size = 1 + max(int(column.max(initial=0)) for column in (ids, judge_scores["query_id"].to_numpy()))
    threshold, any_kept = np.full(size, np.nan, dtype=np.float32), np.zeros(size, dtype=bool)
    threshold[ids], any_kept[ids] = selection["threshold"].to_numpy(), selection["kept"].to_numpy() > 0
    counts = np.zeros(4 * _BINS, dtype=np.int64)
    for part in judge_scores.iter_slices(1 << 21):
        query, score = part["query_id"].to_numpy(), part["score"].to_numpy()
        member = np.where(score > threshold[query], 2, np.where(any_kept[query], 1, 3))  # as in _fate
        group = np.where(part["is_positive"].to_numpy(), 0, member)
        valid = (score >= 0) & (score <= 1)
        place = np.minimum((score[valid] * _BINS).astype(np.int64), _BINS - 1)
        counts += np.bincount(group[valid] * _BINS + place, minlength=4 * _BINS)
    return [
        {"name": name, "n": int(row.sum()), "shares": (row / max(1, row.sum())).tolist()}
        for name, row in zip(("positives", "kept", "dropped"), counts.reshape(4, _BINS)[:3], strict=True)
    ]
