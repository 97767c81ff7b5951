"""Is one model better than another? Both answer the same queries, data set by data set and on average.

What is easy for both takes no part in the comparison: only differences are resampled and tested. A difference comes
with its interval, the chance of one as large without any cause, and the smallest one that the data could have shown.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from unime_kedro.errors import DataError
from unime_kedro.evaluation.significance import holm, mean_sign_flip_p, sign_flip_p
from unime_kedro.evaluation.statistics import bootstrap_draws

Floats = NDArray[np.float64]
Predictions = pl.DataFrame | Sequence[pl.DataFrame]

#: how often a difference of the ``detectable`` size is found
POWER = 0.8
#: name of the row with the mean over data sets
OVERALL = "all"
COMPARISON_SCHEMA = {
    "dataset": pl.String,
    "n": pl.Int64,
    "units": pl.Int64,
    "seeds": pl.Int64,
    "first": pl.Float64,
    "second": pl.Float64,
    "difference": pl.Float64,
    "low": pl.Float64,
    "high": pl.Float64,
    "p": pl.Float64,
    "p_holm": pl.Float64,
    "detectable": pl.Float64,
}
#: what rounding may leave of two equal variances
_ROUNDING = 1e-12
_KEY = ["dataset", "query_id"]
_COLUMNS = [*_KEY, "unit", "correct"]


class _Part(NamedTuple):
    """A data set, or a mean over several.

    Attributes:
        name: Its name.
        n: Queries.
        units: Units.
        shares: Share of right answers of the first and of the second model, mean over seeds.
        by_seed: (n_seeds,) difference of every seed.
        draws: (resamples,) mean over seeds of the difference, units resampled.
        residual: Variance of ``by_seed``'s mean that is due to single answers that one seed gets right and another not.
        totals: Units' differences, summed over seeds; by data set.
        weights: What one answer of a data set adds to the difference.
    """

    name: str
    n: int
    units: int
    shares: tuple[float, float]
    by_seed: Floats
    draws: Floats
    residual: float
    totals: dict[str, NDArray[np.int64]]
    weights: dict[str, float]


def compare_models(
    first: Predictions,
    second: Predictions,
    *,
    level: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> pl.DataFrame:
    """Compare two models on one benchmark by their shares of right answers.

    Args:
        first: Predictions of the first model, or of several trainings of it with different seeds: dataset, query_id,
            unit (what is resampled as a whole), correct. In any order; the result does not depend on it.
        second: The same of the second model. With several seeds on both sides, seed i of one is compared with seed i of
            the other; a single table is compared with every seed.
        level: Level of the intervals. 1 - level is the share of false alarms that ``detectable`` allows for.
        resamples: Resamples per data set.
        seed: Seed of the resampling; each data set has a stream of its own, whatever others are there.

    Returns:
        :data:`COMPARISON_SCHEMA`: a row per data set by name, then :data:`OVERALL`, the unweighted mean over data sets.

        - ``difference``: share of the first less that of the second; with seeds, its mean over them.
        - ``low``, ``high``: its interval, from the standard error of a bootstrap that draws the units of both models
          together (whole units within each data set). A unit is added that adds nothing to the difference and once
          to its spread (1 / units^2 to the variance, as Agresti and Min 2005 add half an answer to every cell), so that
          models that never differ do not look certain to be equal. With seeds, their variance comes on top: the spread
          of the seeds' differences less what single answers contribute to it, with Student's t for how few they are
          (Satterthwaite 1946). Of one seed, nothing can be said of how much seeds matter, and the interval is of these
          two trainings, not of the two ways of training. Simulations (``benchmarks/check_statistics.py``): an interval
          of 95 % held the true difference in .95 to .97 of cases for fixed models, .99 where four of 100 queries
          differ; where seeds move a model by one, two and three points (standard deviation), in .95, .94 and .93 with
          three seeds, in .93, .78 and .70 with one.
        - ``p``: chance of a difference as large if neither model were better. One seed: exact test of sign changes over
          units (:func:`.significance.sign_flip_p`; McNemar's where every unit is one query), for the mean by drawing
          signs; below .05 without a difference in .04 to .05 of simulations, in fewer where few queries differ.
          Several: Student's t of the difference over its standard error.
        - ``p_holm``: ``p`` corrected for the number of data sets; null for the mean.
        - ``detectable``: the true difference that a test with as much spread as was seen finds in 80 % of cases, before
          correction for the number of data sets.

    Raises:
        DataError: If there is no table, a column is missing, a query stands twice or without answer, a table holds
            several models or benchmarks, or the two models were asked different queries; names a query.
        ValueError: If an argument is out of range.
    """
    if not 0 < level < 1 or resamples < 2:
        raise ValueError(f"expected 0 < level < 1 and resamples >= 2; got {level} and {resamples}")
    sides = [_tables(first, "first"), _tables(second, "second")]
    n_seeds = max(map(len, sides))
    if any(len(side) not in (1, n_seeds) for side in sides):
        raise DataError(
            f"the models have {len(sides[0])} and {len(sides[1])} seeds; expected as many of each, or a single one."
        )
    keys = _aligned(sides)
    one, other = (np.stack([table["correct"].to_numpy() for table in side]) for side in sides)
    names = keys["dataset"].to_numpy()
    if OVERALL in names:
        raise DataError(f"a data set is called {OVERALL!r}, as the mean over data sets is; give it another name.")
    units = keys["unit"].to_numpy()
    parts = []
    for name in np.unique(names):
        at = np.flatnonzero(names == name)
        parts.append(_part(str(name), one[:, at], other[:, at], units[at], resamples, seed))
    rows = [_row(part, level, seed) for part in parts]
    # the mean over one data set is that data set, whose test is exact
    overall = _row(_mean(parts), level, seed) if len(parts) > 1 else {**rows[0], "dataset": OVERALL}
    for row, corrected in zip(rows, holm([row["p"] for row in rows]).tolist(), strict=True):
        row["p_holm"] = corrected
    return pl.DataFrame([*rows, overall], schema=COMPARISON_SCHEMA)


def _tables(predictions: Predictions, side: str) -> list[pl.DataFrame]:
    """Return the tables of a model, one per seed, checked and by data set and query."""
    tables = [predictions] if isinstance(predictions, pl.DataFrame) else list(predictions)
    if not tables or not all(map(len, tables)):
        raise DataError(f"there are no predictions of the {side} model to compare.")
    return [
        _table(table, f"the {side} model" + (f", seed number {i}" * (len(tables) > 1)))
        for i, table in enumerate(tables)
    ]


def _table(table: pl.DataFrame, whose: str) -> pl.DataFrame:
    if missing := [column for column in _COLUMNS if column not in table.columns]:
        raise DataError(f"predictions of {whose} lack {', '.join(missing)}; expected {', '.join(_COLUMNS)}.")
    for column in ("model", "benchmark"):
        if column in table.columns and table[column].n_unique() > 1:
            raise DataError(f"predictions of {whose} hold several of {column}; expected one. Filter them first.")
    rows = table.select(_COLUMNS).sort(_KEY)
    bad = rows.filter(pl.struct(_KEY).is_duplicated() | pl.any_horizontal(pl.col(_COLUMNS).is_null()))
    if len(bad):
        raise DataError(
            f"predictions of {whose}: {bad['dataset'][0]}, query_id {bad['query_id'][0]} stands there twice or lacks a "
            "value; expected one answer per query."
        )
    return rows


def _aligned(sides: Sequence[list[pl.DataFrame]]) -> pl.DataFrame:
    """Return the queries that all tables share, or say which one they do not."""
    tables = [table for side in sides for table in side]
    keys = tables[0].select(*_KEY, "unit")
    for table in tables[1:]:
        if table.select(*_KEY, "unit").equals(keys):
            continue
        for more, less in ((keys, table), (table, keys)):
            if len(only := more.join(less, on=[*_KEY, "unit"], how="anti", maintain_order="left")):
                row = only.row(0, named=True)
                raise DataError(
                    f"{row['dataset']}, query_id {row['query_id']} (unit {row['unit']}) was put to one model and not "
                    f"to the other, or not in this unit ({len(only):,} such queries). Evaluate both on the same data."
                )
    return keys


def _part(name: str, one: NDArray, other: NDArray, units: NDArray, resamples: int, seed: int) -> _Part:
    """Compare two models on one data set; ``one``, ``other``: (n_seeds or 1, n) bool, ``units``: (n,)."""
    # bool minus bool is no number
    differences = one.astype(np.int64) - other
    n_seeds, n = differences.shape
    labels, place = np.unique(units, return_inverse=True)
    totals = np.zeros((n_seeds, len(labels)), dtype=np.int64)
    for row, answers in zip(totals, differences, strict=True):
        np.add.at(row, place, answers)
    value = float(totals.sum()) / (n * n_seeds)
    draws = _bootstrap(name, differences.sum(axis=0), place, resamples, seed) / n_seeds
    # a resample of m units varies by (m - 1) / m of what a new sample of m would
    draws = value + (draws - value) * np.sqrt(len(labels) / max(len(labels) - 1, 1))
    shares = (float(one.mean(axis=1).mean()), float(other.mean(axis=1).mean()))
    residual = _residual(totals, np.bincount(place))
    by_seed, total = totals.sum(axis=1) / n, totals.sum(axis=0)
    return _Part(name, n, len(labels), shares, by_seed, draws, residual, {name: total}, {name: 1 / n})


def _bootstrap(name: str, values: NDArray[np.int64], groups: NDArray, resamples: int, seed: int) -> Floats:
    return bootstrap_draws("mean", values, groups=groups, resamples=resamples, seed=_stream(seed, name))


def _stream(seed: int, name: str) -> list[int]:
    return [seed, zlib.crc32(name.encode())]


def _residual(totals: NDArray[np.int64], sizes: NDArray[np.int64]) -> float:
    """Return the variance of a difference of means that comes from neither units nor seeds as such (two-way ANOVA).

    Args:
        totals: (n_seeds, n_units) sums of differences.
        sizes: (n_units,) queries.
    """
    n_seeds, n_units = totals.shape
    if n_seeds < 2 or n_units < 2:
        return 0.0
    # what a unit adds to the ratio of sums, to first order
    n = sizes.sum()
    added = (totals - sizes * totals.sum() / (n * n_seeds)) * n_units / n
    left = added - added.mean(axis=1, keepdims=True) - added.mean(axis=0) + added.mean()
    return float((left**2).sum() / ((n_seeds - 1) * (n_units - 1)) / (n_seeds * n_units))


def _mean(parts: Sequence[_Part]) -> _Part:
    """Return the unweighted mean over data sets; each was resampled within itself."""
    return _Part(
        OVERALL,
        sum(part.n for part in parts),
        sum(part.units for part in parts),
        (float(np.mean([part.shares[0] for part in parts])), float(np.mean([part.shares[1] for part in parts]))),
        np.mean([part.by_seed for part in parts], axis=0),
        np.mean([part.draws for part in parts], axis=0),
        float(np.sum([part.residual for part in parts])) / len(parts) ** 2,
        {name: total for part in parts for name, total in part.totals.items()},
        {name: weight / len(parts) for part in parts for name, weight in part.weights.items()},
    )


def _row(part: _Part, level: float, seed: int) -> dict[str, Any]:
    from scipy.stats import t

    value, n_seeds = float(part.by_seed.mean()), len(part.by_seed)
    error, freedom = _standard_error(part)
    reach = float(t.ppf((1 + level) / 2, freedom)) * error
    if n_seeds > 1:
        p = float(2 * t.sf(abs(value) / error, freedom))
    elif len(part.totals) == 1:
        p = sign_flip_p(part.totals[part.name])
    else:
        p = mean_sign_flip_p(part.totals, part.weights, {name: [*_stream(seed, name), 1] for name in part.totals})
    return {
        "dataset": part.name,
        "n": part.n,
        "units": part.units,
        "seeds": n_seeds,
        "first": part.shares[0],
        "second": part.shares[1],
        "difference": value,
        "low": max(-1.0, value - reach),
        "high": min(1.0, value + reach),
        "p": p,
        "p_holm": None,
        "detectable": min(1.0, reach + float(t.ppf(POWER, freedom)) * error),
    }


def _standard_error(part: _Part) -> tuple[float, float]:
    """Return the standard error of a difference and its degrees of freedom."""
    n_seeds, n_sets = len(part.by_seed), len(part.totals)
    of_units, freedom = float(part.draws.var()), float(max(part.units - n_sets, 1))
    total = of_units
    if n_seeds > 1:
        of_seeds = float(part.by_seed.var(ddof=1)) / n_seeds
        if of_seeds - part.residual > _ROUNDING:
            total += of_seeds - part.residual
            spread = of_units**2 / freedom + of_seeds**2 / (n_seeds - 1)
            spread += part.residual**2 / (freedom * (n_seeds - 1))
            freedom = max(total**2 / spread, n_seeds - 1.0)
    return float(np.sqrt(total + 1 / part.units**2)), freedom
