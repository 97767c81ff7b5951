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
        "distinct_pairs": 80986,
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
    "truth": {
        "judge_auc": 0.93456,
        "filter_precision": 0.8,
        "filter_recall": 0.7123,
        "false_negatives_in_pool_share": 0.021866,
        "false_negatives_kept_share": 0.0014144,
        "false_negatives_chosen_share": 0.0049737,
        "hardness_pool": 0.0333004,
        "hardness_chosen": 0.037704,
    },
}


def test_a_line_or_two_per_stage_with_thousands_separators() -> None:
    assert result_lines(METRICS) == [
        "  ingest     1,600 pairs read, 9 duplicates, 12 rejected, 2,345 items, 1,214 candidates",
        "  pool       1,588 queries, 79,400 pool members, 3 queries with a short pool",
        "  judge      80,988 pairs, 2 of them equal to others, 1,000 judged now, 79,986 from the store,",
        "             2 ERRORS; 541 pairs/s, 61.9% of prompt tokens reused",
        "  select     1,588 queries, 4,012 false negatives dropped (5.1%), 1,169 unjudged, 21 duplicated,",
        "             0 fallbacks, 1 skipped",
        "  truth      judge AUC 0.935, filter precision 0.800, recall 0.712 (against mini-MMEB's known truth)",
        "             true false negatives: 2.19% of the pool, 0.14% after the filter, 0.50% of the chosen",
        "             hardness (mean relevance of true negatives): 0.033 in the pool, 0.038 of the chosen",
    ]


def test_what_did_not_happen_is_not_told() -> None:
    nothing = {"duplicate_pairs": 0, "short_queries": 0, "unjudged": 0, "skipped_queries": 0, "queries": 5, "items": 7}
    lines = result_lines({"ingest": nothing, "pool": nothing, "select": nothing})
    assert lines == ["  ingest     7 items", "  pool       5 queries", "  select     5 queries"]


def test_how_much_a_strategy_of_judging_asked_is_told() -> None:
    figures = {
        "pairs": 154,
        "judged_now": 0,
        "from_store": 154,
        "judge_calls_per_query": 15.44,
        "judge_calls_share": 0.302,
    }
    line = " ".join(" ".join(result_lines({"judge": figures})).split())
    assert line.endswith("154 pairs, 0 judged now, 154 from the store, 15.4 calls per query, 30% of judging everything")


@pytest.mark.parametrize("value", [0, 1, 2, 1001])
def test_one_is_singular_and_every_other_number_plural(value: int) -> None:
    metrics = {stage: dict.fromkeys(numbers, value) for stage, numbers in METRICS.items()}
    metrics["judge"]["distinct_pairs"] = 0  # so that as many are equal to others
    s, ies, n = ("", "y", "1") if value == 1 else ("s", "ies", f"{value:,}")
    equal = f"{n} of them equal to {'another' if value == 1 else 'others'}"
    speed = [f"{n} pairs/s", f"{value:.1%} of prompt tokens reused"]
    expected = {
        "ingest": [f"{n} pair{s} read", f"{n} duplicate{s}", f"{n} rejected", f"{n} item{s}", f"{n} candidate{s}"],
        "pool": [f"{n} quer{ies}", f"{n} pool member{s}", f"{n} quer{ies} with a short pool"],
        "judge": [f"{n} pair{s}", equal, f"{n} judged now", f"{n} from the store", f"{n} ERROR{s.upper()}", *speed],
        "select": [f"{n} quer{ies}", f"{n} false negative{s} dropped ({value:.1%})", f"{n} unjudged",
                   f"{n} duplicated", f"{n} fallback{s}", f"{n} skipped"],
    }  # fmt: skip
    if value == 0:  # told only when there are any
        expected["ingest"].pop(1), expected["pool"].pop(2)
        expected["judge"], expected["select"] = [expected["judge"][i] for i in (0, 2, 3)], expected["select"][:2]
        expected["select"] += ["0 duplicated", "0 fallbacks"]
    text = " ".join(line.strip() for line in result_lines({stage: metrics[stage] for stage in expected}))
    told = " ".join(f"{stage:<10} {', '.join(parts)}" for stage, parts in expected.items())
    assert text.replace("; ", ", ") == told


def test_pairs_that_are_all_different_are_not_explained() -> None:
    assert result_lines({"judge": {"pairs": 7, "distinct_pairs": 7}}) == ["  judge      7 pairs"]
    assert result_lines({"judge": {"pairs": 7}}) == ["  judge      7 pairs"]


def test_what_of_the_truth_is_undefined_is_left_out() -> None:
    some = {"filter_recall": 0.5, "false_negatives_in_pool_share": 0.0, "false_negatives_chosen_share": 0.0}
    assert result_lines({"truth": some}) == [
        "  truth      filter recall 0.500 (against mini-MMEB's known truth)",
        "             true false negatives: 0.00% of the pool, 0.00% of the chosen",
    ]
    assert result_lines({"truth": {"hardness_chosen": 0.25}}) == [
        "  truth      hardness (mean relevance of true negatives): 0.250 of the chosen"
    ]


LARGE = {"pool": "TIGER-Lab/VLM2Vec-Qwen2VL-7B", "judge": "Qwen/Qwen2.5-VL-7B-Instruct"}
RAN = {"pool": {"queries": 1}, "judge": {"pairs": 1}}


def last(lines: list[str], label: str) -> str:
    """Return the text of a label's lines, "" if there are none."""
    text = "\n".join(lines)
    return " ".join(text.split(f"  {label:<11}")[1].split()) if f"  {label:<11}" in text else ""


