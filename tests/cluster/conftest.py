"""A real Ray cluster of several nodes on this machine: each node is a raylet with processes of its own."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import psutil
import pytest
from ray_judges import transformers_judge

N_QUERIES, POOL = 24, 5


@pytest.fixture(autouse=True)
def _no_test_waits_for_ever() -> Iterator[None]:
    """A cluster that cannot go on waits; the slowest of these tests takes a minute and a half."""

    def stop(*_: object) -> None:
        raise TimeoutError("ten minutes for one test")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(600)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture(scope="session")
def ray_nodes() -> Iterator[Any]:
    """A cluster whose head has no room for workers, and two nodes with room for one each; tests may kill nodes."""
    pytest.importorskip("ray", reason="Ray is not installed here: pip install -e '.[ray]'")
    os.environ["RAY_BACKEND_LOG_LEVEL"] = "fatal"
    import ray
    from ray.cluster_utils import Cluster

    from unime_kedro.cluster.connection import ClusterOptions, connect

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "object_store_memory": 100 * 2**20})
    for _ in range(2):
        cluster.add_node(num_cpus=1, object_store_memory=100 * 2**20)
    cluster.wait_for_nodes()
    assert connect(ClusterOptions(address=cluster.address))
    yield cluster
    ray.shutdown()
    cluster.shutdown()


@pytest.fixture
def cluster(ray_nodes) -> Any:
    """The same with both of its nodes alive, whatever the test before did to them."""
    while len(ray_nodes.worker_nodes) < 2:
        ray_nodes.add_node(num_cpus=1, object_store_memory=100 * 2**20)
    ray_nodes.wait_for_nodes()
    return ray_nodes


@pytest.fixture(scope="session")
def tables(pictures: list[Path]) -> tuple[pl.DataFrame, pl.DataFrame, pl.DataFrame]:
    """Queries, items and pools; every third item has a picture, too, and two queries have the same content."""
    n = 2 * N_QUERIES + POOL
    items = pl.DataFrame(
        {
            "item_id": range(n),
            "text": [f"item {i}, " + "some words " * (i % 7) for i in range(n)],
            "image": [pictures[i % 8].name if i % 3 == 0 else "" for i in range(n)],
            "content_key": [f"{0 if i == 9 else i:032x}" for i in range(n)],
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


@pytest.fixture(scope="session")
def wanted(tables, pictures: list[Path], tmp_path_factory: pytest.TempPathFactory) -> pl.DataFrame:
    """The judge_scores table of one process without Ray."""
    from unime_kedro.mining.judging import judge_pairs

    root = tmp_path_factory.mktemp("without_ray")
    return judge_pairs(*tables, transformers_judge(), root, pictures[0].parent, max_error_share=0).scores


@pytest.fixture
def workers(cluster) -> Callable[[str], list[psutil.Process]]:
    """Processes of this cluster that do something; Ray names them by what they are about."""

    def found(name: str) -> list[psutil.Process]:
        raylets = [node.all_processes["raylet"][0].process.pid for node in cluster.worker_nodes]
        children = [child for pid in raylets for child in psutil.Process(pid).children()]
        return [child for child in children if name in " ".join(child.cmdline())]

    return found
