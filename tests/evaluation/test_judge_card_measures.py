"""Truth, bias towards Yes and filter rules of a small judged pool, by hand."""

from __future__ import annotations

import math

import polars as pl
import pytest

from unime_kedro.evaluation.agreement import Choice, Resampling
from unime_kedro.evaluation.judge_card import (
    BINS,
    calibration_curves,
    judged_pairs,
    measure_rules,
    measure_truth,
    measure_yes,
)

RESAMPLING = Resampling(0.95, 20, 0)
CHOICE = Choice("absolute", 0.01, n_negatives=2, step=1, seed=0)
NOTHING = pl.DataFrame(schema={"query_id": pl.Int64, "item_id": pl.Int64, "relevance": pl.Float32})


def logit(p: float, temperature: float = 2.0) -> float:
    return temperature * math.log(p / (1 - p))


QUERIES = pl.DataFrame(
    {"query_id": [0, 1], "meta_task": ["vqa", "retrieval"], "item_id": [0, 1], "positive_item_id": [2, 3]}
)
ITEMS = pl.DataFrame(
    {"item_id": range(6), "modality": ["image_text", "text", "text", "image_text", "text", "image_text"]}
)
# query, item, positive, score; the fourth of query 0 has none
ROWS = [
    (0, 2, True, 0.8), (0, 3, False, 0.6), (0, 4, False, 0.9), (0, 5, False, None),
    (1, 3, True, 0.4), (1, 2, False, 0.1), (1, 4, False, 0.6), (1, 5, False, 0.2),
]  # fmt: skip
SCORES = pl.DataFrame(
    [(q, i, p, None if s is None else logit(s), None if s is None else 0.0, s) for q, i, p, s in ROWS],
    schema={
        "query_id": pl.Int64, "item_id": pl.Int64, "is_positive": pl.Boolean, "yes_logit": pl.Float32,
        "no_logit": pl.Float32, "score": pl.Float32,
    },
    orient="row",
)  # fmt: skip
POOL = pl.DataFrame(
    {"query_id": [0, 0, 0, 1, 1, 1], "rank": [0, 1, 2, 0, 1, 2], "item_id": [3, 4, 5, 2, 4, 5]},
    schema_overrides={"rank": pl.Int32},
)
# (1, 5) is not known
TRUTH = pl.DataFrame(
    {
        "query_id": [0, 0, 0, 0, 1, 1, 1, 1],
        "item_id": [2, 3, 4, 5, 3, 2, 4, 5],
        "relevance": pl.Series([1.0, 0.5, 1.0, 1.0, 1.0, 0.0, 0.0, None], dtype=pl.Float32),
    }
)


@pytest.fixture(params=[False, True], ids=["in order", "shuffled"])
def judged(request: pytest.FixtureRequest) -> pl.DataFrame:
    scores = SCORES[[5, 2, 7, 0, 4, 6, 1, 3]] if request.param else SCORES
    return judged_pairs(scores, QUERIES, ITEMS, TRUTH)


def test_pairs_know_what_they_are(judged: pl.DataFrame) -> None:
    assert judged.select("query_id", "item_id", "modalities", "true").rows() == [
        (0, 2, "image_text to text", True), (0, 3, "image_text to image_text", False),
        (0, 4, "image_text to text", True),
        (1, 2, "text to text", False), (1, 3, "text to image_text", True), (1, 4, "text to text", False),
        (1, 5, "text to image_text", None),
    ]  # fmt: skip
    # at half the temperature's logits: .8 / .2 = 4 squared is 16 to 1
    assert judged["uncalibrated"][0] == pytest.approx(16 / 17)


