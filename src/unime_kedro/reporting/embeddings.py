"""From embedded texts and pictures to points in a plane and the gap between the two."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import polars as pl
from numpy.typing import NDArray

from unime_kedro.evaluation.projection import modality_gap, principal_plane

SCHEMA = {"model": pl.String, "modality": pl.String, "dataset": pl.String, "x": pl.Float64, "y": pl.Float64}


def no_projection() -> pl.DataFrame:
    """Return the table without rows."""
    return pl.DataFrame(schema=SCHEMA)


def choose_contents(contents: pl.DataFrame, n: int, seed: int) -> pl.DataFrame:
    """Choose distinct contents to embed: as many texts as pictures, the data sets taking turns.

    Args:
        contents: dataset, image_root, text, image; in any order, the result does not depend on it.
        n: How many at most, of both kinds together.
        seed: Seed of the choice.

    Returns:
        dataset, image_root, text, image, modality (``text``: without a picture, else ``picture``), sorted.
    """
    keys = ["image_root", "image", "text"]
    distinct = contents.select("dataset", *keys).sort("dataset", *keys).unique(keys, keep="first", maintain_order=True)
    shuffled = distinct[np.random.default_rng(seed).permutation(distinct.height)]
    modality = pl.when(pl.col("image") == "").then(pl.lit("text")).otherwise(pl.lit("picture"))
    turns = shuffled.with_columns(modality=modality).with_row_index("drawn")
    turns = turns.with_columns(turn=pl.int_range(pl.len()).over("modality", "dataset"))
    # the n-th text and the n-th picture are chosen together: neither kind is ahead of the other
    turns = turns.sort("turn", "drawn").with_columns(place=pl.int_range(pl.len()).over("modality"))
    return turns.filter(pl.col("place") < n // 2).sort("dataset", *keys).drop("drawn", "turn", "place")


def projected(
    contents: pl.DataFrame, vectors: Mapping[str, NDArray[np.float32]]
) -> tuple[pl.DataFrame, dict[str, dict[str, float]]]:
    """Project each model's vectors onto a plane of their own, and measure the gap between texts and pictures.

    Args:
        contents: dataset, modality; one row per vector.
        vectors: model -> (n, d) unit vectors; a model with a vector that is not finite is left out.

    Returns:
        Table :data:`SCHEMA`, and model -> distance, spread, texts, pictures, explained_x, explained_y.
    """
    is_text = (contents["modality"] == "text").to_numpy()
    tables, gaps = [no_projection()], {}
    for model, found in vectors.items():
        if not np.isfinite(found).all():
            continue
        plane, gap = principal_plane(found), modality_gap(found, is_text)
        x, y = plane.coordinates.T
        points = contents.select(pl.lit(model).alias("model"), "modality", "dataset", x=pl.Series(x), y=pl.Series(y))
        tables.append(points)
        gaps[model] = {
            "distance": gap.distance,
            "spread": gap.spread,
            "texts": gap.first,
            "pictures": gap.second,
            "explained_x": float(plane.explained[0]),
            "explained_y": float(plane.explained[1]),
        }
    return pl.concat(tables), gaps
