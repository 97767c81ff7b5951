"""The datasets, through Kedro's own catalog."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow.parquet as pq
import pytest
import yaml
from kedro.io import DataCatalog, DatasetError

from unime_kedro.errors import DataError
from unime_kedro.io import ArrayFile, Folder, JsonFile, ParquetTable, TextFile


@pytest.fixture
def catalog(tmp_path: Path) -> DataCatalog:
    def entry(kind: str, name: str, **options: Any) -> dict[str, Any]:
        return {"type": f"unime_kedro.io.{kind}", "filepath": f"{tmp_path}/{name}", **options}

    return DataCatalog.from_config(
        {
            "items": entry("ParquetTable", "02/items.parquet", metadata={"kedro-viz": {"layer": "intermediate"}}),
            "other": entry("ParquetTable", "other.parquet", made_by="mine"),
            "strange": entry("ParquetTable", "strange.parquet"),
            "metrics": entry("JsonFile", "metrics.json"),
            "page": entry("TextFile", "page.html"),
            "embeddings": entry("ArrayFile", "embeddings/embeddings.npy"),
            "folder": entry("Folder", "embeddings"),
        }
    )


def cause(error: pytest.ExceptionInfo[BaseException]) -> BaseException:
    """The dataset's own error, which the catalog wraps."""
    assert isinstance(error.value.__cause__, DataError)
    return error.value.__cause__


def test_table(catalog: DataCatalog, tmp_path: Path) -> None:
    table = pl.DataFrame({"item_id": [0, 1], "text": ["ä", ""]})
    assert not catalog.exists("items")
    catalog.save("items", table)
    assert catalog.exists("items")
    assert catalog.load("items").equals(table)
    column = pq.ParquetFile(tmp_path / "02/items.parquet").metadata.row_group(0).column(0)
    assert column.compression == "ZSTD"
    assert (column.statistics.min, column.statistics.max) == (0, 1)


@pytest.mark.parametrize(
    ("name", "remedy"),
    [
        ("items", "`kedro run --pipeline=ingest` makes it"),
        ("other", "`kedro run --pipeline=mine` makes it"),
        ("strange", "Run the pipeline that makes it first"),
        ("embeddings", "`kedro run --pipeline=pool` makes it"),
        ("page", "does not exist"),
        ("metrics", "does not exist"),
    ],
)
def test_a_missing_file_is_named_with_the_pipeline_that_makes_it(catalog: DataCatalog, name: str, remedy: str) -> None:
    with pytest.raises(DatasetError, match=remedy) as error:
        catalog.load(name)
    path = catalog[name]._describe()["filepath"]
    assert str(cause(error)).startswith(f"{path} does not exist. ")


def test_every_file_of_the_catalog_knows_its_pipeline() -> None:
    files = (Path(__file__).parents[2] / "conf/base/catalog").glob("*.yml")
    entries = {name: entry for file in files for name, entry in yaml.safe_load(file.read_text()).items()}
    kinds = {f"unime_kedro.io.{kind.__name__}": kind for kind in (ParquetTable, JsonFile, TextFile, ArrayFile)}
    ours = {name: entry for name, entry in entries.items() if entry.get("type") in kinds}
    assert {"items", "pool", "judge_scores", "negatives"} <= set(ours)
    for name, entry in ours.items():
        dataset = kinds[entry["type"]](entry["filepath"], entry.get("made_by"))
        assert dataset._describe()["made_by"], name


def test_a_broken_table_is_named(catalog: DataCatalog, tmp_path: Path) -> None:
    (tmp_path / "02").mkdir()
    (tmp_path / "02/items.parquet").write_bytes(b"PAR1 no table")
    with pytest.raises(DatasetError, match=r"items.parquet cannot be read: .*Remove it. `kedro run --pipeline=ingest`"):
        catalog.load("items")


def test_a_table_must_be_a_polars_table(catalog: DataCatalog) -> None:
    with pytest.raises(DatasetError, match=r"expected a polars DataFrame, got builtins\.dict"):
        catalog.save("items", {"item_id": [1]})
    assert not catalog.exists("items")


