"""Unpacking captioned pictures that are kept inside parquet files into a CSV file and a folder of pictures.

royokong/flickr30k_test and royokong/coco_test, which UniME-V2's release evaluates on, hold ``data/test-*.parquet`` with
``image`` ({bytes, path}) and ``text`` (a list of captions). What is written is the layout of :mod:`.captions`.
"""

from __future__ import annotations

import csv
import io
import json
import shutil
from pathlib import Path
from typing import Any

import polars as pl

from unime_kedro.errors import DataError

#: rows that are in memory together
_ROWS = 200


def unpack_pictures(folder: str | Path, out: str | Path, split: str = "test") -> int:
    """Write the rows of a split as ``annotations.csv`` and ``images/``, all of them or nothing.

    Args:
        folder: Holds ``data/<split>-*.parquet``, or the parquet files themselves.
        out: Folder that is made; must not exist.
        split: Which files to read; it also becomes the split of the rows.

    Returns:
        The number of pictures.

    Raises:
        DataError: When there are no such files, ``out`` exists, a column is missing, or a row has no picture that can
            be told by its first bytes or no captions; names file and row.
    """
    folder, out = Path(folder), Path(out)
    files = sorted(folder.glob(f"data/{split}-*.parquet")) or sorted(folder.glob(f"{split}-*.parquet"))
    if not files:
        raise DataError(f"{folder} holds no data/{split}-*.parquet; expected parquet files with pictures inside.")
    if out.exists():
        raise DataError(f"{out} exists already; name a folder that does not, or remove it.")
    part = out.with_name(f".{out.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    (part / "images").mkdir(parents=True)
    try:
        number = 0
        with (part / "annotations.csv").open("w", encoding="utf-8", newline="") as stream:
            writer = csv.writer(stream, lineterminator="\n")
            writer.writerow(["raw", "split", "filename"])
            for file in files:
                number = _unpack(file, part / "images", writer, split, number)
        part.rename(out)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return number


def _unpack(file: Path, images: Path, writer: Any, split: str, number: int) -> int:
    """Write the rows of one file, numbered from ``number`` on; returns the next number."""
    schema = pl.read_parquet_schema(file)
    if missing := [name for name in ("image", "text") if name not in schema]:
        raise DataError(f"{file} lacks {', '.join(missing)}. Found: {', '.join(schema)}. Expected: image, text.")
    rows = pl.scan_parquet(file, glob=False).select("image", "text")
    for start in range(0, pl.read_parquet(file, columns=["text"]).height, _ROWS):
        part = rows.slice(start, _ROWS).collect()
        for row, (image, texts) in enumerate(part.iter_rows(), start):
            data = image.get("bytes") if isinstance(image, dict) else None
            texts = [texts] if isinstance(texts, str) else texts
            if not texts or not all(isinstance(text, str) and text.strip() for text in texts):
                raise DataError(f"{file}, row {row}, column text: expected a list of captions with words.")
            name = f"{number:06d}{_suffix(data, f'{file}, row {row}, column image')}"
            (images / name).write_bytes(data or b"")
            writer.writerow([json.dumps(texts, ensure_ascii=False), split, name])
            number += 1
    return number


def _suffix(data: bytes | None, place: str) -> str:
    """Return the suffix of a picture's format, told by its bytes."""
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(io.BytesIO(data or b"")) as picture:
            return f".{(picture.format or '').lower()}".replace("jpeg", "jpg")
    except (UnidentifiedImageError, OSError, ValueError) as error:
        raise DataError(f"{place}: expected the bytes of a picture ({error}).") from error
