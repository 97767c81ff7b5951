"""Embedders on sets of queries with candidates of their own: by hand, against a slow loop, and what must not matter."""

from __future__ import annotations

import logging
import math
import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unime_kedro.errors import DataError, ModelError
from unime_kedro.evaluation.embedders import PREDICTIONS_SCHEMA, contents_to_embed, embed_distinct, evaluate_embedder
from unime_kedro.mllm.content import Content

ROOT = Path("pictures")
unhurried = settings(deadline=None, max_examples=40)


class Tables(NamedTuple):
    dataset: str
    contents: pl.DataFrame
    queries: pl.DataFrame


def tables(dataset, contents, queries, query_ids=None):
    """Make a set of (text, image) contents and (content, candidates) queries."""
    return Tables(
        dataset,
        pl.DataFrame(
            {
                "content_id": range(len(contents)),
                "text": [text for text, _ in contents],
                "image": [image for _, image in contents],
            },
            schema={"content_id": pl.Int64, "text": pl.String, "image": pl.String},
        ),
        pl.DataFrame(
            {
                "query_id": list(query_ids or range(len(queries))),
                "content_id": [query for query, _ in queries],
                "candidates": [candidates for _, candidates in queries],
            },
            schema={"query_id": pl.Int64, "content_id": pl.Int64, "candidates": pl.List(pl.Int64)},
        ),
    )


def angles(contents):
    """Embed a text that is a number of degrees on the unit circle; a picture adds 90 degrees."""
    degrees = np.array([float(c.text) + 90 * (c.image is not None) for c in contents])
    # sine and cosine of -a are exactly those of a, mirrored
    sign, turn = np.sign(degrees), np.deg2rad(np.abs(degrees))
    return np.stack([np.cos(turn), sign * np.sin(turn)], axis=1).astype(np.float32)


def scattered(contents):
    """Embed each content as a vector of its own, whatever else is embedded with it."""
    rows = [np.random.default_rng(zlib.crc32(repr(c).encode())).normal(size=33) for c in contents]
    return np.array([row / np.linalg.norm(row) for row in rows], dtype=np.float32)


def cosine(degrees):
    return pytest.approx(math.cos(math.radians(degrees)), abs=1e-6)


def test_by_hand():
    words = [(str(a), "") for a in (0, 10, -10, 20, 50)]  # contents 0..4
    one = tables(
        "one",
        words,
        [
            (0, [1, 3, 4]),  # 10 beats 20 and 50
            (0, [1, 3, 2]),  # 10 ties with -10, at place 2
            (0, [4, 3, 2, 1]),  # 10 and -10 tie at places 2 and 3: the first of them; 50 is last of four
            (3, [3]),  # alone
            (0, [2, 2, 3]),  # its own content once more
        ],
    )
    two = tables("another", [("0", "a.png"), ("90", ""), ("0", "")], [(0, [1, 2])], query_ids=[7])
    found = evaluate_embedder([one, two], angles, ROOT)
    assert found.schema == PREDICTIONS_SCHEMA
    assert found.select("dataset", "query_id", "predicted_index", "correct", "rank", "n_candidates").rows() == [
        ("another", 7, 0, True, 1, 2),
        ("one", 0, 0, True, 1, 3),
        ("one", 1, 2, False, 2, 3),
        ("one", 2, 2, False, 4, 4),
        ("one", 3, 0, True, 1, 1),
        ("one", 4, 1, False, 2, 3),
    ]
    assert found["target_similarity"].to_list() == [
        cosine(0),
        cosine(10),
        cosine(10),
        cosine(50),
        cosine(0),
        cosine(10),
    ]
    best = found["best_wrong_similarity"].to_list()
    assert math.isnan(best.pop(4))
    assert best == [cosine(90), cosine(20), cosine(10), cosine(10), cosine(10)]


def test_every_content_is_embedded_once_over_all_sets():
    seen = []

    def embed(contents):
        seen.append(contents)
        return scattered(contents)

    one = tables("one", [("b", ""), ("a", "x.png"), ("a", "")], [(0, [1, 2])])
    two = tables("two", [("a", "x.png"), ("c", ""), ("b", "x.png")], [(0, [1, 2])])
    two = two._replace(contents=two.contents.with_columns(pl.col("image").replace("", None)))
    evaluate_embedder([two, one], embed, ROOT, chunk=2)
    picture = ROOT / "x.png"
    expected = [Content("a"), Content("b"), Content("c"), Content("a", picture), Content("b", picture)]
    assert seen == [expected[:2], expected[2:4], expected[4:]]
    assert contents_to_embed(pl.concat([one.contents, two.contents]), ROOT) == expected


