"""How many contents the benchmarks have that are evaluated on."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl

from unime_kedro.io.mmeb import read_eval
from unime_kedro.paths import resolve
from unime_kedro.planning.interval import Interval, total

if TYPE_CHECKING:
    from unime_kedro.parameters import BenchmarkSource

#: benchmark -> queries and distinct contents, from what its publishers say of its size (method section 5). MMEB's 36
#: data sets have 1,000 queries each, and 1,000 candidates or up to 1,000 per query, of which many are shared
PUBLISHED: dict[str, tuple[int, Interval]] = {
    "MMEB": (36_000, Interval(72_000, 250_000, 2_000_000)),
    "Flickr30K": (6_000, Interval.exactly(6_000)),
    "COCO": (30_000, Interval.exactly(30_000)),
    "ShareGPT4V": (2_000, Interval.exactly(2_000)),
    "Urban1K": (2_000, Interval.exactly(2_000)),
    "SugarCrepe": (7_512, Interval(16_500, 18_000, 20_000)),  # two captions per entry, and COCO's pictures
}


def benchmark_contents(sources: Mapping[str, BenchmarkSource | None]) -> tuple[Interval, Interval, list[str]]:
    """Count the distinct contents and the queries of benchmarks.

    Args:
        sources: Name -> where it is on disk; null is left out.

    Returns:
        Contents, queries, and notes on what could not be counted.
    """
    contents, queries, notes = [], [], []
    for name, source in sources.items():
        if source is None:
            continue
        found = _on_disk(name, source)
        if found is None and name in PUBLISHED:
            found = Interval.exactly(PUBLISHED[name][0]), PUBLISHED[name][1]
            notes.append(f"{name} is not at {resolve(source.root)}: its published size is used")
        if found is None:
            notes.append(f"{name} is not at {resolve(source.root)}, and its size is not known: not counted")
            continue
        queries.append(found[0])
        contents.append(found[1])
    return total(contents), total(queries), notes


def _on_disk(name: str, source: BenchmarkSource) -> tuple[Interval, Interval] | None:
    """Count a benchmark's queries and contents; None where it is not there or cannot be read."""
    from unime_kedro.errors import DataError
    from unime_kedro.evaluation.benchmarks import load_benchmark
    from unime_kedro.evaluation.benchmarks.registry import BENCHMARKS

    root = resolve(source.root)
    try:
        if name not in BENCHMARKS or BENCHMARKS[name].layout == "mmeb":
            return _mmeb_rows(root, source)  # its pictures need not be opened to be counted
        tasks = load_benchmark(name, root, source.image_root and resolve(source.image_root), source.datasets).tasks
    except DataError:
        return None
    queries, contents = (sum(len(getattr(task, part)) for task in tasks) for part in ("queries", "contents"))
    return Interval.exactly(queries), Interval.exactly(contents)


def _mmeb_rows(root: Path, source: BenchmarkSource) -> tuple[Interval, Interval]:
    """Count the rows of MMEB's layout, and the distinct contents of each data set."""
    from unime_kedro.minimmeb.tasks import META_TASKS

    rows = read_eval(root, datasets=source.datasets, meta_tasks=META_TASKS).rows
    texts = pl.concat_list(pl.concat_list("qry_text"), "tgt_text")
    images = pl.concat_list(pl.concat_list("qry_img_path"), "tgt_img_path")
    contents = rows.select("dataset", text=texts, image=images).explode("text", "image").n_unique()
    return Interval.exactly(len(rows)), Interval.exactly(contents)
