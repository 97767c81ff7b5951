"""Reading captioned pictures in two layouts of Karpathy's splits of Flickr30K and COCO.

* nlphuji/flickr30k and nlphuji/mscoco_2014_5k_test_image_text_retrieval: one CSV file, and a folder of pictures.
  Columns: ``raw`` (the captions, a list of texts), ``split``, ``filename``, and others that are not needed.
* Karpathy's own ``dataset_flickr30k.json`` and ``dataset_coco.json``: ``{"images": [{"filepath": ..., "filename": ...,
  "split": ..., "sentences": [{"raw": ...}, ...]}, ...]}``.

Rows of one split are read; ``test`` has 1,000 pictures of Flickr30K with 5 captions each, 5,000 of COCO with 5 to 7.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl

from unime_kedro.errors import DataError
from unime_kedro.io.picture_files import require_pictures
from unime_kedro.mining.images import CheckImages, ProgressFactory
from unime_kedro.progress import progress as show_progress

_COLUMNS = ("raw", "split", "filename")
_JSON_SCHEMA: dict[str, Any] = {"row": pl.Int64, "split": pl.String, "filename": pl.String, "text": pl.List(pl.String)}


class CaptionSet(NamedTuple):
    """Pictures and their captions.

    Attributes:
        images: image_id (dense from 0, in row order), image (path under the folder of pictures).
        captions: caption_id (dense from 0, in row order), image_id, text (as it stands in the file).
    """

    images: pl.DataFrame
    captions: pl.DataFrame


def read_captions(
    file: str | Path,
    image_root: str | Path,
    split: str = "test",
    check_images: CheckImages = "header",
    *,
    first: int | None = None,
    workers: int = 1,
    progress: ProgressFactory = show_progress,
) -> CaptionSet:
    """Read pictures with their captions.

    Args:
        file: The CSV file, or Karpathy's JSON file.
        image_root: Folder with the pictures.
        split: Which rows to read.
        check_images: ``full`` decodes every picture, ``header`` its header only.
        first: How many captions of a picture are kept, the first ones; None for all. Evaluations on COCO take 5.
        workers: Processes that read pictures (see :func:`.picture_files.require_pictures`).
        progress: How progress is shown.

    Raises:
        DataError: When the file, a column or a picture is missing, no row is of the split, a file name stands there
            twice, or captions are not a list of texts with words in them; names file, row (from 0, the header not
            counted) and column.
    """
    file = Path(file)
    rows = _read_json(file, split) if file.suffix == ".json" else _read(file, split)
    _require_distinct(file, rows)
    if first is not None:
        rows = rows.with_columns(pl.col("text").list.head(first))
    place = pl.format("{}, row {}, column filename", pl.lit(str(file)), "row")
    mentions = rows.select(image="filename", place=place)
    require_pictures(mentions, image_root, check=check_images, workers=workers, progress=progress)
    return caption_set(rows.select(image="filename", text="text"))


def caption_set(rows: pl.DataFrame) -> CaptionSet:
    """Number pictures and their captions in row order.

    Args:
        rows: image (path under the folder of pictures), text (list of the captions).
    """
    rows = rows.with_columns(image_id=pl.int_range(pl.len(), dtype=pl.Int64))
    captions = rows.select("image_id", "text").explode("text", empty_as_null=False)
    captions = captions.select(pl.int_range(pl.len(), dtype=pl.Int64).alias("caption_id"), "image_id", "text")
    return CaptionSet(rows.select("image_id", "image"), captions)


def _read(file: Path, split: str) -> pl.DataFrame:
    """Return row, filename, text (list of captions) of the rows of a split."""
    try:
        table = pl.read_csv(file, infer_schema=False, glob=False).fill_null("")
    except (pl.exceptions.PolarsError, OSError) as error:
        raise DataError(f"{file} is not a readable CSV file ({error}). Download or write it again.") from error
    if missing := [name for name in _COLUMNS if name not in table.columns]:
        raise DataError(
            f"{file} lacks the column{'s' if len(missing) > 1 else ''} {', '.join(missing)}. "
            f"Found: {', '.join(table.columns)}. Expected: {', '.join(_COLUMNS)}."
        )
    rows = _of_split(file, table.with_row_index("row"), split)
    texts = [_captions(file, row, raw) for row, raw in rows.select("row", "raw").iter_rows()]
    return rows.select("row", "filename", text=pl.Series(texts, dtype=pl.List(pl.String)))


def _of_split(file: Path, table: pl.DataFrame, split: str) -> pl.DataFrame:
    rows = table.filter(pl.col("split") == split)
    if not len(rows):
        there = ", ".join(table["split"].unique().sort().to_list()) or "none"
        raise DataError(f"{file} has no row of split {split!r}; its splits are: {there}.")
    return rows


def _require_distinct(file: Path, rows: pl.DataFrame) -> None:
    twice = rows.filter(pl.col("filename").is_duplicated() | (pl.col("filename") == ""))
    if len(twice):
        row, name = twice.select("row", "filename").row(0)
        raise DataError(f"{file}, row {row}, column filename: {name!r}; expected another picture in every row.")


def _read_json(file: Path, split: str) -> pl.DataFrame:
    """Return row, filename (behind its folder), text of the images of a split in Karpathy's file."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise DataError(f"{file} is not a readable JSON file ({error}). Download it again.") from error
    images = content.get("images") if isinstance(content, Mapping) else None
    if not isinstance(images, list):
        raise DataError(f'{file}: expected Karpathy\'s format, an object with the list "images".')
    rows = [_image(file, row, image) for row, image in enumerate(images)]
    return _of_split(file, pl.DataFrame(rows, schema=_JSON_SCHEMA, orient="row"), split)


def _image(file: Path, row: int, image: Any) -> tuple[int, str, str, list[str]]:
    """Return one image of Karpathy's file; an error names its row."""
    for key in ("split", "filename"):
        if not isinstance(image, Mapping) or not isinstance(image.get(key), str):
            raise DataError(f"{file}, row {row} of images, key {key}: expected a text.")
    sentences = image.get("sentences")
    texts: list[Any] = [one.get("raw") if isinstance(one, Mapping) else None for one in sentences or ()]
    if not texts or not all(isinstance(text, str) and text.strip() for text in texts):
        raise DataError(
            f"{file}, row {row} of images, key sentences: expected at least one caption, "
            '[{"raw": "A dog runs."}, ...].'
        )
    folder = str(image.get("filepath") or "")
    return row, image["split"], f"{folder}/{image['filename']}" if folder else image["filename"], texts


def _captions(file: Path, row: int, raw: str) -> list[str]:
    """Return the captions of one picture."""
    try:
        texts = json.loads(raw)
    except ValueError:
        texts = _literal(raw)
    if not (isinstance(texts, list) and texts and all(isinstance(text, str) and text.strip() for text in texts)):
        raise DataError(
            f"{file}, row {row}, column raw: {raw[:80]!r}; expected a JSON list of at least one caption, each a text "
            'with words, such as ["A dog runs.", "A running dog."].'
        )
    return texts


def _literal(raw: str) -> Any:
    """Return a list that was written as Python shows it, in single quotes; None for anything else."""
    try:
        return ast.literal_eval(raw)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return None
