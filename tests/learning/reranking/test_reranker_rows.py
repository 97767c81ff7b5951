"""What the reranker is asked: three messages per query, the positive's place uniform, whatever the order of the rows."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from unime_kedro.errors import DataError
from unime_kedro.learning.reranking.rows import RerankingRows, draw_list, listwise_message, messages_of
from unime_kedro.mining.training import SCHEMA

TABLE = pl.DataFrame(
    [
        (7, "b", "train", 70, 71, 0.9, [72, 73, 74], [0.6, 0.5, 0.1]),
        (3, "a", "train", 30, 31, 0.9, [32], [0.6]),
        (5, "a", "validation", 50, 51, 0.9, [52, 53], [0.6, 0.5]),
    ],
    schema=SCHEMA,
    orient="row",
)


def test_rows_are_those_of_a_split_by_query_id():
    rows = RerankingRows.from_table(TABLE, "train")
    assert rows.query_ids.tolist() == [3, 7]
    assert (rows.item_ids.tolist(), rows.positive_item_ids.tolist()) == ([30, 70], [31, 71])
    assert rows.negative_item_ids == [[32], [72, 73, 74]]
    assert RerankingRows.from_table(TABLE, "validation").query_ids.tolist() == [5]


def test_three_messages_per_query():
    rows = RerankingRows.from_table(TABLE, "train")
    yes, no, listed = messages_of(rows, 1, epoch=0, seed=1, fewest=3)
    assert yes == (70, (71,), "Yes", False)
    assert no == (70, (72,), "No", False)  # the hardest
    place = listed.candidates.index(71)
    assert (listed.query, listed.listwise, listed.answer) == (70, True, f"Ans: ({place + 1})")
    assert [item for item in listed.candidates if item != 71] == [72, 73, 74]


@pytest.mark.parametrize(("place", "candidates"), [(0, (1, 5, 6)), (1, (5, 1, 6)), (2, (5, 6, 1))])
def test_the_answer_is_the_place_of_the_positive(place, candidates):
    assert listwise_message(9, 1, [5, 6], place) == (9, candidates, f"Ans: ({place + 1})", True)


def chi_square(counts: np.ndarray) -> float:
    expected = counts.sum() / len(counts)
    return float(((counts - expected) ** 2 / expected).sum())


def test_every_place_is_as_likely():
    # the release: .32/.32/.20/.11/.05/.00 of the answers are 1 to 6. Chi-square with 5 degrees of freedom is above
    # 20.5 in one of a thousand draws; the release's shares give 6,000 * (sum of share^2 * 6 - 1) = 3,300
    places = [draw_list(query, 5, epoch=0, seed=42, fewest=5)[1] for query in range(6000)]
    counts = np.bincount(places, minlength=6)
    assert len(counts) == 6
    assert chi_square(counts) < 20.5
    # of one query over epochs, too
    places = [draw_list(17, 5, epoch=epoch, seed=42, fewest=5)[1] for epoch in range(6000)]
    assert chi_square(np.bincount(places, minlength=6)) < 20.5


def test_every_place_is_as_likely_in_lists_of_every_length():
    drawn = np.array([draw_list(query, 5, epoch=3, seed=0, fewest=2) for query in range(12000)])
    lengths = np.bincount(drawn[:, 0])
    assert lengths[:2].tolist() == [0, 0]
    assert chi_square(lengths[2:]) < 16.3  # 3 degrees of freedom, one of a thousand
    for length, limit in ((2, 13.8), (3, 16.3), (4, 18.5), (5, 20.5)):
        places = np.bincount(drawn[drawn[:, 0] == length, 1], minlength=length + 1)
        assert len(places) == length + 1
        assert chi_square(places) < limit


def test_seed_epoch_and_query_each_change_the_draw():
    draws = {
        (seed, epoch): tuple(draw_list(query, 5, epoch=epoch, seed=seed, fewest=5)[1] for query in range(50))
        for seed in range(3)
        for epoch in range(3)
    }
    assert len(set(draws.values())) == 9


@given(st.permutations(range(3)), st.integers(0, 5))
def test_messages_do_not_depend_on_the_order_of_rows(order, epoch):
    expected, found = (RerankingRows.from_table(t, "train") for t in (TABLE, TABLE[order]))
    for row in range(2):
        one, other = (messages_of(rows, row, epoch=epoch, seed=2, fewest=1) for rows in (expected, found))
        assert one == other


def test_what_cannot_be_asked_is_named():
    with pytest.raises(DataError, match="there are no training queries"):
        RerankingRows.from_table(TABLE.filter(pl.col("split") != "train"), "train")
    assert len(RerankingRows.from_table(TABLE.filter(pl.col("split") == "train"), "validation")) == 0
    empty = TABLE.with_columns(negative_item_ids=pl.lit([], dtype=pl.List(pl.Int64)))
    with pytest.raises(DataError, match="query_id 3 has no negatives"):
        RerankingRows.from_table(empty, "train")
