"""Known truth: Jaccard relevance against sets, and mining metrics worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from unime_kedro.errors import DataError
from unime_kedro.evaluation.truth import distinct_pairs, measure_mining, relevance_of_pairs

CONTENT_SCHEMA = {"text": pl.String, "image": pl.String, "modality_out": pl.String, "objects": pl.List(pl.Int64)}
WANT_SCHEMA = {"text": pl.String, "image": pl.String, "want_modality": pl.String, "want_objects": pl.List(pl.Int64)}


def world(contents, wants):
    """Build one item per content and per query; query i is item ``len(contents) + i``."""
    texts = [f"content {i}" for i in range(len(contents))] + [f"query {i}" for i in range(len(wants))]
    images = [f"c/{i}.png" if m == "image" else "" for i, (m, _) in enumerate(contents)] + [""] * len(wants)
    items = pl.DataFrame({"item_id": range(len(texts)), "text": texts, "image": images})
    queries = pl.DataFrame({"query_id": range(len(wants)), "item_id": range(len(contents), len(texts))})
    n = len(contents)
    content_table = pl.DataFrame(
        [(texts[i], images[i], m, list(o)) for i, (m, o) in enumerate(contents)], CONTENT_SCHEMA, orient="row"
    )
    want_table = pl.DataFrame(
        [(texts[n + i], "", m, list(o)) for i, (m, o) in enumerate(wants)], WANT_SCHEMA, orient="row"
    )
    return queries, items, content_table, want_table


def all_pairs(n_queries, n_items):
    q, c = np.divmod(np.arange(n_queries * n_items), n_items)
    return pl.DataFrame({"query_id": q, "item_id": c})


def slow_relevance(content, want):
    (modality, objects), (want_modality, want_objects) = content, want
    if modality != want_modality:
        return 0.0
    either = set(objects) | set(want_objects)
    return len(set(objects) & set(want_objects)) / len(either) if either else None


def test_relevance_by_hand():
    contents = [("image", [1, 2, 3]), ("image", [2, 1]), ("image", [9]), ("text", [1, 2, 3]), ("image", [3, 2, 1, 7])]
    queries, items, content_table, want_table = world(contents, [("image", [3, 2, 1])])
    got = relevance_of_pairs(all_pairs(1, 5), queries, items, content_table, want_table)
    expected = pl.DataFrame(
        {"query_id": [0] * 5, "item_id": range(5), "relevance": pl.Series([1, 2 / 3, 0, 0, 3 / 4], dtype=pl.Float32)}
    )
    assert_frame_equal(got, expected)


def test_relevance_keeps_order_and_repetitions_and_leaves_the_unknown_null():
    queries, items, contents, wants = world([("text", [1]), ("text", [2])], [("text", [1]), ("text", [2])])
    contents, wants = contents.head(1), wants.head(1)  # item 1 and query 1 have no truth
    pairs = pl.DataFrame({"query_id": [1, 0, 0, 0, 1], "item_id": [1, 0, 1, 0, 0], "rank": range(5)})
    got = relevance_of_pairs(pairs, queries, items, contents, wants)
    assert got.columns == ["query_id", "item_id", "relevance"]
    assert got.schema["relevance"] == pl.Float32
    assert got.rows() == [(1, 1, None), (0, 0, 1.0), (0, 1, None), (0, 0, 1.0), (1, 0, None)]


def test_relevance_of_two_empty_sets_is_unknown():
    queries, items, contents, wants = world([("text", []), ("text", [4]), ("image", [])], [("text", [])])
    got = relevance_of_pairs(all_pairs(1, 3), queries, items, contents, wants)
    assert got["relevance"].to_list() == [None, 0.0, 0.0]


def test_the_image_is_part_of_the_key():
    """MMEB gives every picture the same text; only the path tells them apart."""
    items = pl.DataFrame({"item_id": [0, 1, 2], "text": ["look", "look", "q"], "image": ["a.png", "b.png", ""]})
    contents = pl.DataFrame(
        [("look", "a.png", "image", [1]), ("look", "b.png", "image", [2])], CONTENT_SCHEMA, orient="row"
    )
    wants = pl.DataFrame([("q", None, "image", [2, 2])], WANT_SCHEMA, orient="row")
    queries = pl.DataFrame({"query_id": [0], "item_id": [2]})
    got = relevance_of_pairs(all_pairs(1, 2), queries, items, contents, wants)
    assert got["relevance"].to_list() == [0.0, 1.0]


def test_contradicting_truth_is_an_error_and_repeated_truth_is_not():
    queries, items, contents, wants = world([("text", [1, 2])], [("text", [2, 1])])
    again = contents.with_columns(objects=pl.Series([[2, 1, 1]]))
    assert relevance_of_pairs(all_pairs(1, 1), queries, items, pl.concat([contents, again]), wants).item(0, 2) == 1
    other = contents.with_columns(objects=pl.Series([[1]]))
    with pytest.raises(DataError, match="'contents': text 'content 0' with image ''"):
        relevance_of_pairs(all_pairs(1, 1), queries, items, pl.concat([contents, other]), wants)


OBJECTS = st.lists(st.integers(0, 200).map(lambda i: 7 * i - 300), max_size=6)
SIDE = st.lists(st.tuples(st.sampled_from(["text", "image"]), OBJECTS), min_size=1, max_size=6)


@settings(deadline=None, max_examples=60)
@given(SIDE, SIDE, st.randoms(use_true_random=False))
def test_relevance_equals_sets(contents, wants, random):
    queries, items, content_table, want_table = world(contents, wants)
    pairs = all_pairs(len(wants), len(contents)).sample(fraction=1, shuffle=True, seed=random.randint(0, 99))
    got = relevance_of_pairs(pairs, queries, items, content_table, want_table)
    slow = [slow_relevance(contents[c], wants[q]) for q, c in pairs.rows()]
    assert got["relevance"].to_list() == [None if r is None else pytest.approx(r, abs=1e-7) for r in slow]


def test_relevance_over_many_classes_and_blocks(monkeypatch):
    rng = np.random.default_rng(0)
    contents = [("image", rng.choice(1000, size=rng.integers(1, 40), replace=False).tolist()) for _ in range(60)]
    wants = [("image", contents[i][1][: 1 + i % 7]) for i in range(30)] + [("image", contents[3][1])]
    tables = world(contents, wants)
    pairs = all_pairs(31, 60)
    got = relevance_of_pairs(pairs, *tables)
    slow = [slow_relevance(contents[c], wants[q]) for q, c in pairs.rows()]
    np.testing.assert_allclose(got["relevance"].to_numpy(), slow, atol=1e-7)
    assert got.filter(pl.col("query_id") == 30, pl.col("item_id") == 3)["relevance"].item() == 1
    monkeypatch.setattr("unime_kedro.evaluation.truth._BLOCK", 7)
    assert_frame_equal(relevance_of_pairs(pairs, *tables), got)


@pytest.fixture
def mined():
    """Three queries of two meta-tasks; query 1 fell back, query 2's positive was not judged."""
    queries = pl.DataFrame({"query_id": [0, 1, 2], "meta_task": ["retrieval", "vqa", "vqa"]})
    pool = pl.DataFrame({"query_id": [0] * 5 + [1] * 2 + [2], "item_id": [10, 11, 12, 13, 14, 10, 11, 10]})
    scores = [
        (0, 9, True, 0.9), (0, 10, False, 0.95), (0, 11, False, 0.8), (0, 12, False, 0.2), (0, 13, False, 0.92),
        (1, 8, True, 0.5), (1, 10, False, 0.99), (1, 11, False, 0.6), (2, 10, False, 0.02),
    ]  # fmt: skip
    judge_scores = pl.DataFrame(
        scores,
        {"query_id": pl.Int64, "item_id": pl.Int64, "is_positive": pl.Boolean, "score": pl.Float32},
        orient="row",
    )
    selection = pl.DataFrame(
        {
            "query_id": [0, 1, 2],
            "threshold": pl.Series([0.89, 0.49, None], dtype=pl.Float32),
            "kept": [2, 0, 0],
        }
    )
    negatives = pl.DataFrame(
        [(0, 11, "sampled"), (0, 12, "sampled"), (0, 11, "duplicate"), (1, 10, "fallback"), (1, 11, "fallback")],
        ["query_id", "item_id", "origin"],
        orient="row",
    )
    relevance = [
        (0, 9, 1), (0, 10, 1), (0, 11, 1), (0, 12, 0.25), (0, 13, 0.5), (0, 14, 1),
        (1, 8, 1), (1, 10, 1), (1, 11, 0), (2, 10, None),
    ]  # fmt: skip
    truth = pl.DataFrame(relevance, {"query_id": pl.Int64, "item_id": pl.Int64, "relevance": pl.Float32}, orient="row")
    return truth, judge_scores, pool, negatives, selection, queries


