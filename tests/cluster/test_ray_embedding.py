"""The pool's embedder on a real cluster: the vectors of one process, whatever is killed meanwhile."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from ray_judges import MODELS
from test_ray_judging import At

from unime_kedro.cluster.connection import ClusterOptions
from unime_kedro.errors import ModelError
from unime_kedro.mining import embedding
from unime_kedro.mining.embedding import embed_items
from unime_kedro.mllm.adapters import load_adapter
from unime_kedro.mllm.content import ModelSpec
from unime_kedro.mllm.embedding import Embedder

pytest.importorskip("ray", reason="Ray is not installed here: pip install -e '.[ray]'")
from unime_kedro.cluster.embedding import RayEmbedder


def maker(seconds: float = 0.0, poison: str = "") -> Callable[[], Any]:
    """Return what makes an embedder on a worker; ``poison`` in a text kills the process."""
    folder = str(MODELS / "tiny-embedder")

    def make() -> Any:
        spec = ModelSpec(folder, dtype="float32", device="cpu", threads=1)
        embedder = Embedder(load_adapter(spec), prompt="plain", max_tokens=64, batch_tokens=512)
        embed = embedder.embed

        def slow_and_deadly(contents: Any) -> Any:
            if poison and any(poison in content.text for content in contents):
                os.kill(os.getpid(), 9)
            time.sleep(seconds)
            return embed(contents)

        embedder.embed = slow_and_deadly  # type: ignore[method-assign]
        return embedder

    return make


@pytest.fixture(scope="module", autouse=True)
def small_chunks():
    """Eight items at a time, so that 61 of them are many chunks."""
    before, embedding.CHUNK = embedding.CHUNK, 8
    yield
    embedding.CHUNK = before


@pytest.fixture(scope="module")
def items(pictures) -> pl.DataFrame:
    n = 61
    return pl.DataFrame(
        {
            "item_id": range(n),
            "text": [f"item {i}, " + "some words " * (i % 50) for i in range(n)],
            "image": [pictures[i % 8].name if i % 3 == 0 else "" for i in range(n)],
            "content_key": [f"{i:032x}" for i in range(n)],
        }
    )


@pytest.fixture(scope="module")
def wanted(items, pictures, tmp_path_factory) -> tuple[np.ndarray, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("without_ray")
    file, metrics = embed_items(items, pictures[0].parent, maker()(), folder)
    assert metrics["truncated"] > 0
    return np.load(file), metrics


def test_two_nodes_give_the_vectors_of_one_process(cluster, items, pictures, wanted, tmp_path):
    embedder = RayEmbedder(maker(seconds=0.1), ClusterOptions())
    file, metrics = embed_items(items, pictures[0].parent, embedder, tmp_path)
    assert np.array_equal(np.load(file), wanted[0])  # bit by bit
    assert embedder.metrics()["workers"] == 2
    assert metrics["truncated"] == wanted[1]["truncated"]
    # the same vectors by another way: not computed again
    _, again = embed_items(items, pictures[0].parent, maker()(), tmp_path)
    assert again["reused"] == len(items)


def test_a_killed_worker_changes_nothing(workers, items, pictures, wanted, tmp_path):
    bar = At(lambda: workers("EmbeddingWorker")[0].kill())
    embedder = RayEmbedder(maker(seconds=0.3), ClusterOptions())
    file, _ = embed_items(items, pictures[0].parent, embedder, tmp_path, bar)
    assert bar.after > 0
    assert np.array_equal(np.load(file), wanted[0])


class Stop(Exception):
    pass


def test_an_interrupted_run_goes_on_where_it_was(cluster, items, pictures, wanted, tmp_path):
    def stop() -> None:
        raise Stop

    with pytest.raises(Stop):
        embed_items(items, pictures[0].parent, RayEmbedder(maker(), ClusterOptions()), tmp_path, At(stop))
    done = json.loads((tmp_path / "embeddings.partial.json").read_text())["done"]
    assert done == 8
    file, metrics = embed_items(items, pictures[0].parent, RayEmbedder(maker(), ClusterOptions()), tmp_path)
    assert metrics["reused"] == 8
    assert np.array_equal(np.load(file), wanted[0])


def test_items_that_kill_workers_end_the_run(cluster, items, pictures, tmp_path):
    text = pl.when(pl.col("item_id") == 20).then(pl.lit("poisoned words")).otherwise("text")
    embedder = RayEmbedder(maker(poison="poisoned"), ClusterOptions())
    with pytest.raises(ModelError, match="3 workers died while they embedded items 16 to 23"):
        embed_items(items.with_columns(text=text), pictures[0].parent, embedder, tmp_path)


def test_a_picture_that_cannot_be_read_is_named(cluster, items, pictures, tmp_path):
    root: Path = tmp_path / "pictures"
    root.mkdir()
    for picture in pictures:
        (root / picture.name).write_bytes(picture.read_bytes())
    (root / pictures[3].name).write_bytes(b"no picture")
    from unime_kedro.errors import DataError

    with pytest.raises(DataError, match=pictures[3].name):
        embed_items(items, root, RayEmbedder(maker(), ClusterOptions()), tmp_path / "out")
