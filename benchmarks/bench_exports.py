"""Exports at the size of MMEB-train: 662,000 queries with ten negatives each, every format, one run.

    python benchmarks/bench_exports.py [--queries 662000]

Prints seconds and MiB per format, and the seconds that plain `json.dumps` of as many rows takes, on a sample.
"""

from __future__ import annotations

import argparse
import json
import resource
import tempfile
import time
from pathlib import Path

import numpy as np
import polars as pl

from unime_kedro.exchange.formats import FORMATS
from unime_kedro.exchange.rows import mined_rows
from unime_kedro.exchange.writing import export

NEGATIVES = 10


def tables(n: int, pictures: bool) -> list[pl.DataFrame]:
    """Return random tables: every third item has a picture, words are 20 to 200 letters long."""
    random = np.random.default_rng(0)
    items = pl.DataFrame({"item_id": np.arange(2 * n)}).with_columns(
        text=pl.lit("a word " * 30).str.head(20 + pl.col("item_id") % 180) + pl.col("item_id").cast(pl.String),
        image=pl.when((pl.col("item_id") % 3 == 0) & pictures)
        .then(pl.lit("images/SomeDataset/Train/") + pl.col("item_id").cast(pl.String) + ".jpg")
        .otherwise(pl.lit("")),
    )
    queries = pl.DataFrame({"query_id": np.arange(n), "item_id": np.arange(n), "positive_item_id": n + np.arange(n)})
    negatives = pl.DataFrame(
        {
            "query_id": np.repeat(np.arange(n), NEGATIVES),
            "slot": np.tile(np.arange(NEGATIVES, dtype=np.int32), n),
            "item_id": random.integers(n, 2 * n, n * NEGATIVES),
            "score": random.random(n * NEGATIVES, dtype=np.float32),
            "origin": ["sampled"] * (n * NEGATIVES),
        }
    )
    scores = queries.select("query_id", item_id="positive_item_id", is_positive=pl.lit(True)).with_columns(
        score=pl.lit(0.9, dtype=pl.Float32)
    )
    return [negatives, queries.with_columns(dataset=pl.lit("D")), items, scores]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--queries", type=int, default=662_000)
    n = parser.parse_args().queries
    print(f"{n:,} queries, {NEGATIVES} negatives each")
    for pictures in (True, False):
        given = tables(n, pictures)
        start = time.perf_counter()
        rows = mined_rows(*given)
        print(f"rows ({'a third with pictures' if pictures else 'words alone'}): {time.perf_counter() - start:.1f} s")
        names = [name for name in FORMATS if ("text" in name or "flag" in name) != pictures]
        for name in names:
            with tempfile.TemporaryDirectory() as folder:
                start = time.perf_counter()
                files, _ = export(rows, name, Path(folder) / f"x{FORMATS[name][1]}")
                size = sum(file.stat().st_size for file in files) / 2**20
                print(f"{name:22} {time.perf_counter() - start:6.1f} s  {size:7.0f} MiB")
    sample = rows.frame.head(20_000).to_dicts()
    start = time.perf_counter()
    for row in sample:
        json.dumps(row, ensure_ascii=False)
    print(f"json.dumps of the rows alone: {(time.perf_counter() - start) * n / len(sample):.1f} s (from 20,000)")
    print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.1f} GiB")


if __name__ == "__main__":
    main()
