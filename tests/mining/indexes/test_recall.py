import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unime_kedro.mining.indexes.recall import recall_per_query, recall_with_interval, sample_queries


def test_per_query_by_hand():
    exact = pl.DataFrame({"query_id": [7, 7, 7, 2, 2], "item_id": [1, 2, 3, 1, 5]})
    pool = pl.DataFrame({"query_id": [2, 7, 7, 9], "item_id": [5, 3, 8, 1], "rank": [0, 0, 1, 0]})
    assert recall_per_query(pool, exact).tolist() == [0.5, pytest.approx(1 / 3)]
    assert recall_per_query(pool[:0], exact).tolist() == [0, 0]


@given(st.integers(0, 10**6))
@settings(max_examples=20, deadline=None)
def test_per_query_against_sets(seed):
    rng = np.random.default_rng(seed)
    tables = [
        pl.DataFrame({"query_id": rng.integers(0, 6, 40), "item_id": rng.integers(0, 9, 40)}).unique() for _ in range(2)
    ]
    pool, exact = (set(table.rows()) for table in tables)
    expected = [
        len({row for row in exact & pool if row[0] == query}) / len({row for row in exact if row[0] == query})
        for query in sorted({row[0] for row in exact})
    ]
    assert recall_per_query(*tables).tolist() == pytest.approx(expected)


class TestInterval:
    def test_answers_that_are_right_or_wrong_have_wilsons_interval(self):
        from scipy.stats import binomtest

        shares = np.repeat([0.0, 1.0], [20, 180])
        found = recall_with_interval(shares)
        # the variance is an estimate from n - 1, so that there are 199 answers' worth
        expected = binomtest(180, 200).proportion_ci(method="wilson")
        assert found["value"] == 0.9
        assert (found["low"], found["high"]) == pytest.approx((expected.low, expected.high), abs=2e-4)

    def test_nothing_missed_is_not_certainty(self):
        found = recall_with_interval(np.ones(100))
        assert found == {"value": 1.0, "low": pytest.approx(1 / (1 + 1.959964**2 / 100)), "high": 1.0}

    def test_pools_that_are_alike_are_more_certain_than_single_answers(self):
        alike, single = recall_with_interval(np.full(50, 0.9)), recall_with_interval(np.tile([1, 1, 1, 1, 0.5], 10))
        single_answers = recall_with_interval(np.repeat([0.0, 1.0], [5, 45]))
        assert single["high"] - single["low"] < single_answers["high"] - single_answers["low"]
        assert alike["low"] < 0.9 < alike["high"]

    def test_holds_the_truth_as_often_as_it_says(self):
        """Pools of 50 whose members are found with a chance that differs between queries."""
        rng, held = np.random.default_rng(0), 0
        for _ in range(400):
            chance = rng.beta(18, 2, 300)  # mean .9
            found = recall_with_interval(rng.binomial(50, chance) / 50)
            held += found["low"] <= 0.9 <= found["high"]
        assert 0.92 <= held / 400 <= 0.98


class TestSample:
    def test_does_not_depend_on_the_order_of_rows(self):
        queries = pl.DataFrame({"query_id": np.random.default_rng(0).permutation(500), "item_id": range(500)})
        chosen = set(sample_queries(queries, 40, seed=3)["query_id"])
        assert len(chosen) == 40
        assert set(sample_queries(queries.sort("query_id"), 40, seed=3)["query_id"]) == chosen
        assert set(sample_queries(queries, 40, seed=4)["query_id"]) != chosen
        assert len(sample_queries(queries, 900, seed=3)) == 500
