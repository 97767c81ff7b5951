"""Two scorings of the same pairs, compared by hand and with slow loops."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unime_kedro.errors import DataError
from unime_kedro.evaluation.agreement import Choice, Resampling, cohens_kappa, compare_scorings, defined

CHOICE = Choice("absolute", 0.01, n_negatives=2, step=1, seed=0)
RESAMPLING = Resampling(0.95, 50, 0)


def test_kappa_of_a_table_by_hand() -> None:
    # 20 times both yes, 5 yes/no, 10 no/yes, 15 both no: p_o = .7, p_e = .5 * .6 + .5 * .4 = .5
    first = [True] * 25 + [False] * 25
    second = [True] * 20 + [False] * 5 + [True] * 10 + [False] * 15
    assert cohens_kappa(first, second) == pytest.approx(0.4)
    assert cohens_kappa(second, first) == pytest.approx(0.4)
    assert cohens_kappa(first, first) == 1
    assert cohens_kappa([True, False], [False, True]) == -1
    assert cohens_kappa([True, True], [True, False]) == 0  # chance alone agrees on half
    assert math.isnan(cohens_kappa([True, True], [True, True]))
    assert math.isnan(cohens_kappa([], []))
    with pytest.raises(ValueError, match=r"shape \(1,\)"):
        cohens_kappa([True], [True, False])


def scores(*rows: tuple[int, int, bool, float | None]) -> pl.DataFrame:
    schema = {"query_id": pl.Int64, "item_id": pl.Int64, "is_positive": pl.Boolean, "score": pl.Float32}
    return pl.DataFrame(rows, schema=schema, orient="row")


def pool(*rows: tuple[int, int, int]) -> pl.DataFrame:
    return pl.DataFrame(rows, schema={"query_id": pl.Int64, "rank": pl.Int32, "item_id": pl.Int64}, orient="row")


FIRST = scores(
    (0, 10, True, 0.9), (0, 1, False, 0.95), (0, 2, False, 0.2), (0, 3, False, 0.1), (0, 4, False, 0.3),
    (1, 11, True, 0.6), (1, 1, False, 0.1), (1, 2, False, 0.7), (1, 5, False, None),
)  # fmt: skip
SECOND = scores(
    (0, 10, True, 0.9), (0, 1, False, 0.85), (0, 2, False, 0.2), (0, 3, False, 0.1), (0, 4, False, 0.95),
    (1, 11, True, 0.8), (1, 1, False, 0.1), (1, 2, False, 0.7), (1, 5, False, 0.4),
)  # fmt: skip
POOL = pool((0, 0, 1), (0, 1, 2), (0, 2, 3), (0, 3, 4), (1, 0, 1), (1, 1, 2), (1, 2, 5))


def test_measures_by_hand() -> None:
    found = compare_scorings(FIRST, SECOND, POOL, CHOICE, RESAMPLING)
    assert (found["pairs"], found["unpaired"], found["pool_members"]) == (8, 1, 6)
    assert found["largest_difference"] == pytest.approx(0.65)
    assert found["mean_difference"] == pytest.approx((0.1 + 0.65 + 0.2) / 8)
    assert found["mean_shift"]["value"] == pytest.approx((-0.1 + 0.65 + 0.2) / 8)
    # Yes: first 10, 1, 11 and (1, 2); second these and (0, 4)
    assert found["yes_share"] == 5 / 8
    assert found["kappa"] == pytest.approx((7 / 8 - 0.5) / 0.5)  # p_e = .5 * 5/8 + .5 * 3/8
    # dropped by the first: (0, 1), (1, 2); by the second: (0, 4)
    assert found["decisions_flipped"]["value"] == pytest.approx(3 / 6)
    assert found["decisions_flipped"]["n"] == 2
    assert found["dropped_share"] == pytest.approx(1 / 6)
    # two of the kept in retrieval order: first {2, 3} and {1, 1 again}, second {1, 2} and {1, 2}
    assert found["negatives_kept"] == pytest.approx(2 / 3)
    # second: .9 above .85, .2, .1, .1, .7, not above .95; .8 above all but .85 and .95
    assert found["auc_positives"]["value"] == pytest.approx(9 / 12)
    assert "auc" not in found


def test_truth_adds_an_auc_of_the_second() -> None:
    truth = [(0, 10, 1.0), (0, 4, 0.5), (0, 2, 1.0), (1, 11, 1.0), (1, 1, None), (1, 2, 0.0), (9, 9, 1.0)]
    relevance = pl.DataFrame(truth, schema=["query_id", "item_id", "relevance"], orient="row")
    found = compare_scorings(FIRST, SECOND, POOL, CHOICE, RESAMPLING, relevance)
    assert found["auc"]["value"] == pytest.approx(2 / 6)  # .9, .2, .8 against .95, .7


def test_a_fallback_is_not_a_choice() -> None:
    nothing_left = scores((0, 10, True, 0.1), (0, 1, False, 0.5), (0, 2, False, 0.5))
    all_left = scores((0, 10, True, 0.9), (0, 1, False, 0.5), (0, 2, False, 0.5))
    both = pool((0, 0, 1), (0, 1, 2))
    assert compare_scorings(all_left, nothing_left, both, CHOICE, RESAMPLING)["negatives_kept"] == 0
    assert "negatives_kept" not in compare_scorings(nothing_left, all_left, both, CHOICE, RESAMPLING)


def test_nothing_in_common_is_an_error() -> None:
    with pytest.raises(DataError, match="no pair in common"):
        compare_scorings(FIRST, scores((7, 7, False, 0.5)), POOL, CHOICE, RESAMPLING)


def test_what_is_undefined_is_left_out() -> None:
    assert defined({"a": float("nan"), "b": 1.0, "c": {"value": float("nan")}, "d": 0}) == {"b": 1.0, "d": 0}


@st.composite
def two_scorings(draw: st.DrawFn) -> tuple[pl.DataFrame, pl.DataFrame, pl.DataFrame]:
    """Return two full scorings of one to four queries with up to five members, and their pool."""
    score = st.sampled_from([0.05, 0.3, 0.5, 0.51, 0.52, 0.9])
    one, other, members = [], [], []
    for query in range(draw(st.integers(1, 4))):
        n = draw(st.integers(1, 5))
        for item in range(-1, n):
            one.append((query, item, item < 0, draw(score)))
            other.append((query, item, item < 0, draw(score)))
        members += [(query, rank, rank) for rank in range(n)]
    return scores(*one), scores(*other), pool(*members)


@given(two_scorings(), st.sampled_from(["absolute", "percentage", "none"]), st.randoms(use_true_random=False))
@settings(max_examples=50)
def test_flips_as_a_slow_loop_counts_them_in_any_row_order(tables, rule, random) -> None:
    first, second, members = tables
    choice = replace(CHOICE, rule=rule, margin={"absolute": 0.01, "percentage": 0.95, "none": 0.0}[rule])
    limit = {
        "absolute": lambda s: np.float32(s - 0.01), "percentage": lambda s: np.float32(s * 0.95),
        "none": lambda s: np.inf,
    }[rule]  # fmt: skip
    flips = []
    both = [{(q, i): s for q, i, _, s in table.rows()} for table in (first, second)]
    for query, _, item in members.rows():
        dropped = [found[query, item] > limit(found[query, -1]) for found in both]
        flips.append(dropped[0] != dropped[1])
    order = list(range(first.height))
    random.shuffle(order)
    found = compare_scorings(first, second[order], members, choice, RESAMPLING)
    assert found["decisions_flipped"]["value"] == pytest.approx(np.mean(flips))
    assert found == compare_scorings(first[order], second, members, choice, RESAMPLING)
    same = compare_scorings(first, first, members, choice, RESAMPLING)
    assert same["largest_difference"] == same["decisions_flipped"]["value"] == 0
    assert same.get("negatives_kept", 1) == 1