def test_brackets_and_equal_signs_in_a_path_mean_nothing(tmp_path: Path) -> None:
    table = pl.DataFrame({"a": [1]})
    dataset = ParquetTable(str(tmp_path / "run=3" / "x[0-9]*.parquet"))
    dataset.save(table)
    assert dataset.load().equals(table)


def test_json_document(catalog: DataCatalog, tmp_path: Path) -> None:
    catalog.save("metrics", {"z": np.float32(0.5), "ä": [1, None], "path": Path("a/b"), "n": np.arange(2)})
    text = (tmp_path / "metrics.json").read_text(encoding="utf-8")
    assert text.startswith('{\n "z": 0.5,\n "ä": [\n')
    assert catalog.load("metrics") == {"z": 0.5, "ä": [1, None], "path": "a/b", "n": [0, 1]}


def test_json_list_is_one_line_per_element(catalog: DataCatalog, tmp_path: Path) -> None:
    rows = [{"b": ["x", "y"], "a": 0.1}, {"c": "line\nbreak"}]
    catalog.save("metrics", rows)
    text = (tmp_path / "metrics.json").read_text(encoding="utf-8")
    assert text == '[\n{"b": ["x", "y"], "a": 0.1},\n{"c": "line\\nbreak"}\n]\n'
    assert catalog.load("metrics") == rows
    catalog.save("metrics", [])
    assert catalog.load("metrics") == []


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"a": {"b": [1.0, {"c": float("nan")}]}}, r"a\.b\[1\]\.c is nan"),
        ([{"ok": 1}, {"score": float("-inf")}], r"\[1\]\.score is -inf"),
        ({"share": np.float32("nan")}, "share is nan"),
        ({"values": np.array([0.0, np.inf])}, r"values\[1\] is inf"),
        ({"a": {"s": {1, 2}}}, r"a\.s: set has no JSON form"),
        ({"a": {(1, 2): 3}}, r"a has the key \(1, 2\); expected text"),
        (float("nan"), "the document is nan"),
    ],
)
def test_json_errors_name_the_key_path(catalog: DataCatalog, data: Any, message: str) -> None:
    catalog.save("metrics", {"old": 1})
    with pytest.raises(DatasetError, match=message) as error:
        catalog.save("metrics", data)
    assert "metrics.json" in str(cause(error))
    assert catalog.load("metrics") == {"old": 1}


def test_json_of_a_table_is_the_list_of_its_rows(catalog: DataCatalog, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("unime_kedro.io.json_text._ROWS", 2)
    table = pl.DataFrame(
        {
            "text": ['line\nbreak "ä\u2028"', "\\n", "", None, "e"],
            "pairs": [[["a", "b"]], [], [["c", ""], ["d", "\n"]], None, []],
            "score": pl.Series([0.1, 1.0, 1e-300, None, 0.7215937972068787]),
            "scores": [[0.5, None], [], [1.0], [2.5], [3.0]],
            "n": [1, 2, 3, 4, 2**62],
            "flag": [True, False, None, True, True],
        }
    )
    catalog.save("metrics", table)
    assert catalog.load("metrics") == table.to_dicts()
    lines = Path(catalog["metrics"]._describe()["filepath"]).read_text(encoding="utf-8").split("\n")
    assert len(lines) == 1 + 5 + 1 + 1  # bracket, rows, bracket, end of file
    catalog.save("metrics", table.head(0))
    assert catalog.load("metrics") == []


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"a": [0.0, float("nan")]}, r"metrics\.json: \[1\]\.a is nan"),
        ({"ok": ["x"] * 3, "a": [[1.0], None, [0.5, float("inf")]]}, r"\[2\]\.a\[1\] is inf"),
        ({"a": [{"b": 1}]}, r"column a is Struct\(.*\); expected text"),
    ],
)
def test_json_errors_in_tables_name_row_and_column(catalog: DataCatalog, table: dict[str, Any], message: str) -> None:
    with pytest.raises(DatasetError, match=message):
        catalog.save("metrics", pl.DataFrame(table))
    assert not catalog.exists("metrics")


def test_json_that_contains_itself(catalog: DataCatalog) -> None:
    data: dict[str, Any] = {}
    data["self"] = data
    with pytest.raises(DatasetError, match="contains itself"):
        catalog.save("metrics", data)