@st.composite
def benchmarks(draw):
    """Sets of a few contents, some of them the same, so that ties occur."""
    words = st.tuples(st.sampled_from("abcdefgh"), st.sampled_from(["", "1.png", "2.png"]))
    sets = []
    for name in draw(st.lists(st.sampled_from(["A", "B", "C"]), min_size=1, max_size=3, unique=True)):
        contents = draw(st.lists(words, min_size=1, max_size=8))
        ids = st.integers(0, len(contents) - 1)
        queries = draw(st.lists(st.tuples(ids, st.lists(ids, min_size=1, max_size=6)), min_size=1, max_size=5))
        sets.append(tables(name, contents, queries))
    return sets


def slow(sets, embed):
    """Compare one pair after the other, in float64 rounded to float32."""
    rows = []
    for one in sorted(sets, key=lambda s: s.dataset):
        vectors = [
            embed([Content(text, ROOT / image if image else None)])[0].astype(np.float64)
            for _, text, image in one.contents.rows()
        ]
        for query_id, content, candidates in one.queries.rows():
            row = [np.float32((vectors[content] * vectors[c]).sum()) for c in candidates]
            wrong = row[1:]
            correct = all(row[0] > s for s in wrong)
            place = 0 if correct else 1 + wrong.index(max(wrong))
            rank = 1 + sum(s >= row[0] for s in wrong)
            rows.append((one.dataset, query_id, place, correct, rank, len(row), row[0], max(wrong, default=None)))
    return rows


@unhurried
@given(benchmarks())
def test_equals_the_slow_loop(sets):
    found = evaluate_embedder(sets, scattered, ROOT)
    order = ["dataset", "query_id", "predicted_index", "correct", "rank", "n_candidates"]
    expected = slow(sets, scattered)
    assert found.select(order).rows() == [row[:6] for row in expected]
    similarities = found.select("target_similarity", pl.col("best_wrong_similarity").fill_nan(None)).rows()
    for pair, row in zip(similarities, expected, strict=True):
        assert pair == pytest.approx(row[6:], abs=1e-6)


@unhurried
@given(benchmarks(), st.randoms(use_true_random=False), st.integers(1, 7), st.integers(1, 5))
def test_what_must_not_matter(sets, random, block_pairs, chunk):
    expected = evaluate_embedder(sets, scattered, ROOT)
    chosen = {}
    mixed = []
    for one in sets:
        queries = []
        for query_id, content, candidates in one.queries.rows():
            order = [0, *random.sample(range(1, len(candidates)), len(candidates) - 1)]
            chosen[one.dataset, query_id] = order
            queries.append((query_id, content, [candidates[i] for i in order]))
        random.shuffle(queries)
        renamed = one.contents.with_columns(pl.col("content_id") * 3 + 5)
        mixed.append(
            Tables(
                one.dataset,
                renamed.sample(fraction=1, shuffle=True, seed=random.randrange(99)),
                pl.DataFrame(
                    [(q, c * 3 + 5, [i * 3 + 5 for i in candidates]) for q, c, candidates in queries],
                    schema=one.queries.schema,
                    orient="row",
                ),
            )
        )
    random.shuffle(mixed)
    found = evaluate_embedder(mixed, scattered, ROOT, block_pairs=block_pairs, chunk=chunk)
    # bit for bit; NaN equals NaN
    same = [name for name in PREDICTIONS_SCHEMA if name != "predicted_index"]
    assert found.select(same).equals(expected.select(same))
    by_name = {one.dataset: one for one in sets}
    for (dataset, query_id, place), (_, _, before) in zip(
        found.select("dataset", "query_id", "predicted_index").rows(),
        expected.select("dataset", "query_id", "predicted_index").rows(),
        strict=True,
    ):
        one = by_name[dataset]
        candidates = one.queries.filter(pl.col("query_id") == query_id)["candidates"][0].to_list()
        text = one.contents.select("text", "image").row
        # another place may hold the same content; the content is what is predicted
        assert text(candidates[chosen[dataset, query_id][place]]) == text(candidates[before])


