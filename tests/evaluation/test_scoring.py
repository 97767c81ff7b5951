"""Scoring of both forms of data sets: by hand, against a slow loop, and what must not matter."""

from __future__ import annotations

import logging
import math
import zlib
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unime_kedro.errors import DataError
from unime_kedro.evaluation.precision import ROUNDING
from unime_kedro.evaluation.scoring import PREDICTIONS_SCHEMA, TOP_SCHEMA, score_tasks
from unime_kedro.evaluation.tasks import OwnCandidates, SharedCandidates

ROOT = Path("pictures")
NAN = float("nan")
unhurried = settings(deadline=None, max_examples=60)


def contents(words):
    return pl.DataFrame(
        {"content_id": range(len(words)), "text": words, "image": [""] * len(words)},
        schema={"content_id": pl.Int64, "text": pl.String, "image": pl.String},
    )


def own(name, words, queries):
    """Make a task of (content, candidates) queries."""
    rows = [(i, content, candidates, i // 2) for i, (content, candidates) in enumerate(queries)]
    schema = {"query_id": pl.Int64, "content_id": pl.Int64, "candidates": pl.List(pl.Int64), "unit": pl.Int64}
    return OwnCandidates(name, contents(words), pl.DataFrame(rows, schema=schema, orient="row"))


def shared(name, words, queries, targets):
    """Make a task of (content, group) queries and (content, group) targets."""
    names = ["content_id", "group"]
    schema = dict.fromkeys(["id", *names], pl.Int64)
    asked, known = (
        pl.DataFrame([(i, *row) for i, row in enumerate(rows)], schema=schema, orient="row")
        for rows in (queries, targets)
    )
    return SharedCandidates(
        name,
        contents(words),
        asked.rename({"id": "query_id"}).with_columns(unit="group"),
        known.rename({"id": "target_id"}),
    )


def angles(shown):
    """Embed a text that is a number of degrees on the unit circle; equal distances from 0 give equal bits."""
    degrees = np.array([float(c.text) for c in shown])
    sign, turn = np.sign(degrees), np.deg2rad(np.abs(degrees))
    return np.stack([np.cos(turn), sign * np.sin(turn)], axis=1).astype(np.float32)


def scattered(shown):
    """Embed each content as a vector of its own, whatever else is embedded with it; the text "nan" as NaN."""
    rows = [np.random.default_rng(zlib.crc32(c.text.encode())).normal(size=17) for c in shown]
    made = np.array([row / np.linalg.norm(row) for row in rows], dtype=np.float32)
    return np.where(np.array([[c.text == "nan"] for c in shown]), np.float32(NAN), made)


def cosine(degrees):
    return pytest.approx(math.cos(math.radians(degrees)), abs=1e-6)


def test_shared_candidates_by_hand():
    words = ["0", "10", "-10", "20", "50", "0.5"]
    task = shared(
        "all",
        words,
        [(0, 7), (0, 8), (3, 8), (4, 9)],
        [(1, 7), (2, 8), (3, 8), (4, 9), (5, 9)],  # targets at 10, -10, 20, 50 and .5 degrees
    )
    found = score_tasks([task], angles, ROOT, top=3)
    assert found.predictions.schema == PREDICTIONS_SCHEMA
    assert found.top.schema == TOP_SCHEMA
    rows = found.predictions.select("query_id", "unit", "predicted_index", "correct", "rank", "n_candidates", "n_right")
    assert rows.rows() == [
        (0, 7, 4, False, 3, 5, 1),  # .5 degrees is nearest, -10 ties with its own 10
        (1, 8, 4, False, 3, 5, 2),  # its own -10 ties with 10
        (2, 8, 2, True, 1, 5, 2),
        (3, 9, 3, True, 1, 5, 2),  # that its other target is far away does not matter
    ]
    assert found.predictions["target_similarity"].to_list() == [cosine(10), cosine(10), cosine(0), cosine(0)]
    assert found.predictions["best_wrong_similarity"].to_list() == [cosine(0.5), cosine(0.5), cosine(10), cosine(30)]
    top = found.top.select("query_id", "position", "candidate_index", "content_id", "right").rows()
    assert top[:6] == [
        (0, 0, 4, 5, False),
        (0, 1, 1, 2, False),  # the wrong one of two equal ones first
        (0, 2, 0, 1, True),
        (1, 0, 4, 5, False),
        (1, 1, 0, 1, False),
        (1, 2, 1, 2, True),
    ]


def test_first_candidates_by_hand():
    task = own("one", ["0", "10", "-10", "20", "-20", "50"], [(0, [2, 4, 1, 3, 1]), (0, [5]), (3, [3, 4])])
    found = score_tasks([task], angles, ROOT, top=4)
    assert found.top.select("query_id", "position", "candidate_index", "right").rows() == [
        (0, 0, 2, False),  # equally similar: wrong before right, then by place
        (0, 1, 4, False),
        (0, 2, 0, True),
        (0, 3, 1, False),  # 20 degrees, at the places 1 and 3
        (1, 0, 0, True),
        (2, 0, 0, True),
        (2, 1, 1, False),
    ]
    assert found.top["similarity"].to_list()[:4] == [cosine(10), cosine(10), cosine(10), cosine(20)]


def slow(similarity, right):
    """Rank one query's candidates in plain Python: predictions' columns, and the places in order."""
    nan = any(math.isnan(s) for s in similarity)
    known = [-math.inf if math.isnan(s) or (nan and r) else s for s, r in zip(similarity, right, strict=True)]
    order = sorted(range(len(known)), key=lambda i: (-known[i], right[i], i))
    wrong = [s for s, r in zip(similarity, right, strict=True) if not r]
    best = max(s for s, r in zip(similarity, right, strict=True) if r) if not nan else NAN
    rank = max(len(wrong) + 1, 2) if nan else 1 + sum(s >= best for s in wrong)
    predicted = -1 if nan and not wrong else order[0]
    return predicted, rank == 1, rank, len(similarity), sum(right), order


WORDS = ["a", "b", "c", "d", "e", "a", "nan"]  # the first and the sixth are one content
place = st.integers(0, len(WORDS) - 1)


@st.composite
def tasks(draw):
    made = []
    for name in draw(st.lists(st.sampled_from("ABC"), min_size=1, max_size=2, unique=True)):
        if draw(st.booleans()):
            queries = draw(st.lists(st.tuples(place, st.lists(place, min_size=1, max_size=8)), min_size=1, max_size=6))
            made.append(own(name, WORDS, queries))
        else:
            targets = draw(st.lists(st.tuples(place, st.integers(0, 3)), min_size=1, max_size=9))
            groups = st.sampled_from([group for _, group in targets])
            made.append(shared(name, WORDS, draw(st.lists(st.tuples(place, groups), min_size=1, max_size=6)), targets))
    return made


def candidates_of(task):
    """Yield query_id, content, its candidates' contents, and which are right."""
    if isinstance(task, OwnCandidates):
        for query, content, candidates, _ in task.queries.rows():
            yield query, content, candidates, [i == 0 for i in range(len(candidates))]
    else:
        for query, content, group, _ in task.queries.rows():
            yield query, content, task.targets["content_id"].to_list(), (task.targets["group"] == group).to_list()


@unhurried
@given(tasks(), st.integers(1, 12))
def test_equals_the_slow_loop(made, top):
    vectors = scattered([type("C", (), {"text": word}) for word in WORDS]).astype(np.float64)
    found = score_tasks(made, scattered, ROOT, top=top)
    columns = ["dataset", "query_id", "predicted_index", "correct", "rank", "n_candidates", "n_right"]
    expected, first = [], []
    for task in sorted(made, key=lambda one: one.dataset):
        for query, content, candidates, right in candidates_of(task):
            similarity = [float(np.float32((vectors[content] * vectors[c]).sum())) for c in candidates]
            *row, order = slow(similarity, right)
            expected.append((task.dataset, query, *row))
            first += [(task.dataset, query, i, at, candidates[at], right[at]) for i, at in enumerate(order[:top])]
    assert found.predictions.select(columns).rows() == expected
    names = ["dataset", "query_id", "position", "candidate_index", "content_id", "right"]
    assert found.top.select(names).rows() == first


@unhurried
@given(tasks(), st.randoms(use_true_random=False), st.integers(1, 40), st.integers(1, 4))
def test_rows_blocks_and_chunks_do_not_matter(made, random, block_pairs, chunk):
    expected = score_tasks(made, scattered, ROOT)
    mixed = [
        task._replace(
            queries=task.queries.sample(fraction=1, shuffle=True, seed=random.randrange(99)),
            contents=task.contents.sample(fraction=1, shuffle=True, seed=random.randrange(99)),
        )
        for task in random.sample(made, len(made))
    ]
    found = score_tasks(mixed, scattered, ROOT, block_pairs=block_pairs, chunk=chunk)
    assert found.predictions.equals(expected.predictions)
    assert found.top.equals(expected.top)


@unhurried
@given(tasks(), st.randoms(use_true_random=False))
def test_order_of_candidates_does_not_matter(made, random):
    def mixed(task):
        if isinstance(task, SharedCandidates):
            targets = task.targets.sample(fraction=1, shuffle=True, seed=random.randrange(99))
            return task._replace(targets=targets.with_columns(target_id=pl.int_range(pl.len())))
        lists = [[first, *random.sample(rest, len(rest))] for first, *rest in task.queries["candidates"].to_list()]
        return task._replace(queries=task.queries.with_columns(candidates=pl.Series(lists, dtype=pl.List(pl.Int64))))

    same = [name for name in PREDICTIONS_SCHEMA if name != "predicted_index"]
    expected, found = (score_tasks(one, scattered, ROOT) for one in (made, [mixed(task) for task in made]))
    assert found.predictions.select(same).equals(expected.predictions.select(same))
    # where something is NaN, right ones stand behind it by their places
    with_nan = pl.col("similarity").is_nan().any().over("dataset", "query_id")
    shown = [
        one.top.filter(~with_nan).select("dataset", "query_id", "similarity", "right") for one in (found, expected)
    ]
    assert shown[0].equals(shown[1])


def test_a_matrix_product_gives_the_bits_of_single_pairs(monkeypatch):
    from unime_kedro.evaluation import asked

    words = [str(i) for i in range(60)]
    rng = np.random.default_rng(0)
    task = own("one", words, [(i % 60, rng.choice(60, size=rng.integers(1, 40)).tolist()) for i in range(50)])
    results = []
    for dense in (0, 10**9):
        monkeypatch.setattr(asked, "_DENSE", dense)
        results.append(score_tasks([task], scattered, ROOT))
    assert results[0].top.equals(results[1].top)
    assert results[0].predictions.equals(results[1].predictions)


BOTH = [
    own("own", ["1", "2", "3"], [(0, [1, 2]), (1, [2, 0, 0])]),
    shared("shared", ["1", "2", "3"], [(0, 0), (1, 1)], [(2, 0), (1, 1), (0, 0)]),
]


def test_a_constant_embedder_scores_nothing_and_is_warned_of(caplog):
    with caplog.at_level(logging.WARNING):
        found = score_tasks(BOTH, lambda c: np.full((len(c), 4), 0.5, dtype=np.float32), ROOT)
    assert found.predictions["correct"].sum() == 0
    assert found.predictions["rank"].to_list() == [2, 3, 2, 3]
    assert [record.getMessage().partition(":")[0] for record in caplog.records] == ["own", "shared"]
    assert caplog.text.count("all candidates are equally similar") == 2


def test_a_nan_embedder_scores_nothing_and_is_warned_of(caplog):
    with caplog.at_level(logging.WARNING):
        found = score_tasks(BOTH, lambda c: np.full((len(c), 4), NAN, dtype=np.float32), ROOT)
    assert found.predictions["correct"].sum() == 0
    assert found.predictions["rank"].to_list() == [2, 3, 2, 3]
    assert found.top.group_by("dataset", "query_id").agg(pl.col("right").last()).get_column("right").all()
    assert "own: 5 of 5 similarities are NaN; the 2 of 2 queries" in caplog.text
    assert "shared: 6 of 6 similarities are NaN" in caplog.text


ALONE = own("alone", ["nan", "1"], [(0, [1]), (1, [1])])


def test_a_query_with_its_target_alone_and_nan_is_wrong():
    found = score_tasks([ALONE], scattered, ROOT).predictions
    columns = ["predicted_index", "correct", "rank"]
    assert found.select(columns).rows() == [(-1, False, 2), (0, True, 1)]
    assert found["best_wrong_similarity"].is_nan().all()


def test_every_content_is_embedded_once_over_both_forms():
    seen = []

    def embed(shown):
        seen.extend(c.text for c in shown)
        return scattered(shown)

    score_tasks(BOTH, embed, ROOT)
    assert seen == ["1", "2", "3"]


GOOD = BOTH[1]


@pytest.mark.parametrize(
    ("task", "message"),
    [
        (GOOD._replace(queries=GOOD.queries.clear()), "shared: there are no queries"),
        (GOOD._replace(queries=pl.concat([GOOD.queries] * 2)), "shared: expected distinct query_id"),
        (GOOD._replace(queries=GOOD.queries.with_columns(group=pl.lit(5))), "query_id 0: no target is of its group 5"),
        (GOOD._replace(targets=GOOD.targets.reverse()), "target_id to be 0, 1, 2"),
        (GOOD._replace(targets=GOOD.targets.with_columns(content_id=9)), "content_id 9 is mentioned"),
        (GOOD._replace(queries=GOOD.queries.with_columns(unit=pl.lit(None, dtype=pl.Int64))), "has no unit"),
        (
            BOTH[0]._replace(queries=BOTH[0].queries.with_columns(candidates=pl.Series([[], [1]]))),
            "own, query_id 0: no candidates",
        ),
    ],
)
def test_tables_that_cannot_be_scored_are_refused_before_anything_is_embedded(task, message):
    def embed(shown):
        raise AssertionError("embedded")

    with pytest.raises(DataError, match=message):
        score_tasks([task], embed, ROOT)


def test_batches_and_chunks_change_nothing_but_rounding(adapter, pictures):
    from unime_kedro.mllm.embedding import Embedder

    words = [("<|image_1|>\nFind a caption.", file.name) for file in pictures] + [(f"word {i}", "") for i in range(8)]
    table = pl.DataFrame(words, schema=["text", "image"], orient="row").select(
        pl.int_range(pl.len(), dtype=pl.Int64).alias("content_id"), "text", "image"
    )
    task = shared("pictures", [""] * 16, [(i, i % 4) for i in range(8)], [(8 + i, i % 4) for i in range(8)])
    task = task._replace(contents=table)
    results = []
    for batch_tokens, chunk, workers in ((64, 1, 0), (4096, 256, 0), (512, 5, 1)):
        embedder = Embedder(adapter, prompt="plain", max_tokens=256, batch_tokens=batch_tokens, workers=workers)
        results.append(score_tasks([task], embedder.embed, pictures[0].parent, chunk=chunk).predictions)
    for found in results[1:]:
        for name in ("target_similarity", "best_wrong_similarity"):
            assert (found[name] - results[0][name]).abs().max() <= 10 * ROUNDING
        clear = (results[0]["target_similarity"] - results[0]["best_wrong_similarity"]).abs() > 10 * ROUNDING
        assert clear.any()
        assert (found["correct"] == results[0]["correct"]).filter(clear).all()
