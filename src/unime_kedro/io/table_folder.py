"""A folder of parquet files that may not be there."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from kedro.io import AbstractDataset

from unime_kedro.errors import DataError
from unime_kedro.io.datasets import FileError

if TYPE_CHECKING:
    import polars as pl


class TableFolder(AbstractDataset[None, "dict[str, pl.DataFrame]"]):
    """Reads ``<folder>/*.parquet`` into a dict by name; an absent folder is an empty dict.

    Args:
        filepath: The folder.
        metadata: For plugins; not used.
    """

    def __init__(self, *, filepath: str, metadata: dict[str, Any] | None = None) -> None:
        self._filepath = Path(filepath)
        self.metadata = metadata

    def load(self) -> dict[str, pl.DataFrame]:
        """Read all tables of the folder.

        Raises:
            FileError: A file is damaged or cannot be read; says which one.
        """
        return {file.stem: _read(file) for file in sorted(self._filepath.glob("*.parquet"))}

    def save(self, data: None) -> None:
        """Refuse: the folder is written by whoever makes the corpus."""
        raise DataError(f"{self._filepath} is read-only for pipelines")

    def _exists(self) -> bool:
        return self._filepath.is_dir()

    def _describe(self) -> dict[str, Any]:
        return {"filepath": str(self._filepath)}


def _read(file: Path) -> pl.DataFrame:
    import polars as pl

    try:
        return pl.read_parquet(file, glob=False, hive_partitioning=False)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise FileError(
            f"{file} cannot be read: {error}. Remove it and make the corpus again; "
            "`kedro run --pipeline=demo` does so for mini-MMEB."
        ) from error