def test_measure_mining_by_hand(mined):
    metrics = measure_mining(*mined)
    # 8 judged pairs have a truth; true: .9 .95 .8 .5 .99, not: .2 .92 .6
    # wins of the true: .9 -> 2, .95 -> 3, .8 -> 2, .5 -> 1, .99 -> 3: 11 of 15
    assert metrics.pop("judge_auc") == pytest.approx(11 / 15)
    # pool only: true .95 .8 .99, not .2 .92 .6: 3 + 2 + 3 of 9
    assert metrics.pop("judge_auc_pool") == pytest.approx(8 / 9)
    assert metrics.pop("judge_auc/retrieval") == pytest.approx((1 + 2 + 1) / 6)  # true .9 .95 .8, not .2 .92
    assert metrics.pop("judge_auc/vqa") == pytest.approx(1 / 2)  # true .5 .99, not .6
    assert metrics.pop("truth_pairs") == 9
    assert metrics.pop("truth_missing_pairs") == 1
    # ranks of the scores .2 .5 .6 .8 .9 .92 .95 .99: 1..8; of their relevance .25 1 0 1 1 .5 1 1: 2 6 1 6 6 3 6 6
    score_rank, truth_rank = np.arange(1, 9), np.array([2, 6, 1, 6, 6, 3, 6, 6])
    assert metrics.pop("judge_spearman") == pytest.approx(np.corrcoef(score_rank, truth_rank)[0, 1])
    # bins of 1/15: .2 -> 3, .5 -> 7, .6 -> 9, .8 -> 12, (.9, .92) -> 13, (.95, .99) -> 14
    ece = (0.2 + 0.5 + 0.6 + 0.2 + abs(0.9 + 0.92 - 1) + abs(0.95 + 0.99 - 2)) / 8
    assert metrics.pop("ece") == pytest.approx(ece, abs=1e-6)
    assert metrics.pop("score_share_between_05_95") == pytest.approx(6 / 8)  # .95 itself is not between
    # pool members with a truth: 7; true: items 10, 11, 14 of query 0 and 10 of query 1
    assert metrics.pop("false_negatives_in_pool") == 4
    assert metrics.pop("false_negatives_in_pool_share") == pytest.approx(4 / 7)
    # dropped: .95 and .92 of query 0, .99 and .6 of query 1; two of the four are true; item 14 was not judged
    assert metrics.pop("filter_precision") == pytest.approx(2 / 4)
    assert metrics.pop("filter_recall") == pytest.approx(2 / 3)
    assert metrics.pop("false_negatives_kept_share") == pytest.approx(1 / 2)
    # item 11 of query 0; its duplicate and the fallbacks of query 1 do not count
    assert metrics.pop("false_negatives_chosen") == 1
    assert metrics.pop("false_negatives_chosen_share") == pytest.approx(1 / 2)
    assert metrics.pop("hardness_pool") == pytest.approx((0.25 + 0.5 + 0) / 3)
    assert metrics.pop("hardness_chosen") == pytest.approx(0.25)
    # query 0: 10, 11, 14 of 5 members are true, .95 and .92 are dropped, 10 and 11 are the true and judged
    assert metrics.pop("false_negatives_in_pool_share/retrieval") == pytest.approx(3 / 5)
    assert metrics.pop("filter_precision/retrieval") == pytest.approx(1 / 2)
    assert metrics.pop("filter_recall/retrieval") == pytest.approx(1 / 2)
    assert metrics.pop("false_negatives_kept_share/retrieval") == pytest.approx(1 / 2)
    assert metrics.pop("false_negatives_chosen_share/retrieval") == pytest.approx(1 / 2)
    # query 1: 10 of two members is true, both are dropped; nothing kept, nothing sampled
    assert metrics.pop("false_negatives_in_pool_share/vqa") == pytest.approx(1 / 2)
    assert metrics.pop("filter_precision/vqa") == pytest.approx(1 / 2)
    assert metrics.pop("filter_recall/vqa") == 1
    assert metrics == {}