def test_broken_json_is_named_with_its_place(catalog: DataCatalog, tmp_path: Path) -> None:
    (tmp_path / "metrics.json").write_text('{"a": 1,\n "b": }')
    with pytest.raises(DatasetError, match=r"metrics.json cannot be read: .*line 2 column 7"):
        catalog.load("metrics")


def test_text(catalog: DataCatalog) -> None:
    catalog.save("page", "one\r\ntwo ☃\n")
    assert catalog.load("page") == "one\r\ntwo ☃\n"
    with pytest.raises(DatasetError, match=r"expected a str, got builtins\.bytes"):
        catalog.save("page", b"x")


def test_array_is_loaded_as_a_read_only_map(catalog: DataCatalog) -> None:
    array = np.arange(12, dtype=np.float32).reshape(3, 4)
    catalog.save("embeddings", array)
    loaded = catalog.load("embeddings")
    assert isinstance(loaded, np.memmap)
    assert not loaded.flags.writeable
    np.testing.assert_array_equal(loaded, array)
    catalog.save("embeddings", array + 1)  # the map of the old file stays valid
    np.testing.assert_array_equal(loaded, array)


def test_array_written_by_the_node_itself(catalog: DataCatalog, tmp_path: Path) -> None:
    path = catalog.load("folder") / "embeddings.npy"
    written = np.lib.format.open_memmap(path, mode="w+", dtype=np.float16, shape=(2, 3))
    written[:] = 7
    written.flush()
    before = path.stat().st_ino
    catalog.save("embeddings", path)
    assert path.stat().st_ino == before
    assert catalog.load("embeddings").tolist() == [[7.0] * 3] * 2
    with pytest.raises(DatasetError, match=r"a node says that it wrote .*elsewhere\.npy instead"):
        catalog.save("embeddings", tmp_path / "elsewhere.npy")


def test_array_claimed_but_missing_or_cut_short(catalog: DataCatalog, tmp_path: Path) -> None:
    path = tmp_path / "embeddings" / "embeddings.npy"
    with pytest.raises(DatasetError, match="does not exist"):
        catalog.save("embeddings", path)
    catalog.save("embeddings", np.zeros((100, 8)))
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DatasetError, match="cannot be read"):
        catalog.save("embeddings", path)


@pytest.mark.parametrize("data", [np.array([{}], dtype=object), [1.0, 2.0]])
def test_array_of_other_things_is_refused(catalog: DataCatalog, data: Any) -> None:
    with pytest.raises(DatasetError, match="expected a numpy array of numbers"):
        catalog.save("embeddings", data)
    assert not catalog.exists("embeddings")


def test_folder(catalog: DataCatalog, tmp_path: Path) -> None:
    assert not catalog.exists("folder")
    assert catalog.load("folder") == tmp_path / "embeddings"
    assert (tmp_path / "embeddings").is_dir()
    assert catalog.exists("folder")
    with pytest.raises(DatasetError, match="a Folder cannot be saved"):
        catalog.save("folder", tmp_path)
    (tmp_path / "file").write_text("x")
    with pytest.raises(DatasetError, match="a file is in its way"):
        Folder(str(tmp_path / "file")).load()


def test_catalog_entries_can_be_written_back_as_configuration(catalog: DataCatalog) -> None:
    catalog.exists("items")
    config = catalog.to_config()[0]["items"]
    config.pop("type")
    assert ParquetTable(**config)._describe() == catalog["items"]._describe()


def test_relative_paths_start_at_the_project_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "pyproject.toml").write_text("[tool.kedro]\n")
    (tmp_path / "notebooks").mkdir()
    monkeypatch.chdir(tmp_path / "notebooks")
    for kind in (ParquetTable, JsonFile, TextFile, ArrayFile, Folder):
        assert kind("data/file")._describe()["filepath"] == str(tmp_path / "data/file")


def test_importing_io_stays_light() -> None:
    code = (
        "import sys, json; import unime_kedro.io, unime_kedro.atomic; light = 'kedro' not in sys.modules;"
        "from unime_kedro.io import ParquetTable; print(json.dumps([light, 'polars' in sys.modules,"
        "'numpy' in sys.modules]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == [True, False, False]
