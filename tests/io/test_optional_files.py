"""Files that may be missing, and folders of figures and documents."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest
from kedro.io import DataCatalog, DatasetError

from unime_kedro.errors import DataError
from unime_kedro.io.datasets import JsonFile
from unime_kedro.io.optional import FigureFolder, JsonFolder, OptionalFile
from unime_kedro.io.run_figures import write_run_figures


def test_a_missing_file_is_none_and_one_that_is_there_is_read(tmp_path: Path) -> None:
    entry = {"type": "unime_kedro.io.ParquetTable", "filepath": str(tmp_path / "t.parquet"), "made_by": "x"}
    catalog = DataCatalog.from_config({"table": {"type": "unime_kedro.io.optional.OptionalFile", "dataset": entry}})
    assert not catalog.exists("table")
    assert catalog.load("table") is None
    table = pl.DataFrame({"a": [1, 2]})
    catalog.save("table", table)
    assert catalog.exists("table")
    assert catalog.load("table").equals(table)
    assert catalog.get("table")._filepath == tmp_path / "t.parquet"


def test_a_broken_file_is_an_error_and_not_none(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("{")
    with pytest.raises(DatasetError, match=r"a\.json cannot be read"):
        OptionalFile(JsonFile(str(tmp_path / "a.json"))).load()


def test_figures_replace_those_of_before(tmp_path: Path) -> None:
    folder = FigureFolder(str(tmp_path / "figures"))
    assert folder.load() == {}
    assert not folder.exists()
    folder.save({"b": b"1", "a": b"2"})
    (tmp_path / "figures" / "mine.txt").write_text("stays")
    folder.save({"a": b"3"})
    assert folder.load() == {"a": b"3"}
    assert sorted(file.name for file in (tmp_path / "figures").iterdir()) == ["a.png", "mine.txt"]


@pytest.mark.parametrize("name", ["", "../a", "a/b", ".hidden"])
def test_a_figure_cannot_leave_its_folder(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError, match="plain file name"):
        FigureFolder(str(tmp_path / "figures")).save({"fine": b"", name: b""})
    assert not (tmp_path / "figures").exists()


def test_documents_of_a_folder(tmp_path: Path) -> None:
    folder = JsonFolder(str(tmp_path / "f"))
    assert folder.load() == {}
    (tmp_path / "f").mkdir()
    for name, text in {"b.json": "[1]", "a.json": '{"x": 2}', "a.md": "no"}.items():
        (tmp_path / "f" / name).write_text(text)
    assert list(folder.load().items()) == [("a", {"x": 2}), ("b", [1])]
    write_run_figures(tmp_path / "f/a.json", {"seconds": 3, "y": {"z": 4}})
    assert folder.load() == {"a": {"x": 2, "seconds": 3, "y": {"z": 4}}, "b": [1]}
    (tmp_path / "f/a.json").write_text('{"x": 3}')  # of another run than the figures beside it
    assert folder.load() == {"a": {"x": 3}, "b": [1]}
    with pytest.raises(DataError, match="only read"):
        folder.save({})