@pytest.mark.parametrize(
    ("models", "told"),
    [
        (LARGE | {"pool": "models/tiny-embedder"}, "models/tiny-embedder is tiny, trained on synthetic drawings"),
        (LARGE | {"judge": "models/tiny-judge/"}, "models/tiny-judge/ is tiny, trained on synthetic drawings"),
        ({"pool": "someone/tiny-random-Qwen2VL", "judge": "/other/tiny-judge"}, ""),
        (LARGE | {"judge": "models/tiny/judge-7b"}, ""),
        (LARGE, ""),
    ],
)
def test_embedded_models_are_said_to_be_tiny_and_no_others(models: dict[str, str], told: str) -> None:
    assert last(result_lines(RAN, models), "models") == told
    assert last(result_lines(RAN, models), "WARNING") == ""


@pytest.mark.parametrize(
    ("stages", "models", "told"),
    [
        (
            ["pool", "judge", "select"],
            {"pool": "models/tiny-embedder", "judge": "models/tiny-judge"},
            "models/tiny-embedder and models/tiny-judge are tiny, trained on synthetic drawings, and not fit for real "
            "data; choose others with pool.model and judge.model",
        ),
        (
            ["pool", "judge"],
            LARGE | {"judge": "models/tiny-judge"},
            "models/tiny-judge is tiny, trained on synthetic drawings, and not fit for real data; choose another with "
            "judge.model",
        ),
        (
            ["pool"],
            {"pool": "models/tiny-embedder", "judge": "models/tiny-judge"},
            "models/tiny-embedder is tiny, trained on synthetic drawings, and not fit for real data; choose another "
            "with pool.model",
        ),
        (["ingest"], {"pool": "models/tiny-embedder", "judge": "models/tiny-judge"}, ""),
        (["pool", "judge", "select"], LARGE, ""),
    ],
)
def test_own_data_mined_with_embedded_models_are_warned_of(
    stages: list[str], models: dict[str, str], told: str
) -> None:
    lines = result_lines({stage: METRICS[stage] for stage in stages}, models, own_data=True)
    assert last(lines, "WARNING") == told
    assert last(lines, "models") == ""
    assert all(len(line) <= 100 for line in lines)


def test_nothing_is_invented() -> None:
    assert result_lines({}) == []
    assert result_lines({"judge": {"pairs": 10}}) == ["  judge      10 pairs"]
    assert result_lines({"truth": {"judge_auc": None}, "pool": {"queries": float("nan")}}) == []
    assert result_lines({"select": {"false_negative_share": 0.5}}) == []  # a share of an unknown number says nothing


def test_speed_is_not_told_when_all_came_from_the_store() -> None:
    judge = METRICS["judge"] | {"judged_now": 0, "errors": 0, "distinct_pairs": 80988}
    assert result_lines({"judge": judge}) == ["  judge      80,988 pairs, 0 judged now, 79,986 from the store"]


def test_paths_are_relative_where_one_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    places = {"gallery": tmp_path / "data/g.html", "Data Docs": Path("/elsewhere/i.html"), "MLflow": None}
    assert place_lines(places) == ["  gallery    data/g.html", "  Data Docs  /elsewhere/i.html"]


def test_measured_models_are_told_with_intervals_and_what_they_are_not():
    judge = {"auc/all": 0.975, "auc_low/all": 0.97, "auc_high/all": 0.98, "auc/vqa": 0.96, "auc/EasyVQA": 0.9}
    judge |= {"novel_auc/EmojiTwins": 0.5, "temperature": 0.8, "ece": 0.01, "ece_raw": 0.05}
    judge |= {"score_share_between_05_95": 0.4, "score_share_between_05_95_raw": 0.5}
    embedder = {"precision_at_1/all": 0.5, "precision_at_1_low/all": 0.4, "precision_at_1_high/all": 0.6}
    embedder |= {"precision_at_1/retrieval": 0.3, "compositional/swap": 0.5}
    lines = result_lines({"measure_judge": judge, "pretrain_embedder": embedder})
    assert lines == [
        "  judge      ROC AUC 0.975 (0.970 to 0.980); vqa 0.960",
        "             unseen classes EmojiTwins 0.500",
        "             calibration error 0.010 at temperature 0.800, 0.050 without;",
        "             40.0% of scores between .05 and .95, 50.0% without",
        "  embedder   Precision@1 0.500 (0.400 to 0.600); retrieval 0.300",
        "             compositional swap 0.500",
        "  models     tiny and trained on synthetic data: these figures say nothing of real models",
    ]


def test_a_rerankers_training_says_how_it_chooses_before_and_after():
    from unime_kedro.summary import result_lines

    metrics = {
        "steps": 600,
        "messages_per_second": 50.2,
        "peak_memory_gb": 0.77,
        "validation_listwise_accuracy": 0.268,
        "validation_listwise_accuracy_before": 0.144,
        "validation_listwise_chance": 1 / 6,
        "validation_pairwise_choice_accuracy": 0.99,
    }
    assert result_lines({"rerank": metrics}) == [
        "  rerank     600 steps, 50 messages/s, peak memory 0.8 GiB",
        "  held out   right by lists 0.268, 0.144 before training (chance 0.167); right by pairs 0.990",
    ]
    done = result_lines({"rerank": {"steps": 600, "reused": 1}})
    assert done == ["  rerank     600 steps: done before with the same data and parameters, nothing was trained"]


def test_an_approximate_index_says_what_it_found():
    recall = {"value": 0.98765, "low": 0.98, "high": 0.992}
    pool = {"queries": 5, "pool_rows": 50, "index": "ivf", "index_recall": recall}
    line = "  pool       5 queries, 50 pool members, ivf index found 98.8% of the exact pools (98.0% to 99.2%)"
    assert result_lines({"pool": pool}) == [line]
    assert result_lines({"pool": {"queries": 5, "index": "flat"}}) == ["  pool       5 queries"]
