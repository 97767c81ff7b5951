"""Margins, their defaults, and the warning when a filter leaves too little."""

from __future__ import annotations

import logging
import subprocess
import sys
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from pydantic import ValidationError

from unime_kedro.mining.lineage import corpus_digest, table_digest
from unime_kedro.parameters import DemoParameters, FilterParameters, SelectParameters
from unime_kedro.pipelines.select.nodes import measure, select
from unime_kedro.pipelines.select.pipeline import create_pipeline


@pytest.mark.parametrize(
    ("rule", "margin", "effective"),
    [
        ("absolute", None, 0.01),
        ("relative", None, 0.05),
        ("percentage", None, 0.95),
        ("none", None, 0.0),
        ("absolute", 0.2, 0.2),
        ("relative", 0.0, 0.0),
        ("percentage", 1, 1.0),
        ("none", 0.3, 0.3),
    ],
)
def test_a_margin_is_the_one_given_or_the_rules_own(rule: Any, margin: float | None, effective: float) -> None:
    assert FilterParameters(rule=rule, margin=margin).effective_margin == effective


@pytest.mark.parametrize(
    ("rule", "margin", "told"),
    [
        ("percentage", 0.0, "margin 0.0 is out of range for rule 'percentage': expected 0 < margin <= 1"),
        ("relative", 1.0, "margin 1.0 is out of range for rule 'relative': expected 0 <= margin < 1"),
    ],
)
def test_a_margin_without_a_meaning_is_refused_with_the_parameters(rule: Any, margin: float, told: str) -> None:
    with pytest.raises(ValidationError) as caught:
        FilterParameters(rule=rule, margin=margin)
    (error,) = caught.value.errors()
    assert error["loc"] == ("margin",)
    assert error["msg"].startswith(told)


def test_a_negative_number_of_pairs_is_refused() -> None:
    sizes = {"train_pairs": {"EmojiObjects": -1}, "eval_queries": {"EmojiCrops": -2}}
    with pytest.raises(ValidationError) as caught:
        DemoParameters(root="x", seed=1, eval_candidates=2, **sizes)
    places = [error["loc"] for error in caught.value.errors()]
    assert {("train_pairs", "EmojiObjects"), ("eval_queries", "EmojiCrops")} <= set(places)


def test_parameters_stay_light() -> None:
    script = "import unime_kedro.parameters, sys; print(sorted({'polars', 'numpy', 'torch'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_skipped_is_saved_before_selection_which_is_checked_against_it() -> None:
    (node,) = [node for node in create_pipeline().nodes if "negatives" in node.outputs]
    assert node.outputs[:3] == ["skipped", "selection", "negatives"]


def test_nothing_that_mines_reads_the_truth() -> None:
    """Pool, scores and negatives are made from nodes that see neither the truth nor the relevance made from it."""
    from unime_kedro.pipeline_registry import register_pipelines

    mine = register_pipelines()["mine"]
    mining = mine.to_outputs("pool", "judge_scores", "selection", "negatives", "mined")
    read = {name for node in mining.nodes for name in node.inputs}
    assert {"pool", "judge_scores", "negatives"} <= read  # it is the mining that is looked at
    assert not {name for name in read if "truth" in name or "relevance" in name}
    of_truth = {node.name.split("(")[0].split("__")[0] for node in mine.nodes if "corpus_truth" in node.inputs}
    of_relevance = {node.name.split("(")[0].split("__")[0] for node in mine.nodes if "pool_relevance" in node.inputs}
    assert (of_truth, of_relevance) == ({"measure"}, {"show"})


def _truth_tables() -> dict[str, pl.DataFrame]:
    """One query that asks for object 1 in words, and three candidates: that, another, and one the truth lacks."""
    texts = ["find one", "one", "two", "three"]
    return {
        "queries": pl.DataFrame({"query_id": [0], "meta_task": ["retrieval"], "item_id": [0]}),
        "items": pl.DataFrame({"item_id": range(4), "text": texts, "image": [""] * 4}),
        "pool": pl.DataFrame({"query_id": [0, 0], "item_id": [2, 3]}),
        "judge_scores": pl.DataFrame(
            {"query_id": [0] * 3, "item_id": [1, 2, 3], "is_positive": [True, False, False], "score": [0.9, 0.1, 0.2]}
        ),
        "negatives": pl.DataFrame({"query_id": [0], "item_id": [2], "origin": ["sampled"]}),
        "selection": pl.DataFrame({"query_id": [0], "threshold": [0.89], "kept": [2]}),
    }


