"""Reordering an embedder's first candidates, against lists made by hand and a slow loop."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unime_kedro.errors import ConfigurationError, DataError
from unime_kedro.evaluation.reranking import _CHUNK, predictions_after, rerank_top
from unime_kedro.evaluation.scoring import PREDICTIONS_SCHEMA, TOP_SCHEMA, score_tasks
from unime_kedro.evaluation.tasks import OwnCandidates
from unime_kedro.mllm.reranker import Choice, Reranker

ROOT = Path("/pictures")


class Oracle:
    """Answers by the candidates' words alone, and notes what it was asked."""

    def __init__(self, likes=(), *, broken=(), says=None) -> None:
        self.likes, self.broken, self.says = {word: -i for i, word in enumerate(likes)}, set(broken), says
        self.prompts, self.expected, self.truncated, self.decodings = [], [], 5, set()

    def expect(self, contents):
        self.expected = list(contents)

    def value(self, candidate):
        return self.likes.get(candidate.text, -99)

    def choose(self, prompts, decoding="constrained"):
        self.prompts += prompts
        self.decodings.add(decoding)
        return [self.choice(query, candidates) for query, candidates in prompts]

    def choice(self, query, candidates):
        if query.text in self.broken:
            return Choice(None, "", math.nan, "out of memory")
        if self.says is not None:
            number = self.says if self.says <= len(candidates) else None
            return Choice(number, f"({self.says})", 1.0)
        values = [self.value(c) for c in candidates]
        return Choice(None if max(values) == -99 else values.index(max(values)) + 1, "", 1.0)

    def scores(self, query, candidates):
        self.prompts.append((query, candidates))
        self.truncated += 1
        if query.text in self.broken:
            return np.full(len(candidates), np.nan)
        return 1 / (1 + np.exp(-np.array([float(self.value(c)) for c in candidates])))


def tables(*queries, dataset="D", right=0):
    """Tables of queries, each (words, candidates' words in the embedder's order[, similarities])."""
    words = list(dict.fromkeys(w for query, shown, *_ in queries for w in (query, *shown)))
    ids = {word: 100 + i for i, word in enumerate(words)}
    contents = pl.DataFrame(
        {"dataset": [dataset] * len(ids), "content_id": list(ids.values()), "text": words, "image": [""] * len(ids)}
    )
    asked = pl.DataFrame(
        {
            "dataset": [dataset] * len(queries),
            "query_id": range(len(queries)),
            "content_id": [ids[query] for query, *_ in queries],
        },
        schema_overrides={"query_id": pl.Int64},
    )
    rows = []
    for number, (_, shown, *similarities) in enumerate(queries):
        given_ = similarities[0] if similarities else np.linspace(0.9, 0.1, len(shown))
        rows += [
            (dataset, number, position, 10 * position, ids[word], similarity, position == right)
            for position, (word, similarity) in enumerate(zip(shown, given_, strict=True))
        ]
    return pl.DataFrame(rows, schema=TOP_SCHEMA, orient="row"), asked, contents


def order_of(table, query_id=0):
    """Old positions in the new order."""
    return table.filter(pl.col("query_id") == query_id).sort("reranked_position")["position"].to_list()


def test_the_chosen_candidate_moves_to_the_front_and_the_others_keep_their_order():
    top, queries, contents = tables(("q", ["a", "b", "c", "d"]), ("r", ["c", "a"]), ("s", ["x", "y"]))
    found, counts = rerank_top(top, queries, contents, Oracle(["c"]), ROOT, method="listwise")
    assert [order_of(found, i) for i in range(3)] == [[2, 0, 1, 3], [0, 1], [0, 1]]
    assert found.columns == [*TOP_SCHEMA, "reranked_position"]
    assert found["reranked_position"].dtype == pl.Int32
    assert found.drop("reranked_position").equals(top)
    seconds = counts.pop("seconds")
    assert seconds >= 0
    assert counts == {
        "queries": 3,
        "prompts": 3,
        "single": 0,
        "nan": 0,
        "unparsable": 1,
        "failed": 0,
        "moved": 1,
        "truncated": 0,
    }