def share(values):
    return sum(values) / len(values) if values else None


def slow_filter_metrics(truth, judge_scores, pool, negatives, selection, tasks):
    """The metrics of filter and choice, one pool member at a time; ``tasks``: the queries that count."""
    relevance = {(q, i): r for q, i, r in truth.rows() if r is not None}
    score = {(q, i): s for q, i, positive, s in judge_scores.rows() if not positive and s is not None}
    fate = {q: (threshold, kept) for q, threshold, kept in selection.rows()}
    in_pool, dropped, caught, kept_ones, hard = [], [], [], [], []
    for q, i in pool.rows():
        if q not in tasks or (q, i) not in relevance:
            continue
        true = relevance[q, i] == 1
        in_pool.append(true)
        if not true:
            hard.append(relevance[q, i])
        if (q, i) not in score:
            continue
        threshold, kept = fate[q]
        drop = threshold is not None and score[q, i] > threshold
        if drop:
            dropped.append(true)
        if true:
            caught.append(drop)
        if not drop and kept > 0:
            kept_ones.append(true)
    chosen = [
        relevance[q, i]
        for q, i, origin in negatives.rows()
        if origin == "sampled" and q in tasks and (q, i) in relevance
    ]
    found = {
        "false_negatives_in_pool_share": share(in_pool),
        "filter_precision": share(dropped),
        "filter_recall": share(caught),
        "false_negatives_kept_share": share(kept_ones),
        "false_negatives_chosen_share": share([r == 1 for r in chosen]),
    }
    totals = {
        "false_negatives_in_pool": sum(in_pool),
        "false_negatives_chosen": sum(r == 1 for r in chosen),
        "hardness_pool": share(hard),
        "hardness_chosen": share([r for r in chosen if r < 1]),
    }
    return found, totals


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10**6))
def test_filter_and_choice_equal_a_slow_loop_over_all_and_within_each_meta_task(seed):
    rng = np.random.default_rng(seed)
    n, items = int(rng.integers(1, 6)), 6
    queries = pl.DataFrame(
        {"query_id": range(n), "meta_task": rng.choice(["vqa", "retrieval", "classification"], n)},
        {"query_id": pl.Int64, "meta_task": pl.String},
    )
    ids = {"query_id": pl.Int64, "item_id": pl.Int64}
    members = [(q, i) for q in range(n) for i in range(items) if rng.random() < 0.8]
    score = {pair: [None, 0.1, 0.4, 0.5, 0.9][rng.integers(5)] for pair in members}
    scores = [(q, 99, True, 0.5) for q in range(n)] + [(q, i, False, s) for (q, i), s in score.items()]
    threshold = {q: [None, 0.4, 0.5][rng.integers(3)] for q in range(n)}
    selection = [(q, threshold[q], int(rng.integers(2))) for q in range(n)]
    chosen = [(*pair, str(rng.choice(["sampled", "duplicate", "fallback"]))) for pair in members if rng.random() < 0.5]
    truth = [(q, i, [None, 0.0, 0.25, 1.0, 1.0][rng.integers(5)]) for q in range(n) for i in (*range(items), 99)]
    tables = (
        pl.DataFrame(truth, {**ids, "relevance": pl.Float32}, orient="row"),
        pl.DataFrame(scores, {**ids, "is_positive": pl.Boolean, "score": pl.Float64}, orient="row"),
        pl.DataFrame(members, ids, orient="row"),
        pl.DataFrame(chosen, {**ids, "origin": pl.String}, orient="row"),
        pl.DataFrame(selection, {"query_id": pl.Int64, "threshold": pl.Float64, "kept": pl.Int64}, orient="row"),
    )
    shares, totals = slow_filter_metrics(*tables, tasks=set(range(n)))
    expected = shares | totals
    for task in queries["meta_task"].unique():
        those = set(queries.filter(pl.col("meta_task") == task)["query_id"])
        expected |= {f"{name}/{task}": value for name, value in slow_filter_metrics(*tables, tasks=those)[0].items()}
    got = measure_mining(*tables, queries)
    assert {name: got[name] for name in got if name.startswith(("filter", "false", "hardness"))} == {
        name: pytest.approx(value, abs=1e-6) for name, value in expected.items() if value is not None
    }


