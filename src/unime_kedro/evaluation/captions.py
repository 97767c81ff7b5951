"""Cross-modal retrieval over a set of captioned pictures, both ways: Flickr30K, COCO, ShareGPT4V, Urban1K."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl
from numpy.typing import ArrayLike, NDArray

from unime_kedro.errors import ConfigurationError, DataError
from unime_kedro.evaluation.embedders import CHUNK, Embed, Ids, Vectors, embed_distinct
from unime_kedro.evaluation.precision import warn_of_useless_similarities
from unime_kedro.mining.images import ProgressFactory
from unime_kedro.mining.index import similarity_matrix

#: stands for the caption in a prompt
CAPTION = "{caption}"

#: similarities of a block (128 MiB as float64)
_BLOCK = 1 << 24

RETRIEVAL_SCHEMA = {
    "dataset": pl.String,
    "query_id": pl.Int64,
    "image_id": pl.Int64,
    "correct": pl.Boolean,
    "own_similarity": pl.Float32,
    "foreign_similarity": pl.Float32,
    "chance": pl.Float64,
}


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


class OwnAndForeign(NamedTuple):
    """For every query the similarity of its best own and its best foreign target; NaN where one of them is NaN.

    Attributes:
        own: (n_queries,) float32.
        foreign: (n_queries,) float32; -inf where all targets are its own.
    """

    own: NDArray[np.float32]
    foreign: NDArray[np.float32]


def own_and_foreign(similarity: ArrayLike, query_groups: ArrayLike, target_groups: ArrayLike) -> OwnAndForeign:
    """Find the best target of a query's own group, and the best of all others.

    Args:
        similarity: (n_queries, n_targets) float32.
        query_groups: (n_queries,) int64: what a query belongs to, such as its picture.
        target_groups: (n_targets,) int64, likewise.

    Raises:
        ValueError: If the shapes do not fit, or a query has no target of its own.
    """
    values = np.asarray(similarity, dtype=np.float32)
    queries, targets = np.asarray(query_groups), np.asarray(target_groups)
    if values.ndim != 2 or values.shape != (*queries.shape, *targets.shape):
        raise ValueError(f"similarity has shape {values.shape}, groups have {queries.shape} and {targets.shape}")
    is_own = queries[:, None] == targets[None, :]
    if (bare := ~is_own.any(axis=1)).any():
        raise ValueError(f"query {int(np.argmax(bare))} of group {queries[np.argmax(bare)]} has no target of its own")
    nothing = np.float32(-np.inf)
    return OwnAndForeign(np.where(is_own, values, nothing).max(axis=1), np.where(is_own, nothing, values).max(axis=1))


def recall_at_1(similarity: ArrayLike, query_groups: ArrayLike, target_groups: ArrayLike) -> NDArray[np.bool_]:
    """Tell for every query whether its nearest target is one of its own; the mean is Recall@1.

    One definition for both ways. Picture to text: the nearest caption is one of the picture's. Text to picture: the
    caption's own picture is the nearest. A tie with a foreign target is wrong, a tie among its own is not; a NaN
    anywhere in the row is wrong.

    Args:
        similarity: (n_queries, n_targets) float32.
        query_groups: (n_queries,) int64, the picture of each query.
        target_groups: (n_targets,) int64, the picture of each target.

    Returns:
        (n_queries,) bool.

    Raises:
        ValueError: If the shapes do not fit, or a query has no target of its own.
    """
    best = own_and_foreign(similarity, query_groups, target_groups)
    return best.own > best.foreign


def evaluate_captions(
    images: pl.DataFrame,
    captions: pl.DataFrame,
    embed: Embed,
    image_root: str | Path,
    prompts: CaptionPrompts,
    *,
    dataset: str = "Flickr30K",
    chunk: int = CHUNK,
    block_queries: int | None = None,
    progress: ProgressFactory | None = None,
) -> pl.DataFrame:
    """Look for every picture's captions among all captions, and for every caption's picture among all pictures.

    Args:
        images: image_id (distinct), image (path under the image root).
        captions: caption_id (distinct), image_id, text; at least one for every picture.
        embed: The embedder (see :mod:`.embedders`); each distinct content is embedded once.
        image_root: Folder that image paths are relative to.
        prompts: The words around pictures and captions.
        dataset: Name of the data set.
        chunk: Contents per call of ``embed``.
        block_queries: Queries compared at a time; None for what takes about half a GiB. Changes memory alone.
        progress: ``unime_kedro.progress.progress`` or alike.

    Returns:
        :data:`RETRIEVAL_SCHEMA`: rows of ``<dataset>_i2t`` (query_id is the image_id), then of ``<dataset>_t2i``
        (query_id is the caption_id), each sorted by query_id. ``image_id`` is the unit for intervals: captions of one
        picture are not independent. ``chance`` is the share of a query's own targets among all.

    Raises:
        DataError: If there are no pictures, ids are not distinct, or pictures and captions do not belong together.
        ModelError: If the embedder's vectors are not usable.
    """
    images, captions = images.sort("image_id"), captions.sort("caption_id")
    _check(images, captions, dataset)
    sides = [
        _pictures(images, prompts.image_query),
        _texts(captions, prompts.caption_target),
        _texts(captions, prompts.caption_query),
        _pictures(images, prompts.image_target),
    ]
    vectors, places = embed_distinct(pl.concat(sides), embed, image_root, chunk=chunk, progress=progress)
    at = np.split(places, np.cumsum([len(side) for side in sides])[:-1])
    image_ids, owners = images["image_id"].to_numpy(), captions["image_id"].to_numpy()
    i2t = _search(vectors[at[0]], vectors[at[1]], image_ids, owners, f"{dataset}_i2t", block_queries)
    t2i = _search(vectors[at[2]], vectors[at[3]], owners, image_ids, f"{dataset}_t2i", block_queries)
    own = captions.group_by("image_id").len().sort("image_id")["len"].to_numpy()
    return pl.concat(
        [
            _rows(f"{dataset}_i2t", images["image_id"], image_ids, i2t, own / len(captions)),
            _rows(f"{dataset}_t2i", captions["caption_id"], owners, t2i, np.full(len(captions), 1 / len(images))),
        ]
    )


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
    return images.select(text=pl.lit(prompt), image="image")


def _texts(captions: pl.DataFrame, prompt: str) -> pl.DataFrame:
    before, after = prompt.split(CAPTION)
    return captions.select(text=pl.lit(before) + pl.col("text") + pl.lit(after), image=pl.lit(""))


def _search(
    queries: Vectors, targets: Vectors, query_groups: Ids, target_groups: Ids, name: str, block: int | None
) -> OwnAndForeign:
    """Compare all queries with all targets, a block of queries at a time."""
    block = block or max(1, _BLOCK // len(targets))
    parts = []
    for start in range(0, len(queries), block):
        part = slice(start, start + block)
        similarity = similarity_matrix(queries[part], targets)
        parts.append(own_and_foreign(similarity, query_groups[part], target_groups))
    best = OwnAndForeign(*(np.concatenate(side) for side in zip(*parts, strict=True)))
    # the best own and the best foreign target as a query of two candidates
    pairs = np.stack([best.own, best.foreign], axis=1).ravel()
    warn_of_useless_similarities(name, pairs, np.arange(0, pairs.size + 1, 2))
    return best


def _rows(
    dataset: str, query_ids: pl.Series, image_ids: Ids, best: OwnAndForeign, chance: NDArray[np.float64]
) -> pl.DataFrame:
    columns = {
        "dataset": np.repeat(dataset, len(query_ids)),
        "query_id": query_ids,
        "image_id": image_ids,
        "correct": best.own > best.foreign,
        "own_similarity": best.own,
        "foreign_similarity": best.foreign,
        "chance": chance,
    }
    return pl.DataFrame(columns, schema=RETRIEVAL_SCHEMA)