def test_scores_order_all_candidates_and_equal_ones_stay():
    top, queries, contents = tables(("q", ["x", "b", "y", "a", "z"]), ("r", ["y", "x"]))
    found, counts = rerank_top(top, queries, contents, Oracle(["a", "b"]), ROOT, method="pairwise")
    assert order_of(found) == [3, 1, 0, 2, 4]
    assert order_of(found, 1) == [0, 1]
    scores = found.filter(pl.col("query_id") == 0)["score"].to_list()
    np.testing.assert_allclose(scores, [1 / (1 + math.exp(-v)) for v in (-99, -1, -99, 0, -99)])
    assert (counts["moved"], counts["unparsable"], counts["truncated"]) == (1, 0, 2)


def test_scores_too_close_for_float32_are_told_apart():
    top, queries, contents = tables(("q", ["a", "b", "c"]))
    oracle = Oracle()
    oracle.scores = lambda query, candidates: np.array([1 - 3e-12, 1 - 2e-12, 1 - 1e-12])
    assert order_of(rerank_top(top, queries, contents, oracle, ROOT, method="pairwise")[0]) == [2, 1, 0]


@pytest.mark.parametrize("method", ["listwise", "pairwise"])
def test_what_fails_stays_as_it_is_and_is_counted(method, caplog):
    top, queries, contents = tables(("q", ["a", "b"]), ("bad", ["a", "b"]))
    found, counts = rerank_top(top, queries, contents, Oracle(["b"], broken=["bad"]), ROOT, method=method)
    assert [order_of(found, i) for i in range(2)] == [[1, 0], [0, 1]]
    assert (counts["failed"], counts["unparsable"], counts["moved"]) == (1, 0, 1)
    assert "query_id 1 of D" in caplog.text
    if method == "pairwise":
        assert found.filter(pl.col("query_id") == 1)["score"].null_count() == 2


@pytest.mark.parametrize("method", ["listwise", "pairwise"])
def test_single_candidates_and_queries_with_a_nan_are_not_asked(method):
    top, queries, contents = tables(
        ("q", ["a"]), ("r", ["a", "b"], [0.5, math.nan]), ("s", ["a", "b"]), ("t", ["a"], [math.nan])
    )
    oracle = Oracle(["b"])
    found, counts = rerank_top(top, queries, contents, oracle, ROOT, method=method)
    assert [order_of(found, i) for i in range(4)] == [[0], [0, 1], [1, 0], [0]]
    assert [query.text for query, _ in oracle.prompts] == ["s"]
    assert {key: counts[key] for key in ("queries", "prompts", "single", "nan", "moved")} == {
        "queries": 4,
        "prompts": 1,
        "single": 1,
        "nan": 2,
        "moved": 1,
    }


def test_equal_prompts_are_asked_once_whatever_their_ids_and_data_set():
    one = tables(("q", ["a", "b"]), ("q", ["b", "a"]), ("q", ["a", "b"]))
    two = tables(("z", ["a", "z"]), ("q", ["a", "b"]), dataset="E")
    top, queries, contents = (pl.concat(pair) for pair in zip(one, two, strict=True))
    oracle = Oracle(["b"])
    found, counts = rerank_top(top, queries, contents, oracle, ROOT, method="listwise")
    shown = sorted((query.text, [c.text for c in candidates]) for query, candidates in oracle.prompts)
    assert shown == [("q", ["a", "b"]), ("q", ["b", "a"]), ("z", ["a", "z"])]
    assert counts["prompts"] == 3
    firsts = found.filter(pl.col("reranked_position") == 0).sort("dataset", "query_id")["position"].to_list()
    assert firsts == [1, 0, 1, 0, 1]
    assert [c.text for c in oracle.expected] == [
        w for query, c in oracle.prompts for w in (query.text, *(x.text for x in c))
    ]


def test_pictures_and_decoding_reach_the_model():
    top, queries, contents = tables(("q", ["a", "b"]))
    contents = contents.with_columns(image=pl.when(pl.col("text") == "a").then(pl.lit("x/1.png")).otherwise(None))
    oracle = Oracle(["b"])
    rerank_top(top, queries, contents, oracle, ROOT, method="listwise", decoding="free")
    ((query, candidates),) = oracle.prompts
    assert [c.image for c in (query, *candidates)] == [None, ROOT / "x/1.png", None]
    assert oracle.decodings == {"free"}


