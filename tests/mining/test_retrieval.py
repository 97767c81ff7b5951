import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from unime_kedro.errors import ConfigurationError, DataError
from unime_kedro.mining.index import NOTHING, FlatIndex, pack, similarities, similarity_matrix, unpack
from unime_kedro.mining.retrieval import pool_metrics, retrieve_pool
from unime_kedro.mining.search import Blocks

DIM = 24


def unit(vectors):
    vectors = np.asarray(vectors, dtype=np.float64)
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def corpus(seed, n_items=120, n_queries=70, kinds=None):
    """Items of which some are equal, queries that share items, candidates with gaps between their ids."""
    rng = np.random.default_rng(seed)
    vectors = rng.standard_normal((kinds or n_items, DIM))
    embeddings = unit(vectors[rng.integers(0, kinds, n_items)] if kinds else vectors)
    queries = pl.DataFrame(
        {
            "query_id": rng.permutation(n_queries * 3)[:n_queries],
            "item_id": rng.integers(0, n_items // 2, n_queries),
            "positive_item_id": rng.integers(n_items // 3, n_items, n_queries),
        }
    )
    extra = rng.integers(0, n_items, n_items // 3)
    return embeddings, queries, np.concatenate([queries["positive_item_id"].to_numpy(), extra])


def brute_force(embeddings, queries, candidates, k, delta=None, exclude="positive"):
    """One query at a time, everything sorted, in float64 rounded to float32."""
    rows = []
    for query_id, item, positive in queries.select("query_id", "item_id", "positive_item_id").sort("query_id").rows():
        forbidden = {item, positive}
        if exclude == "known_positives":
            forbidden |= set(queries.filter(pl.col("item_id") == item)["positive_item_id"])
        allowed = np.array(sorted(set(candidates.tolist()) - forbidden), dtype=np.int64)
        exact = embeddings[allowed].astype(np.float64) @ embeddings[item].astype(np.float64)
        similarity = np.clip(exact.astype(np.float32), -1, 1)
        if delta is not None:
            allowed, similarity = allowed[similarity < np.float32(delta)], similarity[similarity < np.float32(delta)]
        best = np.lexsort((allowed, -similarity))[:k]
        rows += [(query_id, rank, int(allowed[i]), float(similarity[i])) for rank, i in enumerate(best)]
    schema = {"query_id": pl.Int64, "rank": pl.Int32, "item_id": pl.Int64, "similarity": pl.Float32}
    return pl.DataFrame(rows, schema, orient="row")


def assert_exact(result, expected):
    assert_frame_equal(result.frame, expected, check_exact=True)


class TestAgainstBruteForce:
    @pytest.mark.parametrize("exclude", ["positive", "known_positives"])
    @pytest.mark.parametrize("delta", [None, 0.3, 0.0])
    @pytest.mark.parametrize("k", [1, 5, 30])
    def test_random_vectors(self, exclude, delta, k):
        data = corpus(1)
        result = retrieve_pool(*data, k=k, max_similarity=delta, exclude=exclude)
        assert_exact(result, brute_force(*data, k, delta, exclude))

    @pytest.mark.parametrize("k", [3, 10, 40])
    def test_ties(self, k):
        """Items of only six contents: ties everywhere, beyond every depth of the search."""
        data = corpus(2, n_items=400, kinds=6)
        assert_exact(retrieve_pool(*data, k=k), brute_force(*data, k))

    def test_tie_across_the_depth_of_the_first_search(self):
        # 200 equal candidates, k + 10 = 13 are searched first and 104 then; the lowest ids must win all the same
        embeddings = unit(np.vstack([[1, 1, 0], np.tile([1, 0, 0], (200, 1)), np.tile([0, 0, 1], (100, 1))]))
        queries = pl.DataFrame({"query_id": [0], "item_id": [0], "positive_item_id": [300]})
        result = retrieve_pool(embeddings, queries, np.arange(300, 0, -1), k=3)
        assert result.frame["item_id"].to_list() == [1, 2, 3]
        assert result.metrics["exhaustive_queries"] == 1

    def test_all_items_equal(self):
        n, k = 5000, 20
        embeddings = np.tile(unit([np.arange(1, DIM + 1)]), (n, 1))
        ids = np.arange(300)
        queries = pl.DataFrame({"query_id": ids, "item_id": ids, "positive_item_id": ids + 1})
        result = retrieve_pool(embeddings, queries, np.arange(n), k=k)
        lists = result.frame["item_id"].to_numpy().reshape(-1, k)
        for i in (0, 1, 10, 19, 20, 21, 299):
            assert lists[i].tolist() == [item for item in range(k + 2) if item not in (i, i + 1)][:k]

    @pytest.mark.parametrize("blocks", [None, Blocks(500, 2, exhaustive=64)])
    def test_nearly_equal_items(self, blocks):
        """Differences of the size of float32 rounding: only the exact similarities put them in order."""
        rng = np.random.default_rng(5)
        embeddings = unit(1 + 1e-3 * rng.standard_normal((2000, DIM)))
        queries = pl.DataFrame({"query_id": [0, 1], "item_id": [0, 1], "positive_item_id": [5, 6]})
        data = embeddings, queries, np.arange(2000)
        result = retrieve_pool(*data, k=50, blocks=blocks)
        assert_exact(result, brute_force(*data, 50))
        assert result.metrics["exhaustive_queries"] == 2

    def test_sparse_vectors_with_similarity_zero(self):
        embeddings = np.eye(DIM, dtype=np.float32)[np.arange(300) % DIM]
        queries = pl.DataFrame({"query_id": [0, 1], "item_id": [0, 1], "positive_item_id": [24, 7]})
        data = embeddings, queries, np.arange(300)
        assert_exact(retrieve_pool(*data, k=40), brute_force(*data, 40))

    def test_duplicates_of_the_positive_stay(self):
        """Another item with the same vector as the positive is a candidate like any other, and so first."""
        embeddings = unit([[1, 0], [0.9, 0.1], [0.9, 0.1], [0, 1]])
        queries = pl.DataFrame({"query_id": [0], "item_id": [0], "positive_item_id": [1]})
        result = retrieve_pool(embeddings, queries, np.array([1, 2, 3]), k=5)
        assert result.frame["item_id"].to_list() == [2, 3]
        assert result.metrics["short_queries"] == 1

    @given(st.integers(0, 10**6), st.sampled_from([3, 17, 120]), st.integers(1, 20))
    @settings(max_examples=25, deadline=None)
    def test_any_corpus(self, seed, kinds, k):
        data = corpus(seed, n_items=150, n_queries=20, kinds=kinds)
        result = retrieve_pool(*data, k=k, exclude="known_positives", max_similarity=0.9)
        assert_exact(result, brute_force(*data, k, 0.9, "known_positives"))


class TestSameBits:
    @pytest.mark.parametrize("candidates", [1, 7, 1000])
    @pytest.mark.parametrize("queries", [1, 7, 1000])
    @pytest.mark.parametrize("kinds", [None, 9])
    def test_blocks(self, candidates, queries, kinds):
        data = corpus(3, kinds=kinds)
        expected = retrieve_pool(*data, k=12)
        result = retrieve_pool(*data, k=12, blocks=Blocks(candidates, queries, exhaustive=queries))
        assert_exact(result, expected.frame)
        assert result.metrics["deepened_queries"] == expected.metrics["deepened_queries"]

    def test_memory_budget(self):
        data = corpus(4)
        expected = retrieve_pool(*data, k=12).frame
        for memory_gb in (1e-9, 1e-5, 1e-4):
            assert_exact(retrieve_pool(*data, k=12, memory_gb=memory_gb), expected)

    def test_row_order(self):
        embeddings, queries, candidates = corpus(5, kinds=30)
        expected = retrieve_pool(embeddings, queries, candidates, k=12).frame
        for seed in range(3):
            rows = queries.sample(fraction=1, shuffle=True, seed=seed)
            some = np.random.default_rng(seed).permutation(candidates)
            assert_exact(retrieve_pool(embeddings, rows, pl.Series(some), k=12), expected)

    def test_threads(self):
        import faiss

        data = corpus(6, n_items=600, n_queries=300)
        before, frames = faiss.omp_get_max_threads(), []
        try:
            for threads in (1, 3):
                faiss.omp_set_num_threads(threads)
                frames.append(retrieve_pool(*data, k=12).frame)
        finally:
            faiss.omp_set_num_threads(before)
        assert_frame_equal(*frames, check_exact=True)

    def test_memory_map(self, tmp_path):
        embeddings, queries, candidates = corpus(7)
        np.save(tmp_path / "embeddings.npy", embeddings)
        mapped = np.load(tmp_path / "embeddings.npy", mmap_mode="r")
        expected = retrieve_pool(embeddings, queries, candidates, k=12).frame
        assert_exact(retrieve_pool(mapped, queries, candidates, k=12, memory_gb=1e-5), expected)
        everything = np.arange(len(embeddings))
        expected = retrieve_pool(embeddings, queries, everything, k=12).frame
        assert_exact(retrieve_pool(mapped, queries, everything, k=12), expected)

    def test_other_queries_do_not_matter(self):
        embeddings, queries, candidates = corpus(8)
        whole = retrieve_pool(embeddings, queries, candidates, k=12).frame
        some = queries[::5]
        part = retrieve_pool(embeddings, some, candidates, k=12).frame
        assert_frame_equal(part, whole.filter(pl.col("query_id").is_in(some["query_id"].to_list())), check_exact=True)


class TestExclusions:
    def test_by_hand(self):
        # query items 0 and 1; item 0 is a candidate too. Similarities to item 0: 1, 0.8, 0.6, 0, -1
        embeddings = np.array([[1, 0], [0.8, 0.6], [0.6, 0.8], [0, 1], [-1, 0]], dtype=np.float32)
        queries = pl.DataFrame({"query_id": [7, 4], "item_id": [0, 0], "positive_item_id": [1, 2]})
        result = retrieve_pool(embeddings, queries, np.arange(5), k=3)
        assert result.frame["query_id"].to_list() == [4, 4, 4, 7, 7, 7]
        assert result.frame["rank"].to_list() == [0, 1, 2, 0, 1, 2]
        assert result.frame["item_id"].to_list() == [1, 3, 4, 2, 3, 4]
        assert result.frame["similarity"].to_list() == pytest.approx([0.8, 0, -1, 0.6, 0, -1])
        known = retrieve_pool(embeddings, queries, np.arange(5), k=3, exclude="known_positives")
        assert known.frame["item_id"].to_list() == [3, 4, 3, 4]
        assert known.metrics["short_queries"] == 2

    def test_delta_is_strict_and_compared_as_float32(self):
        embeddings = np.array([[1, 0], [0.8, 0.6], [0.6, 0.8], [0, 1]], dtype=np.float32)
        queries = pl.DataFrame({"query_id": [0], "item_id": [0], "positive_item_id": [3]})
        result = retrieve_pool(embeddings, queries, np.arange(4), k=3, max_similarity=0.8)
        assert result.frame["item_id"].to_list() == [2]

    def test_many_known_positives_deepen_the_search(self):
        """40 queries share an item; its 40 positives are the most similar candidates of 500."""
        rng = np.random.default_rng(9)
        centre = np.eye(DIM)[0]
        near = centre + 0.05 * rng.standard_normal((40, DIM))
        embeddings = unit(np.vstack([[centre], near, rng.standard_normal((500, DIM))]))
        queries = pl.DataFrame({"query_id": range(40), "item_id": [0] * 40, "positive_item_id": range(1, 41)})
        data = embeddings, queries, np.arange(541)
        result = retrieve_pool(*data, k=10, exclude="known_positives")
        assert_exact(result, brute_force(*data, 10, exclude="known_positives"))
        assert result.frame["item_id"].min() > 40
        assert result.metrics["deepened_queries"] == 40
        assert result.metrics["exhaustive_queries"] == 0
        assert result.metrics["short_queries"] == 0

    def test_delta_that_reaches_beyond_both_searches(self):
        rng = np.random.default_rng(10)
        near = np.eye(DIM)[0] + 0.05 * rng.standard_normal((300, DIM))
        embeddings = unit(np.vstack([near, rng.standard_normal((300, DIM))]))
        queries = pl.DataFrame({"query_id": [0], "item_id": [0], "positive_item_id": [1]})
        data = embeddings, queries, np.arange(600)
        result = retrieve_pool(*data, k=5, max_similarity=0.8)
        assert_exact(result, brute_force(*data, 5, 0.8))
        assert result.frame.height == 5
        assert result.metrics["exhaustive_queries"] == 1

    def test_more_wanted_than_there_are(self):
        data = corpus(11, n_items=30, n_queries=10)
        result = retrieve_pool(*data, k=2000)
        assert_exact(result, brute_force(*data, 2000))
        assert result.metrics["short_queries"] == 10

    def test_positive_that_is_no_candidate(self):
        data = corpus(12)
        candidates = np.setdiff1d(np.arange(120), data[1]["positive_item_id"].to_numpy()[:40])
        data = (*data[:2], candidates)
        result = retrieve_pool(*data, k=8, exclude="known_positives")
        assert_exact(result, brute_force(*data, 8, exclude="known_positives"))


class Spy:
    """An index that counts, and finds nothing beyond ``reach``."""

    exact = True

    def __init__(self, embeddings, candidates, reach=10**9):
        self.index, self.reach = FlatIndex(embeddings, np.unique(candidates), 10**6), reach
        self.searched = []

    def search(self, vectors, depth):
        self.searched.append((len(vectors), depth))
        found, position = self.index.search(vectors, depth)
        position[:, self.reach :] = -1
        found[:, self.reach :] = -np.inf
        return found, position


class TestIndexSeam:
    def test_each_distinct_item_is_searched_once(self):
        embeddings, queries, candidates = corpus(13, n_items=200, n_queries=150)
        spy = Spy(embeddings, candidates)
        result = retrieve_pool(embeddings, queries, candidates, k=10, index=spy)
        distinct = queries["item_id"].n_unique()
        assert distinct < 90
        assert spy.searched[0] == (distinct, 20)
        assert sum(n for n, depth in spy.searched if depth == 20) == distinct
        assert result.metrics["distinct_query_items"] == distinct

    def test_an_index_that_gives_up_early_is_completed(self):
        data = corpus(14)
        result = retrieve_pool(*data, k=10, index=Spy(data[0], data[2], reach=6))
        assert_exact(result, brute_force(*data, 10))
        assert result.metrics["exhaustive_queries"] == 70

    def test_progress_counts_every_query_once(self):
        class Counter:
            done = 0

            def advance(self, n=1):
                self.done += n

        counter = Counter()
        retrieve_pool(*corpus(15, kinds=5), k=10, progress=counter, blocks=Blocks(40, 11, 13))
        assert counter.done == 70


class TestMetrics:
    def test_by_hand(self):
        pool = pl.DataFrame(
            {
                "query_id": [0, 0, 0, 4, 4],
                "rank": [0, 1, 2, 0, 1],
                "item_id": [1, 2, 3, 1, 2],
                "similarity": pl.Series([1.0, 0.95, 0.5, 0.92, 0.25], dtype=pl.Float32),
            }
        )
        metrics = pool_metrics(pool)
        assert metrics["similarity_first_mean"] == pytest.approx(0.96)
        assert metrics["similarity_first_p05"] == pytest.approx(0.92 + 0.05 * 0.08)
        assert metrics["similarity_first_p95"] == pytest.approx(0.92 + 0.95 * 0.08)
        assert metrics["similarity_last_mean"] == pytest.approx(0.375)
        assert metrics["similarity_last_p50"] == pytest.approx(0.375)
        drops = [metrics[f"delta_{delta}_would_drop"] for delta in (99, 95, 90)]
        assert drops == [1, 2, 3]
        assert not [name for name in pool_metrics(pool, delta_off=False) if "drop" in name]

    def test_flat_numbers(self):
        metrics = retrieve_pool(*corpus(16), k=10).metrics
        assert all(type(value) in (int, float) for value in metrics.values())
        assert (metrics["queries"], metrics["pool_rows"], metrics["short_queries"]) == (70, 700, 0)
        assert metrics["candidates"] == len(set(corpus(16)[2].tolist()))
        assert metrics["queries_per_second"] == pytest.approx(70 / metrics["seconds"])

    def test_no_candidates_or_no_queries(self):
        embeddings, queries, _ = corpus(17)
        result = retrieve_pool(embeddings, queries, np.array([], dtype=np.int64), k=10)
        assert result.frame.height == 0
        assert result.metrics["short_queries"] == 70
        assert retrieve_pool(embeddings, queries[:0], np.arange(9), k=10).frame.height == 0


class TestFaults:
    @pytest.mark.parametrize(
        ("value", "found"), [(np.nan, "NaN or infinite values"), (np.inf, "NaN or infinite values"), (0, "length 0")]
    )
    def test_bad_vector_names_the_item(self, value, found):
        embeddings, queries, candidates = corpus(18)
        embeddings[17] = value
        with pytest.raises(DataError, match=f"item_id 17 has {found}, expected an L2-normalised vector .*embed this"):
            retrieve_pool(embeddings, queries, candidates, k=5)

    def test_one_nan_in_a_vector(self):
        embeddings, queries, candidates = corpus(18)
        embeddings[99, 3] = np.nan
        with pytest.raises(DataError, match="item_id 99 has NaN"):
            retrieve_pool(embeddings, queries, candidates, k=5)

    def test_unnormalised_vector(self):
        embeddings, queries, candidates = corpus(18)
        embeddings[3] *= 1.5
        with pytest.raises(DataError, match=r"item_id 3 has length 1\.5"):
            retrieve_pool(embeddings, queries, candidates, k=5)

    def test_tolerance_for_the_length(self):
        embeddings, queries, candidates = corpus(18)
        embeddings[3] *= np.float32(1.0009)
        assert retrieve_pool(embeddings, queries, candidates, k=5).frame.height == 350
        embeddings[3] *= np.float32(1.0003)
        with pytest.raises(DataError, match=r"item_id 3 has length 1\.0012"):
            retrieve_pool(embeddings, queries, candidates, k=5)

    def test_wrong_type(self):
        embeddings, queries, candidates = corpus(18)
        with pytest.raises(DataError, match=r"expected a float32 array .* got float64"):
            retrieve_pool(embeddings.astype(np.float64), queries, candidates, k=5)

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"item_id": [0, 500]}, "queries: item_id 500 of query_id 9 has no embedding .there are 120"),
            ({"positive_item_id": [-1, 0]}, "queries: positive_item_id -1 of query_id 8 has no embedding"),
            ({"query_id": [9, 9]}, "query_id 9 stands there more than once"),
            ({"query_id": [9, None]}, "queries: row 1 has no query_id"),
        ],
    )
    def test_bad_queries(self, change, message):
        embeddings = corpus(18)[0]
        queries = pl.DataFrame({"query_id": [8, 9], "item_id": [0, 1], "positive_item_id": [2, 3]} | change)
        with pytest.raises(DataError, match=message):
            retrieve_pool(embeddings, queries, np.arange(9), k=5)

    def test_missing_column(self):
        embeddings, queries, candidates = corpus(18)
        with pytest.raises(DataError, match="queries: no column positive_item_id"):
            retrieve_pool(embeddings, queries.drop("positive_item_id"), candidates, k=5)

    def test_candidate_without_an_embedding(self):
        embeddings, queries, _ = corpus(18)
        with pytest.raises(DataError, match="candidates: item_id 120 has no embedding"):
            retrieve_pool(embeddings, queries, np.array([5, 120]), k=5)

    @pytest.mark.parametrize(
        "options", [{"k": 0}, {"k": 5, "memory_gb": 0}, {"k": 5, "max_similarity": 2}, {"k": 5, "exclude": "none"}]
    )
    def test_options_out_of_range(self, options):
        with pytest.raises(ConfigurationError):
            retrieve_pool(*corpus(18), **options)


