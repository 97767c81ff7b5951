"""Judging tables with a real (random) model: every pair once, resumable to the identical table."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from unime_kedro.errors import ConfigurationError, DataError
from unime_kedro.mining.judging import judge_pairs, pairs_to_judge
from unime_kedro.mining.lineage import table_digest
from unime_kedro.mllm.judge import PrefixJudge
from unime_kedro.mllm.judgements import Judgements, score

N_QUERIES, N_CANDIDATES = 6, 8


@pytest.fixture(scope="module")
def tables(tmp_path_factory, pictures):
    """Six queries (two with equal content), eight candidates (two pictures), pools of five."""
    texts = [f"query number {i} <|image_1|>" if i % 2 else f"query number {i}" for i in range(N_QUERIES - 1)]
    images = [pictures[i].name if i % 2 else "" for i in range(N_QUERIES - 1)]
    candidate_texts = [f"a candidate {w}" for w in "abcdef"] + ["<|image_1|>", "<|image_1|> again"]
    candidate_images = [""] * 6 + [pictures[5].name, pictures[6].name]
    items = pl.DataFrame(
        {
            "item_id": range(N_QUERIES - 1 + N_CANDIDATES),
            "text": texts + candidate_texts,
            "image": images + candidate_images,
            "content_key": [f"{i:032x}" for i in range(N_QUERIES - 1 + N_CANDIDATES)],
        }
    )
    query_items = [0, 1, 2, 3, 4, 0]  # query 5 has the content of query 0, with another positive
    positives = [5, 6, 7, 8, 11, 6]
    queries = pl.DataFrame({"query_id": range(6), "item_id": query_items, "positive_item_id": positives})
    pool = []
    for q in range(6):
        others = [c for c in range(5, 13) if c != positives[q]][:5]
        pool += [(q, rank, item) for rank, item in enumerate(others)]
    schema = {"query_id": pl.Int64, "rank": pl.Int32, "item_id": pl.Int64}
    return queries, items, pl.DataFrame(pool, schema=schema, orient="row")


def run(tables, adapter, pictures, store, **options):
    queries, items, pool = tables
    judge = PrefixJudge(adapter, batch_size=options.pop("batch_size", 4))
    return judge_pairs(queries, items, pool, judge, store, pictures[0].parent, **options), judge


def test_order_is_by_query_positive_first_then_rank(tables):
    queries, _, pool = tables
    found = pairs_to_judge(queries.reverse(), pool.sample(fraction=1, shuffle=True, seed=1))
    wanted = []
    for q, _, positive in queries.rows():
        wanted.append((q, positive, True))
        wanted += [(q, item, False) for qq, _, item in pool.rows() if qq == q]
    assert found.select("query_id", "item_id", "is_positive").rows() == wanted


def test_scores_are_the_judges_and_each_pair_of_contents_is_judged_once(tables, adapter, pictures, tmp_path):
    items = tables[1]
    result, judge = run(tables, adapter, pictures, tmp_path)
    scores = result.scores
    assert scores.height == 6 * 6
    assert scores["query_id"].is_sorted()
    # query 0 and 5 have the same content: of their 12 pairs, only the distinct candidates are judged
    of_both = {i for q, i, *_ in scores.rows() if q in (0, 5)}
    assert result.metrics["distinct_pairs"] == 4 * 6 + len(of_both) == result.metrics["judged_now"]
    assert result.errors.is_empty()
    expected = 1 / (1 + np.exp(-(scores["yes_logit"].to_numpy() - scores["no_logit"].to_numpy()).astype(float)))
    np.testing.assert_allclose(scores["score"].to_numpy(), expected, atol=1e-6)
    from unime_kedro.mllm.content import Content

    q, c = items.row(4, named=True), items.row(11, named=True)
    alone = judge.judge(Content(q["text"]), [Content(c["text"], pictures[0].parent / c["image"])])
    row = scores.filter((pl.col("query_id") == 4) & (pl.col("item_id") == 11))
    np.testing.assert_allclose(row["yes_logit"].to_list(), alone.yes, atol=1e-5)


def test_a_second_run_judges_nothing_and_a_larger_pool_only_what_is_new(tables, adapter, pictures, tmp_path):
    queries, items, pool = tables
    small = (queries, items, pool.filter(pl.col("rank") < 3))
    first, _ = run(small, adapter, pictures, tmp_path)
    again, _ = run(small, adapter, pictures, tmp_path)
    assert again.metrics["judged_now"] == 0
    assert again.metrics["from_store"] == first.metrics["judged_now"]
    assert_frame_equal(first.scores, again.scores)
    larger, _ = run(tables, adapter, pictures, tmp_path)
    assert larger.metrics["from_store"] == first.metrics["judged_now"]
    assert larger.metrics["judged_now"] == larger.metrics["distinct_pairs"] - first.metrics["judged_now"]
    fresh, _ = run(tables, adapter, pictures, tmp_path / "fresh")
    assert_frame_equal(larger.scores, fresh.scores, abs_tol=1e-5)


def test_batch_size_and_row_order_do_not_matter(tables, adapter, pictures, tmp_path):
    queries, items, pool = tables
    a, _ = run(tables, adapter, pictures, tmp_path / "a", batch_size=1)
    shuffled = (queries.reverse(), items.reverse(), pool.sample(fraction=1, shuffle=True, seed=2))
    b, _ = run(shuffled, adapter, pictures, tmp_path / "b", batch_size=64)
    assert_frame_equal(a.scores, b.scores, abs_tol=1e-5)


def test_failed_pairs_are_kept_reported_and_tried_again(tables, adapter, pictures, tmp_path):
    queries, items, pool = tables
    import shutil

    root = tmp_path / "images"
    shutil.copytree(pictures[0].parent, root)
    (root / pictures[5].name).write_bytes(b"broken")
    judge = PrefixJudge(adapter, batch_size=4)
    options = {"max_error_share": 0.5}
    result = judge_pairs(queries, items, pool, judge, tmp_path / "store", root, **options)
    broken = items.filter(pl.col("image") == pictures[5].name)["item_id"][-1]
    assert set(result.errors["item_id"].to_list()) == {broken}
    assert result.metrics["errors"] == result.errors.height > 0
    assert result.errors["error"].str.contains(pictures[5].name).all()
    assert result.scores.height + result.errors.height == 36
    with pytest.raises(DataError, match=r"judge\.max_error_share"):
        judge_pairs(queries, items, pool, judge, tmp_path / "store", root, max_error_share=0.0)
    shutil.copy(pictures[5], root / pictures[5].name)
    repaired = judge_pairs(queries, items, pool, PrefixJudge(adapter, batch_size=4), tmp_path / "store", root)
    assert repaired.errors.is_empty()
    assert repaired.metrics["judged_now"] == 1


class ToyJudge:
    """Logits of known odds: a candidate named "9 to 1" is a Yes with odds of 9, whatever the query."""

    def __init__(self):
        self.judged = []

    def judge_all(self, groups):
        for query, candidates in groups:
            self.judged += [(query.text, candidate.text) for candidate in candidates]
            odds = np.array([[float(number) for number in c.text.split(" to ")] for c in candidates])
            yes, no = np.log(odds).astype(np.float32).T
            yield Judgements(yes, no, [""] * len(candidates))

    def identity(self):
        return {"model": "toy"}


@pytest.fixture
def toy_tables():
    texts = ["query", "9 to 1", "1 to 9", "1 to 1", "16 to 1"]
    items = {"item_id": range(5), "text": texts, "image": [""] * 5, "content_key": [f"{i:032x}" for i in range(5)]}
    queries = pl.DataFrame({"query_id": [0], "item_id": [0], "positive_item_id": [1]})
    pool = {"query_id": [0, 0, 0], "rank": [0, 1, 2], "item_id": [2, 3, 4]}
    return queries, pl.DataFrame(items), pl.DataFrame(pool, schema_overrides={"rank": pl.Int32})


def test_another_temperature_changes_scores_by_hand_and_leaves_the_store_alone(toy_tables, tmp_path):
    def files():
        return {file.relative_to(tmp_path): file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()}

    first = judge_pairs(*toy_tables, ToyJudge(), tmp_path, tmp_path)
    before, judge = files(), ToyJudge()
    second = judge_pairs(*toy_tables, judge, tmp_path, tmp_path, temperature=2.0)
    assert judge.judged == []
    assert (first.metrics["judged_now"], second.metrics["judged_now"]) == (4, 0)
    assert (first.metrics["temperature"], second.metrics["temperature"]) == (1.0, 2.0)
    assert files() == before
    columns = ["query_id", "item_id", "is_positive", "yes_logit", "no_logit", "temperature", "score"]
    assert first.scores.columns == second.scores.columns == columns
    assert second.scores["item_id"].to_list() == [1, 2, 3, 4]
    # odds 9, 1/9, 1, 16; their square roots 3, 1/3, 1, 4
    np.testing.assert_allclose(first.scores["score"].to_numpy(), [9 / 10, 1 / 10, 1 / 2, 16 / 17], atol=1e-6)
    np.testing.assert_allclose(second.scores["score"].to_numpy(), [3 / 4, 1 / 4, 1 / 2, 4 / 5], atol=1e-6)
    assert second.scores["temperature"].to_list() == [2.0] * 4
    assert second.scores.schema["temperature"] == second.scores.schema["score"] == pl.Float32
    assert_frame_equal(first.scores.drop("temperature", "score"), second.scores.drop("temperature", "score"))
    assert table_digest(first.scores) != table_digest(second.scores)
    # .1 to .94 before, .25 to .8 after: the share is of the scores as they are given out
    assert first.metrics["score_share_between_05_95"] == second.metrics["score_share_between_05_95"] == 1.0
    sharp = judge_pairs(*toy_tables, ToyJudge(), tmp_path, tmp_path, temperature=0.5)
    assert sharp.metrics["score_share_between_05_95"] == 1 / 4  # odds 81, 1/81, 1, 256
    off = judge_pairs(*toy_tables, ToyJudge(), tmp_path, tmp_path, temperature=1.0)
    assert off.scores.equals(first.scores)


def test_the_table_says_the_temperature_that_was_used(toy_tables, tmp_path):
    """1.3 is not a float32; what the table holds must give its scores exactly, not almost."""
    result = judge_pairs(*toy_tables, ToyJudge(), tmp_path, tmp_path, temperature=1.3)
    yes, no, temperature = (result.scores[name].to_numpy() for name in ("yes_logit", "no_logit", "temperature"))
    assert temperature.tolist() == [np.float32(1.3)] * 4
    np.testing.assert_array_equal(result.scores["score"].to_numpy(), score(yes, no, float(temperature[0])))
    assert result.metrics["temperature"] == float(np.float32(1.3))


@pytest.mark.parametrize("temperature", [0.0, -1.0, 1e-60, 1e60, float("nan"), float("inf")])
def test_a_useless_temperature_is_refused_before_anything_is_judged(toy_tables, tmp_path, temperature):
    judge = ToyJudge()
    with pytest.raises(ConfigurationError, match=r"judge\.temperature"):
        judge_pairs(*toy_tables, judge, tmp_path, tmp_path, temperature=temperature)
    assert judge.judged == []


SCRIPT = """
import json, sys
from pathlib import Path
import polars as pl
from unime_kedro.mining import judging
from unime_kedro.mllm.adapters import load_adapter
from unime_kedro.mllm.content import ModelSpec
from unime_kedro.mllm.judge import PrefixJudge
model, store, images, folder, out = sys.argv[1:]
tables = [pl.read_parquet(Path(folder) / f"{n}.parquet") for n in ("queries", "items", "pool")]
judge = PrefixJudge(load_adapter(ModelSpec(model, dtype="float32")), batch_size=4)
result = judging.judge_pairs(*tables, judge, Path(store), Path(images), flush_seconds=0.0)
result.scores.write_parquet(out)
print(json.dumps(result.metrics))
"""


def test_killed_and_started_again_ends_with_the_identical_table(tables, model_folder, pictures, tmp_path):
    for name, table in zip(("queries", "items", "pool"), tables, strict=True):
        table.write_parquet(tmp_path / f"{name}.parquet")

    def command(store, out):
        parts = [model_folder, tmp_path / store, pictures[0].parent, tmp_path, tmp_path / out]
        return [sys.executable, "-c", SCRIPT, *map(str, parts)]

    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command("killed", "no.parquet"), env=environment, stdout=subprocess.PIPE)
    deadline = time.monotonic() + 120
    while not list(Path(tmp_path).glob("killed/*/shard-*")) and process.poll() is None and time.monotonic() < deadline:
        os.sched_yield()
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "no.parquet").exists() or process.returncode == 0
    outputs = {}
    for store, out in (("killed", "resumed.parquet"), ("whole", "whole.parquet")):
        done = subprocess.run(command(store, out), env=environment, capture_output=True, check=True, text=True)
        outputs[store] = json.loads(done.stdout.splitlines()[-1])
    assert outputs["killed"]["from_store"] > 0
    assert outputs["killed"]["judged_now"] < outputs["whole"]["judged_now"]
    assert_frame_equal(pl.read_parquet(tmp_path / "resumed.parquet"), pl.read_parquet(tmp_path / "whole.parquet"))