def test_a_constant_embedder_is_always_wrong_and_warned_of(caplog):
    sets = [tables(name, [("a", ""), ("b", ""), ("c", "")], [(0, [1, 2]), (1, [2, 0])]) for name in "AB"]
    with caplog.at_level(logging.WARNING):
        found = evaluate_embedder(sets, lambda c: np.full((len(c), 4), 0.5, dtype=np.float32), ROOT)
    assert found["correct"].to_list() == [False] * 4
    assert found["rank"].to_list() == [2] * 4
    assert [record.getMessage()[:2] for record in caplog.records] == ["A:", "B:"]


def test_nan_is_wrong_and_warned_of(caplog):
    def embed(contents):
        return np.where(np.array([[c.text == "20"] for c in contents]), np.nan, angles(contents))

    one = tables("one", [("0", ""), ("10", ""), ("20", ""), ("30", "")], [(0, [1, 2]), (0, [1, 3]), (2, [1, 3])])
    with caplog.at_level(logging.WARNING):
        found = evaluate_embedder([one], embed, ROOT)
    assert found["correct"].to_list() == [False, True, False]
    assert found["predicted_index"].to_list() == [1, 0, 1]
    assert "one: 3 of 6 similarities are NaN" in caplog.text


GOOD = tables("good", [("0", ""), ("1", "")], [(0, [1])])


@pytest.mark.parametrize(
    ("sets", "message"),
    [
        ([], "distinct names, got none"),
        ([GOOD, GOOD], "distinct names, got good, good"),
        ([tables("x", [("0", "")], [(0, [])])], "x, query_id 0: no candidates"),
        ([tables("x", [("0", "")], [(0, [0]), (0, None)])], "x, query_id 1: no candidates"),
        ([tables("x", [("0", "")], [(0, [0, 9])])], "x: content_id 9 is mentioned"),
        ([tables("x", [("0", "")], [(4, [0])])], "x: content_id 4 is mentioned"),
        ([tables("x", [("0", "")], [(0, [0]), (0, [0])], [3, 3])], "x: expected distinct query_id"),
        ([GOOD._replace(contents=pl.concat([GOOD.contents] * 2))], "good: expected distinct content_id"),
        ([tables("x", [("0", "")], [])], "x: there are no queries"),
    ],
)
def test_tables_that_cannot_be_evaluated(sets, message):
    with pytest.raises(DataError, match=message):
        evaluate_embedder(sets, angles, ROOT)


@pytest.mark.parametrize(
    ("embed", "message"),
    [
        (lambda c: np.ones((len(c) + 1, 1)), r"shape \(3, 1\) for 2 contents; expected \(2, dimension\)"),
        (lambda c: np.ones(len(c)), r"shape \(2,\) for 2 contents"),
        (lambda c: 2 * angles(c), r"length 2 for Content\(text='0', image=None\); expected unit length"),
        (lambda c: 0 * angles(c), "length 0"),
        (lambda c: np.full((len(c), 2), np.inf), "length inf"),
    ],
)
def test_vectors_that_are_none(embed, message):
    with pytest.raises(ModelError, match=message):
        evaluate_embedder([GOOD], embed, ROOT)


def test_dimensions_must_agree_between_chunks():
    sizes = iter([1, 2])
    with pytest.raises(ModelError, match=r"shape \(1, 2\) for 1 contents; expected \(1, 1\)"):
        embed_distinct(GOOD.contents, lambda c: np.eye(1, next(sizes)), ROOT, chunk=1)


def test_a_real_embedder(adapter, pictures):
    from unime_kedro.mllm.embedding import Embedder

    embedder = Embedder(adapter, prompt="plain", max_tokens=256, batch_tokens=256)
    names = [file.name for file in pictures]
    contents = [("<|image_1|>\nFind a caption.", name) for name in names] + [(f"word {i}", "") for i in range(8)]
    queries = [(i, [8 + (i + k) % 8 for k in range(5)]) for i in range(8)]
    one = tables("one", contents, queries)
    found = evaluate_embedder([one], embedder.embed, pictures[0].parent, chunk=3)
    for (query, candidates), row in zip(queries, found.iter_rows(named=True), strict=True):
        alone = [
            embedder.embed([Content(contents[i][0], pictures[0].parent / contents[i][1] if contents[i][1] else None)])[
                0
            ]
            for i in (query, *candidates)
        ]
        similarity = [float(alone[0] @ vector) for vector in alone[1:]]
        assert row["target_similarity"] == pytest.approx(similarity[0], abs=1e-5)
        assert row["best_wrong_similarity"] == pytest.approx(max(similarity[1:]), abs=1e-5)
