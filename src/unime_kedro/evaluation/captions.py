"""Cross-modal retrieval over a set of captioned pictures, both ways: Flickr30K, COCO, ShareGPT4V, Urban1K."""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl

from unime_kedro.errors import ConfigurationError, DataError
from unime_kedro.evaluation.tasks import SharedCandidates

#: stands for the caption in a prompt
CAPTION = "{caption}"


@dataclass(frozen=True)
class CaptionPrompts:
    """The words around pictures and captions; ``{caption}`` stands for the caption and occurs once.

    Attributes:
        image_query: Text of a picture that looks for its caption, with ``<|image_1|>`` where the picture goes.
        caption_query: Text of a caption that looks for its picture.
        image_target: Text of a picture that is looked for, likewise with ``<|image_1|>``.
        caption_target: Text of a caption that is looked for.
    """

    image_query: str
    caption_query: str
    image_target: str
    caption_target: str = CAPTION

    def __post_init__(self) -> None:
        for name in ("caption_query", "caption_target"):
            if getattr(self, name).count(CAPTION) != 1:
                raise ConfigurationError(f"prompt {name} is {getattr(self, name)!r}; expected {CAPTION} in it once.")


def caption_tasks(
    images: pl.DataFrame, captions: pl.DataFrame, prompts: CaptionPrompts, dataset: str = "Flickr30K"
) -> list[SharedCandidates]:
    """Look for every picture's captions among all captions, and for every caption's picture among all pictures.

    One definition of what is right for both ways: what belongs to the same picture. Captions of one picture are not
    independent, so that the picture is the unit of both.

    Args:
        images: image_id (distinct), image (path under the image root).
        captions: caption_id (distinct), image_id, text; at least one for every picture.
        prompts: The words around pictures and captions.
        dataset: Name of the data set.

    Returns:
        ``<dataset>_i2t``, whose query_id is the image_id, and ``<dataset>_t2i``, whose query_id is the caption_id.

    Raises:
        DataError: If there are no pictures, ids are not distinct, or pictures and captions do not belong together.
    """
    images, captions = images.sort("image_id"), captions.sort("caption_id")
    _check(images, captions, dataset)
    i2t = _task(
        f"{dataset}_i2t",
        _pictures(images, prompts.image_query),
        _texts(captions, prompts.caption_target),
    )
    t2i = _task(
        f"{dataset}_t2i",
        _texts(captions, prompts.caption_query),
        _pictures(images, prompts.image_target),
    )
    return [i2t, t2i]


def with_caption(prompt: str, captions: str) -> pl.Expr:
    """Return the texts of a column, each in its place in a prompt."""
    before, after = prompt.split(CAPTION)
    return pl.concat_str(pl.lit(before), pl.col(captions), pl.lit(after))


def _check(images: pl.DataFrame, captions: pl.DataFrame, dataset: str) -> None:
    if not len(images):
        raise DataError(f"{dataset}: there are no pictures.")
    for table, key in ((images, "image_id"), (captions, "caption_id")):
        if table[key].n_unique() < len(table):
            raise DataError(f"{dataset}: expected distinct {key}, one stands there twice.")
    for table, other, fault in (
        (images, captions, "has no caption"),
        (captions, images, "has captions and no picture"),
    ):
        if len(bad := table.join(other, on="image_id", how="anti")):
            raise DataError(f"{dataset}: image_id {bad['image_id'][0]} {fault}.")


def _pictures(images: pl.DataFrame, prompt: str) -> pl.DataFrame:
    return images.select(id=pl.col("image_id").cast(pl.Int64), group="image_id", text=pl.lit(prompt), image="image")


def _texts(captions: pl.DataFrame, prompt: str) -> pl.DataFrame:
    text = with_caption(prompt, "text")
    return captions.select(id=pl.col("caption_id").cast(pl.Int64), group="image_id", text=text, image=pl.lit(""))


def _task(dataset: str, queries: pl.DataFrame, targets: pl.DataFrame) -> SharedCandidates:
    """Put queries and targets (id, group, text, image) into a task; contents are those of both, in this order."""
    row = pl.int_range(pl.len(), dtype=pl.Int64)
    group = pl.col("group").cast(pl.Int64)
    contents = pl.concat([queries, targets]).select("text", "image", content_id=row)
    return SharedCandidates(
        dataset,
        contents.select("content_id", "text", "image"),
        queries.select(query_id="id", content_id=row, group=group, unit=group),
        targets.select(target_id=row, content_id=row + len(queries), group=group),
    )