def test_more_prompts_than_are_asked_at_a_time():
    n = 2 * _CHUNK + 3
    top, queries, contents = tables(*[(f"q{i}", ["a", "b", f"c{i}"]) for i in range(n)])
    found, counts = rerank_top(
        top, queries, contents, Oracle([f"c{i}" for i in range(0, n, 7)]), ROOT, method="listwise"
    )
    moved = found.filter(pl.col("reranked_position") == 0, pl.col("position") == 2)["query_id"].to_list()
    assert moved == list(range(0, n, 7))
    assert counts["unparsable"] == n - len(moved)


def test_a_shuffled_prompt_finds_the_same_candidates_and_spreads_positions():
    n = 200
    top, queries, contents = tables(*[(f"q{i}", [f"a{i}", f"b{i}", f"c{i}", "d"]) for i in range(n)])
    plain, _ = rerank_top(top, queries, contents, Oracle(["d"]), ROOT, method="listwise")
    oracle = Oracle(["d"])
    shuffled, _ = rerank_top(top, queries, contents, oracle, ROOT, method="listwise", shuffle_seed=3)
    assert plain.equals(shuffled)
    places = np.bincount([[c.text for c in shown].index("d") for _, shown in oracle.prompts], minlength=4)
    assert ((places - n / 4) ** 2 / (n / 4)).sum() < 16.27  # chi-square, 3 degrees of freedom, p = .001
    # whoever always says 1 gets a random candidate; not depending on the order of rows
    first, _ = rerank_top(top, queries, contents, Oracle(says=1), ROOT, method="listwise", shuffle_seed=3)
    again, _ = rerank_top(
        top.sample(fraction=1, shuffle=True, seed=1),
        queries[::-1],
        contents[::-1],
        Oracle(says=1),
        ROOT,
        method="listwise",
        shuffle_seed=3,
    )
    assert first.equals(again)
    other, _ = rerank_top(top, queries, contents, Oracle(says=1), ROOT, method="listwise", shuffle_seed=4)
    assert not first.equals(other)
    assert len(set(first.filter(pl.col("reranked_position") == 0)["position"])) == 4


CASES = st.lists(
    st.tuples(
        st.integers(0, 4), st.lists(st.integers(0, 8), min_size=1, max_size=6), st.sets(st.integers(0, 5), max_size=1)
    ),
    min_size=1,
    max_size=5,
)


@settings(max_examples=60)
@given(CASES, st.permutations(range(9)), st.sampled_from(["listwise", "pairwise"]), st.randoms(use_true_random=False))
def test_equals_a_slow_loop_and_row_order_does_not_matter(cases, likes, method, random):
    """A query: its words, candidates, and places of a NaN."""
    likes = [f"c{i}" for i in likes[:5]]
    queries_of = [
        (f"q{query}", [f"c{i}" for i in shown], [math.nan if i in nan else 0.9 - i / 10 for i in range(len(shown))])
        for query, shown, nan in cases
    ]
    top, queries, contents = tables(*queries_of)
    shuffled = [part.sample(fraction=1, shuffle=True, seed=random.randrange(99)) for part in (top, queries, contents)]
    found, _ = rerank_top(*shuffled, Oracle(likes), ROOT, method=method)
    for number, (_, shown, similarities) in enumerate(queries_of):
        value = [likes.index(word) if word in likes else 99 for word in shown]
        expected = list(range(len(shown)))
        if len(shown) > 1 and not any(math.isnan(s) for s in similarities):
            if method == "pairwise":
                expected.sort(key=lambda i: (value[i], i))
            elif min(value) < 99:
                expected.insert(0, expected.pop(value.index(min(value))))
        assert order_of(found, number) == expected


