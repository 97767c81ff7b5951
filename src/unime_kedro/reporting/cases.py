"""Single queries on which two models differ: which are shown, and what each model retrieved for them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from unime_kedro.errors import DataError
from unime_kedro.io.page_parts import face
from unime_kedro.io.pictures import PAGE_BYTES, Pictures
from unime_kedro.paths import resolve

#: what makes a query one and the same for two models
KEY = ["benchmark", "dataset", "query_id"]


class Pair(NamedTuple):
    """Two models whose answers differ.

    Attributes:
        first: Name of the one that is looked at.
        second: Name of the one it is compared to.
        wins: Queries that the first has right and the second wrong: benchmark, dataset, query_id.
        losses: The other way round.
        n_wins: How many there are of the first kind, shown or not.
        n_losses: And of the second.
        n: Queries that both were asked.
    """

    first: str
    second: str
    wins: pl.DataFrame
    losses: pl.DataFrame
    n_wins: int
    n_losses: int
    n: int


class Faces:
    """How contents of several benchmarks look; each benchmark has its own folder of pictures.

    Args:
        page_bytes: What all pictures of the page may take together.
        roots: The folders, in a fixed order.
    """

    def __init__(self, roots: Sequence[str], page_bytes: int = PAGE_BYTES) -> None:
        self._pictures = {root: Pictures(resolve(root), page_bytes // max(1, len(roots))) for root in roots}
        self._prefix = {root: f"r{place}" for place, root in enumerate(roots)}

    def face(self, root: str, text: str | None, image: str | None) -> dict[str, Any]:
        """Return parts, image and picture of a content (see :func:`.io.page_parts.face`)."""
        found = face(text or "", image or "", self._pictures[root])
        if found["picture"]:
            found["picture"] = self._prefix[root] + found["picture"]
        return found

    def encoded(self) -> list[tuple[str, str]]:
        """Return (CSS class, data URI) of every picture that was asked for and is there, each once."""
        return [
            (self._prefix[root] + name, uri)
            for root, pictures in self._pictures.items()
            for name, uri in pictures.encoded()
        ]


def choose_cases(predictions: pl.DataFrame, first: str, second: str, *, n: int, seed: int) -> Pair:
    """Choose queries that one of two models has right and the other wrong: at random, the data sets taking turns.

    Args:
        predictions: model, benchmark, dataset, query_id, correct.
        first: Name of a model.
        second: Name of another.
        n: How many of each kind, at most.
        seed: Seed; the choice does not depend on the order of rows.
    """
    one, other = (predictions.filter(pl.col("model") == name).select(*KEY, "correct") for name in (first, second))
    both = one.join(other, on=KEY, suffix="_second").sort(KEY)
    better = both.filter(pl.col("correct") & ~pl.col("correct_second")).select(KEY)
    worse = both.filter(~pl.col("correct") & pl.col("correct_second")).select(KEY)
    wins, losses = _take_turns(better, n, [seed, 0]), _take_turns(worse, n, [seed, 1])
    return Pair(first, second, wins, losses, better.height, worse.height, both.height)


def _take_turns(table: pl.DataFrame, n: int, seed: Sequence[int]) -> pl.DataFrame:
    """Return ``n`` rows of a sorted table, as evenly from its data sets as they have some."""
    order = np.random.default_rng(seed).permutation(table.height)
    turns = pl.int_range(pl.len()).over("benchmark", "dataset")
    drawn = table[order].with_row_index("drawn").with_columns(turn=turns)
    return drawn.sort("turn", "drawn").head(n).sort(KEY).select(KEY)


def case_views(
    cases: pl.DataFrame, models: Sequence[str], queries: pl.DataFrame, rankings: pl.DataFrame, faces: Faces, *, top: int
) -> list[dict[str, Any]]:
    """Return chosen queries as the template wants them.

    Args:
        cases: benchmark, dataset, query_id.
        models: Whose rankings are shown.
        queries: Table ``evaluated_queries``.
        rankings: Table ``rankings``.
        faces: The page's contents.
        top: Candidates shown per model.

    Returns:
        Per query: benchmark, dataset, query_id, query and target (faces), and per model its candidates, the first one
        first: the reranker's order where there is one.

    Raises:
        DataError: If a query is not in ``evaluated_queries``.
    """
    known = cases.join(queries, on=KEY, how="left", maintain_order="left")
    if known["text"].null_count():
        row = known.filter(pl.col("text").is_null()).row(0, named=True)
        raise DataError(
            f"{row['benchmark']}, {row['dataset']}, query_id {row['query_id']} is in predictions.parquet and not in "
            "queries.parquet. Make both anew: kedro run --pipeline=evaluate"
        )
    shown = rankings.join(cases, on=KEY, how="semi")
    return [_view(row, models, shown, faces, top) for row in known.to_dicts()]


def _view(row: dict[str, Any], models: Sequence[str], shown: pl.DataFrame, faces: Faces, top: int) -> dict[str, Any]:
    root = row["image_root"]
    of_query = pl.all_horizontal(pl.col(key) == row[key] for key in KEY)
    return {
        **{key: row[key] for key in KEY},
        "query": faces.face(root, row["text"], row["image"]),
        "target": faces.face(root, row["target_text"], row["target_image"]),
        "models": [
            _ranking(name, shown.filter(of_query, pl.col("model") == name), root, faces, top) for name in models
        ],
    }


def _ranking(model: str, table: pl.DataFrame, root: str, faces: Faces, top: int) -> dict[str, Any]:
    """Return a model's candidates in its final order, with the places that a reranker took them from."""
    reranked = table["reranked_position"].null_count() < table.height
    ordered = table.with_columns(place=pl.coalesce("reranked_position", "position")).sort("place", "position")
    right = ordered.filter("right")["place"].min()
    shown = ordered.head(top).select("position", "place", "similarity", "right", "text", "image").to_dicts()
    return {
        "model": model,
        "reranked": reranked,
        "right_place": right,
        "n": table.height,
        "candidates": [row | faces.face(root, row["text"], row["image"]) for row in shown],
    }