def test_measure_mining_does_not_depend_on_row_order(mined):
    shuffled = [table.sample(fraction=1, shuffle=True, seed=5) for table in mined]
    assert measure_mining(*shuffled) == measure_mining(*mined)


def test_unknown_truth_leaves_metrics_out_but_is_counted(mined):
    truth, *tables = mined
    nothing = truth.with_columns(relevance=pl.lit(None, dtype=pl.Float32))
    assert measure_mining(nothing, *tables) == {
        "truth_pairs": 0,
        "truth_missing_pairs": 10,
        "false_negatives_in_pool": 0,
        "false_negatives_chosen": 0,
    }


def test_a_query_without_threshold_that_kept_its_pool_counts_as_kept(mined):
    """Rule "none": no threshold, nothing dropped, everything judged is kept."""
    truth, judge_scores, pool, negatives, selection, queries = mined
    selection = selection.with_columns(threshold=pl.lit(None, dtype=pl.Float32), kept=pl.Series([4, 2, 1]))
    metrics = measure_mining(truth, judge_scores, pool, negatives, selection, queries)
    assert metrics["false_negatives_kept_share"] == pytest.approx(3 / 6)
    assert "filter_precision" not in metrics
    assert metrics["filter_recall"] == 0


def test_a_query_whose_positive_was_not_judged_keeps_nothing(mined):
    truth, *tables = mined
    known = truth.with_columns(pl.col("relevance").fill_null(1.0))  # query 2 kept none of its one true member
    assert measure_mining(known, *tables)["false_negatives_kept_share"] == pytest.approx(1 / 2)


def test_a_score_at_the_threshold_is_kept(mined):
    truth, judge_scores, pool, negatives, selection, queries = mined
    selection = selection.with_columns(threshold=pl.Series([0.8, 0.49, None], dtype=pl.Float32))
    metrics = measure_mining(truth, judge_scores, pool, negatives, selection, queries)
    assert metrics["false_negatives_kept_share"] == pytest.approx(1 / 2)


def test_distinct_pairs_of_tables():
    first = pl.DataFrame({"query_id": [1, 0], "item_id": [3, 9], "score": [0.1, 0.2]})
    second = pl.DataFrame({"rank": [0, 1], "item_id": [3, 4], "query_id": [1, 1]})
    assert distinct_pairs(first, second).rows() == [(0, 9), (1, 3), (1, 4)]


def test_no_metric_is_nan(mined):
    assert not any(math.isnan(value) for value in measure_mining(*mined).values())
