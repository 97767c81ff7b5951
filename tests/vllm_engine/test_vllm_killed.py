"""An engine that is killed: what it gave is kept, and the next run judges the rest."""

from __future__ import annotations

from contextlib import contextmanager

import numpy as np
import polars as pl
import psutil
import pytest
from tiny_engines import MAX_TOKENS, new_judge, spec

from unime_kedro.errors import ModelError
from unime_kedro.mining.judging import judge_pairs
from unime_kedro.mining.store import JudgeStore
from unime_kedro.mllm.adapters import load_adapter
from unime_kedro.mllm.judge import PrefixJudge

N_QUERIES, POOL = 12, 5


@pytest.fixture(scope="module")
def corpus(pictures) -> tuple[pl.DataFrame, pl.DataFrame, pl.DataFrame]:
    """Queries, items and pools; every third item has a picture, too."""
    n = 2 * N_QUERIES + POOL
    items = pl.DataFrame(
        {
            "item_id": range(n),
            "text": [f"item {i}, " + "some words " * (i % 7) for i in range(n)],
            "image": [pictures[i % 8].name if i % 3 == 0 else "" for i in range(n)],
            "content_key": [f"key {i}" for i in range(n)],
        }
    )
    query = np.arange(N_QUERIES)
    queries = pl.DataFrame({"query_id": query, "item_id": query, "positive_item_id": query + N_QUERIES})
    pool = pl.DataFrame(
        {
            "query_id": np.repeat(query, POOL),
            "rank": np.tile(np.arange(POOL, dtype=np.int32), N_QUERIES),
            "item_id": np.tile(np.arange(POOL), N_QUERIES) + 2 * N_QUERIES,
        }
    )
    return queries, items, pool


class Killer:
    """A progress bar that kills a process of the engine when some pairs are done."""

    def __init__(self, victim: str, after: int) -> None:
        self.victim, self.after, self.done = victim, after, 0

    @contextmanager
    def __call__(self, *_):
        yield self

    def skip(self, n: int) -> None:
        pass

    def advance(self, n: int) -> None:
        self.done += n
        if self.done == self.after:
            found = [p for p in psutil.Process().children(recursive=True) if self.victim in p.name()]
            assert found, [p.name() for p in psutil.Process().children(recursive=True)]
            for process in found:
                process.kill()


@pytest.mark.parametrize("victim", ["EngineCore", "Worker"])
def test_a_killed_engine_loses_a_chunk_at_most(corpus, pictures, tmp_path, victim):
    root = pictures[0].parent
    judge = new_judge(check_pairs=0, chunk_pairs=2 * (POOL + 1))
    with pytest.raises(ModelError, match=r"the vLLM engine died: .*run again to go on from there"):
        judge_pairs(*corpus, judge, tmp_path, root, progress=Killer(victim, 4 * (POOL + 1)))
    kept = len(JudgeStore(tmp_path, judge.identity()).read())
    total = N_QUERIES * (POOL + 1)
    assert 4 * (POOL + 1) <= kept <= 6 * (POOL + 1) < total
    judge.close()

    again = new_judge(check_pairs=3)
    found = judge_pairs(*corpus, again, tmp_path, root)
    again.close()
    assert found.metrics["from_store"] == kept
    assert found.metrics["judged_now"] == total - kept
    assert again.checked == 3
    plain = PrefixJudge(load_adapter(spec()), batch_size=8, max_tokens=MAX_TOKENS)
    wanted = judge_pairs(*corpus, plain, tmp_path / "plain", root).scores
    columns = ["query_id", "item_id", "is_positive"]
    assert found.scores.select(columns).equals(wanted.select(columns))
    np.testing.assert_allclose(found.scores["score"], wanted["score"], atol=1e-4)


def test_nothing_to_judge_starts_no_engine(corpus, pictures, tmp_path):
    queries, _, pool = corpus
    judge = new_judge()
    store = JudgeStore(tmp_path, judge.identity())
    pairs = pl.concat(
        [pool.select("query_id", "item_id"), queries.select("query_id", pl.col("positive_item_id").alias("item_id"))]
    )
    with store:
        store.add(
            pairs.select(
                pl.format("key {}", "query_id").alias("query_key"),
                pl.format("key {}", "item_id").alias("candidate_key"),
                yes_logit=pl.lit(1.0),
                no_logit=pl.lit(0.5),
                error=pl.lit(""),
            )
        )
    found = judge_pairs(*corpus, judge, tmp_path, pictures[0].parent)
    assert found.metrics["judged_now"] == 0
    assert judge.engine._llm is None
    assert judge.metrics()["prefix_hit_rate"] == 0