class TestParts:
    @given(st.lists(st.floats(-1, 1, width=32), min_size=1, max_size=30))
    def test_keys_sort_by_falling_similarity_then_position(self, values):
        similarity = np.array(values, dtype=np.float32)
        positions = np.random.default_rng(0).permutation(len(values))
        back, at = unpack(np.sort(pack(similarity, positions)))
        order = np.lexsort((positions, -similarity))
        assert at.tolist() == positions[order].tolist()
        assert (back == similarity[order]).all()

    def test_no_candidate_sorts_last(self):
        keys = pack(np.array([-1, 0], np.float32), np.array([4, -1]))
        assert keys[1] == NOTHING > keys[0]
        assert [part.tolist() for part in unpack(keys)] == [[-1.0, -np.inf], [4, -1]]

    def test_matrix_has_the_bits_of_the_single_sums(self):
        vectors = np.vstack([corpus(19)[0], np.eye(DIM, dtype=np.float32), unit(np.ones((3, DIM)))])
        everything = np.tile(np.arange(len(vectors)), (len(vectors), 1))
        assert (similarity_matrix(vectors, vectors) == similarities(vectors, vectors, everything)).all()

    def test_similarities_are_correctly_rounded_sums(self):
        import math

        vectors = corpus(20, n_items=40)[0]
        result = similarities(vectors[:5], vectors, np.tile(np.arange(40), (5, 1)))
        for i in range(5):
            for j in range(40):
                exact = math.fsum(float(a) * float(b) for a, b in zip(vectors[i], vectors[j], strict=True))
                assert result[i, j] == np.float32(min(1.0, max(-1.0, exact)))

    @pytest.mark.parametrize("memory_gb", [1e-9, 0.01, 2, 64])
    def test_plan_stays_within_the_budget(self, memory_gb):
        plan = Blocks.plan(memory_gb, n_candidates=10**6, dim=1536, depth=60)
        assert min(plan.candidates, plan.queries, plan.exhaustive) >= 1
        used = 4 * 1536 * plan.candidates + max(
            plan.queries * (4 * 1536 + 100 * 60), 48 * plan.exhaustive**2 + 2 * 12 * 1536 * plan.exhaustive
        )
        assert used <= max(memory_gb * 2**30, 50_000)
