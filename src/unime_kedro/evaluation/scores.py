"""The figures of a benchmark: several measures per data set and per declared mean, with intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl

from unime_kedro.errors import DataError
from unime_kedro.evaluation.macro import Measured, macro_mean, measure

#: what is measured of a query beside whether it is right -> what its mean is called
MEASURES = {"hit_at_5": "hit_at_5", "hit_at_10": "hit_at_10", "reciprocal_rank": "mrr", "ndcg_at_5": "ndcg_at_5"}
#: candidates that nDCG looks at
_DEPTH = 5

Figure = dict[str, Any]


def query_measures(predictions: pl.DataFrame, top: pl.DataFrame) -> pl.DataFrame:
    """Add every measure of a single query.

    Args:
        predictions: :data:`.scoring.PREDICTIONS_SCHEMA`.
        top: :data:`.scoring.TOP_SCHEMA`, five candidates per query at least, where there are as many; with
            ``reranked_position``, the order of a reranker counts.

    Returns:
        The predictions with :data:`MEASURES`, float64. ``hit_at_k``: a right candidate is among the first k (Recall@k
        where one is right). ``reciprocal_rank``: 1 / rank of the best right one; its mean is MRR. ``ndcg_at_5``: gain
        1 for a right candidate, discounted by log2(position + 2), over that of the best possible order (Jarvelin and
        Kekalainen 2002). All are pessimistic about ties, as rank and top are.

    Raises:
        DataError: If ``top`` has fewer candidates of a query than nDCG looks at.
    """
    key = ["dataset", "query_id"]
    place = pl.col("position").cast(pl.Int32)
    if "reranked_position" in top.columns:
        place = pl.coalesce("reranked_position", place)
    seen = top.select(*key, "right", place=place).filter(pl.col("place") < _DEPTH).sort(*key, "place")
    gain = pl.when("right").then(1 / (pl.col("place") + 2).log(2)).otherwise(0.0)
    gains = seen.group_by(key, maintain_order=True).agg(gain=gain.sum(), seen=pl.len())
    table = predictions.join(gains, on=key, how="left", maintain_order="left")
    needed = pl.min_horizontal(pl.col("n_candidates"), _DEPTH)
    if len(short := table.filter(pl.col("seen").fill_null(0) < needed)):
        row = short.row(0, named=True)
        raise DataError(
            f"{row['dataset']}, query_id {row['query_id']}: {row['seen'] or 0} first candidates are known; "
            f"nDCG@{_DEPTH} needs {_DEPTH}. Score with a larger top."
        )
    best = pl.Series(np.cumsum(1 / np.log2(np.arange(_DEPTH) + 2)))
    ideal = best.gather((table["n_right"].clip(1, _DEPTH) - 1).cast(pl.UInt32))
    return table.with_columns(
        hit_at_5=(pl.col("rank") <= 5).cast(pl.Float64),
        hit_at_10=(pl.col("rank") <= 10).cast(pl.Float64),
        reciprocal_rank=1 / pl.col("rank"),
        ndcg_at_5=pl.col("gain") / ideal,
    ).drop("gain", "seen")


def benchmark_scores(
    measured: pl.DataFrame,
    measures: Mapping[str, str],
    means: Mapping[str, Sequence[str]],
    *,
    level: float,
    resamples: int,
    seed: int,
) -> dict[str, dict[str, Figure]]:
    """Average every measure over the queries of each data set, and over data sets as the benchmark declares.

    Args:
        measured: From :func:`query_measures`, of one model on one benchmark.
        measures: Data set -> what its share of right answers is called, such as ``recall_at_1``; others are
            ``precision_at_1``.
        means: Name -> data sets that are averaged, each counting the same, whatever its number of queries.
        level: Level of the intervals.
        resamples: Resamples per data set.
        seed: Seed of the resampling (see :func:`.macro.measure`).

    Returns:
        Name of a data set, then of a mean -> measure (its share of right answers, then :data:`MEASURES`, chance) ->
        value, low, high, n (queries), units (what was resampled). Intervals come from a bootstrap that draws units
        within each data set (see :func:`.statistics.share_interval`). ``chance`` is what a guess among the candidates
        gives, without interval. A mean with a member that was not measured has nulls instead, and ``missing`` names it:
        it is never the mean of what is left.
    """
    single: dict[str, dict[str, Measured]] = {}
    chances: dict[str, float] = {}
    for (name,), part in sorted(measured.partition_by("dataset", as_dict=True).items()):
        columns = {title: part[key] for key, title in MEASURES.items()}
        columns = {measures.get(name, "precision_at_1"): part["correct"], **columns}
        single[name] = {
            key: measure(values, part["unit"], name, resamples=resamples, seed=seed) for key, values in columns.items()
        }
        chances[name] = float((part["n_right"] / part["n_candidates"]).sort().mean())  # type: ignore[arg-type]
    # in the order of the declaration; data sets that are not declared come last
    found = {name: _figures([name], single, chances, level) for name in [*measures, *single] if name in single}
    for name, members in means.items():
        if missing := [member for member in members if member not in single]:
            nothing = {"value": None, "low": None, "high": None, "n": 0, "units": 0, "missing": missing}
            found[name] = {measures.get(members[0], "precision_at_1"): nothing}
        else:
            found[name] = _figures(members, single, chances, level)
    return found


def _figures(
    members: Sequence[str], single: Mapping[str, Mapping[str, Measured]], chances: Mapping[str, float], level: float
) -> dict[str, Figure]:
    """Return every measure of a data set, or of a mean over several."""
    parts = [single[name] for name in members]
    first = next(iter(parts[0]))
    # a mean of Precision@1 and Recall@1 is neither; both are shares of right answers
    share = first if all(next(iter(part)) == first for part in parts) else "accuracy"
    found = {share: _figure([next(iter(part.values())) for part in parts], level)}
    found |= {title: _figure([part[title] for part in parts], level) for title in MEASURES.values()}
    chance = float(np.mean([chances[name] for name in members]))
    return found | {"chance": {**found[share], "value": chance, "low": None, "high": None}}


def _figure(members: Sequence[Measured], level: float) -> Figure:
    interval = macro_mean(members, level)
    n = sum(member.queries for member in members)
    return {"value": interval.value, "low": interval.low, "high": interval.high, "n": n, "units": interval.n}
