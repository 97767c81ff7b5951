"""Reading SugarCrepe (RAIVNLab/sugar-crepe): a folder of JSON files, one for each way to change a caption.

Each file is an object ``{"0": {"filename": ..., "caption": ..., "negative_caption": ...}, ...}``; the pictures are
those of COCO's validation set of 2017.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from unime_kedro.errors import DataError
from unime_kedro.io.picture_files import require_pictures
from unime_kedro.mining.images import CheckImages, ProgressFactory
from unime_kedro.progress import progress as show_progress

#: file (without .json) -> group whose files are averaged
SUGARCREPE_GROUPS: dict[str, str] = {
    "add_obj": "add",
    "add_att": "add",
    "replace_obj": "replace",
    "replace_att": "replace",
    "replace_rel": "replace",
    "swap_obj": "swap",
    "swap_att": "swap",
}
_KEYS = ("filename", "caption", "negative_caption")
_SCHEMA = {
    "dataset": pl.String,
    "query_id": pl.Int64,
    "key": pl.String,
    "image": pl.String,
    "caption": pl.String,
    "negative_caption": pl.String,
}


def read_sugarcrepe(
    folder: str | Path,
    image_root: str | Path,
    names: Sequence[str] = tuple(SUGARCREPE_GROUPS),
    check_images: CheckImages = "header",
    *,
    workers: int = 1,
    progress: ProgressFactory = show_progress,
) -> pl.DataFrame:
    """Read the entries of SugarCrepe.

    Args:
        folder: Holds ``<name>.json`` for every name.
        image_root: Folder with the pictures.
        names: Files to read, without ``.json``; all seven by default.
        check_images: ``full`` decodes every picture, ``header`` its header only.
        workers: Processes that read pictures (see :func:`.picture_files.require_pictures`).
        progress: How progress is shown.

    Returns:
        dataset (the file's name), query_id (dense from 0 in each file, in its order), key (the entry's, in the file),
        image (path under the folder of pictures), caption, negative_caption (both as they stand there); sorted by
        dataset and query_id.

    Raises:
        DataError: When a file or picture is missing, a file is not of the format, or a value is no text with words;
            names file, entry and key, and what was expected.
    """
    folder = Path(folder)
    rows = [row for name in sorted(set(names)) for row in _read(folder / f"{name}.json")]
    table = pl.DataFrame(rows, schema=_SCHEMA, orient="row")
    where = pl.format('{}/{}.json, entry "{}", key filename', pl.lit(str(folder)), "dataset", "key")
    mentions = table.select("image", place=where)
    require_pictures(mentions, image_root, check=check_images, workers=workers, progress=progress)
    return table


def _read(file: Path) -> list[tuple[Any, ...]]:
    """Return the rows of one file; a few thousand at most, read one by one so that an error can name its entry."""
    try:
        entries = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(
            f"{file} cannot be read ({error.strerror}); expected SugarCrepe's file of that name."
        ) from error
    except ValueError as error:
        raise DataError(f"{file} is not JSON ({error}). Download it again.") from error
    if not isinstance(entries, Mapping) or not entries:
        raise DataError(f'{file}: expected an object of entries, {{"0": {{{", ".join(_KEYS)}}}, ...}}.')
    return [(file.stem, number, key, *_texts(file, key, entry)) for number, (key, entry) in enumerate(entries.items())]


def _texts(file: Path, key: str, entry: Any) -> tuple[str, ...]:
    """Return file name, caption and changed caption of one entry."""
    if not isinstance(entry, Mapping):
        raise DataError(f'{file}, entry "{key}": {entry!r}; expected an object with {", ".join(_KEYS)}.')
    for name in _KEYS:
        if not isinstance(entry.get(name), str) or not entry[name].strip():
            found = repr(entry[name]) if name in entry else "missing"
            raise DataError(f'{file}, entry "{key}", key {name}: {found}; expected a text with words.')
    return tuple(entry[name] for name in _KEYS)
