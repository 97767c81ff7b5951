"""Pools and scores of others: read, checked, and mined from by the real commands."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from unime_kedro.errors import DataError
from unime_kedro.exchange.importing import read_pool, read_scores

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent


@pytest.fixture
def corpus():
    items = pl.DataFrame({"item_id": range(6)})
    queries = pl.DataFrame({"query_id": [0, 1], "item_id": [0, 1], "positive_item_id": [2, 3]})
    return items, queries


def pool_file(folder: Path, rows: list[tuple], names=("query_id", "item_id", "similarity"), **types) -> Path:
    file = folder / "pool.parquet"
    pl.DataFrame(rows, schema=list(names), orient="row", schema_overrides=types).write_parquet(file)
    return file


GOOD = [(1, 5, 0.5), (0, 4, 0.25), (0, 3, 0.75), (0, 5, 0.75), (1, 2, -1.0)]


def test_a_pool_is_ordered_by_similarity_then_item(tmp_path, corpus):
    found = read_pool(pool_file(tmp_path, GOOD), *corpus)
    assert found.rows() == [(0, 0, 3, 0.75), (0, 1, 5, 0.75), (0, 2, 4, 0.25), (1, 0, 5, 0.5), (1, 1, 2, -1.0)]
    assert found.schema == {"query_id": pl.Int64, "rank": pl.Int32, "item_id": pl.Int64, "similarity": pl.Float32}
    assert found.equals(read_pool(pool_file(tmp_path, GOOD[::-1]), *corpus))


@pytest.mark.parametrize(("row", "told"), [
    ((0, 9, 0.5), "row 5: item_id is not in items.parquet .query_id 0, item_id 9"),
    ((7, 4, 0.5), "row 5: query_id is not in queries.parquet"),
    ((0, 2, 0.5), "row 5: the candidate is the query's own positive"),
    ((0, 4, 0.5), "row 1: this pair of query_id and item_id is there more than once.*1 more rows like it"),
    ((1, 4, float("nan")), "row 5: similarity is not a finite number"),
    ((1, 4, 1.5), "row 5: similarity is not a cosine"),
    ((1, None, 0.5), "row 5: item_id is null"),
])  # fmt: skip
def test_a_pool_with_a_fault_is_refused_by_row(tmp_path, corpus, row, told):
    with pytest.raises(DataError, match=told):
        read_pool(pool_file(tmp_path, [*GOOD, row]), *corpus)


def test_a_file_of_another_kind_is_refused(tmp_path, corpus):
    with pytest.raises(DataError, match="no column similarity; expected query_id, item_id, similarity, found"):
        read_pool(pool_file(tmp_path, GOOD, ("query_id", "item_id", "cosine")), *corpus)
    with pytest.raises(DataError, match="column query_id is String; expected numbers"):
        read_pool(pool_file(tmp_path, [("0", 4, 0.5)]), *corpus)
    (tmp_path / "pool.parquet").write_text("no parquet")
    with pytest.raises(DataError, match="cannot be read as parquet"):
        read_pool(tmp_path / "pool.parquet", *corpus)


def scores_file(folder: Path, rows: list[dict]) -> Path:
    file = folder / "scores.parquet"
    pl.DataFrame(rows).write_parquet(file)
    return file


def all_pairs(pool: pl.DataFrame, queries: pl.DataFrame) -> list[tuple[int, int]]:
    return [*queries.select("query_id", "positive_item_id").rows(), *pool.select("query_id", "item_id").rows()]


def test_scores_come_back_as_they_were_also_0_and_1(tmp_path, corpus):
    items, queries = corpus
    pool = read_pool(pool_file(tmp_path, GOOD), items, queries)
    values = [0.0, 1.0, 0.5, 1e-7, 0.999999, 0.25, 0.75]
    rows = [
        {"query_id": q, "item_id": i, "score": s}
        for (q, i), s in zip(all_pairs(pool, queries), values, strict=True)
    ]  # fmt: skip
    table, errors = read_scores(scores_file(tmp_path, rows[::-1]), items, queries, pool)
    assert errors.is_empty()
    given = {(row["query_id"], row["item_id"]): row["score"] for row in rows}
    assert table.select("query_id", "item_id", "is_positive").rows() == [
        (0, 2, True), (0, 3, False), (0, 5, False), (0, 4, False), (1, 3, True), (1, 5, False), (1, 2, False),
    ]  # fmt: skip
    expected = [given[q, i] for q, i in table.select("query_id", "item_id").rows()]
    np.testing.assert_allclose(table["score"], expected, rtol=1e-6)
    logits = table["yes_logit"].to_numpy().astype(np.float64) - table["no_logit"].to_numpy()
    np.testing.assert_allclose(1 / (1 + np.exp(-logits)), expected, rtol=1e-6, atol=1e-12)
    assert table["temperature"].unique().to_list() == [1.0]


def test_logits_are_kept(tmp_path, corpus):
    items, queries = corpus
    pool = read_pool(pool_file(tmp_path, GOOD), items, queries)
    rows = [{"query_id": q, "item_id": i, "yes_logit": 2.0 + i, "no_logit": 1.0} for q, i in all_pairs(pool, queries)]
    table, _ = read_scores(scores_file(tmp_path, rows), items, queries, pool)
    for item, yes, no, score in table.select("item_id", "yes_logit", "no_logit", "score").rows():
        assert (yes, no) == (2.0 + item, 1.0)
        assert score == pytest.approx(np.exp(yes) / (np.exp(yes) + np.exp(no)))


def test_a_pair_without_a_score_is_an_error_or_a_failure(tmp_path, corpus):
    items, queries = corpus
    pool = read_pool(pool_file(tmp_path, GOOD), items, queries)
    rows = [{"query_id": q, "item_id": i, "score": 0.5} for q, i in all_pairs(pool, queries)]
    file = scores_file(tmp_path, rows[1:])
    with pytest.raises(DataError, match=r"1 of 7 pairs have no score, such as \(query_id, item_id\) \(0, 2\)"):
        read_scores(file, items, queries, pool)
    table, errors = read_scores(file, items, queries, pool, missing=True)
    assert len(table) == 6
    assert errors.rows() == [(0, 2, True, "no score in scores.parquet")]
    wrong = scores_file(tmp_path, [*rows[:-1], rows[-1] | {"score": 1.25}])
    with pytest.raises(DataError, match="row 6: score is not within"):
        read_scores(wrong, items, queries, pool)


def command(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    environment = {
        **os.environ,
        "UNIME_DATA_ROOT": str(folder / "data"),
        "UNIME_TRACKING": "off",
        "OMP_NUM_THREADS": "1",
    }
    program, *arguments = words
    return subprocess.run(
        [str(BIN / program), *arguments], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )


@pytest.mark.slow
def test_the_commands_mine_from_another_retriever_and_judge(tmp_path):
    assert command(tmp_path, "kedro", "run", "--env=smoke", "--pipeline=ingest").returncode == 0
    data = tmp_path / "data"
    queries = pl.read_parquet(data / "02_intermediate/queries.parquet")
    candidates = pl.read_parquet(data / "02_intermediate/candidates.parquet")
    drawn = (
        queries.join(candidates.rename({"item_id": "candidate"}), how="cross")
        .filter((pl.col("candidate") != pl.col("positive_item_id")) & (pl.col("candidate") != pl.col("item_id")))
        .with_columns(
            similarity=((pl.col("query_id") * 7919 + pl.col("candidate") * 104729) % 1000).cast(pl.Float64) / 1000
        )
        .select("query_id", similarity="similarity", item_id="candidate")
        .filter(pl.col("similarity") > 0.7)
    )
    drawn.write_parquet(tmp_path / "pool.parquet")
    done = command(tmp_path, "unime", "import-pool", str(tmp_path / "pool.parquet"), "--env=smoke")
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"imported {len(drawn):,} candidates of {len(queries):,} queries" in done.stdout
    pairs = pl.concat(
        [drawn.select("query_id", "item_id"), queries.select("query_id", item_id="positive_item_id")]
    ).with_columns(score=(pl.col("item_id") % 17) / 17)
    pairs.write_parquet(tmp_path / "scores.parquet")
    done = command(tmp_path, "unime", "import-scores", str(tmp_path / "scores.parquet"), "--env=smoke")
    assert done.returncode == 0, done.stdout + done.stderr
    done = command(tmp_path, "kedro", "run", "--env=smoke", "--pipeline=select")
    assert done.returncode == 0, done.stdout + done.stderr
    negatives = pl.read_parquet(data / "05_model_input/negatives.parquet")
    positive = {q: (p % 17) / 17 for q, p in queries.select("query_id", "positive_item_id").rows()}
    pools = set(drawn.select("query_id", "item_id").rows())
    for query, item, score, origin in negatives.select("query_id", "item_id", "score", "origin").rows():
        assert (query, item) in pools
        if origin != "fallback":
            assert score == pytest.approx((item % 17) / 17, abs=1e-6)
            assert score <= positive[query] - 0.01 + 1e-6
    assert json.loads((data / "03_primary/judge_origin.json").read_text())["model"] == "scores.parquet"
    done = command(tmp_path, "unime", "export", "ms-swift", str(tmp_path / "x.jsonl"), "--env=smoke", "--negatives=4")
    assert done.returncode == 0, done.stdout + done.stderr
    rows = [json.loads(line) for line in (tmp_path / "x.jsonl").read_text().split("\n") if line]
    assert {len(row["negative_messages"]) for row in rows} == {4}
    pictures = {picture for row in rows for picture in row["images"]}
    assert pictures
    assert all(Path(picture).is_file() for picture in pictures)
    done = command(tmp_path, "unime", "import-scores", str(tmp_path / "pool.parquet"), "--env=smoke")
    assert done.returncode == 1
    assert "no column score; expected query_id, item_id, score" in done.stderr
