import faiss
import numpy as np
import pytest

from unime_kedro.errors import ConfigurationError
from unime_kedro.mining.indexes.hnsw import open_graph
from unime_kedro.mining.indexes.options import IndexOptions


def items(seed=0, n=2000, dim=16):
    vectors = np.random.default_rng(seed).standard_normal((n, dim))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def opened(folder, memory_gb=1.0, digest="digest", **options):
    embeddings = items()
    chosen = IndexOptions(kind="hnsw", **{"m": 8, "ef_construction": 40} | options)
    return open_graph(embeddings, np.arange(0, 2000, 2), chosen, folder, digest, memory_gb)


class TestGraph:
    def test_positions_and_products_are_those_of_the_candidates(self, tmp_path):
        embeddings = items()
        product, position = opened(tmp_path, ef_search=1000).search(embeddings[:50], 20)
        exact = np.argsort(-(embeddings[:50].astype(np.float64) @ embeddings[::2].T), axis=1)[:, :20]
        assert np.mean([len(set(a) & set(b)) / 20 for a, b in zip(position, exact, strict=True)]) > 0.99
        assert product == pytest.approx(np.einsum("id,ijd->ij", embeddings[:50], embeddings[::2][position]), abs=1e-5)

    def test_looks_at_as_many_as_are_wanted(self, tmp_path):
        _, position = opened(tmp_path, ef_search=1).search(items()[:10], 100)
        assert (position >= 0).all()

    def test_built_twice_is_the_same(self, tmp_path):
        opened(tmp_path / "a")
        opened(tmp_path / "b")
        assert (tmp_path / "a/hnsw.faiss").read_bytes() == (tmp_path / "b/hnsw.faiss").read_bytes()

    @pytest.mark.parametrize(
        ("change", "again"),
        [
            ({}, False),
            ({"ef_search": 3}, False),
            ({"m": 9}, True),
            ({"ef_construction": 41}, True),
            ({"digest": "x"}, True),
        ],
    )
    def test_used_again_unless_something_of_the_making_changed(self, tmp_path, change, again):
        opened(tmp_path)
        before = (tmp_path / "hnsw.faiss").stat().st_ino
        opened(tmp_path, **change)
        assert ((tmp_path / "hnsw.faiss").stat().st_ino != before) == again

    def test_threads_build_the_same_graph(self, tmp_path):
        before = faiss.omp_get_max_threads()
        try:
            for threads in (1, 4):
                faiss.omp_set_num_threads(threads)
                opened(tmp_path / f"{threads}")
                assert faiss.omp_get_max_threads() == threads
        finally:
            faiss.omp_set_num_threads(before)
        assert (tmp_path / "1/hnsw.faiss").read_bytes() == (tmp_path / "4/hnsw.faiss").read_bytes()

    def test_a_graph_of_another_faiss_is_built_again(self, tmp_path):
        opened(tmp_path)
        card = tmp_path / "hnsw.json"
        card.write_text(card.read_text().replace(faiss.__version__, "1.0.0"))
        before = (tmp_path / "hnsw.faiss").stat().st_ino
        opened(tmp_path)
        assert (tmp_path / "hnsw.faiss").stat().st_ino != before

    def test_more_than_the_memory_is_an_error_that_says_how_much(self, tmp_path):
        with pytest.raises(
            ConfigurationError, match=r"1,000 of 16 numbers .* take 0\.000134 GiB.*pool.memory_gb is 1e-05"
        ):
            opened(tmp_path, memory_gb=1e-5)
        assert not list(tmp_path.iterdir())
