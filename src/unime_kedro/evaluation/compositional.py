"""Compositional understanding: is a picture nearer to its caption than to a caption that says something else?

SugarCrepe (Hsieh et al. 2023) changes a caption in one way per file: an object, attribute or relation is replaced,
swapped or added. Each entry is a query with two candidates, the caption and the changed one.
"""

from __future__ import annotations

import polars as pl

from unime_kedro.errors import DataError
from unime_kedro.evaluation.captions import CaptionPrompts, with_caption
from unime_kedro.evaluation.tasks import OwnCandidates


def compositional_tasks(entries: pl.DataFrame, prompts: CaptionPrompts) -> list[OwnCandidates]:
    """Compare every picture with its caption and its changed caption.

    Args:
        entries: dataset, query_id (distinct in its data set), image (path under the image root), caption,
            negative_caption.
        prompts: The words around pictures and captions; ``image_query`` and ``caption_target`` are used.

    Returns:
        One task per data set, by name. The unit is the picture: entries of one picture are not independent. An entry
        is right when the picture is strictly nearer to the caption.

    Raises:
        DataError: If there are no entries.
    """
    if not len(entries):
        raise DataError("there are no entries with a caption and a changed caption.")
    parts = entries.partition_by("dataset", as_dict=True)
    return [_task(str(name), part.sort("query_id"), prompts) for (name,), part in sorted(parts.items())]


def _task(name: str, entries: pl.DataFrame, prompts: CaptionPrompts) -> OwnCandidates:
    """Make three contents of every entry; equal ones are found when they are embedded."""
    images = entries.select(text=pl.lit(prompts.image_query), image="image")
    texts = [
        entries.select(text=with_caption(prompts.caption_target, side), image=pl.lit(""))
        for side in ("caption", "negative_caption")
    ]
    row, n = pl.int_range(pl.len(), dtype=pl.Int64), len(entries)
    contents = pl.concat([images, *texts]).select("text", "image", content_id=row)
    queries = entries.select(
        "query_id",
        content_id=row,
        candidates=pl.concat_list(row + n, row + 2 * n),
        unit=pl.col("image").rank("dense").cast(pl.Int64),
    )
    return OwnCandidates(name, contents.select("content_id", "text", "image"), queries)
