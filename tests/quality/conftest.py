"""A data root with the tables of ``quality_tables``, and real Kedro catalogs over it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest
from kedro.io import DataCatalog
from quality_tables import FILES, REFERENCES, good_tables

EVALUATED = ("evaluated_queries", "predictions")


@pytest.fixture(scope="session")
def tables() -> dict[str, pl.DataFrame]:
    return good_tables()


@pytest.fixture
def data_root(tmp_path: Path, tables: dict[str, pl.DataFrame]) -> Path:
    """A data root with the tables that others refer to."""
    for name in (
        "items",
        "queries",
        "candidates",
        "pool",
        "judge_errors",
        "judge_coverage",
        "selection",
        "skipped",
        *EVALUATED,
    ):
        path = tmp_path / FILES[name]
        path.parent.mkdir(exist_ok=True)
        tables[name].write_parquet(path)
    return tmp_path


@pytest.fixture
def catalog_of(data_root: Path) -> Callable[..., DataCatalog]:
    """Make a catalog with one table, ``checked``, in a file of its own."""

    def make(suite: str, severity: str = "error", **options: object) -> DataCatalog:
        references = {name: str(data_root / FILES[name]) for name in REFERENCES[suite]}
        validator = {
            "class": "unime_kedro.quality.TableValidator",
            "on": ["save"],
            "severity": severity,
            "options": {"suite": suite, "references": references, **options},
        }
        entry = {
            "type": "unime_kedro.io.ParquetTable",
            "filepath": str(data_root / "checked.parquet"),
            "validator": validator,
        }
        return DataCatalog.from_config({"checked": entry})

    return make
