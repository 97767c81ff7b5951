"""Held-out queries: shares worked by hand, what must hold for any table, and an embedder that knows the answers."""

from __future__ import annotations

import logging
from collections import Counter

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unime_kedro.errors import DataError
from unime_kedro.evaluation.embedders import evaluate_embedder
from unime_kedro.evaluation.held_out import choose_validation, held_out_sets

QUICK = settings(max_examples=60, deadline=None)


def held_by_dataset(datasets, mask) -> dict[str, int]:
    return dict(Counter(name for name, held in zip(datasets, mask, strict=True) if held))


# --- the choice ---


@pytest.mark.parametrize(
    ("sizes", "n", "expected"),
    [
        ({"a": 50, "b": 30, "c": 20}, 10, {"a": 5, "b": 3, "c": 2}),
        # shares 3.33 each: the remainders are equal, so that the first name gets the odd one
        ({"c": 10, "a": 10, "b": 10}, 10, {"a": 4, "b": 3, "c": 3}),
        # shares 6.25, 1.875, 1.875: the two larger remainders round up
        ({"a": 50, "b": 15, "c": 15}, 10, {"a": 6, "b": 2, "c": 2}),
        # shares 4.8 and .2; one query alone cannot be halved
        ({"a": 24, "b": 1}, 5, {"a": 5}),
        # shares 1.67, 1.67, 1.67, but of three queries only one may go: three in all
        ({"a": 3, "b": 3, "c": 3}, 5, {"a": 1, "b": 1, "c": 1}),
        ({"a": 7, "b": 4}, 1000, {"a": 3, "b": 2}),
        ({"a": 7, "b": 4}, 0, {}),
    ],
)
def test_shares_by_hand(sizes, n, expected):
    datasets = [name for name, size in sizes.items() for _ in range(size)]
    for seed in range(3):
        mask = choose_validation(datasets, range(len(datasets)), n=n, seed=seed)
        assert held_by_dataset(datasets, mask) == expected


@given(
    rows=st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 15)), max_size=60),
    n=st.integers(0, 40),
    seed=st.integers(0, 100),
    data=st.data(),
)
@QUICK
def test_what_holds_for_any_choice(rows, n, seed, data):
    datasets, items = [name for name, _ in rows], [item for _, item in rows]
    mask = choose_validation(datasets, items, n=n, seed=seed)
    assert mask.shape == (len(rows),)
    assert mask.sum() <= n
    # equal query items are on one side, whatever their data set
    sides = {(item, bool(held)) for item, held in zip(items, mask, strict=True)}
    assert len(sides) == len(set(items))
    for name, held in held_by_dataset(datasets, mask).items():
        size = datasets.count(name)
        assert held <= size // 2
        assert held < n * size / len(rows) + 1
    order = data.draw(st.permutations(range(len(rows))))
    again = choose_validation([datasets[i] for i in order], [items[i] for i in order], n=n, seed=seed)
    assert again.tolist() == mask[list(order)].tolist()


def test_a_large_group_is_passed_over_and_does_not_end_the_choice():
    # 60 rows of one query item in every order of hashes; 40 others
    items = [0] * 60 + list(range(1, 41))
    for seed in range(20):
        mask = choose_validation(["a"] * 100, items, n=30, seed=seed)
        assert mask.sum() == 30
        assert not mask[:60].any()


def test_seeds_differ_and_every_query_is_equally_likely():
    counts = np.zeros(40)
    for seed in range(600):
        counts += choose_validation(["a"] * 40, np.arange(40) * 7, n=10, seed=seed)
    # binomial(600, 1/4): mean 150, standard deviation 10.6
    assert counts.sum() == 6000
    assert abs(counts - 150).max() < 45
    assert counts.std() == pytest.approx(10.6, rel=0.4)


def test_rows_that_come_and_go_hardly_change_the_choice():
    names = np.repeat(["a", "b"], 500)
    before = choose_validation(names, range(1000), n=100, seed=1)
    kept = np.arange(1000) % 50 != 7  # twenty rows fewer
    after = choose_validation(names[kept], np.arange(1000)[kept], n=100, seed=1)
    assert (before[kept] & after).sum() >= 95


def test_what_cannot_be_chosen_from():
    for wrong in ((["a"], [1, 2], 1), ([["a"]], [[1]], 1), (["a"], [1], -1)):
        with pytest.raises(ValueError, match="expected n >= 0 and arrays of one length"):
            choose_validation(*wrong[:2], n=wrong[2], seed=0)
    assert choose_validation([], [], n=5, seed=0).shape == (0,)


# --- the sets ---


def table(rows) -> pl.DataFrame:
    schema = {"query_id": pl.Int64, "dataset": pl.String, "split": pl.String}
    return pl.DataFrame(rows, schema=schema | {"item_id": pl.Int64, "positive_item_id": pl.Int64}, orient="row")


def items_of(training: pl.DataFrame) -> pl.DataFrame:
    ids = sorted({*training["item_id"], *training["positive_item_id"]})
    return pl.DataFrame({"item_id": ids, "text": [f"item {i}" for i in ids], "image": [""] * len(ids)})


def test_a_set_by_hand():
    training = table(
        [
            (0, "a", "validation", 10, 20),
            (1, "a", "train", 11, 21),
            (2, "a", "train", 10, 22),  # another positive of the same query: not wrong
            (3, "a", "train", 12, 10),  # the query itself is somebody's positive: not a candidate
            (4, "b", "train", 13, 23),  # another data set
            (5, "a", "validation", 14, 21),
        ]
    )
    (found,) = held_out_sets(training, items_of(training), candidates=9, seed=0)
    assert found.dataset == "a"
    rows = {query: (content, candidates) for query, content, candidates in found.queries.iter_rows()}
    assert rows[0] == (10, [20, 21])
    assert rows[5][0] == 14
    assert rows[5][1][0] == 21
    assert sorted(rows[5][1][1:]) == [10, 20, 22]
    assert found.contents.rows() == [(i, f"item {i}", "") for i in (10, 14, 20, 21, 22)]


