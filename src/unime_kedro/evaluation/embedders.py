"""Put an embedder to a benchmark in which every query brings its own candidates, as MMEB's do.

Data sets come in as tables, an embedder as any function from contents to unit vectors. Results do not depend on the
order of data sets, rows or wrong candidates, nor on the size of a block.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Protocol

import numpy as np
import polars as pl
from numpy.typing import ArrayLike, NDArray

from unime_kedro.errors import DataError, ModelError
from unime_kedro.evaluation.precision import best_wrong, hit_at, rank_of_target, warn_of_useless_similarities
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

PREDICTIONS_SCHEMA = {
    "dataset": pl.String,
    "query_id": pl.Int64,
    "predicted_index": pl.Int64,
    "correct": pl.Boolean,
    "target_similarity": pl.Float32,
    "best_wrong_similarity": pl.Float32,
    "rank": pl.Int64,
    "n_candidates": pl.Int64,
}


class EvalTables(Protocol):
    """One data set: :class:`unime_kedro.io.mmeb_eval.EvalSet`, or anything of its form."""

    @property
    def dataset(self) -> str:
        """Its name."""

    @property
    def contents(self) -> pl.DataFrame:
        """content_id Int64 (distinct), text, image (path under the image root, "" for none)."""

    @property
    def queries(self) -> pl.DataFrame:
        """query_id Int64 (distinct), content_id, candidates List[Int64] (content ids, the target first)."""


def evaluate_embedder(
    sets: Sequence[EvalTables],
    embed: Embed,
    image_root: str | Path,
    *,
    chunk: int = CHUNK,
    block_pairs: int | None = None,
    progress: ProgressFactory | None = None,
) -> pl.DataFrame:
    """Rank every query's own candidates by cosine similarity.

    Args:
        sets: Data sets with distinct names.
        embed: The embedder; distinct contents over all sets are embedded once, in a fixed order.
        image_root: Folder that image paths are relative to.
        chunk: Contents per call of ``embed``.
        block_pairs: Pairs compared at a time; None for what takes about half a GiB. Changes memory alone.
        progress: ``unime_kedro.progress.progress`` or alike.

    Returns:
        :data:`PREDICTIONS_SCHEMA`, sorted by dataset and query_id. ``correct`` is true when the target is strictly
        the most similar; ``predicted_index`` is 0 then, else the most similar wrong candidate, the first of equals
        (-1 where a query has none). ``rank`` is pessimistic (see :func:`.precision.rank_of_target`).
        ``best_wrong_similarity`` is NaN for a query without wrong candidates.

    Raises:
        DataError: If there is no set, two have one name, ids are not distinct, a query has no candidates, or a
            content id is unknown.
        ModelError: If the embedder's vectors have a wrong shape or are not of unit length. NaN is let through: such
            queries count as wrong, and a warning says so.
    """
    ordered = sorted(sets, key=lambda one: one.dataset)
    names = [one.dataset for one in ordered]
    if not names or len(set(names)) < len(names):
        raise DataError(f"expected data sets with distinct names, got {', '.join(names) or 'none'}.")
    contents = pl.concat([one.contents.select("text", "image") for one in ordered])
    vectors, places = embed_distinct(contents, embed, image_root, chunk=chunk, progress=progress)
    ends = np.cumsum([len(one.contents) for one in ordered])[:-1]
    block = block_pairs or max(1, _BLOCK // max(1, vectors.shape[1]))
    parts = [_predict(one, vectors, at, block) for one, at in zip(ordered, np.split(places, ends), strict=True)]
    return pl.concat(parts)


def contents_to_embed(contents: pl.DataFrame, image_root: str | Path) -> list[Content]:
    """Return the distinct contents of a table with text and image in the order in which they are embedded.

    For an embedder that wants to know beforehand what will come (:meth:`unime_kedro.mllm.embedding.Embedder.expect`).
    """
    root = Path(image_root)
    rows = _distinct(contents)
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
    distinct = _distinct(contents)
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


def _distinct(contents: pl.DataFrame) -> pl.DataFrame:
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


def _predict(one: EvalTables, vectors: Vectors, places: Ids, block: int) -> pl.DataFrame:
    """Rank the candidates of one data set; ``places``: the row in ``vectors`` of each row of its contents."""
    queries = one.queries.sort("query_id")
    sizes = queries["candidates"].list.len().fill_null(0).to_numpy().astype(np.int64)
    _check(one, queries, sizes)
    offsets = np.append(0, np.cumsum(sizes))
    candidates = queries["candidates"].explode(empty_as_null=False)
    query_rows = _places(one, queries["content_id"], places)
    left, right = np.repeat(query_rows, sizes), _places(one, candidates, places)
    similarity = pair_similarities(vectors, left, right, block)
    warn_of_useless_similarities(one.dataset, similarity, offsets)
    ranks = rank_of_target(similarity, offsets)
    wrong, correct = best_wrong(similarity, offsets), hit_at(ranks, 1)
    columns = {
        "dataset": np.repeat(one.dataset, len(sizes)),
        "query_id": queries["query_id"],
        "predicted_index": np.where(correct, 0, wrong.place),
        "correct": correct,
        "target_similarity": similarity[offsets[:-1]],
        "best_wrong_similarity": wrong.similarity,
        "rank": ranks,
        "n_candidates": sizes,
    }
    return pl.DataFrame(columns, schema=PREDICTIONS_SCHEMA)


def pair_similarities(vectors: Vectors, left: Ids, right: Ids, block: int) -> Vectors:
    """Compute cosine similarities of pairs of unit vectors: the same bits for the same two vectors, always.

    Args:
        vectors: (n, d) float32, unit length.
        left: (n_pairs,) int64, rows of ``vectors``.
        right: (n_pairs,) int64, likewise.
        block: Pairs compared at a time.

    Returns:
        (n_pairs,) float32.
    """
    found = np.empty(len(left), dtype=np.float32)
    for start in range(0, len(left), block):
        part = slice(start, start + block)
        found[part] = similarities(vectors[left[part]], vectors, right[part, None])[:, 0]
    return found


def _check(one: EvalTables, queries: pl.DataFrame, sizes: Ids) -> None:
    """Raise unless ids are distinct and every query has candidates."""
    for table, key in ((queries, "query_id"), (one.contents, "content_id")):
        if table[key].n_unique() < len(table) or table[key].null_count():
            raise DataError(f"{one.dataset}: expected distinct {key}, some are missing or stand there twice.")
    if (sizes == 0).any():
        query = queries["query_id"][int(np.argmax(sizes == 0))]
        raise DataError(f"{one.dataset}, query_id {query}: no candidates; expected the target at least.")


def _places(one: EvalTables, content_ids: pl.Series, places: Ids) -> Ids:
    """Look content ids up in a data set's contents; returns rows of the vectors."""
    table = one.contents.select("content_id", at=pl.Series(places))
    found = content_ids.to_frame("content_id").join(table, on="content_id", how="left", maintain_order="left")["at"]
    if found.null_count():
        unknown = content_ids.filter(found.is_null())[0]
        raise DataError(f"{one.dataset}: content_id {unknown} is mentioned by a query and not among its contents.")
    return found.to_numpy()
