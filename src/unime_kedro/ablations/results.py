"""Finished runs as figures: per arm mean and spread over seeds, and the difference to the first arm."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from unime_kedro.ablations.config import Column, Group
from unime_kedro.ablations.plan import ArmRun, Plan
from unime_kedro.ablations.project import Project
from unime_kedro.ablations.state import predictions_file
from unime_kedro.errors import DataError

if TYPE_CHECKING:
    import polars as pl


#: a difference of Precision@1 is reckoned from metrics and from predictions, which agree up to rounding
_SAME = 1e-6


@dataclass(frozen=True)
class Figure:
    """One cell of the table.

    Attributes:
        values: seed -> value.
        mean: Their mean.
        deviation: Their sample standard deviation (n - 1), None for a single seed.
    """

    values: dict[int, float]
    mean: float
    deviation: float | None


@dataclass(frozen=True)
class Difference:
    """An arm's first figure minus that of the reference arm.

    Attributes:
        value: The difference of the means over the seeds that both have.
        low: Lower end of the 95 % interval, None where there are no single predictions.
        high: Upper end, likewise.
        by_seed: seed -> difference.
    """

    value: float
    low: float | None
    high: float | None
    by_seed: dict[int, float]


@dataclass(frozen=True)
class ArmResult:
    """A row of the table."""

    arm: str
    figures: dict[str, Figure]
    difference: Difference | None
    seeds: list[int]
    overrides: dict[str, Any] = field(default_factory=dict)


Done = Sequence[tuple[ArmRun, Mapping[str, Any]]]


def column_value(column: Column, metrics: Mapping[str, float]) -> float | None:
    """Return a column's figure from a run's metrics: the mean of its keys, None if one is missing."""
    values = [metrics.get(key) for key in column.keys]
    known = [value for value in values if value is not None]
    return statistics.fmean(known) if len(known) == len(values) else None


def arm_results(project: Project, plan: Plan, done: Done) -> list[ArmResult]:
    """Return a row for every arm that has finished runs, in the group's order.

    Args:
        project: The project.
        plan: What the runs belong to.
        done: Finished runs with their records.

    Raises:
        DataError: Predictions of two arms do not belong to the same queries.
    """
    group = plan.group
    by_arm = {arm: [(run, record) for run, record in done if run.variant.arm == arm] for arm in group.arms}
    tables = {arm: _predictions(project, plan, runs) for arm, runs in by_arm.items()}
    reference = group.reference
    rows = []
    for arm, runs in by_arm.items():
        if not runs:
            continue
        figures = _figures(group, runs)
        rows.append(
            ArmResult(
                arm=arm,
                figures=figures,
                difference=None if arm == reference else _difference(group, by_arm[reference], runs, tables, arm),
                seeds=sorted(run.seed for run, _ in runs),
                overrides={key: value for key, value in runs[0][0].overrides.items() if key != group.seed_key},
            )
        )
    return rows


def _figures(group: Group, runs: Done) -> dict[str, Figure]:
    found = {}
    for name, column in group.results.columns.items():
        values = {run.seed: column_value(column, record["metrics"]) for run, record in runs}
        known = {seed: value for seed, value in sorted(values.items()) if value is not None}
        if known:
            numbers = list(known.values())
            deviation = statistics.stdev(numbers) if len(numbers) > 1 else None
            found[name] = Figure(known, statistics.fmean(numbers), deviation)
    return found


def _difference(
    group: Group, reference: Done, runs: Done, tables: Mapping[str, dict[int, pl.DataFrame]], arm: str
) -> Difference | None:
    """Compare the first column over the seeds that both arms have."""
    column = next(iter(group.results.columns.values()))
    theirs = {run.seed: column_value(column, record["metrics"]) for run, record in reference}
    ours = {run.seed: column_value(column, record["metrics"]) for run, record in runs}
    gaps = {s: ours[s] - theirs[s] for s in sorted(ours) if ours[s] is not None and theirs.get(s) is not None}  # type: ignore[operator]
    if not gaps:
        return None
    value, low, high = statistics.fmean(gaps.values()), None, None
    pairs = [(tables[arm].get(seed), tables[group.reference].get(seed)) for seed in gaps]
    whole = [(ours_, theirs_) for ours_, theirs_ in pairs if ours_ is not None and theirs_ is not None]
    if len(whole) == len(pairs):
        low, high = _interval(whole, value, f"{arm} and {group.reference}")
    return Difference(value, low, high, gaps)


def _predictions(project: Project, plan: Plan, runs: Done) -> dict[int, pl.DataFrame]:
    """Return seed -> table of single predictions; of runs that made one with rows."""
    import polars as pl

    found = {}
    for run, _ in runs:
        file = predictions_file(project, plan, run)
        if file is not None and len(table := pl.read_parquet(file, glob=False, hive_partitioning=False)):
            found[run.seed] = table
    return found


def _interval(
    tables: Sequence[tuple[pl.DataFrame, pl.DataFrame]], value: float, arms: str
) -> tuple[float | None, float | None]:
    """Return the 95 % interval of a difference of Precision@1 from one pair of prediction tables per seed.

    Args:
        tables: Predictions of the arm and of the reference, with the same seed.
        value: The difference by the runs' metrics.
        arms: Names of both, for the message.

    Returns:
        Its ends; None where the first column is no mean over data sets of what the predictions say, as in a group that
        compares something else.

    Raises:
        DataError: The two arms were asked different queries.
    """
    from unime_kedro.evaluation.paired import compare_arms, correctness

    (first, datasets), (second, others) = (correctness(list(side)) for side in zip(*tables, strict=True))
    if first.shape != second.shape or (datasets != others).any():
        raise DataError(f"{arms} were not evaluated on the same queries, so that they cannot be compared")
    found = compare_arms(first, second, datasets).difference
    return (found.low, found.high) if abs(found.value - value) < _SAME else (None, None)
