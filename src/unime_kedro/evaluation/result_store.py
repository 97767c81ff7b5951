"""Results that are kept: a folder per result, named after everything that it depends on, there whole or not at all."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl

from unime_kedro.atomic import flush, locked
from unime_kedro.errors import DataError
from unime_kedro.evaluation.encoding import distinct_contents
from unime_kedro.evaluation.tasks import OwnCandidates, Task
from unime_kedro.mining.images import ProgressFactory, hash_bytes
from unime_kedro.mining.lineage import table_digest

_RECORD = "record.json"
#: in front of the name of a folder that is being written
_PARTIAL = ".partial-"


class Result(NamedTuple):
    """What is kept.

    Attributes:
        tables: By name.
        record: What is known of how they were made.
    """

    tables: dict[str, pl.DataFrame]
    record: dict[str, Any]


def result_key(parts: Mapping[str, Any]) -> str:
    """Return the name of a result: a hash of everything that it depends on, 16 hex digits."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def read_result(folder: Path, key: str, tables: Sequence[str]) -> Result | None:
    """Return a result that was kept, None if there is none; one that cannot be read counts as none.

    Args:
        folder: Where results are kept.
        key: From :func:`result_key`.
        tables: Names of its tables.
    """
    place = folder / key
    try:
        record = json.loads((place / _RECORD).read_text(encoding="utf-8"))
        return Result({name: pl.read_parquet(place / f"{name}.parquet", glob=False) for name in tables}, record)
    except (OSError, ValueError, pl.exceptions.PolarsError):
        return None


def write_result(folder: Path, key: str, result: Result) -> None:
    """Keep a result; a writer that is killed leaves nothing that :func:`read_result` would find.

    Args:
        folder: Where results are kept.
        key: From :func:`result_key`; what is there under this name is replaced.
        result: Tables and record, which must be JSON.
    """
    with locked(folder / ".lock"):
        for abandoned in folder.glob(f"{_PARTIAL}*"):  # of a writer that was killed: a living one holds the lock
            shutil.rmtree(abandoned)
        partial = folder / f"{_PARTIAL}{key}"
        partial.mkdir()
        for name, table in result.tables.items():
            table.write_parquet(partial / f"{name}.parquet", compression="zstd", statistics=True)
        (partial / _RECORD).write_text(json.dumps(result.record, indent=1) + "\n", encoding="utf-8")
        for file in partial.iterdir():
            flush(file)
        if (folder / key).exists():
            shutil.rmtree(folder / key)
        partial.rename(folder / key)
        flush(folder)


def tasks_digest(tasks: Iterable[Task], image_root: str | Path, progress: ProgressFactory | None = None) -> str:
    """Return a hash of everything that scores on a benchmark depend on: words, bytes of pictures, ids, candidates.

    Args:
        tasks: The benchmark's data sets, in any order.
        image_root: Folder that image paths are relative to. Where it lies does not matter.
        progress: ``unime_kedro.progress.progress`` or alike.

    Raises:
        DataError: If a picture cannot be read.
    """
    ordered = sorted(tasks, key=lambda one: one.dataset)
    images = distinct_contents(pl.concat([one.contents.select("text", "image") for one in ordered]))["image"].unique()
    hashes = _image_hashes(images.filter(images != "").sort(), Path(image_root), progress)
    return table_digest(*(table for one in ordered for table in _tables(one, hashes)))


def _image_hashes(images: pl.Series, root: Path, progress: ProgressFactory | None) -> pl.DataFrame:
    from contextlib import nullcontext

    found = []
    with progress("hashing", len(images), "pictures") if progress else nullcontext() as bar:
        for image in images:
            try:
                found.append(hash_bytes((root / image).read_bytes()))
            except OSError as error:
                raise DataError(f"picture {root / image} cannot be read: {error.strerror or error}") from error
            if bar is not None:
                bar.advance(1)
    return pl.DataFrame({"image": images, "image_hash": found}, schema={"image": pl.String, "image_hash": pl.String})


def _tables(task: Task, hashes: pl.DataFrame) -> list[pl.DataFrame]:
    """Return a data set as tables of plain columns, in an order of their own."""
    contents = task.contents.select("content_id", pl.col("text", "image").fill_null(""))
    known = contents.join(hashes, on="image", how="left").with_columns(pl.col("image_hash").fill_null(""))
    parts = [
        pl.DataFrame({"dataset": [task.dataset]}),
        known.sort("content_id").select("content_id", "text", "image", "image_hash"),
    ]
    queries = task.queries.sort("query_id")
    if isinstance(task, OwnCandidates):
        lengths = queries.select("query_id", "content_id", "unit", size=pl.col("candidates").list.len().cast(pl.Int64))
        return [*parts, lengths, queries.select(pl.col("candidates").explode(empty_as_null=False))]
    shared = task.targets.select("target_id", "content_id", "group")
    return [*parts, queries.select("query_id", "content_id", "group", "unit"), shared]
