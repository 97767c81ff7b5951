import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from unime_kedro.mining.index import FlatIndex
from unime_kedro.mining.indexes.gpu import LIMIT, comb, even_parts
from unime_kedro.mining.indexes.sharded import Shard, ShardedIndex
from unime_kedro.mining.retrieval import first_depth, retrieve_pool


def items(seed, n, dim=8):
    vectors = np.random.default_rng(seed).standard_normal((n, dim))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def sharded(embeddings, lanes, per_lane, limit):
    """Flat indexes over parts of the candidates, as GPUs have them."""
    made = []
    for first, last in even_parts(len(embeddings), lanes):
        bounds = [(first + a, first + b) for a, b in even_parts(last - first, per_lane)]
        made.append([Shard(FlatIndex(embeddings, np.arange(a, b), 10**6), a, b) for a, b in bounds])
    return ShardedIndex(made, limit)


@given(st.integers(0, 10**6), st.integers(1, 4), st.integers(1, 3), st.sampled_from([None, 6, 25, 100]))
@settings(max_examples=25, deadline=None)
def test_what_it_returns_is_a_beginning_of_the_exact_list(seed, lanes, per_lane, limit):
    embeddings, vectors = items(seed, 90), items(seed + 1, 12)
    product, position = sharded(embeddings, lanes, per_lane, limit).search(vectors, 40)
    exact = np.argsort(-(vectors.astype(np.float64) @ embeddings.T.astype(np.float64)), axis=1, kind="stable")
    for i in range(12):
        there = int((position[i] >= 0).sum())
        assert position[i, :there].tolist() == exact[i, :there].tolist()
        assert (position[i, there:] == -1).all()
        assert there == 40 if limit in (None, 100) else there >= min(40, limit)
        assert (np.diff(product[i, :there]) <= 0).all()


@pytest.mark.parametrize("limit", [3, 20, 64])
@pytest.mark.parametrize("k", [5, 50, 200])
def test_a_limit_below_the_depth_leaves_the_pool_exact(limit, k):
    embeddings = items(5, 700)
    queries = pl.DataFrame({"query_id": range(40), "item_id": range(40), "positive_item_id": range(40, 80)})
    found = retrieve_pool(embeddings, queries, np.arange(700), k=k, index=sharded(embeddings, 2, 3, limit))
    exact = retrieve_pool(embeddings, queries, np.arange(700), k=k)
    assert_frame_equal(found.frame, exact.frame, check_exact=True)


def test_a_comb_needs_no_other_search():
    """A pool of 2,048 takes 2,306 neighbours, of which a GPU returns 2,048; the nearest 3,000 stand together."""
    embeddings = items(6, 9000, dim=32)
    embeddings[:3000] = np.sqrt(1 - 0.2**2) * np.eye(32)[0] + 0.2 * embeddings[:3000]
    embeddings /= np.linalg.norm(embeddings, axis=1, keepdims=True)
    queries = pl.DataFrame({"query_id": range(40), "item_id": range(40), "positive_item_id": range(40, 80)})
    ranges = comb(0, 5000, first_depth(2048)) + comb(5000, 9000, first_depth(2048))
    shards = [Shard(FlatIndex(embeddings, np.arange(*part), 10**6), *part) for part in ranges]
    found = retrieve_pool(embeddings, queries, np.arange(9000), k=2048, index=ShardedIndex([shards], LIMIT))
    assert found.metrics["exhaustive_queries"] == 0
    assert_frame_equal(found.frame, retrieve_pool(embeddings, queries, np.arange(9000), k=2048).frame, check_exact=True)


def test_comb():
    assert comb(10, 20, 60) == [(10, 20, 1)]
    ranges = comb(10, 20, 2306)
    assert ranges == [(10, 20, 3), (11, 20, 3), (12, 20, 3)]
    assert sorted(i for part in ranges for i in range(*part)) == list(range(10, 20))
    assert comb(10, 12, 9000) == [(10, 12, 9), (11, 12, 9)]


def test_exact_only_if_all_shards_are():
    embeddings = items(7, 20)
    index = sharded(embeddings, 2, 1, None)
    assert index.exact

    class Rough(FlatIndex):
        exact = False

    rough = Shard(Rough(embeddings, np.arange(20), 10), 0, 20)
    assert rough.rows == 20
    assert not ShardedIndex([[rough], [Shard(FlatIndex(embeddings, np.arange(20), 10), 0, 20)]]).exact


def test_even_parts():
    assert even_parts(10, 3) == [(0, 3), (3, 6), (6, 10)]
    assert even_parts(2, 5) == [(0, 1), (1, 2)]
