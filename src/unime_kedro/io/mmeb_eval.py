"""Reading benchmarks in the layout of TIGER-Lab/MMEB-eval, to be evaluated whole or not at all.

``<root>/<data set>/test-*.parquet`` with ``qry_text``, ``qry_img_path`` and the lists ``tgt_text``, ``tgt_img_path`` of
equal length, the right target first; image paths are relative to a separate image root. :func:`.mmeb.read_eval` sets
bad rows aside; here they are an error, because a score over some of the rows is not the benchmark's.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import polars as pl

from unime_kedro.errors import DataError
from unime_kedro.io.mmeb import read_eval
from unime_kedro.io.picture_files import require_pictures
from unime_kedro.mining.checks import EVAL_COLUMNS, slug_of
from unime_kedro.mining.images import CheckImages, ProgressFactory
from unime_kedro.mining.items import number_items
from unime_kedro.progress import progress as show_progress

log = logging.getLogger(__name__)

#: slug of a reject -> what was expected of the row
_EXPECTED = {
    "wrong_type": "texts in qry_text and qry_img_path, lists of texts in tgt_text and tgt_img_path",
    "null": "a text, empty where there is none",
    "empty_query": "words in qry_text or a picture in qry_img_path",
    "empty_positive": "lists tgt_text and tgt_img_path with the right target first, which has words or a picture",
    "empty_target": "words in tgt_text or a picture in tgt_img_path for every target",
    "unequal_lists": "lists tgt_text and tgt_img_path of one length",
}


class EvalSet(NamedTuple):
    """One data set of a benchmark.

    Attributes:
        dataset: Its name, which is its folder's.
        contents: content_id (dense from 0, in order of first mention), text, image (path under the image root, "" if
            none). Equal content, the same text with the same image bytes, is one row.
        queries: query_id (dense from 0, in order of file and row), content_id, candidates (content ids, in the order
            of the row: the right one first).
    """

    dataset: str
    contents: pl.DataFrame
    queries: pl.DataFrame


def read_eval_sets(
    root: str | Path,
    image_root: str | Path,
    datasets: Sequence[str] | None = None,
    *,
    split: str = "test",
    check_images: CheckImages = "header",
    workers: int = 1,
    progress: ProgressFactory = show_progress,
) -> list[EvalSet]:
    """Read the data sets of a benchmark, one after the other, sorted by name.

    Args:
        root: Folder with one folder per data set.
        image_root: Folder that image paths are relative to.
        datasets: Data sets to read; None for all that have such files.
        split: Which files of a data set to read: ``<split>-*.parquet``.
        check_images: ``full`` decodes every picture, ``header`` its header only; either reads all bytes.
        workers: Processes that read pictures; 1 is none besides this one, 0 chooses. More than one are
            started anew, so that a script needs ``if __name__ == "__main__":``.
        progress: How progress is shown.

    Returns:
        One :class:`EvalSet` per data set. A logged warning counts queries that cannot be right because the target's
        content occurs among their wrong candidates too, and those that cannot be wrong for want of any.

    Raises:
        DataError: When the root, a named data set, a column or a picture is missing, a file is no parquet file, or a
            row cannot be used; names file, row and column, and what was expected.
    """
    root = Path(root)
    names = sorted({file.parent.name for file in root.glob(f"*/{split}-*.parquet")}) if datasets is None else datasets
    if datasets is None and not names:
        read_eval(root, split)  # knows what to say of a folder without such files
    return [_read_set(root, name, split, image_root, check_images, workers, progress) for name in sorted(set(names))]


def _read_set(
    root: Path,
    name: str,
    split: str,
    image_root: str | Path,
    check: CheckImages,
    workers: int,
    progress: ProgressFactory,
) -> EvalSet:
    # what is measured does not need meta-tasks; naming one keeps the reader from warning that it knows none
    rows, rejects = read_eval(root, split, [name], {name: "unknown"})
    _check_types(root, pl.concat([rows["file"], rejects["file"]]))
    _refuse(root, rejects)
    if not len(rows):
        raise DataError(f"Data set {name!r} in {root} has no rows: its {split}-*.parquet are empty.")
    sides = _sides(rows.with_row_index("query_id"))
    mentions = sides.filter(pl.col("image") != "").select(
        "image", place=pl.format("{}/{}, row {}, column {}", pl.lit(str(root)), "file", "row", "column")
    )
    hashes = require_pictures(mentions, image_root, check=check, workers=workers, progress=progress)
    sides = sides.join(hashes, on="image", how="left", maintain_order="left")
    items, sides = number_items(sides.with_columns(pl.col("image_hash").fill_null("")))
    queries = sides.group_by("query_id", maintain_order=True).agg(
        content_id=pl.col("item_id").first(), candidates=pl.col("item_id").slice(1)
    )
    queries = queries.with_columns(pl.col("query_id").cast(pl.Int64))
    _warn(name, queries)
    return EvalSet(
        name, items.select("text", "image", content_id="item_id").select("content_id", "text", "image"), queries
    )


def _check_types(root: Path, files: pl.Series) -> None:
    """Raise for target columns of single texts: as lists of one, every query would be right."""
    for file in files.unique().sort():
        schema = pl.read_parquet_schema(root / file)
        for column in EVAL_COLUMNS.lists:
            if not isinstance(schema[column], (pl.List, pl.Array)):
                raise DataError(
                    f"{root / file}: column {column} is {schema[column]}; expected a list of texts in every row, the "
                    "right target first."
                )


def _refuse(root: Path, rejects: pl.DataFrame) -> None:
    """Raise for the first row that cannot be used."""
    if not len(rejects):
        return
    first = rejects.with_columns(slug=slug_of(pl.col("reason"))).row(0, named=True)
    more = f" {len(rejects) - 1:,} more rows of the data set cannot be used either." if len(rejects) > 1 else ""
    raise DataError(
        f"{root / first['file']}, row {first['row']}: {first['reason']}. Expected {_EXPECTED[first['slug']]}.{more} "
        "Correct or remove the rows: what is left of a benchmark gives other scores than the whole."
    )


def _sides(rows: pl.DataFrame) -> pl.DataFrame:
    """Return (query_id, file, row, column, text, image) of every query, followed by its candidates in order."""
    position = pl.int_ranges(pl.col("tgt_text").list.len() + 1)
    long = rows.select(
        "query_id",
        "file",
        "row",
        position=position,
        text=pl.concat_list("qry_text", "tgt_text"),
        image=pl.concat_list("qry_img_path", "tgt_img_path"),
    ).explode("position", "text", "image")
    column = pl.when(pl.col("position") == 0).then(pl.lit("qry_img_path"))
    return long.with_columns(column=column.otherwise(pl.format("tgt_img_path[{}]", pl.col("position") - 1)))


class CertainQueries(NamedTuple):
    """How many queries of a data set say nothing about an embedder.

    Attributes:
        never_right: The target's content stands among the wrong candidates too; a tie counts as wrong.
        never_wrong: The target is the only candidate.
    """

    never_right: int
    never_wrong: int


def certain_queries(queries: pl.DataFrame) -> CertainQueries:
    """Count queries whose answer does not depend on the embedder.

    Args:
        queries: candidates (list of content ids, the target first).
    """
    candidates = pl.col("candidates")
    twice = candidates.list.slice(1).list.contains(candidates.list.first()).sum()
    return CertainQueries(*queries.select(twice.alias("twice"), alone=(candidates.list.len() == 1).sum()).row(0))


def _warn(name: str, queries: pl.DataFrame) -> None:
    """Warn of queries whose answer does not depend on the embedder."""
    counts = certain_queries(queries)
    if counts.never_right:
        log.warning(
            "%s: in %d of %d queries the right target's content stands among the wrong ones too; a tie counts as "
            "wrong, so that no embedder can be right there.",
            *(name, counts.never_right, len(queries)),
        )
    if counts.never_wrong:
        log.warning(
            "%s: %d of %d queries have the right target alone; every embedder is right there.",
            *(name, counts.never_wrong, len(queries)),
        )
