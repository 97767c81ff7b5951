from pathlib import Path

import numpy as np
import polars as pl
import pytest
import yaml

from unime_kedro.mining.indexes.options import IndexOptions
from unime_kedro.mining.retrieval import retrieve_pool
from unime_kedro.parameters import IndexParameters, PoolParameters
from unime_kedro.pipelines.pool.nodes import retrieve

POOL = yaml.safe_load((Path(__file__).parents[2] / "conf/base/parameters/pool.yml").read_text(encoding="utf-8"))["pool"]


def tables():
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((300, 8))
    embeddings = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    items = pl.DataFrame({"item_id": range(300), "content_key": [f"{i}" for i in range(300)]})
    queries = pl.DataFrame({"query_id": range(50), "item_id": range(50), "positive_item_id": range(50, 100)})
    return embeddings, items, queries, pl.DataFrame({"item_id": range(20, 300)})


def parameters(**index):
    return PoolParameters(**{**POOL, "k": 10, "index": POOL["index"] | index})


def test_defaults_of_the_configuration_and_of_the_library_are_the_same():
    assert IndexOptions(**POOL["index"]) == IndexOptions()
    assert set(IndexParameters.model_fields) == set(IndexOptions.__dataclass_fields__)


@pytest.mark.parametrize("wrong", [{"kind": "faiss"}, {"nprobe": 0}, {"nlists": 4}, {"gpu_memory_gb": 0.0}])
def test_faulty_options_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        parameters(**wrong)


def test_default_is_exact_and_keeps_nothing(tmp_path):
    embeddings, items, queries, candidates = tables()
    pool, _, metrics = retrieve(embeddings, items, queries, candidates, parameters(), tmp_path)
    assert pool.equals(retrieve_pool(embeddings, queries, candidates["item_id"], k=10).frame)
    assert metrics["index"] == "flat"
    assert metrics["index_reason"].startswith("exact search of 50 query items x 280 candidates x 8 takes about")
    assert not list(tmp_path.iterdir())


def test_options_reach_the_index(tmp_path):
    chosen = parameters(kind="ivf", nlist=40, nprobe=1, recall_queries=30)
    _, _, metrics = retrieve(*tables(), chosen, tmp_path)
    assert np.load(tmp_path / "ivf_centroids.npy").shape == (40, 8)
    assert metrics["index_recall_queries"] == 30
    assert metrics["index_recall"]["value"] < 0.9
    _, _, metrics = retrieve(*tables(), parameters(kind="ivf", nlist=40, nprobe=40), tmp_path)
    assert metrics["index_recall"]["value"] == 1
