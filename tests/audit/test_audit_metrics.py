"""Metrics against what was saved and what tables give."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hand_made import a_record, place_at, statuses, written

from unime_kedro.audit.metrics import check_metrics, equal, same
from unime_kedro.audit.recomputed import precision_of_trained, select_metrics
from unime_kedro.audit.record import RunRecord

HISTORY = [{"step": 0, "loss": 3.0}, {"step": 10, "loss": 2.0}, {"step": 20, "loss": 1.5}]
#: 40 pool members of 4 queries, 10 of them dropped
SELECTION = pl.DataFrame(
    {
        "dropped_false_negative": [1, 2, 3, 4],
        "dropped_unjudged": [0, 0, 2, 0],
        "pool_size": [10, 10, 10, 10],
        "outcome": ["sampled", "fallback", "duplicated", "sampled"],
    }
)
NEGATIVES = pl.DataFrame({"origin": ["sampled", "duplicate", "duplicate", "fallback"]})
COUNTS = {
    "queries": 4,
    "pool_rows": 40,
    "unjudged": 2,
    "false_negatives_dropped": 10,
    "false_negative_share": 0.25,
    "fallback_queries": 1,
    "fallback_share": 0.25,
    "duplicated_queries": 1,
    "duplicate_slots": 2,
}


def parquet(table: pl.DataFrame) -> bytes:
    buffer = io.BytesIO()
    table.write_parquet(buffer)
    return buffer.getvalue()


@pytest.fixture
def run(tmp_path: Path) -> RunRecord:
    """A run with a history, a figure of the same name, and counts of a selection."""
    data = tmp_path / "data"
    files = [
        written(data, "h.json", json.dumps(HISTORY).encode(), "train_history"),
        written(data, "t.json", json.dumps({"loss": 1.7}).encode(), "train_metrics"),
        written(data, "s.json", json.dumps(COUNTS).encode(), "select_metrics"),
        written(data, "selection.parquet", parquet(SELECTION), "selection"),
        written(data, "negatives.parquet", parquet(NEGATIVES), "negatives"),
    ]
    curves: dict[str, list[tuple[int, float]]] = {
        "train/loss": [(0, 3.0), (0, 1.7), (10, 2.0), (20, 1.5)],
        "train/seconds": [(0, 9.0)],
    }
    curves |= {f"select/{key}": [(0, float(value))] for key, value in COUNTS.items()}
    return a_record(
        files=files,
        curves=curves,
        metrics={key: points[-1][1] for key, points in curves.items()},
        metrics_files={"train_metrics": {"loss": 1.7, "seconds": 9.0}, "select_metrics": dict(COUNTS)},
    )


def found(run: RunRecord, tmp_path: Path) -> dict[str, str]:
    return statuses(list(check_metrics(run, place_at(tmp_path))))


def test_a_run_as_it_was_is_in_order(run: RunRecord, tmp_path: Path) -> None:
    findings = list(check_metrics(run, place_at(tmp_path)))
    assert statuses(findings) == dict.fromkeys(["database", "train_history", "train_metrics", "select_metrics"], "pass")
    assert "9 recomputed from selection, negatives are those in the database" in [one.text for one in findings]


def with_metric(run: RunRecord, key: str, *, last: float | None = None, curve: Any = None) -> RunRecord:
    metrics = run.metrics | ({} if last is None else {key: last})
    return replace(run, metrics=metrics, curves=run.curves | ({} if curve is None else {key: curve}))


def test_a_last_value_alone_is_found(run: RunRecord, tmp_path: Path) -> None:
    tampered = with_metric(run, "train/loss", last=1.4)
    assert found(tampered, tmp_path)["database"] == "fail"


def test_one_step_of_a_curve_alone_is_found(run: RunRecord, tmp_path: Path) -> None:
    tampered = with_metric(run, "train/loss", curve=[(0, 3.0), (0, 1.7), (10, 2.1), (20, 1.5)])
    assert found(tampered, tmp_path)["train_history"] == "fail"
    assert found(tampered, tmp_path)["database"] == "pass"


def test_the_figure_under_the_name_of_a_curve_is_found(run: RunRecord, tmp_path: Path) -> None:
    for curve in ([(0, 3.0), (0, 1.6), (10, 2.0), (20, 1.5)], [(0, 3.0), (10, 1.7), (20, 1.5)]):
        tampered = with_metric(run, "train/loss", curve=curve)
        assert found(tampered, tmp_path)["train_metrics"] == "fail"


def test_both_tables_of_the_database_are_found_by_the_artifact(run: RunRecord, tmp_path: Path) -> None:
    tampered = with_metric(run, "select/queries", last=5.0, curve=[(0, 5.0)])
    assert found(tampered, tmp_path)["select_metrics"] == "fail"


def test_a_small_change_of_a_small_figure_is_found(run: RunRecord, tmp_path: Path) -> None:
    tampered = with_metric(run, "select/false_negative_share", last=0.25 + 1e-9, curve=[(0, 0.25 + 1e-9)])
    assert found(tampered, tmp_path)["select_metrics"] == "fail"


def test_database_and_artifact_together_are_found_by_file_and_table(run: RunRecord, tmp_path: Path) -> None:
    tampered = with_metric(run, "select/queries", last=5.0, curve=[(0, 5.0)])
    tampered = replace(tampered, metrics_files=run.metrics_files | {"select_metrics": COUNTS | {"queries": 5}})
    texts = [one.text for one in check_metrics(tampered, place_at(tmp_path)) if one.status == "fail"]
    assert len(texts) == 2
    assert "between the saved file and the artifact" in texts[0]
    assert (
        "1 of 9 differ from selection, negatives, first select/queries: 5.0 in the database, 4 recomputed" in texts[1]
    )


def test_a_table_changed_with_its_hash_is_found(run: RunRecord, tmp_path: Path) -> None:
    other = SELECTION.with_columns(dropped_false_negative=pl.lit(1))
    entry = written(tmp_path / "data", "selection.parquet", parquet(other), "selection")
    tampered = replace(run, files=[entry if one.dataset == "selection" else one for one in run.files or ()])
    assert found(tampered, tmp_path)["select_metrics"] == "fail"


def test_a_table_changed_without_its_hash_is_not_recomputed_from(run: RunRecord, tmp_path: Path) -> None:
    written(tmp_path / "data", "selection.parquet", parquet(SELECTION.head(1)), "selection")
    texts = [one.text for one in check_metrics(run, place_at(tmp_path)) if one.status == "skip"]
    assert texts == ["not recomputed: selection is not there as it was when the run was made"]


def test_a_table_that_the_run_read_is_taken_too(run: RunRecord, tmp_path: Path) -> None:
    files = [one._replace(side="input") if one.dataset == "selection" else one for one in run.files or ()]
    findings = check_metrics(replace(run, files=files), place_at(tmp_path))
    assert any("recomputed from selection" in one.text and one.status == "pass" for one in findings)


def test_an_artifact_that_is_gone_or_broken_is_found(run: RunRecord, tmp_path: Path) -> None:
    gone = replace(run, metrics_files={"train_metrics": run.metrics_files["train_metrics"]})
    assert found(gone, tmp_path)["select_metrics"] == "fail"
    broken = replace(gone, unreadable={"metrics/select_metrics.json": "no JSON"})
    assert "no JSON" in "".join(one.text for one in check_metrics(broken, place_at(tmp_path)))


def test_a_table_of_another_version_is_skipped(run: RunRecord, tmp_path: Path) -> None:
    entry = written(tmp_path / "data", "negatives.parquet", parquet(pl.DataFrame({"a": [1]})), "negatives")
    other = replace(run, files=[entry if one.dataset == "negatives" else one for one in run.files or ()])
    with pytest.raises(pl.exceptions.ColumnNotFoundError):
        select_metrics(SELECTION, pl.DataFrame({"a": [1]}), record=run)
    assert any("by this version" in one.text for one in check_metrics(other, place_at(tmp_path)))


def test_precision_of_trained_is_a_mean_of_data_sets() -> None:
    table = pl.DataFrame(
        {
            "dataset": ["EasyVQA"] * 4 + ["EmojiCrops"] * 2 + ["TwemojiCrops"] * 2,
            "correct": [True, False, False, False, True, True, True, False],
        }
    )
    got = precision_of_trained(table)
    assert got["precision_at_1/EasyVQA"] == 0.25
    assert got["precision_at_1/visual_grounding"] == (1 + 0.5) / 2  # EmojiCrops and TwemojiCrops
    assert got["precision_at_1/in_distribution"] == (0.25 + 1) / 2
    assert got["precision_at_1/out_of_distribution"] == 0.5
    assert got["precision_at_1/all"] == pytest.approx((0.25 + 1 + 0.5) / 3)


def test_when_figures_are_the_same() -> None:
    nan = float("nan")
    assert same(nan, nan)
    assert not same(nan, 1.0)
    assert not same(None, 1.0)
    assert same(float("inf"), float("inf"))
    assert not same(1.0, 1.0 + 1e-9)
    assert equal(1.0, 1.0 + 1e-7)
    assert not equal(1.0, 1.0 + 1e-5)
    assert not equal(2e-5, 2.1e-5)
    assert equal(1e-17, 0.0)
