"""A folder of tables: all of them, none, or a damaged one."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from unime_kedro.errors import DataError
from unime_kedro.io.table_folder import TableFolder


def test_tables_by_name(tmp_path: Path) -> None:
    for name in ("wants", "contents"):
        pl.DataFrame({name: [1, 2]}).write_parquet(tmp_path / f"{name}.parquet")
    (tmp_path / "notes.txt").write_text("no table")
    tables = TableFolder(filepath=str(tmp_path)).load()
    assert {name: table.to_dict(as_series=False) for name, table in tables.items()} == {
        "contents": {"contents": [1, 2]},
        "wants": {"wants": [1, 2]},
    }


def test_absent_folder_is_empty(tmp_path: Path) -> None:
    assert TableFolder(filepath=str(tmp_path / "none")).load() == {}


@pytest.mark.parametrize("damage", [b"", b"PAR1 no table", None])
def test_damaged_table_is_named_with_what_to_do(tmp_path: Path, damage: bytes | None) -> None:
    file = tmp_path / "wants.parquet"
    pl.DataFrame({"a": range(1000)}).write_parquet(file)
    file.write_bytes(file.read_bytes()[:-20] if damage is None else damage)
    with pytest.raises(DataError, match="Remove it and make the corpus again") as error:
        TableFolder(filepath=str(tmp_path)).load()
    assert str(error.value).startswith(f"{file} cannot be read: ")
    assert "kedro run --pipeline=demo" in str(error.value)
