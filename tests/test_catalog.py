"""Data in memory: copied as they should be, and without importing pandas to find out."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import polars as pl
import pytest
from kedro.io import MemoryDataset

from unime_kedro.catalog import Catalog

CONFIG = {"declared": {"type": "MemoryDataset"}, "copied": {"type": "MemoryDataset", "copy_mode": "deepcopy"}}


@pytest.fixture
def catalog() -> Catalog:
    made = Catalog.from_config(CONFIG)
    made["params:select"] = {"filter": {"margin": 0.01}}
    for name in ("declared", "copied", "between nodes"):
        made.get(name, fallback_to_runtime_pattern=True)
    return made


@pytest.mark.parametrize("name", ["declared", "between nodes"])
@pytest.mark.parametrize("data", [pl.DataFrame({"a": [1]}), np.zeros(3), {"a": [1]}])
def test_data_between_nodes_are_handed_on_as_they_are(catalog: Catalog, name: str, data: object) -> None:
    catalog.save(name, data)
    assert catalog.load(name) is data


def test_parameters_are_copied_so_that_no_node_changes_them_for_the_next(catalog: Catalog) -> None:
    catalog.load("params:select")["filter"]["margin"] = 7
    assert catalog.load("params:select") == {"filter": {"margin": 0.01}}


def test_what_the_catalog_says_wins(catalog: Catalog) -> None:
    data = {"a": [1]}
    catalog.save("copied", data)
    assert catalog.load("copied") == data
    assert catalog.load("copied") is not data
    catalog["own"] = MemoryDataset(data, copy_mode="deepcopy")
    assert catalog.load("own") is not data


def test_pandas_is_not_imported() -> None:
    script = f"""
import sys
from unime_kedro.catalog import Catalog
catalog = Catalog.from_config({CONFIG!r})
catalog["params:a"], catalog["parameters"] = 1, {{"a": 1}}
for name in ("declared", "between nodes"):
    catalog.get(name, fallback_to_runtime_pattern=True)
    catalog.save(name, [1])
    catalog.load(name)
assert catalog.load("params:a") == 1
print("pandas" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
