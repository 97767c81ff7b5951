"""Kedro datasets of this project, and readers and writers of other tools' formats.

The catalog names the datasets as ``unime_kedro.io.ParquetTable`` and so on. They are looked up lazily, so that
``unime_kedro.io.mmeb`` and ``unime_kedro.io.release`` can be used where Kedro is not installed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from unime_kedro.io.datasets import ArrayFile, Folder, JsonFile, ParquetTable, TextFile

__all__ = ["ArrayFile", "Folder", "JsonFile", "ParquetTable", "TextFile"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        from unime_kedro.io import datasets

        return getattr(datasets, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
