"""Summaries of predictions, by hand and against intervals computed apart."""

from __future__ import annotations

import zlib

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unime_kedro.errors import DataError
from unime_kedro.evaluation.statistics import bootstrap_draws, share_interval
from unime_kedro.evaluation.summaries import SUMMARY_SCHEMA, summarise

GROUPS = {"VizWiz": "vqa", "GQA": "vqa", "CIRR": "retrieval"}


def rows(**correct):
    """Data set -> (right answers as a string of 0 and 1, candidates per query)."""
    return pl.DataFrame(
        [(name, i, answer == "1", n) for name, (answers, n) in correct.items() for i, answer in enumerate(answers)],
        schema={"dataset": pl.String, "query_id": pl.Int64, "correct": pl.Boolean, "n_candidates": pl.Int64},
        orient="row",
    )


PREDICTIONS = rows(VizWiz=("1101", 10), GQA=("10" * 10, 4), CIRR=("000001", 5), Mine=("11", 2))


def test_by_hand():
    found = summarise(PREDICTIONS, GROUPS)
    assert found.schema == SUMMARY_SCHEMA
    assert found.drop("low", "high", "value", "chance").rows() == [
        ("dataset", "CIRR", "retrieval", 1, 6, 6),
        ("dataset", "Mine", "unknown", 1, 2, 2),
        ("dataset", "GQA", "vqa", 1, 20, 20),
        ("dataset", "VizWiz", "vqa", 1, 4, 4),
        ("group", "retrieval", "retrieval", 1, 6, 6),
        ("group", "unknown", "unknown", 1, 2, 2),
        ("group", "vqa", "vqa", 2, 24, 24),
        ("all", "all", None, 4, 32, 32),
    ]
    # macro means: (.5 + .75) / 2, and (1/6 + 1 + .5 + .75) / 4
    values = [1 / 6, 1, 0.5, 0.75, 1 / 6, 1, 0.625, (1 / 6 + 2.25) / 4]
    assert found["value"].to_list() == pytest.approx(values, abs=1e-15)
    chance = [0.2, 0.5, 0.25, 0.1, 0.2, 0.5, 0.175, 1.05 / 4]
    assert found["chance"].to_list() == pytest.approx(chance, abs=1e-15)
    assert (found["low"] <= found["value"]).all()
    assert (found["value"] <= found["high"]).all()


def test_chance_is_the_mean_over_queries():
    some = rows(GQA=("11", 2)).with_columns(n_candidates=pl.Series([2, 10]))
    assert summarise(some, GROUPS)["chance"].to_list() == pytest.approx([0.3] * 3)
    given_chance = some.with_columns(chance=pl.Series([0.5, 0.7]))
    assert summarise(given_chance, GROUPS)["chance"].to_list() == pytest.approx([0.6] * 3)
    assert summarise(some.drop("n_candidates"), GROUPS)["chance"].to_list() == [None] * 3


def test_intervals_are_those_of_each_data_set_alone():
    found = summarise(PREDICTIONS, GROUPS, level=0.8, resamples=500, seed=9)
    for name in ("CIRR", "GQA", "VizWiz"):
        correct, query = PREDICTIONS.filter(dataset=name).select("correct", "query_id").to_numpy().T
        draws = bootstrap_draws("mean", correct, groups=query, resamples=500, seed=[9, zlib.crc32(name.encode())])
        alone = share_interval(float(correct.mean()), draws, 0.8, len(correct))
        row = found.filter(kind="dataset", name=name).select("value", "low", "high", "n_units").row(0)
        assert row == alone
    assert found.filter(kind="group", name="retrieval").row(0)[4:] == found.filter(name="CIRR").row(0)[4:]


def test_a_macro_mean_resamples_within_its_data_sets():
    # two data sets of 400 queries: variance of the mean of two shares is (.25 / 400) * 2 / 4
    found = summarise(rows(A=("01" * 200, 2), B=("01" * 200, 2)), {}, resamples=4000).row(-1, named=True)
    deviation = (0.25 / 400 / 2) ** 0.5
    assert found["high"] - found["low"] == pytest.approx(2 * 1.96 * deviation, rel=0.06)
    # data sets that differ widely do not widen it: which data sets there are is given
    apart = summarise(rows(A=("0" * 400, 2), B=("1" * 400, 2)), {}).row(-1, named=True)
    # 0 of 400 could still be .0095, 400 of 400 as little less than 1 (Wilson); half of either is .00475
    assert (apart["value"], apart["low"], apart["high"]) == pytest.approx((0.5, 0.5 - 0.00476, 0.5 + 0.00476), abs=1e-4)


def test_units_are_resampled_whole():
    some = rows(GQA=("1111100000" * 20, 2)).with_columns(image=pl.format("{}.png", pl.col("query_id") // 5))
    by_query, by_image = summarise(some, {}), summarise(some, {}, unit="image")
    assert by_image["n_units"].to_list() == [40] * 3
    assert by_image["n_queries"].to_list() == [200] * 3
    wide, narrow = ((t["high"] - t["low"])[0] for t in (by_image, by_query))
    assert wide / narrow == pytest.approx(5**0.5, rel=0.2)


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 1000))
def test_row_order_and_other_data_sets_do_not_matter(seed):
    expected = summarise(PREDICTIONS, GROUPS, resamples=50)
    shuffled = PREDICTIONS.sample(fraction=1, shuffle=True, seed=seed)
    assert summarise(shuffled, GROUPS, resamples=50).equals(expected)
    without = PREDICTIONS.filter(pl.col("dataset") != "Mine")
    assert summarise(without, GROUPS, resamples=50).row(0) == expected.row(0)
    assert (summarise(PREDICTIONS, GROUPS, resamples=50, seed=1)["low"] != expected["low"]).any()


def test_what_cannot_be_summarised():
    with pytest.raises(ValueError, match="no predictions"):
        summarise(PREDICTIONS.clear(), GROUPS)
    with pytest.raises(DataError, match="predictions lack correct, image; they have dataset, query_id"):
        summarise(PREDICTIONS.drop("correct"), GROUPS, unit="image")
    with pytest.raises(DataError, match="1 predictions have no correct"):
        summarise(PREDICTIONS.with_columns(correct=pl.when(query_id=19).then(None).otherwise("correct")), GROUPS)


def test_the_interval_holds_the_truth():
    truth, held = 0.7, 0
    for seed in range(60):
        answers = "".join(np.random.default_rng(seed).choice(["0", "1"], p=[0.3, 0.7], size=100))
        row = summarise(rows(A=(answers, 2)), {}, seed=seed).row(0, named=True)
        held += row["low"] <= truth <= row["high"]
    assert held >= 52  # 57 of 60 on average; below 52 one time in a hundred
