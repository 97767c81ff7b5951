"""The judge on a real cluster of several nodes: the table of one process, whatever is killed meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from polars.testing import assert_frame_equal
from ray_judges import maker, transformers_judge

from unime_kedro.cluster.connection import ClusterOptions
from unime_kedro.errors import ConfigurationError, DataError, ModelError
from unime_kedro.mining.judging import Judged, judge_pairs
from unime_kedro.mining.store import JudgeStore

pytest.importorskip("ray", reason="Ray is not installed here: pip install -e '.[ray]'")
from unime_kedro.cluster.judging import RayJudge, chunks_of

PAIRS = 24 * 6


class At:
    """A progress bar that does something once, when the first pairs are on disk."""

    def __init__(self, act: Callable[[], None]) -> None:
        self.act, self.acted, self.after = act, False, 0

    @contextmanager
    def __call__(self, *_: Any) -> Iterator[At]:
        yield self

    def skip(self, n: int) -> None:
        pass

    def advance(self, n: int) -> None:
        self.after += n * self.acted
        if not self.acted:
            self.acted = True
            self.act()


def run(tables, pictures, root: Path, judge: RayJudge, **options: Any) -> Judged:
    return judge_pairs(*tables, judge, root, pictures[0].parent, **options)


def test_two_nodes_give_the_table_of_one_process(cluster, tables, pictures, wanted, tmp_path):
    judge = RayJudge(maker(seconds=0.05), ClusterOptions(), chunk_pairs=18)
    found = run(tables, pictures, tmp_path, judge)
    assert found.scores.equals(wanted)  # bit by bit
    assert judge.identity() == transformers_judge().identity()  # one store with and without Ray
    metrics = judge.metrics()
    assert metrics["workers"] == 2
    alone = transformers_judge()
    list(alone.judge_all([]))
    judge_pairs(*tables, alone, tmp_path / "alone", pictures[0].parent)
    for name in ("prompt_tokens", "run_tokens", "prefix_reuse_share", "truncated"):
        assert metrics[name] == pytest.approx(alone.metrics()[name])
    # it was workers that wrote: a shard per chunk, none by this process
    shards = list(JudgeStore(tmp_path, judge.identity()).folder.glob("shard-*.parquet"))
    assert len({shard.name.split("-")[2] for shard in shards}) == 2
    # and nothing is judged again, by Ray or without it
    again = run(tables, pictures, tmp_path, transformers_judge())
    assert again.metrics["judged_now"] == 0
    assert again.scores.equals(wanted)


def test_a_killed_worker_changes_nothing(workers, tables, pictures, wanted, tmp_path):
    killed: list[int] = []

    def kill() -> None:
        victim = workers("JudgeWorker")[0]
        killed.append(victim.pid)
        victim.kill()

    bar = At(kill)
    judge = RayJudge(maker(seconds=0.2), ClusterOptions(), chunk_pairs=12)
    found = run(tables, pictures, tmp_path, judge, progress=bar)
    assert killed
    assert bar.after > 0
    assert found.scores.equals(wanted)
    assert judge.metrics()["workers"] >= 2


def test_a_killed_node_changes_nothing(cluster, tables, pictures, wanted, tmp_path):
    """SIGKILL of a raylet, with the workers it has."""
    bar = At(lambda: cluster.remove_node(sorted(cluster.worker_nodes, key=id)[0], allow_graceful=False))
    found = run(
        tables, pictures, tmp_path, RayJudge(maker(seconds=0.2), ClusterOptions(), chunk_pairs=12), progress=bar
    )
    assert bar.after > 0
    assert found.scores.equals(wanted)


def test_a_query_that_kills_workers_becomes_errors_and_costs_no_other(cluster, tables, pictures, wanted, tmp_path):
    queries, items, pool = tables
    text = pl.when(pl.col("item_id") == 24 + 5).then(pl.lit("poisoned words")).otherwise("text")
    poisoned = items.with_columns(text=text.alias("text"))  # the positive of query 5
    judge = RayJudge(maker(poison="poisoned"), ClusterOptions(), chunk_pairs=24)
    found = run((queries, poisoned, pool), pictures, tmp_path, judge, max_error_share=0.1)
    assert found.errors["query_id"].unique().to_list() == [5]
    assert len(found.errors) == 6
    assert found.errors["error"].unique().to_list() == ["3 workers died while they judged this query"]
    assert_frame_equal(found.scores, wanted.filter(pl.col("query_id") != 5))


def test_a_run_goes_on_where_another_ended(cluster, tables, pictures, wanted, tmp_path):
    queries, items, pool = tables
    half = queries.filter(pl.col("query_id") < 12)
    run((half, items, pool.filter(pl.col("query_id") < 12)), pictures, tmp_path, RayJudge(maker(), ClusterOptions()))
    found = run(tables, pictures, tmp_path, RayJudge(maker(), ClusterOptions()))
    # queries 0 and 9 have the same content, and the same pool: 5 pairs are one, and 11 queries have one of 6 each
    assert found.metrics["from_store"] == 12 * 6 - 5
    assert found.scores.equals(wanted)


def test_a_model_that_does_not_load_is_one_clear_error(cluster):
    def broken() -> None:
        raise ModelError("models/nothing: no such model")

    with pytest.raises(ModelError, match=r"^models/nothing: no such model$"):
        RayJudge(broken, ClusterOptions())


def test_a_model_that_loads_only_once_is_one_clear_error(cluster, tables, pictures, tmp_path):
    """The first worker asked had it, the ones that judge do not."""
    good, mark = maker(), tmp_path / "asked"

    def once() -> Any:
        if mark.exists():
            raise ModelError("models/gone: no such model any more")
        mark.touch()
        return good()

    with pytest.raises(ModelError, match=r"^models/gone: no such model any more$"):
        run(tables, pictures, tmp_path / "store", RayJudge(once, ClusterOptions()))


def test_an_error_that_is_not_ours_says_what_it_is(cluster, tables, pictures, tmp_path):
    good = maker()

    def odd() -> Any:
        judge = good()
        judge.judge_all = lambda groups: 1 / 0
        return judge

    with pytest.raises(ModelError, match=r"a worker of the Ray cluster failed: ZeroDivisionError: division by zero"):
        run(tables, pictures, tmp_path, RayJudge(odd, ClusterOptions()))


def test_a_worker_with_another_judge_is_refused(cluster, tables, pictures, tmp_path):
    mark = tmp_path / "asked"

    def dtype() -> str:
        first = not mark.exists()
        mark.touch()
        return "float32" if first else "bfloat16"

    judge = RayJudge(maker(dtype=dtype), ClusterOptions())
    with pytest.raises(ConfigurationError, match=r"gives other scores than that of the first one asked: .*bfloat16"):
        run(tables, pictures, tmp_path / "store", judge)


def test_a_worker_that_does_not_see_the_store_says_so(cluster, tables, pictures, tmp_path):
    judge = RayJudge(maker(), ClusterOptions())
    store = JudgeStore(tmp_path, judge.identity())
    (store.folder / "judge.json").unlink()
    _, items, _ = tables
    missing = pl.DataFrame({"query_key": ["a"], "query_item_id": [0], "item_id": [[1]], "candidate_key": [["b"]]})
    from unime_kedro.mllm.content import contents_of

    with pytest.raises(DataError, match="does not see the judge store"):
        list(judge.fill_store(missing, contents_of(items, pictures[0].parent), store))


@pytest.mark.parametrize("sizes", [[3, 1, 4, 1, 5, 9, 2, 6], [50], [1] * 7, [8, 8, 8]])
def test_chunks_are_whole_queries_in_order(sizes):
    missing = pl.DataFrame({"query": range(len(sizes)), "item_id": [list(range(n)) for n in sizes]})
    for pairs in (1, 5, 8, 1000):
        chunks = list(chunks_of(missing, pairs))
        assert pl.concat(chunks).equals(missing)
        for chunk in chunks[:-1]:
            counts = chunk["item_id"].list.len().to_list()
            assert sum(counts) >= pairs > sum(counts[:-1])
