"""The lines at the end of a run."""

from __future__ import annotations

from pathlib import Path

import pytest

from unime_kedro.summary import place_lines, result_lines

METRICS = {
    "ingest": {
        "pairs_read": 1600,
        "pairs_accepted": 1588,
        "duplicate_pairs": 9,
        "rejected": 12,
        "items": 2345,
        "candidates": 1214,
    },
    "pool": {"queries": 1588, "pool_rows": 79400, "short_queries": 3},
    "judge": {
        "pairs": 80988,
        "judged_now": 1000,
        "from_store": 79986,
        "errors": 2,
        "seconds": 41.2,
        "prefix_reuse_share": 0.6189,
        "pairs_per_second": 541.26,
    },
    "select": {
        "queries": 1588,
        "false_negatives_dropped": 4012,
        "false_negative_share": 0.0506,
        "unjudged": 1169,
        "duplicated_queries": 21,
        "fallback_queries": 0,
        "skipped_queries": 1,
    },
    "truth": {"judge_auc": 0.93456, "filter_precision": 0.8, "filter_recall": 0.7123},
}


def test_a_line_or_two_per_stage_with_thousands_separators() -> None:
    assert result_lines(METRICS) == [
        "  ingest     1,600 pairs read, 9 duplicates, 12 rejected, 2,345 items, 1,214 candidates",
        "  pool       1,588 queries, 79,400 pool members, 3 queries with a short pool",
        "  judge      80,988 pairs, 1,000 judged now, 79,986 from the store, 2 ERRORS; 541 pairs/s,",
        "             61.9% of prompt tokens reused",
        "  select     1,588 queries, 4,012 false negatives dropped (5.1%), 1,169 unjudged, 21 duplicated,",
        "             0 fallbacks, 1 skipped",
        "  truth      judge AUC 0.935, filter precision 0.800, recall 0.712 (against mini-MMEB's known truth)",
    ]


def test_what_did_not_happen_is_not_told() -> None:
    nothing = {"duplicate_pairs": 0, "short_queries": 0, "unjudged": 0, "skipped_queries": 0, "queries": 5, "items": 7}
    lines = result_lines({"ingest": nothing, "pool": nothing, "select": nothing})
    assert lines == ["  ingest     7 items", "  pool       5 queries", "  select     5 queries"]


@pytest.mark.parametrize(
    ("models", "told"),
    [
        (["models/tiny-embedder", "Qwen/Qwen2.5-VL-7B-Instruct"], True),
        (["TIGER-Lab/VLM2Vec-Qwen2VL-7B", "/elsewhere/tiny-judge/"], True),
        (["TIGER-Lab/VLM2Vec-Qwen2VL-7B", "models/tiny/judge-7b"], False),
    ],
)
def test_embedded_models_are_said_to_be_tiny_and_no_others(models: list[str], told: bool) -> None:
    lines = result_lines({"truth": {"judge_auc": 0.9}}, models)
    note = "; the embedded models are tiny and trained on synthetic data" if told else ""
    assert " ".join(line.strip() for line in lines) == (
        f"truth      judge AUC 0.900 (against mini-MMEB's known truth{note})"
    )


def test_nothing_is_invented() -> None:
    assert result_lines({}) == []
    assert result_lines({"judge": {"pairs": 10}}) == ["  judge      10 pairs"]
    assert result_lines({"truth": {"judge_auc": None}, "pool": {"queries": float("nan")}}) == []
    assert result_lines({"select": {"false_negative_share": 0.5}}) == []  # a share of an unknown number says nothing


def test_speed_is_not_told_when_all_came_from_the_store() -> None:
    judge = METRICS["judge"] | {"judged_now": 0, "errors": 0}
    assert result_lines({"judge": judge}) == ["  judge      80,988 pairs, 0 judged now, 79,986 from the store"]


def test_paths_are_relative_where_one_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    places = {"gallery": tmp_path / "data/g.html", "Data Docs": Path("/elsewhere/i.html"), "MLflow": None}
    assert place_lines(places) == ["  gallery    data/g.html", "  Data Docs  /elsewhere/i.html"]
