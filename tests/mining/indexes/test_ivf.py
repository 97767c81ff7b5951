import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from unime_kedro.mining.indexes.cards import candidates_digest
from unime_kedro.mining.indexes.ivf import InvertedListIndex, InvertedLists
from unime_kedro.mining.indexes.ivf_files import open_lists, plan_lists
from unime_kedro.mining.indexes.options import IndexOptions


def unit(vectors):
    vectors = np.asarray(vectors, dtype=np.float64)
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def items(seed=0, n=500, dim=12):
    return unit(np.random.default_rng(seed).standard_normal((n, dim)))


def opened(embeddings, ids, folder, **options):
    chosen = IndexOptions(kind="ivf", **{"nlist": 16} | options)
    return open_lists(embeddings, ids, chosen, folder, candidates_digest(embeddings, ids))


class TestFiles:
    def test_every_candidate_is_in_the_list_of_its_nearest_centroid(self, tmp_path):
        embeddings, ids = items(), np.arange(3, 500, 2)
        lists = opened(embeddings, ids, tmp_path)
        assert sorted(lists.positions.tolist()) == list(range(len(ids)))
        assert lists.offsets[0] == 0
        assert lists.offsets[-1] == len(ids)
        for number in range(16):
            mine = slice(lists.offsets[number], lists.offsets[number + 1])
            positions, vectors = lists.positions[mine], lists.vectors[mine]
            assert (np.diff(positions) > 0).all()
            assert (vectors == embeddings[ids[positions]]).all()
            if len(vectors):
                nearest = (vectors.astype(np.float64) @ lists.centroids.astype(np.float64).T).argmax(axis=1)
                assert (nearest == number).all()

    def test_the_same_files_from_memory_and_from_a_map(self, tmp_path):
        embeddings, ids = items(), np.arange(500)
        np.save(tmp_path / "embeddings.npy", embeddings)
        mapped = np.load(tmp_path / "embeddings.npy", mmap_mode="r")
        opened(embeddings, ids, tmp_path / "a")
        opened(mapped, ids, tmp_path / "b")
        for file in sorted((tmp_path / "a").glob("ivf*")):
            assert file.read_bytes() == (tmp_path / "b" / file.name).read_bytes()

    @pytest.mark.parametrize(
        ("change", "again"),
        [
            ({}, False),
            ({"nprobe": 2, "recall_queries": 7}, False),
            ({"nlist": 15}, True),
            ({"seed": 1}, True),
            ({"train_points": 400}, True),
        ],
    )
    def test_used_again_unless_an_option_of_the_making_changed(self, tmp_path, change, again):
        embeddings, ids = items(), np.arange(500)
        opened(embeddings, ids, tmp_path)
        before = (tmp_path / "ivf_vectors.npy").stat().st_ino
        opened(embeddings, ids, tmp_path, **change)
        assert ((tmp_path / "ivf_vectors.npy").stat().st_ino != before) == again

    def test_other_candidates_replace_it(self, tmp_path):
        embeddings, ids = items(), np.arange(500)
        first = opened(embeddings, ids, tmp_path)
        kept = first.vectors[:5].copy()
        changed = embeddings.copy()
        changed[77] = changed[78]
        second = opened(changed, ids, tmp_path)
        assert (second.vectors[second.positions == 77] == changed[78]).all()
        assert (first.vectors[:5] == kept).all()  # what was open stays what it was
        assert len(opened(embeddings, ids[:-1], tmp_path).positions) == 499

    def test_files_without_their_card_are_made_again(self, tmp_path):
        embeddings, ids = items(), np.arange(500)
        opened(embeddings, ids, tmp_path)
        vectors = tmp_path / "ivf_vectors.npy"
        good = vectors.read_bytes()
        for card in (None, "", "[]", "{"):
            vectors.write_bytes(b"half")
            if card is None:
                (tmp_path / "ivf.json").unlink()
            else:
                (tmp_path / "ivf.json").write_text(card)
            opened(embeddings, ids, tmp_path)
            assert vectors.read_bytes() == good

    def test_plan(self):
        assert plan_lists(10_000, IndexOptions()) == (256, 10_000)  # 10,000 / 39 is below 4 * 100
        assert plan_lists(1_000_000, IndexOptions()) == (4000, 262_144)
        assert plan_lists(33_000_000, IndexOptions()) == (6721, 262_144)  # 262,144 / 39
        assert plan_lists(5, IndexOptions()) == (1, 5)
        assert plan_lists(5, IndexOptions(nlist=100)) == (5, 5)


_KILLED = """
import sys, numpy as np
from pathlib import Path
from unime_kedro.mining.indexes.cards import candidates_digest
from unime_kedro.mining.indexes.ivf_files import open_lists
from unime_kedro.mining.indexes.options import IndexOptions
embeddings, ids = np.load(sys.argv[1]), np.arange(30_000)
while True:
    for seed in (1, 2):
        open_lists(embeddings, ids, IndexOptions(kind="ivf", nlist=16, seed=seed), Path(sys.argv[2]), "digest")
"""


def test_killed_at_any_moment_leaves_no_half_index(tmp_path):
    """A child makes one index after the other and is killed; what lies there is whole, or made anew."""
    embeddings, ids, folder = items(n=30_000), np.arange(30_000), tmp_path / "index"
    np.save(tmp_path / "embeddings.npy", embeddings)
    expected = {}
    for seed in (1, 2):
        chosen = IndexOptions(kind="ivf", nlist=16, seed=seed)
        expected[seed] = np.array(open_lists(embeddings, ids, chosen, tmp_path / f"{seed}", "digest").vectors)
    for wait in (0.0, 0.05, 0.1, 0.17, 0.3):
        command = [sys.executable, "-c", _KILLED, str(tmp_path / "embeddings.npy"), str(folder)]
        child = subprocess.Popen(command)
        while not (folder / "ivf_centroids.npy").exists() and child.poll() is None:
            time.sleep(0.005)
        time.sleep(wait)
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
        for seed in (1, 2):
            lists = open_lists(embeddings, ids, IndexOptions(kind="ivf", nlist=16, seed=seed), folder, "digest")
            assert (lists.vectors == expected[seed]).all()
        assert not list(folder.glob(".*.part"))


