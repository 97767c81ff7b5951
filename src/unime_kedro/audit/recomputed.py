"""Figures computed anew from saved tables, by other code than that which computed them first.

Shares, counts and means; intervals are not recomputed. What a function returns has the form of the metrics dataset,
with those keys that its table gives.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import polars as pl

from unime_kedro.audit.findings import Place
from unime_kedro.audit.record import RunRecord

#: measures of a query from the rank of its best right candidate, besides being right
_BY_RANK: dict[str, Callable[[pl.Expr], pl.Expr]] = {
    "hit_at_5": lambda rank: rank <= 5,
    "hit_at_10": lambda rank: rank <= 10,
    "mrr": lambda rank: 1 / rank,
}


def trained_metrics(table: pl.DataFrame, record: RunRecord, place: Place) -> dict[str, Any]:
    """Return Precision@1 on mini-MMEB by data set, meta-task, split and over all, from trained_predictions."""
    from unime_kedro.evaluation.benchmarks import find_benchmark

    shares = _means(table, ["dataset"], pl.col("correct").cast(pl.Float64))
    declared = find_benchmark("mini-MMEB").datasets
    groups: dict[str, list[float]] = {}
    for one in declared:
        if (one.name,) in shares:
            split = {"IND": "in_distribution", "OOD": "out_of_distribution"}[str(one.split)]
            for group in (one.group, split, "all"):
                groups.setdefault(group, []).append(shares[one.name,])
    found = {name: value for (name,), value in shares.items()}
    found |= {name: sum(values) / len(values) for name, values in groups.items()}
    return {f"precision_at_1/{name}": value for name, value in found.items()}


def evaluate_metrics(table: pl.DataFrame, record: RunRecord, place: Place) -> dict[str, Any]:
    """Return every model's measures by data set, and means over data sets as declared, from predictions."""
    from unime_kedro.evaluation.benchmarks import BENCHMARKS

    keys = ["model", "benchmark", "dataset"]
    rank = pl.col("rank").cast(pl.Float64)
    right = _means(table, keys, pl.col("correct").cast(pl.Float64))
    by_rank = {name: _means(table, keys, make(rank).cast(pl.Float64)) for name, make in _BY_RANK.items()}
    found: dict[str, Any] = {}
    for model, benchmark in sorted({key[:2] for key in right}):
        if benchmark not in BENCHMARKS:
            continue
        declared = BENCHMARKS[benchmark]
        names = {one.name: one.metric for one in declared.datasets if (model, benchmark, one.name) in right}
        values = {
            name: {metric: right[model, benchmark, name]} | {m: v[model, benchmark, name] for m, v in by_rank.items()}
            for name, metric in names.items()
        }
        for mean in declared.means:
            members = [values[name] for name in mean.members if name in values]
            if len(members) == len(mean.members):
                same = set.intersection(*(set(one) for one in members))
                values[mean.name] = {m: sum(one[m] for one in members) / len(members) for m in sorted(same)}
        found.setdefault(model, {})[benchmark] = {
            name: {measure: {"value": value, "low": None, "high": None} for measure, value in measures.items()}
            for name, measures in values.items()
        }
    return found


def select_metrics(table: pl.DataFrame, record: RunRecord, place: Place) -> dict[str, Any]:
    """Return the counts of false negatives, from selection."""
    dropped, rows = int(table["dropped_false_negative"].sum()), int(table["pool_size"].sum())
    return {
        "queries": table.height,
        "pool_rows": rows,
        "unjudged": table["dropped_unjudged"].sum(),
        "false_negatives_dropped": dropped,
        "false_negative_share": dropped / rows if rows else 0.0,
    }


def judge_metrics(table: pl.DataFrame, record: RunRecord, place: Place) -> dict[str, Any]:
    """Return means of the scores, from judge_scores."""
    score = table.select("is_positive", pl.col("score").cast(pl.Float64))
    positive, pool = score.filter("is_positive")["score"], score.filter(~pl.col("is_positive"))["score"]
    means = {"mean_positive_score": positive.mean(), "mean_pool_score": pool.mean()}
    return {"pairs": table.height, **{key: value for key, value in means.items() if value is not None}}


def pool_metrics(table: pl.DataFrame, record: RunRecord, place: Place) -> dict[str, Any]:
    """Return size and similarity of the nearest, from pool."""
    first = table.filter(pl.col("rank") == pl.col("rank").min().over("query_id"))["similarity"].cast(pl.Float64)
    return {"pool_rows": table.height, **({"similarity_first_mean": first.mean()} if table.height else {})}


def _means(table: pl.DataFrame, keys: list[str], value: pl.Expr) -> Mapping[Any, float]:
    found = table.group_by(keys).agg(value.mean().alias("value"))
    return {tuple(row[:-1]): row[-1] for row in found.iter_rows()}


#: metrics dataset -> the table that gives it, and how
RECOMPUTED: dict[str, tuple[str, Callable[[pl.DataFrame, RunRecord, Place], dict[str, Any]]]] = {
    "trained_metrics": ("trained_predictions", trained_metrics),
    "evaluate_metrics": ("predictions", evaluate_metrics),
    "select_metrics": ("selection", select_metrics),
    "judge_metrics": ("judge_scores", judge_metrics),
    "pool_metrics": ("pool", pool_metrics),
}
