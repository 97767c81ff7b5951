"""Results as tables: columns, order, what is missing, whose rows they are."""

from __future__ import annotations

import pytest
from report_tables import figure

from unime_kedro.reporting.results import Cell, results_tables

MEANS = {"mini-MMEB": ["vqa", "visual_grounding", "IND", "all"]}
PAPER = {"mini-MMEB": {"Theirs 2B": {"vqa": 56.3, "all": 63.6}}}


def scores(vqa: float, a: float) -> dict:
    return {
        "a": {"precision_at_1": figure(a, a - 0.1, a + 0.1, 20), "chance": figure(0.05)},
        "vqa": {"precision_at_1": figure(vqa, vqa - 0.2, vqa + 0.2, 40)},
        "all": {"precision_at_1": {**figure(None), "missing": ["b", "c"]}},
    }


def test_means_are_columns_and_data_sets_a_table_of_their_own() -> None:
    metrics = {
        "start": {"mini-MMEB": scores(0.25, 0.5), "_": {"folder": "f"}},
        "trained": {"mini-MMEB": scores(0.5, 0.75)},
    }
    (table,) = results_tables(metrics, MEANS, PAPER, {})
    assert (table.benchmark, table.measure, table.columns) == ("mini-MMEB", "Precision@1", ["VQA", "all"])
    start, trained, theirs = table.rows
    assert (start.name, start.kind, trained.name, theirs.kind) == ("start", "ours", "trained", "paper")
    assert start.cells == [Cell(0.25, pytest.approx(0.05), pytest.approx(0.45), 40), None]
    assert theirs.cells == [Cell(0.563, None, None, None), Cell(0.636, None, None, None)]
    names, rows = table.datasets
    assert names == ["a"]
    assert [row.cells[0].value for row in rows] == [0.5, 0.75]
    assert table.missing == {"start": ["b", "c"], "trained": ["b", "c"]}
    assert table.other_data


def test_the_papers_own_benchmark_is_no_other_data() -> None:
    metrics = {"m": {"MMEB": scores(0.5, 0.5)}}
    (table,) = results_tables(metrics, {"MMEB": ["vqa"]}, {"MMEB": {"Theirs": {"vqa": 56.3}}}, {})
    assert not table.other_data


def test_without_means_data_sets_are_columns_and_the_measure_is_theirs() -> None:
    metrics = {"m": {"Flickr": {"i2t": {"recall_at_1": figure(0.5)}, "t2i": {"recall_at_1": figure(0.25)}}}}
    (table,) = results_tables(metrics, {}, {}, {})
    assert (table.measure, table.columns, table.datasets) == ("Recall@1", ["i2t", "t2i"], None)
    assert [cell.value for cell in table.rows[0].cells] == [0.5, 0.25]


def test_a_model_that_did_not_see_a_benchmark_has_no_row() -> None:
    metrics = {"a": {"X": scores(0.1, 0.2)}, "b": {"Y": scores(0.3, 0.4)}}
    first, second = results_tables(metrics, {}, {}, {})
    assert ([row.name for row in first.rows], [row.name for row in second.rows]) == (["a"], ["b"])


def test_imported_scores_stand_below_ours_or_alone() -> None:
    file = {
        "name": "other", "benchmark": "mini-MMEB", "missing": ["c"],
        "datasets": {"a": {"value": 0.7, "n": 9}}, "means": {"vqa": 0.6, "all": None},
    }  # fmt: skip
    (alone,) = results_tables({}, MEANS, {}, {"file": file})
    assert [(row.name, row.kind) for row in alone.rows] == [("other", "imported")]
    assert alone.rows[0].cells == [Cell(0.6, None, None, None), None]
    assert alone.datasets[1][0].cells == [Cell(0.7, None, None, 9)]
    assert alone.missing == {"other": ["c"]}
    (both,) = results_tables({"ours": {"mini-MMEB": scores(0.5, 0.5)}}, MEANS, PAPER, {"file": file})
    assert [row.kind for row in both.rows] == ["ours", "imported", "paper"]
