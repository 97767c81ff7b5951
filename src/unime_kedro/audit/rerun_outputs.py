"""What a run wrote when it was run again, against what it wrote first."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unime_kedro.audit.findings import FAIL, NOTE, PASS, SKIP, Finding, Place
from unime_kedro.audit.metrics import TOLERANCE, figures_of
from unime_kedro.audit.record import RunRecord
from unime_kedro.tracking.contents import contents_of
from unime_kedro.tracking.files import FileRecord
from unime_kedro.tracking.metrics import HISTORY, SUFFIX, history_points, metric_values

if TYPE_CHECKING:
    import polars as pl

#: how far single numbers of tables and arrays may be off, which are float32: relative, and absolute for small ones
TABLE_TOLERANCE = 1e-5
_FAR = "compare packages and hardware above; docs/auditing.md says what may differ"


def compare_output(entry: FileRecord, record: RunRecord, place: Place, file: Path) -> Finding:
    """Return whether a file that was written again has the recorded bytes, or, by its kind, nearly their content.

    Args:
        entry: What was recorded.
        record: The run.
        place: Where its files are: tables are compared to the recorded ones, which have to be there still.
        file: What was written now.
    """
    subject = f"output {entry.dataset}"
    found = contents_of(file)
    if found is None:
        return Finding("rerun", subject, FAIL, f"{entry.path} was not written again", _FAR)
    if entry.sha256 is None:
        return Finding("rerun", subject, SKIP, "too many files to compare")
    if found.sha256 == entry.sha256:
        return Finding("rerun", subject, PASS, "the same bytes")
    if entry.dataset.endswith((SUFFIX, HISTORY)):
        return _compare_figures(subject, entry.dataset, record, json.loads(file.read_text(encoding="utf-8")))
    if file.suffix in (".parquet", ".npy"):
        before = place.unchanged(record, entry.dataset)
        if before is None:
            return Finding("rerun", subject, SKIP, "other bytes, and the recorded ones are not there to be compared")
        problem = _table_problem(before, file) if file.suffix == ".parquet" else _array_problem(before, file)
        text = problem or f"other bytes, all numbers within {TABLE_TOLERANCE:g}"
        return Finding("rerun", subject, FAIL if problem else PASS, text, _FAR if problem else "")
    what = "a page, which names commit and run" if file.suffix == ".html" else "its content is judged by the metrics"
    return Finding("rerun", subject, NOTE, f"other bytes; {what}")


def _compare_figures(subject: str, dataset: str, record: RunRecord, content: Any) -> Finding:
    if dataset.endswith(HISTORY):
        points = {(point.key, point.step): point.value for point in history_points(dataset, content)}
        again = {f"{key} at step {step}": value for (key, step), value in points.items()}
        said = {f"{key} at step {step}": [v] for key, curve in record.curves.items() for step, v in curve}
    else:
        again, said = metric_values(dataset, content), dict(figures_of(record))
    if unknown := sorted(set(again) - set(said)):
        text = f"{len(unknown)} of {len(again)} figures were not recorded, first {unknown[0]}"
        return Finding("rerun", subject, FAIL, text, _FAR)
    far = {key: min(distance(value, one) for one in said[key]) for key, value in again.items()}
    worst = max(far, key=lambda key: far[key], default=None)
    if worst is None:
        return Finding("rerun", subject, SKIP, "other bytes, and no figures in it")
    if far[worst] <= TOLERANCE:
        text = f"{len(far)} figures within {TOLERANCE:g}, {far[worst]:.1e} at most"
        return Finding("rerun", subject, PASS, text)
    count = sum(one > TOLERANCE for one in far.values())
    text = f"{count} of {len(far)} figures are further off than {TOLERANCE:g}, most {worst}: "
    text += f"{said[worst][0]:.6g} recorded, {again[worst]:.6g} again"
    return Finding("rerun", subject, FAIL, text, _FAR)


def distance(value: float, said: float) -> float:
    """Return the relative distance of two figures; 0 for two NaN, infinite for one."""
    if value == said or (value != value and said != said):
        return 0.0
    found = abs(value - said) / max(abs(said), 1e-12)
    return found if found == found else float("inf")


def _table_problem(before: Path, after: Path) -> str:
    """Return how two tables differ by more than their last digits, "" if they do not."""
    import polars as pl

    one, other = (pl.read_parquet(file, glob=False, hive_partitioning=False) for file in (before, after))
    if one.schema != other.schema:
        return f"other columns: {_columns(other.schema)}; recorded {_columns(one.schema)}"
    if one.height != other.height:
        return f"{other.height:,} rows, {one.height:,} recorded"
    for name in one.columns:
        same = _nearly_equal(one[name], other[name])
        if not same.all():
            row = int((~same).arg_max() or 0)
            count = int((~same).sum())
            return f"column {name} differs in {count:,} rows, first row {row}: {one[name][row]!r}, {other[name][row]!r}"
    return ""


def _nearly_equal(one: pl.Series, other: pl.Series) -> pl.Series:
    """Return whether values are equal, floats within the tolerance, row by row; nulls and NaN equal themselves."""
    import polars as pl

    same = one.eq_missing(other)
    if not one.dtype.is_float():
        return same
    left, right = one.cast(pl.Float64), other.cast(pl.Float64)
    near = (left - right).abs() <= TABLE_TOLERANCE * pl.select(pl.max_horizontal(left.abs(), pl.lit(1.0))).to_series()
    return same | (near.fill_null(value=False) & left.is_finite().fill_null(value=False))


def _array_problem(before: Path, after: Path) -> str:
    import numpy as np

    one, other = (np.load(file, allow_pickle=False) for file in (before, after))
    if one.shape != other.shape or one.dtype != other.dtype:
        return f"{other.dtype} {other.shape}, {one.dtype} {one.shape} recorded"
    near = np.isclose(one, other, rtol=TABLE_TOLERANCE, atol=TABLE_TOLERANCE, equal_nan=True)
    return (
        ""
        if near.all()
        else f"{int((~near).sum()):,} of {near.size:,} numbers are further off than {TABLE_TOLERANCE:g}"
    )


def _columns(schema: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {kind}" for name, kind in schema.items())
