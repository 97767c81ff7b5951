"""The helper columns, against a slow way of computing them."""

from __future__ import annotations

from collections import Counter

import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from unime_kedro.quality.suite import in_order, position, previous, repeats, with_occurrences

small = st.one_of(st.none(), st.integers(-2, 3))
rows = st.lists(st.tuples(small, small), max_size=25)
SCHEMA = {"group": pl.Int64, "place": pl.Int64}


def _frame(pairs: list[tuple[int | None, int | None]]) -> pl.DataFrame:
    return pl.DataFrame(pairs, schema=SCHEMA, orient="row")


def _equal_to_none(pair: tuple[int | None, int | None]) -> bool:
    return None in pair


@given(rows)
@settings(max_examples=150, deadline=None)
def test_repeats_and_occurrences(pairs: list[tuple[int | None, int | None]]) -> None:
    frame = _frame(pairs)
    earlier = [pair in pairs[:i] and not _equal_to_none(pair) for i, pair in enumerate(pairs)]
    assert repeats(frame, "group", "place").to_list() == earlier

    counts = Counter(pairs)
    expected = [1 if _equal_to_none(pair) else counts[pair] for pair in pairs]
    counted = with_occurrences(frame, "n", "group", "place")
    assert counted["n"].to_list() == expected
    assert counted.drop("n").equals(frame)


@given(rows)
@settings(max_examples=150, deadline=None)
def test_order_position_and_previous(pairs: list[tuple[int | None, int | None]]) -> None:
    ordered = in_order(_frame(pairs), "group", "place")
    wanted = sorted(pairs, key=lambda pair: [(value is None, value or 0) for value in pair])
    assert ordered.rows() == wanted

    found = ordered.select(position=position("group"), previous=previous("place", "group"))
    for i, (group, _) in enumerate(wanted):
        before = [place for other, place in wanted[:i] if other == group]
        if group is None:
            assert found.row(i) == (None, None)
        else:
            assert found.row(i) == (len(before), before[-1] if before else None)


def test_a_table_in_order_is_not_copied() -> None:
    frame = _frame([(0, 0), (0, 1), (0, 1), (2, 0)])
    assert in_order(frame, "group", "place") is frame