def test_against_truth(judged: pl.DataFrame) -> None:
    found = measure_truth(judged, RESAMPLING)
    assert list(found) == ["all", "retrieval", "vqa"]
    # true .8, .9, .4 against .6, .1, .6: 3 + 3 + 1 of 9
    assert found["all"]["auc"]["value"] == pytest.approx(7 / 9)
    assert found["all"]["auc_pool"]["value"] == 1
    assert (found["all"]["pairs"], found["all"]["true_share"], found["all"]["auc"]["n"]) == (6, 0.5, 2)
    assert found["vqa"]["auc"]["value"] == 1
    assert found["retrieval"]["auc"]["value"] == 0.5
    assert "auc_pool" not in found["retrieval"]  # no true one in that pool
    # every score alone in its bin, but for the two .6, both wrong
    error = (0.2 + 0.1 + 0.6 + 0.1 + 2 * 0.6) / 6
    assert found["all"]["calibration_error"]["value"] == pytest.approx(error, abs=1e-6)
    odds = [16, 81, 4 / 9, 1 / 81, 2.25, 2.25]
    plain = [o / (1 + o) for o in odds]
    gaps = [1 - plain[0] + 1 - plain[1], 1 - plain[2], plain[3], plain[4] + plain[5]]  # the two surest share a bin
    assert found["all"]["calibration_error_uncalibrated"]["value"] == pytest.approx(sum(gaps) / 6, abs=1e-6)


def test_curves(judged: pl.DataFrame) -> None:
    curve = calibration_curves(judged)["calibrated"]
    assert sum(curve["pairs"]) == 6
    place = int(0.6 * BINS)
    assert (curve["pairs"][place], curve["positive_share"][place]) == (2, 0)
    assert curve["mean_score"][place] == pytest.approx(0.6)
    assert curve["mean_score"][3] is None


def test_without_truth_there_is_none() -> None:
    judged = judged_pairs(SCORES, QUERIES, ITEMS, NOTHING)
    assert measure_truth(judged, RESAMPLING) == {}
    assert calibration_curves(judged) == {}
    yes = measure_yes(judged)["all"]["all"]
    assert "pool_yes_share" in yes
    assert "pool_true_share" not in yes
    assert "precision" not in measure_rules(POOL, SCORES, NOTHING, CHOICE)["absolute"]


def test_yes(judged: pl.DataFrame) -> None:
    found = measure_yes(judged)
    everything = found["all"]["all"]
    assert (everything["positives"], everything["pool"]) == (2, 5)
    assert everything["positives_yes_share"] == 0.5
    assert everything["pool_yes_share"] == pytest.approx(3 / 5)
    assert everything["pool_true_share"] == pytest.approx(1 / 4)
    assert everything["pool_mean_score"] == pytest.approx((0.6 + 0.9 + 0.1 + 0.6 + 0.2) / 5)
    assert list(found["meta_task"]) == ["retrieval", "vqa"]
    assert found["meta_task"]["vqa"]["pool_yes_share"] == 1
    assert found["modalities"]["text to text"] == {
        "positives": 0, "pool": 2, "pool_mean_score": pytest.approx(0.35), "pool_yes_share": 0.5, "pool_true_share": 0,
    }  # fmt: skip


def test_rules() -> None:
    found = measure_rules(POOL, SCORES, TRUTH, CHOICE)
    assert list(found) == ["absolute", "relative", "percentage", "none"]
    absolute = found["absolute"]
    # (0, 4) above .79 and (1, 4) above .39; (0, 3) alone is left of two, its place is taken twice
    assert (absolute["dropped"], absolute["dropped_share"]) == (2, pytest.approx(2 / 5))
    assert (absolute["fallback_queries"], absolute["duplicated_queries"]) == (0, 1)
    # known: (0, 3) false, (0, 4) true and dropped, (1, 2) false, (1, 4) false and dropped
    assert (absolute["precision"], absolute["recall"], absolute["false_negatives_chosen"]) == (0.5, 1, 0)
    assert found["relative"] | {"margin": 0} == found["percentage"] | {"margin": 0}
    # nothing is dropped but the unjudged: query 0 samples 3 and 4
    none = found["none"]
    assert (none["dropped"], none["recall"], none["false_negatives_chosen"]) == (0, 0, 1)
    assert "precision" not in none


def test_a_margin_of_ones_own_is_a_row_of_its_own() -> None:
    found = measure_rules(POOL, SCORES, TRUTH, Choice("absolute", 0.7, 2, 1, 0))
    # above .1 in query 0: both; above -.3 in query 1: all
    assert (found["in_use"]["margin"], found["in_use"]["dropped"], found["in_use"]["fallback_queries"]) == (0.7, 5, 2)
    assert found["in_use"]["false_negatives_chosen"] == 0  # random ones are not chosen
    assert found["absolute"]["dropped"] == 2