@given(
    rows=st.lists(
        st.tuples(st.sampled_from("ab"), st.booleans(), st.integers(0, 8), st.integers(4, 14)), min_size=1, max_size=30
    ),
    candidates=st.integers(2, 12),
    seed=st.integers(0, 50),
)
@QUICK
def test_candidates_against_a_slow_loop(rows, candidates, seed):
    training = table([(3 * i, d, "validation" if held else "train", q, p) for i, (d, held, q, p) in enumerate(rows)])
    found = {one.dataset: one for one in held_out_sets(training, items_of(training), candidates=candidates, seed=seed)}
    expected: dict[str, set[int]] = {}
    for i, (name, held, item, positive) in enumerate(rows):
        wrong = {p for d, _, _, p in rows if d == name} - {p for _, _, q, p in rows if q == item} - {item}
        if not held or not wrong:
            continue
        expected.setdefault(name, set()).add(3 * i)
        query = found[name].queries.row(by_predicate=pl.col("query_id") == 3 * i, named=True)
        assert query["content_id"] == item
        assert query["candidates"][0] == positive
        assert len(set(query["candidates"])) == len(query["candidates"]) == 1 + min(candidates - 1, len(wrong))
        assert set(query["candidates"][1:]) <= wrong
    assert {name: set(one.queries["query_id"]) for name, one in found.items()} == expected
    for one in found.values():
        mentioned = {*one.queries["content_id"], *one.queries["candidates"].explode()}
        assert one.contents["content_id"].to_list() == sorted(mentioned)


def corpus(n=200) -> pl.DataFrame:
    split = ["validation" if i % 4 == 0 else "train" for i in range(n)]
    return table([(i, "ab"[i % 2], split[i], i, 1000 + i % 50) for i in range(n)])


def test_the_order_of_rows_changes_nothing_and_the_seed_does():
    training = corpus()
    items = items_of(training)
    one, same = (
        held_out_sets(t, i, candidates=8, seed=3)
        for t, i in ((training, items), (training.reverse(), items.sample(fraction=1, shuffle=True, seed=1)))
    )
    other = held_out_sets(training, items, candidates=8, seed=4)
    assert [x.dataset for x in one] == ["a"]  # every fourth query is an even one
    assert one[0].queries.equals(same[0].queries)
    assert one[0].contents.equals(same[0].contents)
    assert not one[0].queries.equals(other[0].queries)


def test_wrong_candidates_are_equally_likely():
    training = table([(i, "a", "validation", i, 5000 + i % 20) for i in range(2000)])
    (found,) = held_out_sets(training, items_of(training), candidates=5, seed=0)
    counts = Counter(found.queries["candidates"].list.slice(1).explode().to_list())
    # 8,000 draws over 20 positives, each wrong for 1,900 of the queries: 400 each, standard deviation 18
    assert set(counts) == set(range(5000, 5020))
    assert max(abs(count - 400) for count in counts.values()) < 80
    # two queries of equal positive do not get the same candidates
    assert found.queries["candidates"].n_unique() > 1900


def test_an_embedder_that_knows_the_answers_is_always_right(tmp_path):
    training = corpus()
    sets = held_out_sets(training, items_of(training), candidates=10, seed=0)
    answer = {f"item {q}": f"item {p}" for q, p in training.select("item_id", "positive_item_id").iter_rows()}

    def embed(contents):
        names = sorted(set(answer.values()))
        return np.stack(
            [np.eye(len(names), dtype=np.float32)[names.index(answer.get(c.text, c.text))] for c in contents]
        )

    predictions = evaluate_embedder(sets, embed, tmp_path)
    assert predictions["correct"].to_list() == [True] * 50
    assert set(predictions["n_candidates"]) == {10}


def test_what_has_no_wrong_candidate_is_left_out_and_said(caplog):
    training = table(
        [
            (0, "one", "validation", 1, 9),
            (1, "one", "validation", 2, 9),
            (2, "two", "validation", 3, 8),
            (3, "two", "train", 4, 7),
            (4, "two", "train", 5, 8),
            (5, "two", "validation", 6, 7),
            (6, "two", "train", 6, 8),
        ]
    )
    with caplog.at_level(logging.WARNING):
        found = held_out_sets(training, items_of(training), candidates=3, seed=0)
    assert [(one.dataset, one.queries["query_id"].to_list()) for one in found] == [("two", [2])]
    assert "one: 2 of 2 held-out queries" in caplog.text
    assert "two: 1 of 2 held-out queries" in caplog.text
    assert held_out_sets(training.with_columns(split=pl.lit("train")), items_of(training), candidates=3, seed=0) == []


def test_tables_that_do_not_fit():
    training = corpus()
    items = items_of(training)
    for table_, items_, message in (
        (training.drop("split"), items, r"training has no column split; expected query_id, dataset, split"),
        (training, items.drop("image"), r"items has no column image"),
        (pl.concat([training, training[:1]]), items, r"training: query_id 0 occurs more than once"),
        (training, items.filter(pl.col("item_id") != 4), r"1 of \d+ items that held-out queries of a .* item_id 4\."),
    ):
        with pytest.raises(DataError, match=message):
            held_out_sets(table_, items_, candidates=30, seed=0)
    with pytest.raises(ValueError, match="candidates must be at least 2, is 1"):
        held_out_sets(training, items, candidates=1, seed=0)
