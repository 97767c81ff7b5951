"""From one row per query to one row per data set: share of right answers, interval, chance level, macro means."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import polars as pl

from unime_kedro.errors import DataError
from unime_kedro.evaluation.macro import Measured, macro_mean, measure

SUMMARY_SCHEMA = {
    "kind": pl.String,
    "name": pl.String,
    "group": pl.String,
    "n_datasets": pl.Int64,
    "n_queries": pl.Int64,
    "n_units": pl.Int64,
    "value": pl.Float64,
    "low": pl.Float64,
    "high": pl.Float64,
    "chance": pl.Float64,
}


class _Figures(NamedTuple):
    """What is known of one data set."""

    group: str
    share: Measured
    chance: float | None


def summarise(
    predictions: pl.DataFrame,
    groups: Mapping[str, str],
    *,
    unit: str = "query_id",
    level: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
) -> pl.DataFrame:
    """Summarise predictions by data set, by group of data sets, and over all of them.

    Args:
        predictions: One row per query: dataset, correct (bool), the ``unit`` column, and for the chance level either
            ``chance`` or ``n_candidates``, with ``n_right`` where a query may have several right ones. In any order;
            the result does not depend on it.
        groups: Data set -> group, such as MMEB's meta-tasks; data sets that it lacks count as "unknown".
        unit: Column of what is resampled as a whole: queries themselves, or what several queries share, such as their
            picture.
        level: Level of the intervals.
        resamples: Resamples per data set.
        seed: Seed of the resampling; each data set has a stream of its own, whatever others are there.

    Returns:
        :data:`SUMMARY_SCHEMA`: rows of kind ``dataset`` by group and name, then ``group`` by name, then ``all``.
        ``value`` is the share of correct queries (Precision@1, Recall@1, accuracy) of a data set, and the unweighted
        mean of the data sets' values (macro mean) elsewhere. ``low`` and ``high`` are its interval
        (see :func:`.statistics.share_interval`); that of a macro mean resamples within each data set. ``chance`` is the
        mean of ``n_right / n_candidates``, null where the number of candidates is not given.

    Raises:
        DataError: If a column is missing, or has nulls where none are allowed.
        ValueError: If there are no rows.
    """
    if not len(predictions):
        raise ValueError("there are no predictions to summarise")
    rows = _rows(predictions, unit)
    figures = {
        name: _figures(part, groups.get(name, "unknown"), name, resamples, seed)
        for (name,), part in sorted(rows.partition_by("dataset", as_dict=True).items())
    }
    by_group = {
        group: [f for f in figures.values() if f.group == group] for group in {f.group for f in figures.values()}
    }
    summary = [_row("dataset", name, f.group, [f], level) for name, f in sorted(figures.items(), key=_by_group)]
    summary += [_row("group", group, group, members, level) for group, members in sorted(by_group.items())]
    summary.append(_row("all", "all", None, list(figures.values()), level))
    return pl.DataFrame(summary, schema=SUMMARY_SCHEMA, orient="row")


def _by_group(entry: tuple[str, _Figures]) -> tuple[str, str]:
    return entry[1].group, entry[0]


def _rows(predictions: pl.DataFrame, unit: str) -> pl.DataFrame:
    """Return dataset, correct, unit and chance."""
    if missing := [name for name in ("dataset", "correct", unit) if name not in predictions.columns]:
        raise DataError(f"predictions lack {', '.join(missing)}; they have {', '.join(predictions.columns)}.")
    chance = pl.lit(None, dtype=pl.Float64)
    if "chance" in predictions.columns:
        chance = pl.col("chance").cast(pl.Float64)
    elif "n_candidates" in predictions.columns:
        n_right = pl.col("n_right") if "n_right" in predictions.columns else 1
        chance = n_right / pl.col("n_candidates")
    rows = predictions.select("dataset", "correct", unit=pl.col(unit), chance=chance)
    for name, label in (("dataset", "dataset"), ("correct", "correct"), ("unit", unit)):
        if nulls := rows[name].null_count():
            raise DataError(f"{nulls} predictions have no {label}; expected one per query.")
    return rows


def _figures(part: pl.DataFrame, group: str, name: str, resamples: int, seed: int) -> _Figures:
    share = measure(part["correct"], part["unit"], name, resamples=resamples, seed=seed)
    # sorted, so that the floating-point sum does not depend on the order of the rows
    return _Figures(group, share, part["chance"].sort().mean())  # type: ignore[arg-type]


def _row(kind: str, name: str, group: str | None, members: Sequence[_Figures], level: float) -> tuple[object, ...]:
    """Return a row of the summary: the macro mean of its members, which for a data set is itself."""
    interval = macro_mean([member.share for member in members], level)
    chances = [member.chance for member in members if member.chance is not None]
    chance = float(np.mean(chances)) if len(chances) == len(members) else None
    queries = sum(member.share.queries for member in members)
    return (kind, name, group, len(members), queries, interval.n, interval.value, interval.low, interval.high, chance)