def test_relevance_of_every_pool_pair_and_positive_is_made_for_the_catalog() -> None:
    objects = {"objects": [[1], [2]]}
    truth = {
        "contents": pl.DataFrame({"text": ["one", "two"], "image": ["", ""], "modality_out": ["text"] * 2, **objects}),
        "wants": pl.DataFrame({"text": ["find one"], "image": [""], "want_modality": ["text"], "want_objects": [[1]]}),
    }
    relevance, metrics = measure(**_truth_tables(), corpus_truth=truth)
    assert relevance.rows() == [(0, 1, 1.0), (0, 2, 0.0), (0, 3, None)]
    assert relevance.schema == {"query_id": pl.Int64, "item_id": pl.Int64, "relevance": pl.Float32}
    assert (metrics["truth_pairs"], metrics["truth_missing_pairs"]) == (2, 1)


@pytest.mark.parametrize("truth", ["none", "of another corpus"])
def test_without_a_truth_the_table_is_there_and_empty(truth: str) -> None:
    other = {
        "contents": pl.DataFrame({"text": ["x"], "image": [""], "modality_out": ["text"], "objects": [[1]]}),
        "wants": pl.DataFrame({"text": ["y"], "image": [""], "want_modality": ["text"], "want_objects": [[1]]}),
    }
    relevance, metrics = measure(**_truth_tables(), corpus_truth={} if truth == "none" else other)
    assert relevance.is_empty()
    assert relevance.columns == ["query_id", "item_id", "relevance"]
    assert metrics == {}


def test_relevance_is_kept_below_the_data_root() -> None:
    import yaml

    entry = yaml.safe_load((Path(__file__).parents[2] / "conf/base/catalog/select.yml").read_text())["pool_relevance"]
    assert entry["type"] == "unime_kedro.io.ParquetTable"
    assert entry["filepath"] == "${globals:data_root}/03_primary/pool_relevance.parquet"


def _run(fallbacks: int, **rule: Any) -> tuple[pl.DataFrame, ...]:
    """Select for 20 queries with one pool member each, scored .5; the positives of some score only .4."""
    n = 20
    ids = pl.int_range(n, eager=True)
    queries = pl.DataFrame({"query_id": ids, "dataset": ["D"] * n, "item_id": ids, "positive_item_id": ids + n})
    items = pl.DataFrame({"item_id": range(2 * n + 1), "content_key": [f"k{i}" for i in range(2 * n + 1)]})
    pool = pl.DataFrame({"query_id": ids, "rank": [0] * n, "item_id": [2 * n] * n}).cast({"rank": pl.Int32})
    positives = [0.4 if i < fallbacks else 0.9 for i in range(n)]
    rows = {"query_id": [*ids, *ids], "item_id": [*(ids + n), *[2 * n] * n], "is_positive": [True] * n + [False] * n}
    scores = pl.DataFrame(rows | {"score": [*positives, *[0.5] * n]}, schema_overrides={"score": pl.Float32})
    origin = {
        "corpus": corpus_digest(items, queries),
        "pool": table_digest(pool),
        "judge_scores": table_digest(scores),
    }
    parameters = SelectParameters(negatives=2, step=5, seed=1, filter=FilterParameters(**rule), gallery_queries=0)
    return select(pool, scores, origin, pl.DataFrame(), items, queries, parameters)[:3]


def test_many_fallbacks_are_told_with_rule_and_margin(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        skipped, selection, negatives = _run(2, rule="absolute", margin=None)
    assert "10.0 % of the queries keep no candidate under rule absolute with margin 0.01" in caplog.text
    assert (skipped.height, selection.height, negatives.height) == (0, 20, 40)
    assert selection["outcome"].value_counts(sort=True).rows() == [("duplicated", 18), ("fallback", 2)]


def test_a_few_fallbacks_are_not_worth_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        _run(1, rule="absolute", margin=None)  # 5 % are allowed
    assert caplog.text == ""


def test_percentage_alone_keeps_what_is_clearly_below_the_positive(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        _, selection, _ = _run(0, rule="percentage", margin=None)
    # .95 of .9 = .855; a margin of .01 would have dropped the .5 of every query
    assert selection["threshold"].to_list() == pytest.approx([0.855] * 20)
    assert selection["kept"].to_list() == [1] * 20
    assert caplog.text == ""
