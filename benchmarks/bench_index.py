"""Speed, recall and memory of every index that this machine can use.

    python benchmarks/bench_index.py                    (1,000,000 x 256, 4,096 queries: most of it builds the graph)
    python benchmarks/bench_index.py --kinds flat,ivf   (without the graph: minutes)
    python benchmarks/bench_index.py --n 100000         (a tenth)

Vectors are made by seed, on disk: `clustered` as real embeddings are (clusters of very different sizes, noise that is
large in few directions), `uniform` on the sphere, the worst case, in which nothing is near anything. Every row runs in
a process of its own over the memory map and does what `kedro run --pipeline=pool` does: checks, search, exclusions,
exact order. `queries_per_second` is that of the search alone, `recall` the share of the exact 50 that is found, with a
95 % interval, `ratio` the speed against flat in the same run. `anonymous_gb` is the most memory that the process held
of its own, pages of files (which the system takes back) left out. GPUs are measured where faiss sees some.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

#: kind -> options; an index is built by the first row of its kind and used again by the others
ROWS = {
    "flat": [{}],
    "ivf": [{"nprobe": 8}, {"nprobe": 16}, {"nprobe": 32}, {"nprobe": 64}, {"nprobe": 128}],
    "hnsw": [{"ef_search": 64}, {"ef_search": 128}, {"ef_search": 256}],
    "gpu_flat": [{}],
    "gpu_ivf": [{"nprobe": 32}, {"nprobe": 64}],
}
K = 50


def make_vectors(path: Path, n: int, dim: int, kind: str) -> None:
    """Write unit vectors, a block at a time."""
    import numpy as np

    rng = np.random.default_rng(1)
    centres = rng.standard_normal((max(1, n // 500), dim), dtype=np.float32)
    # a few directions carry most of the noise, as in trained encoders
    scale = (np.arange(1, dim + 1) ** -0.5).astype(np.float32)
    scale *= np.float32(np.sqrt(dim) / np.linalg.norm(scale))
    file = np.lib.format.open_memmap(path, "w+", np.float32, (n, dim))
    for start in range(0, n, 50_000):
        rows = min(50_000, n - start)
        block = rng.standard_normal((rows, dim), dtype=np.float32)
        if kind == "clustered":
            # the largest cluster has tens of thousands, most have a few hundred
            cluster = (len(centres) * rng.random(rows) ** 2).astype(np.int64)
            block = 1.2 * block * scale + centres[cluster]
        file[start : start + rows] = block / np.linalg.norm(block, axis=1, keepdims=True)
    file.flush()


class Memory(threading.Thread):
    """Watches the process's own memory."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.most, self._over = 0, threading.Event()

    def run(self) -> None:
        while not self._over.wait(0.02):
            for line in Path("/proc/self/status").read_text().splitlines():
                if line.startswith("RssAnon"):
                    self.most = max(self.most, int(line.split()[1]) * 1024)

    def end(self) -> float:
        self._over.set()
        self.join()
        return self.most / 2**30


def measure(file: str, n_queries: int, kind: str, options: dict, folder: str) -> dict:
    import numpy as np
    import polars as pl

    from unime_kedro.mining.index import threads
    from unime_kedro.mining.indexes.options import IndexOptions
    from unime_kedro.mining.indexes.pool import retrieve_indexed
    from unime_kedro.mining.retrieval import check_embeddings

    embeddings = np.load(file, mmap_mode="r")
    n = len(embeddings)
    ids = np.sort(np.random.default_rng(2).choice(n, n_queries, replace=False))
    queries = pl.DataFrame({"query_id": np.arange(n_queries), "item_id": ids, "positive_item_id": (ids + 1) % n})
    chosen = IndexOptions(kind=kind, recall_queries=min(500, n_queries), **options)
    one = pl.DataFrame({"query_id": [0], "item_id": [0], "positive_item_id": [1]})
    retrieve_indexed(embeddings[:9], one, np.arange(9), options=IndexOptions(), folder=Path(folder), k=1)  # loads faiss
    memory = Memory()
    memory.start()
    found = retrieve_indexed(embeddings, queries, np.arange(n), options=chosen, folder=Path(folder), k=K)
    anonymous = memory.end()
    # what is done once for all queries (checks of the vectors) is not the search's
    started = time.perf_counter()
    check_embeddings(embeddings)
    once = time.perf_counter() - started
    metrics = found.result.metrics
    search = max(metrics["seconds"] - once, 1e-9)
    recall = found.figures.get("index_recall", {"value": 1.0, "low": 1.0, "high": 1.0})
    return {
        "kind": kind,
        **options,
        "threads": threads(),
        "build_seconds": round(found.figures["index_build_seconds"], 1),
        "search_seconds": round(search, 2),
        "queries_per_second": round(n_queries / search, 1),
        "recall": {name: round(value, 4) for name, value in recall.items()},
        "deepened_queries": metrics["deepened_queries"],
        "exhaustive_queries": metrics["exhaustive_queries"],
        "anonymous_gb": round(anonymous, 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--n", type=int, default=1_000_000)
    parser.add_argument("--dim", type=int, default=256)
    parser.add_argument("--queries", type=int, default=4096)
    parser.add_argument("--kinds", default="flat,ivf,hnsw,gpu_flat,gpu_ivf")
    parser.add_argument("--vectors", choices=["clustered", "uniform"], default="clustered")
    parser.add_argument("--folder", help="for vectors and indexes; a temporary one by default")
    parser.add_argument("--row", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.row:
        print(json.dumps(measure(**json.loads(options.row))))
        return

    import faiss

    from unime_kedro.mining.indexes.gpu import gpu_count

    kinds = [kind for kind in options.kinds.split(",") if gpu_count() or not kind.startswith("gpu")]
    with tempfile.TemporaryDirectory(dir=options.folder) as temporary:
        file = Path(temporary) / "vectors.npy"
        make_vectors(file, options.n, options.dim, options.vectors)
        flat = None
        for kind in kinds:
            for row in ROWS[kind]:
                job = {
                    "file": str(file),
                    "n_queries": options.queries,
                    "kind": kind,
                    "options": row,
                    "folder": temporary,
                }
                load = os.getloadavg()[0]
                command = [sys.executable, __file__, "--row", json.dumps(job)]
                done = subprocess.run(command, check=True, capture_output=True, text=True)
                result = {**json.loads(done.stdout), "load_before": round(load, 1)}
                flat = flat or (result["queries_per_second"] if kind == "flat" else None)
                if flat:
                    result["ratio"] = round(result["queries_per_second"] / flat, 2)
                print(
                    json.dumps({"vectors": options.vectors, "n": options.n, "dim": options.dim, **result}), flush=True
                )
    print(json.dumps({"cores": os.cpu_count(), "faiss": faiss.__version__}))


if __name__ == "__main__":
    main()
