"""The estimate of `unime plan --measure` against the run itself: judging and embedding mini-MMEB.

    kedro run --pipeline=mine && python benchmarks/bench_estimate.py [--seeds 1 2 3] [--share 0.05]

For every seed a sample of the queries is judged and a sample of the contents embedded, as `unime plan --measure=N` does
it, then everything, into an empty store. Seconds are of the process's own CPU time, unlike those of `unime plan`, so
that the ratio shows what scaling up gets wrong and not what else the machine did. The target is .8 to 1.2.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import polars as pl

from unime_kedro.planning.corpus import read_corpus
from unime_kedro.planning.estimate import Models
from unime_kedro.planning.interval import Interval
from unime_kedro.planning.measuring import measure_stages
from unime_kedro.planning.settings import Settings, read_settings
from unime_kedro.planning.stages import stage_work


def actual_seconds(settings: Settings, scratch: Path) -> dict[str, float]:
    """Run both stages in full, into empty folders; returns CPU seconds of each, without loading the models."""
    from unime_kedro.mining.embedding import embed_items
    from unime_kedro.mining.judging import judge_pairs
    from unime_kedro.paths import resolve
    from unime_kedro.pipelines.judge.backends import make_judge
    from unime_kedro.pipelines.pool.nodes import load_embedder

    items, queries, pool = (pl.read_parquet(settings.place(name)) for name in ("items", "queries", "pool"))
    image_root = resolve(settings.section("ingest").image_root)
    embedder, judge = load_embedder(settings.section("pool")), make_judge(settings.section("judge"))
    start = time.process_time()
    embed_items(items, image_root, embedder, scratch / "embeddings")
    middle = time.process_time()
    judge_pairs(queries, items, pool, judge, scratch / "store", image_root)
    return {"embed": middle - start, "judge": time.process_time() - middle}


def estimated_seconds(settings: Settings, share: float, seed: int) -> dict[str, Interval]:
    """Estimate the CPU seconds of both stages from a sample."""
    n = round(share * len(pl.read_parquet(settings.place("queries"))))
    corpus, models = read_corpus(settings, max(n, 200), seed), Models()
    work = {name: stage_work(name, settings, corpus, models) for name in settings.stages}
    measured = measure_stages(settings, corpus, n, models, clock=time.process_time)
    return {name: measured[name].seconds(one) for name, one in work.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--share", type=float, default=0.05, help="of the queries, that is measured")
    arguments = parser.parse_args()
    settings = read_settings(None, ("mine",))
    print(f"{'seed':>4}  {'stage':<6}{'estimated CPU s (interval)':>34}{'actual':>9}{'ratio':>7}  load")
    with tempfile.TemporaryDirectory() as folder:
        scratch = _empty_places(settings, Path(folder))
        for seed in arguments.seeds:
            estimated = estimated_seconds(scratch, arguments.share, seed)
            actual = actual_seconds(settings, Path(folder) / f"seed-{seed}")
            for stage, seconds in actual.items():
                _print(seed, stage, estimated[stage], seconds)


def _empty_places(settings: Settings, folder: Path) -> Settings:
    """Return settings under which nothing is embedded or judged yet."""
    from dataclasses import replace

    places: dict[str, Any] = dict(settings.catalog)
    for name in ("judge_store", "embedding_folder"):
        places[name] = {**places[name], "filepath": str(folder / "empty" / name)}
    return replace(settings, catalog=places)


def _print(seed: int, stage: str, estimated: Interval, actual: float) -> None:
    interval = f"{estimated.middle:.1f} ({estimated.low:.1f} to {estimated.high:.1f})"
    ratio, load = estimated.middle / actual, os.getloadavg()[0]
    print(f"{seed:>4}  {stage:<6}{interval:>34}{actual:>9.1f}{ratio:>7.2f}  {load:.1f}", flush=True)


if __name__ == "__main__":
    main()