def test_bad_tables_are_named():
    top, queries, contents = tables(("q", ["a", "b"]), ("r", ["a", "b"]))
    with pytest.raises(DataError, match="D, query_id 1: it is not among the queries"):
        rerank_top(top, queries[:1], contents, Oracle(), ROOT, method="listwise")
    with pytest.raises(DataError, match="query_id 0: content_id 102 of a candidate"):
        rerank_top(top, queries, contents.filter(pl.col("text") != "b"), Oracle(), ROOT, method="listwise")
    with pytest.raises(DataError, match="query_id 1: content_id 103 of a query"):
        rerank_top(top, queries, contents.filter(pl.col("text") != "r"), Oracle(), ROOT, method="listwise")
    with pytest.raises(DataError, match="query_id 1: position 1"):
        rerank_top(
            top.filter((pl.col("query_id") != 1) | (pl.col("position") != 0)),
            queries,
            contents,
            Oracle(),
            ROOT,
            method="pairwise",
        )
    with pytest.raises(DataError, match="position"):
        rerank_top(pl.concat([top, top]), queries, contents, Oracle(), ROOT, method="pairwise")
    with pytest.raises(ConfigurationError, match="pointwise"):
        rerank_top(top, queries, contents, Oracle(), ROOT, method="pointwise")


def predictions_of(*rows):
    """Rows of (query_id, predicted_index, correct, target_similarity, rank)."""
    columns = [
        ("D", q, q, index, correct, similarity, 0.2, rank, 20, 1) for q, index, correct, similarity, rank in rows
    ]
    return pl.DataFrame(columns, schema=PREDICTIONS_SCHEMA, orient="row")


def top_of(*rights, new_orders):
    rows = [
        ("D", query, position, 10 + position, 0, 0.5, is_right, order.index(position))
        for query, (flags, order) in enumerate(zip(rights, new_orders, strict=True))
        for position, is_right in enumerate(flags)
    ]
    return pl.DataFrame(rows, schema={**TOP_SCHEMA, "reranked_position": pl.Int32}, orient="row")


def test_predictions_after_by_hand():
    before = predictions_of(
        (0, 10, True, 0.8, 1),  # stays
        (1, 10, False, 0.8, 3),  # the right one comes to the front
        (2, 10, True, 0.8, 1),  # the right one loses its place
        (3, 10, False, 0.8, 15),  # the right one was not among the first
        (4, 10, False, math.nan, 3),  # not a number: never rescued
        (5, 10, False, 0.8, 2),  # two right ones
        (6, 10, False, 0.8, 7),  # was not reranked at all
    )
    no, yes = False, True
    after = predictions_after(
        before,
        top_of(
            *([yes, no, no], [no, no, yes], [yes, no, no], [no, no, no], [no, no, yes], [no, yes, yes]),
            new_orders=[[0, 1, 2], [2, 0, 1], [1, 0, 2], [1, 0, 2], [2, 0, 1], [0, 2, 1]],
        ),
    )
    assert after.columns == before.columns
    assert after.schema == before.schema
    assert after.select("query_id", "predicted_index", "correct", "rank").rows() == [
        (0, 10, True, 1),
        (1, 12, True, 1),
        (2, 11, False, 2),
        (3, 11, False, 15),
        (4, 10, False, 3),
        (5, 10, False, 2),
        (6, 10, False, 7),
    ]
    unchanged = ["unit", "target_similarity", "best_wrong_similarity", "n_candidates", "n_right"]
    assert after.select(unchanged).equals(before.select(unchanged))


def test_predictions_of_unknown_queries_are_an_error():
    with pytest.raises(DataError, match="D, query_id 1"):
        predictions_after(predictions_of((0, 10, True, 0.8, 1)), top_of([True], [True], new_orders=[[0], [0]]))


def scored_by(similarities):
    """Score one data set of an embedder with these similarities; the first candidate is the right one."""
    n = max(len(row) for row in similarities)
    dimension = n + 1
    texts, vectors, queries = [], {}, []
    for q, row in enumerate(similarities):
        texts.append(f"query {q}")
        vectors[texts[-1]] = np.eye(dimension, dtype=np.float32)[0]
        first = len(texts)
        for i, similarity in enumerate(row):
            texts.append(f"candidate {q} {i}")
            vector = np.zeros(dimension, dtype=np.float32)
            vector[0] = similarity
            vector[i + 1] = math.sqrt(1 - similarity**2) if math.isfinite(similarity) else 0
            vectors[texts[-1]] = vector
        queries.append((q, first - 1, list(range(first, first + len(row))), q))
    schema = {"query_id": pl.Int64, "content_id": pl.Int64, "candidates": pl.List(pl.Int64), "unit": pl.Int64}
    contents = pl.DataFrame(
        {"content_id": range(len(texts)), "text": texts, "image": [""] * len(texts)},
        schema_overrides={"content_id": pl.Int64},
    )
    task = OwnCandidates("D", contents, pl.DataFrame(queries, schema=schema, orient="row"))
    return task, score_tasks([task], lambda found: np.stack([vectors[c.text] for c in found]), ROOT, top=3)