class TestSearch:
    def lists(self, embeddings, label, nlist):
        order = np.argsort(label, kind="stable")
        centroids = unit([embeddings[label == i].sum(axis=0) for i in range(nlist)])
        offsets = np.searchsorted(label[order], np.arange(nlist + 1))
        return InvertedLists(centroids, offsets, order, embeddings[order])

    def by_hand(self, lists, embeddings, vector, nprobe, depth):
        """One query: its nearest lists, twice as many while they hold too few, everything in them sorted."""
        near = np.argsort(-(lists.centroids.astype(np.float64) @ vector), kind="stable")
        while lists.sizes[near[:nprobe]].sum() < depth and nprobe < len(near):
            nprobe *= 2
        inside = np.concatenate(
            [lists.positions[lists.offsets[i] : lists.offsets[i + 1]] for i in near[:nprobe].tolist()]
        )
        return inside[np.argsort(-(embeddings[inside].astype(np.float64) @ vector), kind="stable")][:depth]

    @pytest.mark.parametrize("nprobe", [1, 3, 10])
    @pytest.mark.parametrize("depth", [1, 7, 60, 300])
    @pytest.mark.parametrize("result_bytes", [1, 1 << 28])
    def test_against_one_query_at_a_time(self, nprobe, depth, result_bytes):
        embeddings = items(1, 300)
        # lists of very different sizes, from 1 to a third of all
        label = np.concatenate([np.arange(10), np.minimum(np.random.default_rng(2).geometric(0.35, 290), 10) - 1])
        lists = self.lists(embeddings, label, 10)
        index = InvertedListIndex(lists, nprobe, result_bytes)
        vectors = items(3, 25)
        product, position = index.search(vectors, depth)
        for i in range(25):
            expected = self.by_hand(lists, embeddings, vectors[i].astype(np.float64), nprobe, depth)
            assert position[i].tolist() == expected.tolist()
            assert product[i] == pytest.approx(embeddings[expected] @ vectors[i], abs=1e-6)
        assert index.exact == (nprobe == 10)

    def test_an_empty_list_is_passed_over(self):
        embeddings = items(4, 40)
        label = np.repeat([0, 2], 20)
        centroids = unit(np.vstack([embeddings[:20].sum(0), embeddings[:20].sum(0), embeddings[20:].sum(0)]))
        lists = InvertedLists(centroids, np.array([0, 20, 20, 40]), np.argsort(label, kind="stable"), embeddings)
        _, position = InvertedListIndex(lists, 3).search(embeddings[:5], 4)
        exact = np.argsort(-(embeddings[:5].astype(np.float64) @ embeddings.T), axis=1, kind="stable")[:, :4]
        assert position.tolist() == exact.tolist()


_LIMITED = """
import json, resource, sys, numpy as np, polars as pl
from pathlib import Path
import faiss
from unime_kedro.mining.indexes.options import IndexOptions
from unime_kedro.mining.indexes.pool import retrieve_indexed

def data_bytes():
    line = next(x for x in open("/proc/self/status") if x.startswith("VmData"))
    return int(line.split()[1]) * 1024

embeddings = np.load(sys.argv[1], mmap_mode="r")
n = len(embeddings)
queries = pl.DataFrame({"query_id": range(200), "item_id": range(200), "positive_item_id": range(200, 400)})
options = IndexOptions(kind=sys.argv[2], nlist=64, nprobe=4, train_points=4096, recall_queries=20)
rules = dict(k=10, memory_gb=0.03)
small = np.array(embeddings[:2000])  # loads the libraries and starts their threads
retrieve_indexed(small, queries, np.arange(2000), options=options, folder=Path(sys.argv[3]) / "small", **rules)
limit = data_bytes() + embeddings.nbytes // 2
resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
try:
    np.array(embeddings)
    copied = True
except MemoryError:
    copied = False
found = retrieve_indexed(embeddings, queries, np.arange(n), options=options, folder=Path(sys.argv[3]), **rules)
print(json.dumps({"copied": copied, "rows": found.result.frame.height, "figures": found.figures}))
"""


@pytest.mark.parametrize("kind", ["ivf", "flat"])
def test_more_vectors_than_memory(tmp_path, kind):
    """A process that may not allocate half of the array's bytes finds the pools, where a copy of the array fails."""
    n, dim = 200_000, 256
    file = np.lib.format.open_memmap(tmp_path / "embeddings.npy", "w+", np.float32, (n, dim))
    rng = np.random.default_rng(0)
    for start in range(0, n, 20_000):
        file[start : start + 20_000] = unit(rng.standard_normal((20_000, dim), dtype=np.float32))
    file.flush()
    command = [sys.executable, "-c", _LIMITED, str(tmp_path / "embeddings.npy"), kind, str(tmp_path / "index")]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr[-2000:]
    said = json.loads(done.stdout)
    assert not said["copied"], "the limit limits nothing"
    assert said["rows"] == 2000
    assert said["figures"]["index"] == kind
    if kind == "ivf":
        assert Path(tmp_path / "index" / "ivf_vectors.npy").stat().st_size > n * dim * 4
        assert 0.02 < said["figures"]["index_recall"]["value"] <= 1
