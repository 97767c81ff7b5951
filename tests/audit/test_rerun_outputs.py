"""What was written again, by its kind."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hand_made import a_record, place_at

from unime_kedro.audit.rerun_outputs import compare_output, distance
from unime_kedro.tracking.contents import contents_of
from unime_kedro.tracking.files import FileRecord

FRAME = pl.DataFrame(
    {"id": [1, 2, 3], "score": pl.Series([0.5, None, float("nan")], dtype=pl.Float32), "name": ["a", "b", None]}
)


def compared(tmp_path: Path, name: str, before: Any, after: Any, dataset: str = "table", **values: Any) -> str:
    """Write something twice; returns the status of the comparison and its text."""
    files = [tmp_path / "data" / name, tmp_path / "again" / name]
    for file, content in zip(files, (before, after), strict=True):
        file.parent.mkdir(exist_ok=True)
        if isinstance(content, pl.DataFrame):
            content.write_parquet(file)
        elif isinstance(content, np.ndarray):
            np.save(file, content)
        else:
            file.write_text(content if isinstance(content, str) else json.dumps(content))
    found = contents_of(files[0])
    assert found is not None
    entry = FileRecord("output", dataset, f"<data root>/{name}", *found)
    result = compare_output(entry, a_record(files=[entry], **values), place_at(tmp_path), files[1])
    return f"{result.status}: {result.text}"


def test_equal_bytes_pass(tmp_path: Path) -> None:
    assert compared(tmp_path, "a.html", "x", "x") == "pass: the same bytes"


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (pl.col("score") + 4e-6, "pass: other bytes, all numbers within 1e-05"),
        (pl.col("score") + 4e-5, "fail: column score differs in 1 rows, first row 0: "),
        (pl.col("score").fill_null(0.5), "fail: column score differs in 1 rows, first row 1: None"),
        (pl.col("score").fill_nan(0.5), "fail: column score differs in 1 rows, first row 2: nan"),
        (pl.col("id") * 10, "fail: column id differs in 3 rows, first row 0: 1, 10"),
        (pl.col("name").fill_null("c"), "fail: column name differs in 1 rows, first row 2: None, 'c'"),
        (pl.col("id").cast(pl.Int32), "fail: other columns: id Int32"),
        (pl.col("id").alias("more"), "fail: other columns: "),
    ],
)
def test_tables_are_compared_value_by_value(tmp_path: Path, change: pl.Expr, expected: str) -> None:
    got = compared(tmp_path, "t.parquet", FRAME, FRAME.with_columns(change))
    assert got.startswith(expected), got


def test_infinite_numbers_are_near_nothing_else(tmp_path: Path) -> None:
    infinite = pl.DataFrame({"score": [1.0, float("inf"), float("-inf")]})
    for row, value in ((1, 1.0), (1, float("-inf")), (2, 1.0), (0, float("inf"))):
        other = infinite.with_columns(
            score=pl.when(pl.int_range(pl.len()) == row).then(pl.lit(value)).otherwise("score")
        )
        got = compared(tmp_path, "t.parquet", infinite, other)
        assert got.startswith(f"fail: column score differs in 1 rows, first row {row}: "), got


def test_tables_have_the_same_rows_in_the_same_order(tmp_path: Path) -> None:
    assert compared(tmp_path, "t.parquet", FRAME, FRAME.head(2)) == "fail: 2 rows, 3 recorded"
    assert compared(tmp_path, "t.parquet", FRAME, FRAME.reverse()).startswith("fail: column id")


def test_arrays(tmp_path: Path) -> None:
    one = np.array([1.0, 100.0, np.nan], dtype=np.float32)
    assert compared(tmp_path, "a.npy", one, one * np.float32(1 + 5e-6)).startswith("pass: other bytes")
    assert compared(tmp_path, "a.npy", one, one * np.float32(1.001)).startswith("fail: 2 of 3 numbers")
    assert compared(tmp_path, "a.npy", one, one[:2]) == "fail: float32 (2,), float32 (3,) recorded"


def test_figures_are_compared_to_the_recorded_ones(tmp_path: Path) -> None:
    said = {"metrics": {"train/loss": 2.0, "train/nan": float("nan")}}

    def of(again: dict[str, float]) -> str:
        return compared(tmp_path, "m.json", {"loss": 2.0}, again, "train_metrics", **said)

    assert of({"loss": 2.000001, "nan": float("nan")}) == "pass: 2 figures within 1e-06, 5.0e-07 at most"
    assert of({"loss": 2.0001}).startswith(
        "fail: 1 of 1 figures are further off than 1e-06, most train/loss: 2 recorded"
    )
    assert of({"loss": 2.0, "nan": 1.0}).startswith("fail: 1 of 2 figures")
    assert of({"loss": 2.0, "more": 1.0}) == "fail: 1 of 2 figures were not recorded, first train/more"
    assert of({}) == "skip: other bytes, and no figures in it"


def test_histories_are_compared_step_by_step(tmp_path: Path) -> None:
    said = {"curves": {"train/loss": [(0, 3.0), (0, 1.7), (10, 2.0)]}}

    def of(again: list[dict[str, float]]) -> str:
        return compared(tmp_path, "h.json", [], again, "train_history", **said)

    assert of([{"step": 0, "loss": 1.7}, {"step": 10, "loss": 2.0}]).startswith("pass: 2 figures")
    assert of([{"step": 10, "loss": 2.1}]).startswith("fail: 1 of 1 figures")
    assert of([{"step": 11, "loss": 2.0}]).startswith("fail: 1 of 1 figures were not recorded")


def test_other_kinds_are_noted_and_what_is_missing_fails(tmp_path: Path) -> None:
    assert compared(tmp_path, "a.html", "x", "y").startswith("note: other bytes; a page")
    assert compared(tmp_path, "a.json", "1", "2", "trained_model").startswith("note: other bytes; its content")
    entry = FileRecord("output", "t", "<data root>/gone.parquet", "1", "2", 3)
    got = compare_output(entry, a_record(files=[entry]), place_at(tmp_path), tmp_path / "gone.parquet")
    assert (got.status, got.text) == ("fail", "<data root>/gone.parquet was not written again")


def test_distance_of_figures() -> None:
    nan = float("nan")
    assert distance(nan, nan) == distance(float("inf"), float("inf")) == 0
    assert distance(nan, 1.0) == distance(1.0, nan) == float("inf")
    assert distance(3.0, 2.0) == distance(-3.0, -2.0) == 0.5
    assert distance(1e-15, 0.0) == pytest.approx(1e-3)
