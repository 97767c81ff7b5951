"""Benchmarks as declarations: what they are made of, where they lie on disk, what is averaged; and their loading.

>>> from unime_kedro.evaluation.benchmarks import load_benchmark, means_of
>>> loaded = load_benchmark("MMEB", "/data/MMEB-eval")  # doctest: +SKIP
>>> loaded.tasks, loaded.missing  # doctest: +SKIP
"""

from __future__ import annotations

from unime_kedro.evaluation.benchmarks.declarations import (
    SEE_SOURCE,
    Benchmark,
    DatasetDeclaration,
    Mean,
    MeanValue,
    means_of,
)
from unime_kedro.evaluation.benchmarks.loading import LoadedBenchmark, load_benchmark
from unime_kedro.evaluation.benchmarks.paper import PAPER, PAPER_ROWS
from unime_kedro.evaluation.benchmarks.registry import BENCHMARKS, find_benchmark

__all__ = [
    "BENCHMARKS",
    "PAPER",
    "PAPER_ROWS",
    "SEE_SOURCE",
    "Benchmark",
    "DatasetDeclaration",
    "LoadedBenchmark",
    "Mean",
    "MeanValue",
    "find_benchmark",
    "load_benchmark",
    "means_of",
]
