"""Kedro's data catalog, without what it costs to guess how data in memory are to be copied."""

from __future__ import annotations

from typing import Any

from kedro.io import AbstractDataset, DataCatalog, MemoryDataset


class Catalog(DataCatalog):
    """A catalog whose datasets in memory know how they are copied.

    Where that is not said, Kedro looks whether a value is a pandas or ibis table each time it is put into memory,
    every parameter included, and imports pandas to find out: more than a second of CPU time, for a project whose
    nodes work with polars.

    Parameters are copied deeply, as Kedro does. What one node hands to the next without a file is not copied at all
    (Kedro: numpy arrays are, tables are not), so nodes must not change their inputs, here as everywhere.
    """

    def __setitem__(self, key: str, value: Any) -> None:
        is_parameter = key == "parameters" or key.startswith("params:")
        if is_parameter and not isinstance(value, AbstractDataset):
            value = MemoryDataset(value, copy_mode="deepcopy")
        elif type(value) is MemoryDataset and value._copy_mode is None:
            value._copy_mode = "assign"
        super().__setitem__(key, value)
