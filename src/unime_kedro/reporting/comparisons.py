"""Differences between pairs of models, by benchmark and data set, as one table."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import polars as pl

from unime_kedro.evaluation.comparison import OVERALL

#: ``first`` and ``second`` are shares of right answers; ``overall``: the row of the mean over data sets
SCHEMA = {
    "first_model": pl.String,
    "second_model": pl.String,
    "benchmark": pl.String,
    "dataset": pl.String,
    "overall": pl.Boolean,
    "n": pl.Int64,
    "first": pl.Float64,
    "second": pl.Float64,
    "difference": pl.Float64,
    "low": pl.Float64,
    "high": pl.Float64,
    "p": pl.Float64,
    "p_holm": pl.Float64,
    "detectable": pl.Float64,
}
_KEY = ["first_model", "second_model", "benchmark"]


def no_comparisons() -> pl.DataFrame:
    """Return the table without rows."""
    return pl.DataFrame(schema=SCHEMA)


def pairs_of(
    predictions: pl.DataFrame | None, first: str, second: str, order: Sequence[str] = ()
) -> Iterator[tuple[str, pl.DataFrame, pl.DataFrame]]:
    """Yield the benchmarks that two models have both answered, with the predictions of each.

    Args:
        predictions: model, benchmark and so on; None for no predictions.
        first: Name of a model.
        second: Name of another.
        order: Benchmarks that come first, in this order; others follow by name.
    """
    if predictions is None:
        return
    one, other = (predictions.filter(pl.col("model") == name) for name in (first, second))
    both = sorted(set(one["benchmark"]) & set(other["benchmark"]))
    for benchmark in [*(name for name in order if name in both), *(name for name in both if name not in order)]:
        of_it = pl.col("benchmark") == benchmark
        yield benchmark, one.filter(of_it), other.filter(of_it)


def by_pair(table: pl.DataFrame) -> dict[tuple[str, str, str], pl.DataFrame]:
    """Return (first, second, benchmark) -> its rows, largest difference first and the mean over all at the end."""
    ordered = table.sort(*_KEY, "overall", "difference", "dataset", descending=[*[False] * 4, True, False])
    keys = table.select(_KEY).unique(maintain_order=True).rows()
    return {
        key: ordered.filter(pl.all_horizontal(pl.col(n) == v for n, v in zip(_KEY, key, strict=True))) for key in keys
    }


def comparison_metrics(table: pl.DataFrame) -> dict[str, Any]:
    """Return ``<first>_against_<second>`` -> benchmark -> the mean's difference with its interval, and counts."""
    found: dict[str, Any] = {}
    for (first, second, benchmark), rows in by_pair(table).items():
        overall, single = rows.filter("overall").to_dicts(), rows.filter(~pl.col("overall"))
        figures = {key: overall[0][key] for key in ("difference", "low", "high", "p")} if overall else {}
        marked = single.filter(pl.col("p_holm") < 0.05)
        figures["datasets"] = single.height
        figures["datasets_better"] = marked.filter(pl.col("difference") > 0).height
        figures["datasets_worse"] = marked.filter(pl.col("difference") < 0).height
        found.setdefault(f"{first}_against_{second}", {})[benchmark] = figures
    return found


def comparison_rows(found: pl.DataFrame, first: str, second: str, benchmark: str) -> pl.DataFrame:
    """Put the result of :func:`.evaluation.comparison.compare_models` into :data:`SCHEMA`.

    Args:
        found: dataset, n, first, second, difference, low, high, p, p_holm, detectable; the mean over data sets is the
            row whose dataset is ``OVERALL`` there.
        first: Name of the first model.
        second: Name of the second.
        benchmark: Name of the benchmark.
    """
    named = {"first_model": first, "second_model": second, "benchmark": benchmark}
    return found.with_columns(
        **{column: pl.lit(name) for column, name in named.items()}, overall=pl.col("dataset") == OVERALL
    ).select(pl.col(column).cast(kind) for column, kind in SCHEMA.items())
