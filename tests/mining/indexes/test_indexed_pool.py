"""Pools by every index that runs on this machine, against the flat one and against slow loops."""

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from unime_kedro.errors import ConfigurationError, DataError
from unime_kedro.mining.indexes.options import IndexOptions
from unime_kedro.mining.indexes.pool import retrieve_indexed
from unime_kedro.mining.retrieval import retrieve_pool

DIM = 16


def corpus(seed, n_items=400, n_queries=120, kinds=25):
    """Items in groups, with gaps between the candidates' ids and queries that share items."""
    rng = np.random.default_rng(seed)
    vectors = rng.standard_normal((kinds, DIM))[rng.integers(0, kinds, n_items)]
    vectors = vectors + 0.3 * rng.standard_normal((n_items, DIM))
    embeddings = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    queries = pl.DataFrame(
        {
            "query_id": rng.permutation(n_queries * 3)[:n_queries],
            "item_id": rng.integers(0, n_items // 2, n_queries),
            "positive_item_id": rng.integers(n_items // 3, n_items, n_queries),
        }
    )
    return embeddings, queries, np.unique(np.concatenate([queries["positive_item_id"], rng.integers(0, n_items, 150)]))


def options(kind, **more):
    return IndexOptions(kind=kind, **{"nlist": 20, "nprobe": 3, "ef_search": 16, "m": 4, "recall_queries": 50} | more)


def allowed(query, queries, embeddings, candidates, delta, exclude):
    """What may be in a query's pool, one candidate at a time."""
    _, item, positive = query
    forbidden = {item, positive}
    if exclude == "known_positives":
        forbidden |= set(queries.filter(pl.col("item_id") == item)["positive_item_id"])
    vector = embeddings[item].astype(np.float64)
    found = {}
    for candidate in candidates.tolist():
        similarity = np.float32(min(1, max(-1, float(vector @ embeddings[candidate].astype(np.float64)))))
        if candidate not in forbidden and (delta is None or similarity < np.float32(delta)):
            found[candidate] = similarity
    return found


class TestExactWhereEverythingIsLookedAt:
    @given(st.integers(0, 10**6), st.sampled_from([3, 25, 200]), st.integers(1, 25))
    @settings(max_examples=15, deadline=None)
    def test_all_lists_equal_flat(self, tmp_path_factory, seed, kinds, k):
        data = corpus(seed, n_items=200, n_queries=40, kinds=kinds)
        rules = {"k": k, "max_similarity": 0.95, "exclude": "known_positives"}
        found = retrieve_indexed(
            *data, options=options("ivf", nprobe=20), folder=tmp_path_factory.mktemp("index"), **rules
        )
        assert_frame_equal(found.result.frame, retrieve_pool(*data, **rules).frame, check_exact=True)
        assert found.figures["index_recall"]["value"] == 1

    def test_flat_is_the_default_and_the_same(self, tmp_path):
        data = corpus(1)
        found = retrieve_indexed(*data, options=IndexOptions(), folder=tmp_path, k=10)
        assert_frame_equal(found.result.frame, retrieve_pool(*data, k=10).frame, check_exact=True)
        assert found.figures["index"] == "flat"
        assert "index_recall" not in found.figures
        assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("kind", ["ivf", "hnsw"])
class TestRulesOfThePool:
    @pytest.mark.parametrize("exclude", ["positive", "known_positives"])
    @pytest.mark.parametrize("delta", [None, 0.7])
    def test_every_member_is_allowed_and_in_its_place(self, tmp_path, kind, exclude, delta):
        embeddings, queries, candidates = corpus(2)
        rules = {"k": 12, "max_similarity": delta, "exclude": exclude}
        found = retrieve_indexed(embeddings, queries, candidates, options=options(kind), folder=tmp_path, **rules)
        frame = found.result.frame
        for query in queries.select("query_id", "item_id", "positive_item_id").iter_rows():
            may = allowed(query, queries, embeddings, candidates, delta, exclude)
            pool = frame.filter(pl.col("query_id") == query[0])
            items, similarity = pool["item_id"].to_list(), pool["similarity"].to_list()
            assert len(set(items)) == min(12, len(may))
            assert pool["rank"].to_list() == list(range(len(items)))
            assert [float(may[item]) for item in items] == similarity
            order = [(-s, item) for s, item in zip(similarity, items, strict=True)]
            assert order == sorted(order)

    def test_recall_is_the_share_of_the_exact_pool(self, tmp_path, kind):
        data = corpus(3, n_items=900, kinds=300)
        weak = options(kind, nprobe=1, ef_search=10, m=2, ef_construction=4, recall_queries=1000)
        found = retrieve_indexed(*data, options=weak, folder=tmp_path, k=10)
        exact = retrieve_pool(*data, k=10).frame
        both = set(exact.select("query_id", "item_id").rows()) & set(
            found.result.frame.select("query_id", "item_id").rows()
        )
        recall = found.figures["index_recall"]
        assert recall["value"] == pytest.approx(len(both) / exact.height)  # every query has ten
        assert 0.1 < recall["value"] < 0.98
        assert recall["low"] < recall["value"] < recall["high"]
        assert found.figures["index_recall_queries"] == 120

    def test_order_of_rows_batches_and_memory_do_not_matter(self, tmp_path, kind):
        embeddings, queries, candidates = corpus(4)
        expected = retrieve_indexed(
            embeddings, queries, candidates, options=options(kind), folder=tmp_path / "a", k=12, max_similarity=0.8
        )
        for seed, memory_gb in enumerate((1e-3, 5e-4)):
            found = retrieve_indexed(
                embeddings,
                queries.sample(fraction=1, shuffle=True, seed=seed),
                np.random.default_rng(seed).permutation(np.tile(candidates, 2)),
                options=options(kind),
                folder=tmp_path / f"{seed}",
                k=12,
                max_similarity=0.8,
                memory_gb=memory_gb,
            )
            assert_frame_equal(found.result.frame, expected.result.frame, check_exact=True)
            assert found.figures["index_recall"] == expected.figures["index_recall"]

    def test_threads_do_not_matter(self, tmp_path, kind):
        import faiss

        data = corpus(5, n_items=1500, n_queries=300)
        before, frames = faiss.omp_get_max_threads(), []
        try:
            for threads in (1, 3):
                faiss.omp_set_num_threads(threads)
                frames.append(
                    retrieve_indexed(*data, options=options(kind), folder=tmp_path / f"{threads}", k=12).result.frame
                )
                assert faiss.omp_get_max_threads() == threads
        finally:
            faiss.omp_set_num_threads(before)
        assert_frame_equal(*frames, check_exact=True)

    def test_delta_that_empties_what_was_looked_at_is_filled_up(self, tmp_path, kind):
        """All near candidates are struck out, so that those of a first and a deeper search do not fill the pool."""
        rng = np.random.default_rng(6)
        near = np.eye(DIM)[0] + 0.05 * rng.standard_normal((500, DIM))
        vectors = np.vstack([near, rng.standard_normal((100, DIM))])
        embeddings = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
        queries = pl.DataFrame({"query_id": [0], "item_id": [0], "positive_item_id": [1]})
        data = embeddings, queries, np.arange(600)
        found = retrieve_indexed(*data, options=options(kind), folder=tmp_path, k=8, max_similarity=0.8)
        assert found.result.metrics["exhaustive_queries"] == 1
        assert found.result.metrics["short_queries"] == 0
        assert_frame_equal(found.result.frame, retrieve_pool(*data, k=8, max_similarity=0.8).frame, check_exact=True)

    def test_more_wanted_than_there_are(self, tmp_path, kind):
        data = corpus(7, n_items=60, n_queries=10)
        found = retrieve_indexed(*data, options=options(kind), folder=tmp_path, k=500)
        assert_frame_equal(found.result.frame, retrieve_pool(*data, k=500).frame, check_exact=True)
        assert found.result.metrics["short_queries"] == 10

    def test_bad_vector_is_an_error_before_anything_is_built(self, tmp_path, kind):
        embeddings, queries, candidates = corpus(8)
        embeddings[17, 3] = np.nan
        with pytest.raises(DataError, match="item_id 17 has NaN"):
            retrieve_indexed(embeddings, queries, candidates, options=options(kind), folder=tmp_path, k=5)
        assert not list(tmp_path.iterdir())

    def test_nothing_to_search(self, tmp_path, kind):
        embeddings, queries, candidates = corpus(9)
        none = retrieve_indexed(embeddings, queries, candidates[:0], options=options(kind), folder=tmp_path, k=5)
        assert none.result.metrics["short_queries"] == 120
        none = retrieve_indexed(embeddings, queries[:0], candidates, options=options(kind), folder=tmp_path, k=5)
        assert none.result.frame.is_empty()
        assert "index_recall" not in none.figures


@pytest.mark.parametrize("kind", ["gpu_flat", "gpu_ivf"])
def test_without_a_gpu_the_error_says_what_to_do(tmp_path, kind):
    from unime_kedro.mining.indexes.gpu import gpu_count

    if gpu_count():
        pytest.skip("there is a GPU")
    with pytest.raises(ConfigurationError, match=rf"{kind} with all GPUs: faiss sees 0.*or choose flat, ivf or auto"):
        retrieve_indexed(*corpus(10), options=options(kind), folder=tmp_path, k=5)


@pytest.mark.parametrize("kind", ["gpu_flat", "gpu_ivf"])
@pytest.mark.parametrize("k", [10, 2048])
@pytest.mark.parametrize("gpu_memory_gb", [1.0, 1e-4])
def test_on_gpus(tmp_path, kind, k, gpu_memory_gb):
    from unime_kedro.mining.indexes.gpu import gpu_count

    if not gpu_count():
        pytest.skip("needs a GPU and faiss built for it")
    if kind == "gpu_ivf" and gpu_memory_gb < 1:
        pytest.skip("inverted lists are not copied in parts")
    data = corpus(11, n_items=9000, n_queries=400)
    everything = np.arange(9000)
    chosen = options(kind, nprobe=20, gpu_memory_gb=gpu_memory_gb)
    found = retrieve_indexed(*data[:2], everything, options=chosen, folder=tmp_path, k=k)
    assert_frame_equal(found.result.frame, retrieve_pool(*data[:2], everything, k=k).frame, check_exact=True)
