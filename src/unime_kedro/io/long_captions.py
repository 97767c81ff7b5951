"""Reading pictures with one long caption each: ShareGPT4V and Urban1K.

* ShareGPT4V (Lin-Chen/ShareGPT4V): ``share-captioner_coco_lcs_sam_1246k_1107.json``, a list of ``{"image": "<path>",
  "conversations": [{...}, {"value": "<caption>"}]}``. Evaluations take the first 1,000 entries, line breaks in captions
  become spaces (Long-CLIP, UniME-V2's release). The file has 1.2 million entries and 1.5 GB: no more of it is read than
  is needed.
* Urban1K (BeichenZhang/Urban1k): ``caption/<n>.txt`` and ``image/<n>.jpg``; the first line is the caption.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import polars as pl

from unime_kedro.errors import DataError
from unime_kedro.io.captions import CaptionSet, caption_set
from unime_kedro.io.picture_files import require_pictures
from unime_kedro.mining.images import CheckImages, ProgressFactory
from unime_kedro.progress import progress as show_progress

#: characters that are read of a JSON file at a time
_CHUNK = 1 << 20
#: what stands between two elements of a list
_BETWEEN = re.compile(r"[ \t\r\n,]*")
_FORM = '{"image": "<path>", "conversations": [{...}, {"value": "<caption>"}]}'


def read_sharegpt4v(
    file: str | Path,
    image_root: str | Path,
    *,
    first: int = 1000,
    check_images: CheckImages = "header",
    workers: int = 1,
    progress: ProgressFactory = show_progress,
) -> CaptionSet:
    """Read the first entries of ShareGPT4V.

    Args:
        file: The JSON file.
        image_root: Folder that the entries' picture paths are relative to.
        first: How many entries are read.
        check_images: ``full`` decodes every picture, ``header`` its header only.
        workers: Processes that read pictures (see :func:`.picture_files.require_pictures`).
        progress: How progress is shown.

    Raises:
        DataError: When the file is missing, no list of JSON objects or has no entries, an entry is not of the form,
            or a picture is missing; names file, entry (from 0) and key.
    """
    file = Path(file)
    rows = [_entry(file, number, entry) for number, entry in enumerate(_first_entries(file, first))]
    if not rows:
        raise DataError(f"{file} has no entries; expected a list of {_FORM}.")
    table = pl.DataFrame(rows, schema={"image": pl.String, "text": pl.List(pl.String)}, orient="row")
    place = pl.format("{}, entry {}, key image", pl.lit(str(file)), pl.int_range(pl.len()))
    mentions = table.select("image", place=place)
    require_pictures(mentions, image_root, check=check_images, workers=workers, progress=progress)
    return caption_set(table)


def read_urban1k(
    folder: str | Path,
    image_root: str | Path | None = None,
    *,
    check_images: CheckImages = "header",
    workers: int = 1,
    progress: ProgressFactory = show_progress,
) -> CaptionSet:
    """Read Urban1K, sorted by number.

    Args:
        folder: Holds ``caption``, and ``image`` unless pictures are elsewhere.
        image_root: Folder with the pictures; None for ``image``.
        check_images: ``full`` decodes every picture, ``header`` its header only.
        workers: Processes that read pictures (see :func:`.picture_files.require_pictures`).
        progress: How progress is shown.

    Raises:
        DataError: When a folder is missing or empty, a caption has no picture or a picture no caption, a caption has
            no words, or a picture cannot be used; names the file.
    """
    captions = Path(folder) / "caption"
    images = Path(image_root) if image_root is not None else Path(folder) / "image"
    texts, pictures = _by_stem(captions, ".txt"), _by_stem(images, ".jpg")
    for mine, other, where, suffix in ((texts, pictures, images, ".jpg"), (pictures, texts, captions, ".txt")):
        if alone := sorted(set(mine) - set(other), key=_number):
            more = f" {len(alone) - 1:,} more have no partner either." if len(alone) > 1 else ""
            raise DataError(f"{mine[alone[0]]} has no partner; expected {where / (alone[0] + suffix)}.{more}")
    names = sorted(texts, key=_number)
    rows = [(pictures[name].name, [_first_line(texts[name])]) for name in names]
    table = pl.DataFrame(rows, schema={"image": pl.String, "text": pl.List(pl.String)}, orient="row")
    place = pl.format("{}/{}", pl.lit(str(images)), "image")
    require_pictures(table.select("image", place=place), images, check=check_images, workers=workers, progress=progress)
    return caption_set(table)


def _first_entries(file: Path, n: int) -> Iterator[Any]:
    """Yield the first elements of a JSON list without reading more of the file than they need."""
    decoder, text, start, ended = json.JSONDecoder(), "", 0, False
    try:
        with file.open(encoding="utf-8") as stream:
            if stream.read(1) != "[":
                raise DataError(f"{file}: expected a JSON list of {_FORM}.")
            for _ in range(n):
                while True:
                    start = _BETWEEN.match(text, start).end()  # type: ignore[union-attr]
                    if text[start : start + 1] == "]":
                        return
                    try:
                        entry, start = decoder.raw_decode(text, start)
                        break
                    except ValueError:
                        if ended:
                            raise
                    more = stream.read(_CHUNK)
                    text, start, ended = text[start:] + more, 0, not more
                yield entry
    except OSError as error:
        raise DataError(f"{file} cannot be read ({error.strerror}); expected ShareGPT4V's captions.") from error
    except ValueError as error:
        raise DataError(f"{file} is not JSON ({error}). Download it again.") from error


def _entry(file: Path, number: int, entry: Any) -> tuple[str, list[str]]:
    """Return picture and caption of one entry."""
    place = f"{file}, entry {number}"
    if not isinstance(entry, Mapping) or not isinstance(entry.get("image"), str) or not entry["image"].strip():
        raise DataError(f"{place}, key image: expected the path of a picture; the form is {_FORM}.")
    turns = entry.get("conversations")
    answer = turns[1] if isinstance(turns, list) and len(turns) > 1 else None
    caption = answer.get("value") if isinstance(answer, Mapping) else None
    if not isinstance(caption, str) or not caption.strip():
        raise DataError(f"{place}, key conversations[1].value: expected a text with words; the form is {_FORM}.")
    return entry["image"], [caption.replace("\n", " ")]


def _by_stem(folder: Path, suffix: str) -> dict[str, Path]:
    """Return the files of a folder by their names without the suffix."""
    if not folder.is_dir():
        raise DataError(f"There is no folder {folder}; expected Urban1K's folders caption and image.")
    found = {file.stem: file for file in folder.iterdir() if file.suffix == suffix}
    if not found:
        raise DataError(f"{folder} holds no file <n>{suffix}; expected those of Urban1K.")
    return found


def _number(name: str) -> tuple[int, str]:
    """Sort key: by number, names that are none behind them."""
    return (int(name), name) if name.isdecimal() else (1 << 62, name)


def _first_line(file: Path) -> str:
    with file.open(encoding="utf-8") as stream:
        line = stream.readline().strip("\r\n")
    if not line.strip():
        raise DataError(f"{file}: the first line has no words; expected the caption.")
    return line
