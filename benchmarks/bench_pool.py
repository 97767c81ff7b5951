"""Global retrieval against bare faiss on the same vectors.

    python benchmarks/bench_pool.py                     (100,000 x 100,000 x 256: minutes)
    python benchmarks/bench_pool.py --queries 20000     (a fifth of it; the same cost per query, so the same ratio)
    python benchmarks/bench_pool.py --n 20000           (seconds, but what is done per query weighs five times as much)

Both sides search the 50 best of n candidates for n queries with all cores. Bare faiss is ``IndexFlatIP``: add, then
search. Ours is ``retrieve_pool``, with everything it does besides: checks, exclusions, exact order, certification, the
table and its metrics. Rounds alternate in order, so that a machine that gets warm or busy does so for both.
Prints JSON; ``ratio`` is the median of the rounds' ratios of wall-clock seconds. The target is 1.15 at the full size.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time


def unit_vectors(n: int, dim: int, seed: int):
    import numpy as np

    vectors = np.random.default_rng(seed).standard_normal((n, dim), dtype=np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors


def clocks() -> tuple[float, float]:
    return time.perf_counter(), time.process_time()


def since(started: tuple[float, float]) -> tuple[float, float]:
    """Return wall-clock and CPU seconds; the latter say more on a machine that others use at the same time."""
    wall, cpu = clocks()
    return wall - started[0], cpu - started[1]


def run_ours(embeddings, queries, k: int):
    import numpy as np

    from unime_kedro.mining.retrieval import retrieve_pool

    n = len(embeddings) // 2
    started = clocks()
    result = retrieve_pool(embeddings, queries, np.arange(n, 2 * n), k=k)
    return since(started), result


def run_faiss(embeddings, queries, k: int):
    import faiss

    n = len(embeddings) // 2
    started = clocks()
    index = faiss.IndexFlatIP(embeddings.shape[1])
    index.add(embeddings[n:])
    similarity, position = index.search(embeddings[: queries.height], k)
    return since(started), similarity, position


def agreement(frame, similarity, position, n: int) -> dict:
    """Compare where no positive was excluded: the same similarities, and the same items but for near-ties."""
    import numpy as np

    comparable = ~(position == np.arange(len(position))[:, None]).any(axis=1)
    ours = frame["item_id"].to_numpy().reshape(position.shape)[comparable] - n
    difference = np.abs(frame["similarity"].to_numpy().reshape(position.shape) - similarity)[comparable]
    return {
        "queries_compared": int(comparable.sum()),
        "largest_similarity_difference": float(difference.max()),
        "same_item_share": float((ours == position[comparable]).mean()),
        "agree": bool(difference.max() < 1e-5 and (ours == position[comparable]).mean() > 0.999),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--n", type=int, default=100_000, help="candidates, and queries unless --queries says otherwise"
    )
    parser.add_argument("--queries", type=int, help="at most n")
    parser.add_argument("--dim", type=int, default=256)
    parser.add_argument("--k", type=int, default=50)
    parser.add_argument("--rounds", type=int, default=2)
    options = parser.parse_args()

    import faiss
    import numpy as np
    import polars as pl

    n, k, load = options.n, options.k, os.getloadavg()[0]
    embeddings = unit_vectors(2 * n, options.dim, seed=1)
    ids = np.arange(min(n, options.queries or n))
    queries = pl.DataFrame({"query_id": ids, "item_id": ids, "positive_item_id": n + ids})
    run_ours(embeddings[: 2 * 64], queries[:64].with_columns(pl.col("positive_item_id") - n + 64), k)  # loads libraries
    ours, bare = [], []
    for turn in range(options.rounds):
        for side in ("ours", "faiss") if turn % 2 == 0 else ("faiss", "ours"):
            if side == "ours":
                seconds, result = run_ours(embeddings, queries, k)
                ours.append(seconds)
            else:
                seconds, similarity, position = run_faiss(embeddings, queries, k)
                bare.append(seconds)
    report = {
        "candidates": n,
        "queries": queries.height,
        "dim": options.dim,
        "k": k,
        "cores": os.cpu_count(),
        "faiss": faiss.__version__,
        "load_before": round(load, 1),
        "seconds_ours": [round(wall, 2) for wall, _ in ours],
        "seconds_faiss": [round(wall, 2) for wall, _ in bare],
        "ratio": round(statistics.median(a[0] / b[0] for a, b in zip(ours, bare, strict=True)), 3),
        "cpu_seconds_ours": [round(cpu, 2) for _, cpu in ours],
        "cpu_seconds_faiss": [round(cpu, 2) for _, cpu in bare],
        "cpu_ratio": round(statistics.median(a[1] / b[1] for a, b in zip(ours, bare, strict=True)), 3),
        **agreement(result.frame, similarity, position, n),
    }
    print(json.dumps(report, indent=2))
    if not report["agree"]:
        raise SystemExit("the two do not agree")


if __name__ == "__main__":
    main()
