"""The Kedro datasets of the catalog: small, local, atomic.

Every class takes ``filepath`` (relative ones start at the project root), ``made_by`` (the pipeline that makes the
file, for the message when it is missing; known for the project's own files) and Kedro's free-form ``metadata``.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kedro.io import AbstractDataset, DatasetError

from unime_kedro.atomic import atomic_write, save_parquet
from unime_kedro.errors import DataError
from unime_kedro.io.json_text import JsonError, write_json
from unime_kedro.io.run_figures import merge, read_run_figures, split, write_run_figures
from unime_kedro.paths import resolve

if TYPE_CHECKING:
    import numpy as np
    import polars as pl

#: file name without suffix -> the pipeline that makes it
MADE_BY = {
    **dict.fromkeys(("corpus", "demo_metrics"), "demo"),
    **dict.fromkeys(("pretrain_judge_metrics", "pretrain_embedder_metrics"), "pretrain"),
    **dict.fromkeys(("measure_judge_metrics", "measure_embedder_metrics"), "measure"),
    **dict.fromkeys(("items", "queries", "candidates", "rejects", "ingest_metrics"), "ingest"),
    **dict.fromkeys(("embeddings", "pool", "embedding_metrics", "pool_metrics", "pool_origin"), "pool"),
    **dict.fromkeys(
        ("judge_store", "judge_scores", "judge_errors", "judge_coverage", "judge_metrics", "judge_origin"), "judge"
    ),
    **dict.fromkeys(
        ("selection", "skipped", "negatives", "mined", "select_metrics", "truth_metrics", "gallery"), "select"
    ),
}


class FileError(DataError, DatasetError):
    """A file of the catalog is missing, unreadable, or was given something it cannot hold.

    Also a Kedro ``DatasetError``, so that Kedro passes it on as it is instead of wrapping it.
    """


class _File:
    """What all datasets share: one path, and an error that says where a missing file comes from.

    Not a Kedro class itself: Kedro records a dataset's arguments from the ``__init__`` it finds, and would find a
    wrapped one, without argument names, on a subclass of a dataset.
    """

    def __init__(self, filepath: str, made_by: str | None = None, metadata: dict[str, Any] | None = None) -> None:
        self._filepath = resolve(filepath)
        self._made_by = made_by or MADE_BY.get(self._filepath.stem)
        self.metadata = metadata

    def _describe(self) -> dict[str, Any]:
        return {"filepath": str(self._filepath), "made_by": self._made_by}

    def _exists(self) -> bool:
        return self._filepath.is_file()

    def _found(self) -> Path:
        """Return the path of the existing file, or raise an error that says how to make it."""
        if not self._filepath.is_file():
            there = "is not a file" if self._filepath.exists() else "does not exist"
            raise FileError(f"{self._filepath} {there}. {self._remedy()}")
        return self._filepath

    def _remedy(self) -> str:
        if self._made_by:
            return f"`kedro run --pipeline={self._made_by}` makes it."
        return "Run the pipeline that makes it first, or correct its filepath in conf/*/catalog."

    def _unreadable(self, error: Exception) -> FileError:
        return FileError(f"{self._filepath} cannot be read: {error} Remove it. {self._remedy()}")

    def _refuse(self, data: Any, expected: str) -> FileError:
        kind = type(data)
        return FileError(f"{self._filepath}: expected {expected}, got {kind.__module__}.{kind.__qualname__}")


class ParquetTable(_File, AbstractDataset["pl.DataFrame", "pl.DataFrame"]):
    """A polars table in a parquet file (zstd, with column statistics), written atomically."""

    def load(self) -> pl.DataFrame:
        """Read the whole table."""
        import polars as pl

        path = self._found()
        try:
            # brackets in a path are no pattern, and `key=value` folders above it no columns
            return pl.read_parquet(path, glob=False, hive_partitioning=False)
        except (pl.exceptions.PolarsError, OSError) as error:
            raise self._unreadable(error) from error

    def save(self, data: pl.DataFrame) -> None:
        """Replace the file by this table."""
        import polars as pl

        if not isinstance(data, pl.DataFrame):
            raise self._refuse(data, "a polars DataFrame")
        save_parquet(data, self._filepath)


class JsonFile(_File, AbstractDataset[Any, Any]):
    """A JSON document (UTF-8, keys in their given order), written atomically.

    Objects are indented by one space. A list at the top, such as the mined rows, is written one element per line: a
    million rows are written in a stream, and ``grep`` and ``diff`` work on them. NaN and infinity are errors, because
    JSON has no such numbers and other tools refuse or misread the file.

    Of files called ``...metrics.json`` and ``...history.json`` the figures of the run (seconds, rates, memory) go to
    ``run_figures/`` beside them, and are put back in when they are read: see :mod:`.run_figures`.
    """

    def load(self) -> Any:
        """Read and parse the document."""
        import json

        try:
            found = json.loads(self._found().read_text(encoding="utf-8"))
        except ValueError as error:
            raise self._unreadable(error) from error
        return merge(found, read_run_figures(self._filepath)) if self._has_figures() else found

    def save(self, data: Any) -> None:
        """Replace the file by this document, or by the rows of a polars table."""
        result, of_run = data, {}
        with suppress(RecursionError):  # it contains itself, which the writer says better
            result, of_run = split(data) if self._has_figures() else (data, {})
        try:
            with atomic_write(self._filepath) as temporary, temporary.open("w", encoding="utf-8") as file:
                write_json(result, file)
            if self._has_figures():
                write_run_figures(self._filepath, of_run)
        except JsonError as error:
            raise FileError(f"{self._filepath}: {error}") from error

    def _has_figures(self) -> bool:
        return self._filepath.stem.endswith(("metrics", "history"))


class TextFile(_File, AbstractDataset[str, str]):
    """A UTF-8 text file, written atomically."""

    def load(self) -> str:
        """Read the text, line ends as they are."""
        return self._found().read_bytes().decode("utf-8")

    def save(self, data: str) -> None:
        """Replace the file by this text."""
        if not isinstance(data, str):
            raise self._refuse(data, "a str")
        with atomic_write(self._filepath) as temporary:
            temporary.write_bytes(data.encode("utf-8"))


class ArrayFile(_File, AbstractDataset["np.ndarray | Path", "np.ndarray"]):
    """A numpy array in an ``.npy`` file: loaded as a read-only memory map, larger than memory if need be.

    ``save`` takes an array, which it writes atomically, or this file's own path. The path says that the node has
    written the file itself, bit by bit; then it is checked to be a complete array and left as it is.
    """

    def load(self) -> np.ndarray:
        """Map the array into memory, read-only."""
        import numpy as np

        path = self._found()
        try:
            return np.load(path, mmap_mode="r", allow_pickle=False)
        except (ValueError, EOFError, OSError) as error:
            raise self._unreadable(error) from error

    def save(self, data: np.ndarray | Path) -> None:
        """Write an array, or accept the file that a node has written there."""
        import numpy as np

        if isinstance(data, Path):
            if data.absolute() != self._filepath.absolute():
                raise FileError(f"{self._filepath}: a node says that it wrote {data} instead")
            self.load()
        elif isinstance(data, np.ndarray) and not data.dtype.hasobject:
            with atomic_write(self._filepath) as temporary, temporary.open("wb") as file:
                np.save(file, data, allow_pickle=False)
        else:
            raise self._refuse(data, "a numpy array of numbers, or the Path of this file written already")


class Folder(_File, AbstractDataset[None, Path]):
    """A folder that a node fills by itself; loading makes it when it is missing and gives its path.

    Attributes:
        part: Name of a folder in it that is to be used instead, "" for itself; see :mod:`.reproduce.work`.
    """

    part = ""

    def load(self) -> Path:
        """Make the folder and return its absolute path."""
        folder = self._filepath / self.part
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError) as error:
            raise FileError(f"{folder} cannot be a folder: a file is in its way") from error
        return folder

    def save(self, data: None) -> None:
        """Refuse: a folder is an input of the node that fills it, never an output."""
        raise FileError(f"{self._filepath}: a Folder cannot be saved; make it an input of the node that fills it")

    def _exists(self) -> bool:
        return self._filepath.is_dir()
