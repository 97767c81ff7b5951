"""Compositional understanding: is a picture nearer to its caption than to a caption that says something else?

SugarCrepe (Hsieh et al. 2023) changes a caption in one way per file: an object, attribute or relation is replaced,
swapped or added. Each entry is a query with two candidates, the caption and the changed one.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import polars as pl

from unime_kedro.errors import DataError
from unime_kedro.evaluation.captions import CAPTION, CaptionPrompts
from unime_kedro.evaluation.embedders import CHUNK, Embed, evaluate_embedder
from unime_kedro.mining.images import ProgressFactory


class _Set(NamedTuple):
    """One file in the form that :func:`.embedders.evaluate_embedder` takes."""

    dataset: str
    contents: pl.DataFrame
    queries: pl.DataFrame


def evaluate_compositional(
    entries: pl.DataFrame,
    embed: Embed,
    image_root: str | Path,
    prompts: CaptionPrompts,
    *,
    chunk: int = CHUNK,
    progress: ProgressFactory | None = None,
) -> pl.DataFrame:
    """Compare every picture with its caption and its changed caption.

    Args:
        entries: dataset, query_id (distinct in its data set), image (path under the image root), caption,
            negative_caption.
        embed: The embedder (see :mod:`.embedders`); each distinct content is embedded once.
        image_root: Folder that image paths are relative to.
        prompts: The words around pictures and captions; ``image_query`` and ``caption_target`` are used.
        chunk: Contents per call of ``embed``.
        progress: ``unime_kedro.progress.progress`` or alike.

    Returns:
        :data:`.embedders.PREDICTIONS_SCHEMA` and ``image``, the unit for intervals: entries of one picture are not
        independent. An entry is correct when the picture is strictly nearer to the caption.

    Raises:
        DataError: If there are no entries, or query_ids of a data set are not distinct.
        ModelError: If the embedder's vectors are not usable.
    """
    if not len(entries):
        raise DataError("there are no entries with a caption and a changed caption.")
    parts = entries.partition_by("dataset", as_dict=True)
    sets = [_as_set(str(name), part, prompts) for (name,), part in parts.items()]
    predictions = evaluate_embedder(sets, embed, image_root, chunk=chunk, progress=progress)
    images = entries.select("dataset", "query_id", "image")
    return predictions.join(images, on=["dataset", "query_id"], how="left", maintain_order="left")


def _as_set(name: str, entries: pl.DataFrame, prompts: CaptionPrompts) -> _Set:
    """Make three contents of every entry; equal ones are found when they are embedded."""
    before, after = prompts.caption_target.split(CAPTION)
    images = entries.select(text=pl.lit(prompts.image_query), image="image")
    texts = [
        entries.select(text=pl.lit(before) + pl.col(side) + pl.lit(after), image=pl.lit(""))
        for side in ("caption", "negative_caption")
    ]
    contents = (
        pl.concat([images, *texts]).with_row_index("content_id").with_columns(pl.col("content_id").cast(pl.Int64))
    )
    row, n = pl.int_range(pl.len(), dtype=pl.Int64), len(entries)
    queries = entries.select("query_id", content_id=row, candidates=pl.concat_list(row + n, row + 2 * n))
    return _Set(name, contents, queries)
