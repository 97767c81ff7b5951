"""Are the pictures there that rows name? All are looked for, some are opened."""

from __future__ import annotations

import os
from pathlib import Path

import polars as pl

from unime_kedro.mining.images import read_images
from unime_kedro.progress import progress


def look_for_pictures(mentions: pl.DataFrame, root: Path, sample: int, seed: int) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Look for every picture by its name, and open some of each data set.

    Args:
        mentions: dataset and image (path below ``root``), in any order and as often as it comes.
        root: Folder that the paths are relative to.
        sample: Pictures of each data set that are decoded.
        seed: Of the sample.

    Returns:
        dataset, pictures, missing, opened, unreadable, a row per data set; and the pictures with a problem: dataset,
        image, problem.
    """
    distinct = mentions.unique(["dataset", "image"]).sort("dataset", "image")
    place = pl.col("image").str.extract(r"^(.*)/[^/]*$").fill_null("")
    distinct = distinct.with_columns(folder=place, file=pl.col("image").str.extract(r"([^/]*)$"))
    # a path out of the root is not looked at, so that it counts as missing
    inside = ~pl.col("image").str.contains(r"^/|(^|/)\.\.(/|$)")
    there = _listing(root, distinct.filter(inside)["folder"].unique().sort().to_list())
    found = distinct.join(there, on=["folder", "file"], how="left").with_columns(pl.col("there").fill_null(value=False))
    shuffled = pl.int_range(pl.len()).shuffle(seed=seed).over("dataset")
    drawn = found.filter("there").with_columns(turn=shuffled).filter(pl.col("turn") < sample).sort("dataset", "image")
    opened = _opened(drawn["image"].unique().sort(), root)
    drawn = drawn.join(opened, on="image", how="left")
    missing = found.filter(~pl.col("there")).select("dataset", "image", problem=pl.lit("missing"))
    bad = drawn.filter(pl.col("problem") != "").select("dataset", "image", "problem")
    counts = found.group_by("dataset").agg(pictures=pl.len(), missing=(~pl.col("there")).sum())
    looked = drawn.group_by("dataset").agg(opened=pl.len(), unreadable=(pl.col("problem") != "").sum())
    counts = counts.join(looked, on="dataset", how="left").with_columns(pl.col("opened", "unreadable").fill_null(0))
    return counts.sort("dataset"), pl.concat([missing, bad]).sort("dataset", "image")


def _listing(root: Path, folders: list[str]) -> pl.DataFrame:
    """Return the files of folders; one listing of a folder instead of a question for each of its files."""
    rows: list[tuple[str, str]] = []
    for folder in folders:
        try:
            with os.scandir(root / folder) as entries:
                rows += [(folder, entry.name) for entry in entries if entry.is_file()]
        except OSError:
            continue
    table = pl.DataFrame(rows, schema={"folder": pl.String, "file": pl.String}, orient="row")
    return table.with_columns(there=pl.lit(value=True))


def _opened(images: pl.Series, root: Path) -> pl.DataFrame:
    schema = {"image": pl.String, "problem": pl.String}
    if images.is_empty():
        return pl.DataFrame(schema=schema)
    facts = read_images(str(root), images.to_list(), "full", 0, progress)
    rows = [(fact.path, f"{fact.problem}: {fact.detail}" if fact.problem else "") for fact in facts]
    return pl.DataFrame(rows, schema=schema, orient="row")
