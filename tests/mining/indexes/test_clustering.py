import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unime_kedro.mining.indexes.clustering import nearest_centroids, train_centroids


def unit(vectors):
    vectors = np.asarray(vectors, dtype=np.float64)
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def slow_nearest(vectors, centroids, n):
    exact = np.clip((vectors.astype(np.float64) @ centroids.astype(np.float64).T).astype(np.float32), -1, 1)
    return np.array([np.lexsort((np.arange(len(centroids)), -row))[:n] for row in exact])


class TestNearest:
    @given(st.integers(0, 10**6), st.sampled_from([2, 5, 40]), st.sampled_from([1, 2, 7]))
    @settings(max_examples=30, deadline=None)
    def test_against_sorting_everything(self, seed, kinds, n):
        """Few kinds make many equal centroids: the lower numbers are the nearer ones."""
        rng = np.random.default_rng(seed)
        pool = unit(rng.standard_normal((kinds, 8)))
        centroids, vectors = pool[rng.integers(0, kinds, 30)], unit(rng.standard_normal((50, 8)))
        assert nearest_centroids(vectors, centroids, n).tolist() == slow_nearest(vectors, centroids, n).tolist()

    def test_differences_of_the_size_of_rounding(self):
        rng = np.random.default_rng(0)
        centroids = unit(1 + 1e-7 * rng.standard_normal((200, 8)))
        vectors = unit(rng.standard_normal((40, 8)))
        assert nearest_centroids(vectors, centroids, 5).tolist() == slow_nearest(vectors, centroids, 5).tolist()

    def test_one_vector_at_a_time_is_the_same(self):
        rng = np.random.default_rng(1)
        vectors, centroids = unit(rng.standard_normal((60, 64))), unit(rng.standard_normal((100, 64)))
        whole = nearest_centroids(vectors, centroids, 3)
        assert whole.tolist() == [nearest_centroids(vectors[i : i + 1], centroids, 3)[0].tolist() for i in range(60)]


class TestTraining:
    def test_one_round_by_hand(self):
        points = unit([[1, 0], [0.9, 0.1], [0, 1], [0.1, 0.9], [0.2, 0.8]])
        # the generator of seed 3 takes two of the five as first centroids
        first = np.sort(np.random.default_rng(3).choice(5, 2, replace=False))
        label = np.argmax(points @ points[first].T, axis=1)
        expected = unit([points[label == i].astype(np.float64).sum(axis=0) for i in (0, 1)])
        assert np.allclose(train_centroids(points, 2, seed=3, iterations=1), expected, atol=1e-7)

    def test_finds_groups_that_are_far_apart(self):
        rng = np.random.default_rng(2)
        points = unit(np.repeat(np.eye(6), 50, axis=0) + 0.02 * rng.standard_normal((300, 6)))
        similarity = (points @ train_centroids(points, 30, seed=0).T).max(axis=1)
        assert similarity.min() > 0.99

    def test_an_empty_cluster_becomes_the_worst_represented_point(self):
        # all first centroids are equal but for one at most, so that others are empty after the first round
        points = unit([[1, 0, 0]] * 30 + [[0, 1, 0]] + [[0, 0, 1]])
        centroids = train_centroids(points, 3, seed=0, iterations=4)
        assert sorted(centroids.round(6).tolist()) == [[0, 0, 1], [0, 1, 0], [1, 0, 0]]

    def test_opposite_points_keep_a_direction(self):
        centroids = train_centroids(unit([[1, 0], [-1, 0]]), 1, seed=0)
        assert np.linalg.norm(centroids, axis=1) == pytest.approx([1])

    def test_threads_do_not_matter(self):
        import faiss

        points = unit(np.random.default_rng(3).standard_normal((4000, 32)))
        before, found = faiss.omp_get_max_threads(), []
        try:
            for threads in (1, 3):
                faiss.omp_set_num_threads(threads)
                found.append(train_centroids(points, 60, seed=1))
        finally:
            faiss.omp_set_num_threads(before)
        assert (found[0] == found[1]).all()
        assert (train_centroids(points, 60, seed=2) != found[0]).any()