SIMILARITIES = st.lists(
    st.lists(st.sampled_from([0.1, 0.25, 0.5, 0.75, math.nan]), min_size=1, max_size=5), min_size=1, max_size=5
)


@settings(max_examples=80)
@given(SIMILARITIES, st.integers(1, 4), st.sampled_from(["listwise", "pairwise"]))
def test_behind_the_embedder_equals_a_slow_loop(similarities, says, method):
    """Ties and NaN of a real scoring, all the way: a constant reranker changes nothing, no NaN is rescued."""
    task, scored = scored_by(similarities)
    queries = task.queries.select(pl.lit("D").alias("dataset"), "query_id", "content_id")
    contents = task.contents.with_columns(dataset=pl.lit("D"))
    found, _ = rerank_top(scored.top, queries, contents, Oracle(says=says), ROOT, method=method)
    after = predictions_after(scored.predictions, found)
    if method == "pairwise":  # all scores are equal
        assert after.equals(scored.predictions)
        return
    for q, row in enumerate(similarities):
        before, now = scored.predictions.row(q, named=True), after.row(q, named=True)
        if any(math.isnan(s) for s in row):
            assert now["correct"] == before["correct"] == (len(row) == 1 and not math.isnan(row[0]))
            assert now["rank"] == before["rank"]
            continue
        order = sorted(range(len(row)), key=lambda i: (-row[i], i == 0, i))
        if len(row) > 1 and says <= min(3, len(row)):
            order.insert(0, order.pop(says - 1))
        assert (now["predicted_index"], now["correct"], now["rank"]) == (order[0], order[0] == 0, order.index(0) + 1)


@pytest.mark.parametrize(
    ("method", "decoding"), [("listwise", "constrained"), ("listwise", "free"), ("pairwise", "free")]
)
def test_a_real_model_reorders(pictures, method, decoding):
    """The tiny judge was never taught lists: whatever it says is a number, or is counted."""
    from unime_kedro.mllm.adapters import load_adapter
    from unime_kedro.mllm.content import ModelSpec

    words = [
        "a dog",
        "a cat and a pen",
        "an axe",
        "a camera",
        "a pie",
        "three pens",
        "a dog and a cat",
        "no",
        "yes",
        "x",
    ]
    asked = [(f"query {i}", words[: 2 + i]) for i in range(8)]
    top, queries, contents = tables(*asked, right=1)
    contents = contents.with_columns(
        image=pl.when(pl.col("text").is_in(["an axe", "query 5"])).then(pl.lit(pictures[0].name)).otherwise(pl.lit(""))
    )
    reranker = Reranker(load_adapter(ModelSpec("models/tiny-judge")), max_tokens=1024, batch_tokens=2048)
    found, counts = rerank_top(top, queries, contents, reranker, pictures[0].parent, method=method, decoding=decoding)
    assert counts["queries"] == counts["prompts"] == 8
    assert counts["failed"] == 0
    for number, (_, shown) in enumerate(asked):
        assert sorted(order_of(found, number)) == list(range(len(shown)))
        if method == "listwise":
            first = order_of(found, number)[0]
            assert order_of(found, number) == [first, *(i for i in range(len(shown)) if i != first)]
    if method == "listwise":
        assert reranker.counts.prompts == 8
        assert counts["unparsable"] == reranker.counts.unparsable
        assert decoding == "free" or counts["unparsable"] == 0
    else:
        scores = found.filter(pl.col("query_id") == 5).sort("reranked_position")["score"].to_list()
        assert scores == sorted(scores, reverse=True)
        assert len(set(scores)) > 1
