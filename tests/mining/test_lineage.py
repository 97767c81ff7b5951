"""Tables of different corpora are never joined."""

from __future__ import annotations

import polars as pl
import pytest

from unime_kedro.errors import DataError
from unime_kedro.mining.lineage import check_lineage, corpus_digest, table_digest

ITEMS = pl.DataFrame({"item_id": [0, 1, 2], "text": ["a", "b", "c"], "content_key": ["ka", "kb", "kc"]})
QUERIES = pl.DataFrame({"query_id": [0, 1], "item_id": [0, 1], "positive_item_id": [2, 2], "dataset": ["x", "x"]})


def test_digest_changes_with_any_value_name_order_or_type_and_with_nothing_else():
    frame = pl.DataFrame({"a": [1, 2], "s": ["x", "yz"], "b": [True, False]})
    digest = table_digest(frame)
    assert digest == table_digest(frame.clone())
    others = [
        frame.with_columns(a=pl.Series([1, 3])),
        frame.with_columns(s=pl.Series(["xy", "z"])),  # the same characters, cut elsewhere
        frame.with_columns(s=pl.Series(["x", None])),
        frame.with_columns(b=pl.Series([True, True])),
        frame.rename({"a": "c"}),
        frame.reverse(),
        frame.with_columns(pl.col("a").cast(pl.Int32)),
        frame.head(1),
    ]
    assert len({digest, *map(table_digest, others)}) == 1 + len(others)


def test_a_corpus_is_its_contents_and_pairs_in_any_row_order():
    digest = corpus_digest(ITEMS, QUERIES)
    assert corpus_digest(ITEMS.reverse(), QUERIES.reverse()) == digest
    assert corpus_digest(ITEMS.with_columns(content_key=pl.Series(["ka", "kb", "kd"])), QUERIES) != digest
    assert corpus_digest(ITEMS, QUERIES.with_columns(positive_item_id=pl.Series([2, 1]))) != digest


def test_a_stale_table_is_named_with_what_to_do():
    check_lineage({"corpus": "a", "pool": "b"}, {"corpus": "a"}, "pool.parquet", "kedro run")
    with pytest.raises(DataError, match=r"pool\.parquet was made from another corpus .*kedro run --pipelines=pool"):
        check_lineage({"corpus": "a"}, {"corpus": "z"}, "pool.parquet", "kedro run --pipelines=pool")
