"""Training queries as arrays, and the order in which they come."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from unime_kedro.errors import DataError
from unime_kedro.learning.rows import TrainingRows, batch_order
from unime_kedro.mining.training import SCHEMA


def table(**changes) -> pl.DataFrame:
    rows = {
        "query_id": [7, 3, 5],
        "dataset": ["a", "a", "b"],
        "split": ["train", "train", "validation"],
        "item_id": [70, 30, 50],
        "positive_item_id": [71, 31, 51],
        "positive_score": [0.9, 0.8, 0.7],
        "negative_item_ids": [[72, 73, 74], [32, 33, 34], [52, 53, 54]],
        "negative_scores": [[0.1, 0.2, 0.3], [0.4, 0.5, 0.6], [0.0, 0.0, 0.0]],
    }
    return pl.DataFrame(rows | changes, schema=SCHEMA)


def test_rows_of_split_train_by_query_id_with_the_first_negatives():
    rows = TrainingRows.from_table(table(), 2)
    assert rows.query_ids.tolist() == [3, 7]
    assert rows.item_ids.tolist() == [[30, 31, 32, 33], [70, 71, 72, 73]]
    np.testing.assert_allclose(rows.scores, [[0.8, 0.4, 0.5], [0.9, 0.1, 0.2]])
    assert (rows.item_ids.dtype, rows.scores.dtype) == (np.int64, np.float32)


def test_a_loss_without_negatives_has_none():
    rows = TrainingRows.from_table(table(), 0)
    assert rows.item_ids.tolist() == [[30, 31], [70, 71]]
    assert rows.scores.shape == (2, 1)


def test_too_few_negatives_name_the_query():
    with pytest.raises(DataError, match="query_id 3 has 3 negatives, 4 are to be used"):
        TrainingRows.from_table(table(), 4)


def test_nothing_to_train_on_is_an_error():
    with pytest.raises(DataError, match="no training queries"):
        TrainingRows.from_table(table(split=["validation"] * 3), 1)


@given(n=st.integers(1, 40), batch=st.integers(1, 12), steps=st.integers(1, 30), seed=st.integers(0, 5))
def test_every_epoch_sees_every_row_at_most_once_and_no_batch_a_row_twice(n, batch, steps, seed):
    if n < batch:
        with pytest.raises(DataError, match=f"{batch}"):
            batch_order(n, batch=batch, steps=steps, seed=seed)
        return
    order = batch_order(n, batch=batch, steps=steps, seed=seed)
    assert order.shape == (steps, batch)
    assert order.min() >= 0
    assert order.max() < n
    per_epoch = n // batch
    for start in range(0, steps, per_epoch):
        epoch = order[start : start + per_epoch].ravel()
        assert len(set(epoch.tolist())) == len(epoch)
        if len(epoch) == per_epoch * batch:  # a whole epoch leaves out less than one batch
            assert n - len(epoch) < batch


def test_more_steps_only_add_to_the_order_and_seeds_differ():
    short, long = (batch_order(50, batch=8, steps=steps, seed=3) for steps in (4, 20))
    np.testing.assert_array_equal(short, long[:4])
    assert (batch_order(50, batch=8, steps=4, seed=4) != short).any()
    assert (long[:6] != long[6:12]).any()  # epochs are different permutations
