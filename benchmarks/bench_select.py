"""Filter and sampling at the size of the paper: 662,000 queries with 50 pool members each, synthetic.

    python benchmarks/bench_select.py
    python benchmarks/bench_select.py --queries 66200 --shuffle

Writes synthetic ``pool.parquet`` and ``judge_scores.parquet`` in a process of its own, so that its memory does not
count here. Then measures what ``kedro run --pipeline=select`` does with them: read both, select, write negatives and
selection. Prints JSON with seconds and the peak of the resident memory. The target is 60 s and 8 GB on 2 cores.

``--shuffle`` puts the rows of both tables in random order, which costs sorts and joins. It is not part of the target.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import resource
import sys
import tempfile
import time
from pathlib import Path


def write_tables(folder: str, queries: int, k: int, shuffle: bool) -> None:
    """Write a pool and its scores: most members clearly negative, some false negatives, some unjudged."""
    import numpy as np
    import polars as pl

    rng = np.random.default_rng(7)
    query_id = np.repeat(np.arange(queries), k)
    # distinct within a query without a search for repetitions: a random start, then strides of a large prime
    item_id = (np.repeat(rng.integers(0, 1_000_003, queries), k) + np.tile(np.arange(k) * 19_997, queries)) % 1_000_003
    pool = pl.DataFrame(
        {
            "query_id": query_id,
            "rank": np.tile(np.arange(k, dtype=np.int32), queries),
            "item_id": item_id,
            "similarity": np.sort(rng.random((queries, k), dtype=np.float32), axis=1)[:, ::-1].ravel(),
        }
    )
    yes = rng.normal(-3, 3, (queries, k + 1)).astype(np.float32)
    yes[:, 0] += 6  # the positive, which comes first
    yes[rng.random(queries) < 0.005, 1:] += 12  # queries whose whole pool is false negatives
    score = (1 / (1 + np.exp(-yes))).astype(np.float32)
    score[:, 1:][rng.random((queries, k)) < 0.001] = np.nan
    items = np.concatenate([np.full((queries, 1), 1_000_003), item_id.reshape(queries, k)], axis=1)
    scores = pl.DataFrame(
        {
            "query_id": np.repeat(np.arange(queries), k + 1),
            "item_id": items.ravel(),
            "is_positive": np.tile(np.arange(k + 1) == 0, queries),
            "yes_logit": yes.ravel(),
            "no_logit": np.zeros(yes.size, np.float32),
            "temperature": np.ones(yes.size, np.float32),
            "score": score.ravel(),
        }
    )
    for name, table in (("pool", pool), ("judge_scores", scores)):
        rows = table.sample(fraction=1, shuffle=True, seed=1) if shuffle else table
        rows.write_parquet(Path(folder) / f"{name}.parquet")


def measure(folder: str) -> dict:
    """Read, select, write; return what it took."""
    import polars as pl

    from unime_kedro.mining.selection import select_negatives

    root = Path(folder)
    before = peak_gb()
    marks = [time.perf_counter()]
    pool, scores = pl.read_parquet(root / "pool.parquet"), pl.read_parquet(root / "judge_scores.parquet")
    marks.append(time.perf_counter())
    result = select_negatives(pool, scores, n_negatives=10, rule="absolute", margin=0.01)
    marks.append(time.perf_counter())
    result.negatives.write_parquet(root / "negatives.parquet")
    result.selection.write_parquet(root / "selection.parquet")
    marks.append(time.perf_counter())
    return {
        "seconds": round(marks[-1] - marks[0], 2),
        "seconds_read": round(marks[1] - marks[0], 2),
        "seconds_select": round(marks[2] - marks[1], 2),
        "seconds_write": round(marks[3] - marks[2], 2),
        "peak_rss_gb": round(peak_gb(), 2),
        "rss_before_gb": round(before, 2),
        "metrics": {name: round(value, 5) for name, value in result.metrics.items()},
    }


def peak_gb() -> float:
    """Return the largest resident memory of this process so far, in GB (10^9 bytes)."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--queries", type=int, default=662_000)
    parser.add_argument("--k", type=int, default=50, help="pool size")
    parser.add_argument("--shuffle", action="store_true", help="rows in random order")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        writer = multiprocessing.get_context("spawn").Process(
            target=write_tables, args=(folder, options.queries, options.k, options.shuffle)
        )
        writer.start()
        writer.join()
        if writer.exitcode:
            raise SystemExit("the synthetic tables could not be written")
        report = measure(folder)
    print(json.dumps({"queries": options.queries, "k": options.k, "cores": os.cpu_count(), **report}, indent=2))


if __name__ == "__main__":
    main()
