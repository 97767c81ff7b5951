"""Figures computed anew from saved tables.

Shares, counts and means are counted by other code than that which made the figures; intervals, ranking measures and
the truth of mini-MMEB by the project's own functions. What a function returns has the form of the metrics dataset, with
those keys that its tables give.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import polars as pl

from unime_kedro.audit.record import RunRecord

#: measures of a query from the rank of its best right candidate, besides being right
_BY_RANK: dict[str, Callable[[pl.Expr], pl.Expr]] = {
    "hit_at_5": lambda rank: rank <= 5,
    "hit_at_10": lambda rank: rank <= 10,
    "mrr": lambda rank: 1 / rank,
}
_SIDES = {"IND": "in_distribution", "OOD": "out_of_distribution"}


def precision_of_trained(table: pl.DataFrame) -> dict[str, float]:
    """Return Precision@1 on mini-MMEB by data set, meta-task, split and over all, from trained_predictions."""
    from unime_kedro.evaluation.benchmarks import find_benchmark

    shares = _means(table, ["dataset"], pl.col("correct").cast(pl.Float64))
    groups: dict[str, list[float]] = {}
    for one in find_benchmark("mini-MMEB").datasets:
        if (one.name,) in shares:
            for group in (one.group, _SIDES[str(one.split)], "all"):
                groups.setdefault(group, []).append(shares[one.name,])
    found = {name: value for (name,), value in shares.items()}
    found |= {name: sum(values) / len(values) for name, values in groups.items()}
    return {f"precision_at_1/{name}": value for name, value in found.items()}


def trained_metrics(table: pl.DataFrame, *, record: RunRecord) -> dict[str, Any]:
    """Return Precision@1 on mini-MMEB with intervals and chance, from trained_predictions."""
    from unime_kedro.evaluation.benchmarks import find_benchmark
    from unime_kedro.evaluation.summaries import summarise

    declared = find_benchmark("mini-MMEB").datasets
    seed = _parameters(record, "train").get("seed", 0)
    found: dict[str, Any] = {}
    for groups in ({one.name: one.group for one in declared}, {one.name: _SIDES[str(one.split)] for one in declared}):
        summary = summarise(table, groups, seed=seed)
        for name, low, high, chance in summary.select("name", "low", "high", "chance").iter_rows():
            ends = {"low": low, "high": high, "chance": chance}
            found |= {f"precision_at_1_{end}/{name}": value for end, value in ends.items()}
    return found | precision_of_trained(table)


def evaluate_metrics(table: pl.DataFrame, rankings: pl.DataFrame, *, record: RunRecord) -> dict[str, Any]:
    """Return every model's measures by data set, and means over data sets as declared, with intervals.

    Benchmarks that only the run's configuration declares are left out.
    """
    from unime_kedro.evaluation.benchmarks import BENCHMARKS
    from unime_kedro.evaluation.scores import benchmark_scores, query_measures

    keys, evaluate = ["model", "benchmark"], _parameters(record, "evaluate")
    options = {key: evaluate[key] for key in ("level", "resamples", "seed")}
    tops = rankings.partition_by(keys, as_dict=True)
    found: dict[str, Any] = {}
    for (model, name), part in sorted(table.partition_by(keys, as_dict=True).items()):
        if name in BENCHMARKS:
            declared = BENCHMARKS[name]
            scores = benchmark_scores(
                query_measures(part, tops[model, name]),
                {one.name: one.metric for one in declared.datasets},
                {mean.name: mean.members for mean in declared.means},
                **options,
            )
            for dataset, measures in _by_hand(part, {one.name: one.metric for one in declared.datasets}).items():
                for measure, value in measures.items():
                    scores[dataset][measure]["value"] = value
            found.setdefault(model, {})[name] = scores
    return found


def _by_hand(table: pl.DataFrame, metrics: Mapping[str, str]) -> dict[str, dict[str, float]]:
    """Return data set -> share of right answers and measures by rank."""
    rank = pl.col("rank").cast(pl.Float64)
    found: dict[str, dict[str, float]] = {}
    for (name,), value in _means(table, ["dataset"], pl.col("correct").cast(pl.Float64)).items():
        found[name] = {metrics.get(name, "precision_at_1"): value}
    for measure, make in _BY_RANK.items():
        for (name,), value in _means(table, ["dataset"], make(rank).cast(pl.Float64)).items():
            found[name][measure] = value
    return found


def select_metrics(table: pl.DataFrame, negatives: pl.DataFrame, *, record: RunRecord) -> dict[str, Any]:
    """Return the counts of queries and false negatives, from selection, and of slots, from negatives."""
    dropped, rows = int(table["dropped_false_negative"].sum()), int(table["pool_size"].sum())
    fallback = table.filter(pl.col("outcome") == "fallback").height
    return {
        "queries": table.height,
        "pool_rows": rows,
        "unjudged": table["dropped_unjudged"].sum(),
        "false_negatives_dropped": dropped,
        "false_negative_share": dropped / rows if rows else 0.0,
        "fallback_queries": fallback,
        "fallback_share": fallback / table.height if table.height else 0.0,
        "duplicated_queries": table.filter(pl.col("outcome") == "duplicated").height,
        "duplicate_slots": negatives.filter(pl.col("origin") == "duplicate").height,
    }


def truth_metrics(*tables: pl.DataFrame, record: RunRecord) -> dict[str, Any]:
    """Return what judge, filter and choice are worth by the known truth of mini-MMEB."""
    from unime_kedro.evaluation.truth import measure_mining

    return measure_mining(*tables)


def judge_metrics(table: pl.DataFrame, *, record: RunRecord) -> dict[str, Any]:
    """Return means of the scores, from judge_scores."""
    score = table.select("is_positive", pl.col("score").cast(pl.Float64))
    positive, pool = score.filter("is_positive")["score"], score.filter(~pl.col("is_positive"))["score"]
    means = {"mean_positive_score": positive.mean(), "mean_pool_score": pool.mean()}
    return {"pairs": table.height, **{key: value for key, value in means.items() if value is not None}}


def pool_metrics(table: pl.DataFrame, *, record: RunRecord) -> dict[str, Any]:
    """Return size and similarity of the nearest, from pool."""
    first = table.filter(pl.col("rank") == pl.col("rank").min().over("query_id"))["similarity"].cast(pl.Float64)
    return {"pool_rows": table.height, **({"similarity_first_mean": first.mean()} if table.height else {})}


def _parameters(record: RunRecord, section: str) -> Mapping[str, Any]:
    found: Mapping[str, Any] = ((record.config or {}).get("parameters") or {})[section]
    return found


def _means(table: pl.DataFrame, keys: list[str], value: pl.Expr) -> Mapping[Any, float]:
    found = table.group_by(keys).agg(value.mean().alias("value"))
    return {tuple(row[:-1]): row[-1] for row in found.iter_rows()}


#: metrics dataset -> the tables that give it, and how
RECOMPUTED: dict[str, tuple[tuple[str, ...], Callable[..., dict[str, Any]]]] = {
    "trained_metrics": (("trained_predictions",), trained_metrics),
    "evaluate_metrics": (("predictions", "rankings"), evaluate_metrics),
    "select_metrics": (("selection", "negatives"), select_metrics),
    "truth_metrics": (
        ("pool_relevance", "judge_scores", "pool", "negatives", "selection", "queries"),
        truth_metrics,
    ),
    "judge_metrics": (("judge_scores",), judge_metrics),
    "pool_metrics": (("pool",), pool_metrics),
}
