"""Tables of contents to vectors: each distinct content is embedded once, and pairs are compared bit for bit alike."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import ArrayLike, NDArray

from unime_kedro.errors import DataError, ModelError
from unime_kedro.mining.images import ProgressFactory
from unime_kedro.mining.index import similarities
from unime_kedro.mllm.content import Content

Vectors = NDArray[np.float32]
Ids = NDArray[np.int64]
#: (n) contents -> (n, d) float32, L2-normalised, in their order
Embed = Callable[[list[Content]], ArrayLike]

#: contents per call of the embedder; their pictures are in memory together
CHUNK = 256
#: numbers of the query vectors of a block of pairs (128 MiB as float32)
_BLOCK = 1 << 25
#: how far from 1 the length of a vector may be
_UNIT = 1e-3


def contents_to_embed(contents: pl.DataFrame, image_root: str | Path) -> list[Content]:
    """Return the distinct contents of a table with text and image in the order in which they are embedded.

    For an embedder that wants to know beforehand what will come (:meth:`unime_kedro.mllm.embedding.Embedder.expect`).
    """
    root = Path(image_root)
    rows = distinct_contents(contents)
    pairs = zip(rows["text"].to_list(), rows["image"].to_list(), strict=True)
    return [Content(text, root / image if image else None) for text, image in pairs]


def embed_distinct(
    contents: pl.DataFrame,
    embed: Embed,
    image_root: str | Path,
    *,
    chunk: int = CHUNK,
    progress: ProgressFactory | None = None,
) -> tuple[Vectors, Ids]:
    """Embed every distinct (text, image) of a table once, ordered by picture and text, whatever the table's order.

    Args:
        contents: text, image ("" or null for none); at least one row.
        embed: The embedder.
        image_root: Folder that image paths are relative to.
        chunk: Contents per call of ``embed``.
        progress: ``unime_kedro.progress.progress`` or alike.

    Returns:
        Vectors (n_distinct, d) float32, and for each row of ``contents`` its vector's row, (n_rows,) int64.

    Raises:
        DataError: If there are no contents.
        ModelError: If vectors have a wrong shape or are not of unit length (NaN is let through).
    """
    distinct = distinct_contents(contents)
    if not len(distinct):
        raise DataError("there are no contents to embed.")
    wanted = contents_to_embed(distinct, image_root)
    parts: list[Vectors] = []
    with progress("embedding", len(wanted), "contents") if progress else nullcontext() as bar:
        for start in range(0, len(wanted), chunk):
            part = wanted[start : start + chunk]
            parts.append(_checked(embed(part), part, parts[0].shape[1] if parts else None))
            if bar is not None:
                bar.advance(len(part))
    row = distinct.with_row_index("at").with_columns(pl.col("at").cast(pl.Int64))
    found = _filled(contents).join(row, on=["text", "image"], how="left", maintain_order="left")
    return np.concatenate(parts), found["at"].to_numpy()


def _filled(contents: pl.DataFrame) -> pl.DataFrame:
    return contents.select(pl.col("text").fill_null(""), pl.col("image").fill_null(""))


def distinct_contents(contents: pl.DataFrame) -> pl.DataFrame:
    """Return text and image of every distinct content, in the order in which they are embedded."""
    # by picture first: what shows the same picture is embedded together, and it is read once
    return _filled(contents).unique().sort("image", "text")


def _checked(found: ArrayLike, contents: Sequence[Content], dimension: int | None) -> Vectors:
    """Return the embedder's vectors as float32, or say what is wrong with them."""
    vectors = np.asarray(found, dtype=np.float32)
    if vectors.ndim != 2 or len(vectors) != len(contents) or dimension not in (None, vectors.shape[1]):
        raise ModelError(
            f"the embedder returned shape {vectors.shape} for {len(contents)} contents; expected "
            f"({len(contents)}, {dimension or 'dimension'})."
        )
    length = np.sqrt((vectors.astype(np.float64) ** 2).sum(axis=1))
    off = np.abs(length - 1) > _UNIT  # false for NaN
    if off.any():
        row = int(np.argmax(off))
        raise ModelError(
            f"the embedder returned a vector of length {length[row]:.4g} for {contents[row]}; expected unit length. "
            "Divide vectors by their L2 norm."
        )
    return vectors


def pair_similarities(vectors: Vectors, left: Ids, right: Ids, block: int | None = None) -> Vectors:
    """Compute cosine similarities of pairs of unit vectors: the same bits for the same two vectors, always.

    Args:
        vectors: (n, d) float32, unit length.
        left: (n_pairs,) int64, rows of ``vectors``.
        right: (n_pairs,) int64, likewise.
        block: Pairs compared at a time; None for what takes about half a GiB.

    Returns:
        (n_pairs,) float32.
    """
    block = block or max(1, _BLOCK // max(1, vectors.shape[1]))
    found = np.empty(len(left), dtype=np.float32)
    for start in range(0, len(left), block):
        part = slice(start, start + block)
        found[part] = similarities(vectors[left[part]], vectors, right[part, None])[:, 0]
    return found
