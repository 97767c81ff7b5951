"""Reading captioned pictures in the layout of nlphuji/flickr30k: one CSV file, and a folder of pictures.

Columns of ``flickr_annotations_30k.csv``: ``raw`` (the captions, a JSON list of texts), ``sentids``, ``split``,
``filename``, ``img_id``. Rows of one split are read, ``test`` being Karpathy's 1,000 pictures with 5 captions each.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

import polars as pl

from unime_kedro.errors import DataError
from unime_kedro.io.picture_files import require_pictures
from unime_kedro.mining.images import CheckImages

_COLUMNS = ("raw", "split", "filename")


class CaptionSet(NamedTuple):
    """Pictures and their captions.

    Attributes:
        images: image_id (dense from 0, in row order), image (path under the folder of pictures).
        captions: caption_id (dense from 0, in row order), image_id, text (as it stands in the file).
    """

    images: pl.DataFrame
    captions: pl.DataFrame


def read_captions(
    file: str | Path, image_root: str | Path, split: str = "test", check_images: CheckImages = "header"
) -> CaptionSet:
    """Read pictures with their captions.

    Args:
        file: The CSV file.
        image_root: Folder with the pictures.
        split: Which rows to read.
        check_images: ``full`` decodes every picture, ``header`` its header only.

    Raises:
        DataError: When the file, a column or a picture is missing, no row is of the split, a file name stands there
            twice, or captions are not a JSON list of texts with words in them; names file, row (from 0, the header
            not counted) and column.
    """
    file = Path(file)
    rows = _read(file, split)
    texts = [_captions(file, row, raw) for row, raw in rows.select("row", "raw").iter_rows()]
    rows = rows.with_columns(text=pl.Series(texts, dtype=pl.List(pl.String)))
    place = pl.format("{}, row {}, column filename", pl.lit(str(file)), "row")
    require_pictures(rows.select(image="filename", place=place), image_root, check=check_images)
    rows = rows.select(image_id=pl.int_range(pl.len(), dtype=pl.Int64), image="filename", text="text")
    captions = rows.select("image_id", "text").explode("text", empty_as_null=False)
    captions = captions.select(pl.int_range(pl.len(), dtype=pl.Int64).alias("caption_id"), "image_id", "text")
    return CaptionSet(rows.select("image_id", "image"), captions)


def _read(file: Path, split: str) -> pl.DataFrame:
    """Return row, raw, filename of the rows of a split."""
    try:
        table = pl.read_csv(file, infer_schema=False, glob=False).fill_null("")
    except (pl.exceptions.PolarsError, OSError) as error:
        raise DataError(f"{file} is not a readable CSV file ({error}). Download or write it again.") from error
    if missing := [name for name in _COLUMNS if name not in table.columns]:
        raise DataError(
            f"{file} lacks the column{'s' if len(missing) > 1 else ''} {', '.join(missing)}. "
            f"Found: {', '.join(table.columns)}. Expected: {', '.join(_COLUMNS)}."
        )
    rows = table.with_row_index("row").filter(pl.col("split") == split)
    if not len(rows):
        there = ", ".join(table["split"].unique().sort().to_list()) or "none"
        raise DataError(f"{file} has no row of split {split!r}; its splits are: {there}.")
    twice = rows.filter(pl.col("filename").is_duplicated() | (pl.col("filename") == ""))
    if len(twice):
        row, name = twice.select("row", "filename").row(0)
        raise DataError(f"{file}, row {row}, column filename: {name!r}; expected another picture in every row.")
    return rows


def _captions(file: Path, row: int, raw: str) -> list[str]:
    """Return the captions of one picture."""
    try:
        texts = json.loads(raw)
    except ValueError as error:
        texts = error
    if not (isinstance(texts, list) and texts and all(isinstance(text, str) and text.strip() for text in texts)):
        raise DataError(
            f"{file}, row {row}, column raw: {raw[:80]!r}; expected a JSON list of at least one caption, each a text "
            'with words, such as ["A dog runs.", "A running dog."].'
        )
    return texts
