"""Does the table of an ablation follow from its runs?"""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from unime_kedro.ablations.parent import ARM, GROUP, SEED
from unime_kedro.audit.findings import FAIL, PASS, SKIP, Finding, Place
from unime_kedro.audit.metrics import equal, same
from unime_kedro.audit.recomputed import precision_of_trained
from unime_kedro.audit.record import COMPARED, RunRecord
from unime_kedro.tracking.metrics import clean_key, metric_values

_REMEDY = "unime ablate --table=only makes the table again"


def check_table(parent: RunRecord, arms: Sequence[RunRecord], place: Place) -> Iterator[Finding]:
    """Yield whether the figures of an ablation's parent are those of its table, its runs, and their predictions."""
    if reason := parent.unreadable.get(f"{parent.tags[GROUP]}.json"):
        yield Finding("arms", "table", FAIL, f"cannot be read: {reason}", _REMEDY)
    if parent.table is not None:
        yield _compared(parent, _shown(parent.table), "the table", exact=True)
    columns: Mapping[str, Any] = ((parent.group or {}).get("results") or {}).get("columns") or {}
    metrics = {run.run_id: run.metrics for run in arms}
    yield from _against_runs(parent, arms, columns, metrics, "its runs' metrics")
    found = {run.run_id: _from_predictions(run, place) for run in arms}
    known = [run for run in arms if found[run.run_id]]
    if known:
        yield from _against_runs(parent, arms, columns, found, "its runs' predictions")
    if len(known) < len(arms):
        names = ", ".join(run.name for run in arms if run not in known)
        text = f"not recomputed: predictions of {names} are not there as they were written"
        yield Finding("arms", "table", SKIP, text)


def _shown(table: Mapping[str, Any]) -> dict[str, float]:
    """Return the table's figures under the names that MLflow has, without the group's."""
    found: dict[str, float | None] = {}
    for row in table.get("arms", ()):
        for name, figure in row["figures"].items():
            found |= {f"{row['arm']}/{name}_mean": figure["mean"], f"{row['arm']}/{name}_std": figure["deviation"]}
        gap = row["difference"] or {}
        for name, end in (("value", ""), ("low", "_low"), ("high", "_high")):
            found[f"{row['arm']}/difference{end}"] = gap.get(name)
    return {key: value for key, value in found.items() if value is not None}


def _from_predictions(run: RunRecord, place: Place) -> dict[str, float]:
    """Return metrics of a run that its predictions give, empty if they are not there."""
    import polars as pl

    file = replace(place, data_root=place.data_root_of(run)).unchanged(run, "trained_predictions")
    if file is None:
        return {}
    table = pl.read_parquet(file, glob=False, hive_partitioning=False)
    return metric_values("trained_metrics", precision_of_trained(table)) if len(table) else {}


def _against_runs(
    parent: RunRecord,
    arms: Sequence[RunRecord],
    columns: Mapping[str, Any],
    metrics: Mapping[str, Mapping[str, float]],
    source: str,
) -> Iterator[Finding]:
    """Yield whether means, deviations and differences are those of the runs; figures that runs lack are left out."""
    figures = {
        (arm, name): values
        for arm in sorted({run.tags[ARM] for run in arms})
        for name, column in columns.items()
        if (values := _values([run for run in arms if run.tags[ARM] == arm], column, metrics))
    }
    wanted = {f"{arm}/{name}_mean": statistics.fmean(values.values()) for (arm, name), values in figures.items()}
    wanted |= {
        f"{arm}/{name}_std": statistics.stdev(values.values())
        for (arm, name), values in figures.items()
        if len(values) > 1
    }
    reference, first = (parent.table or {}).get("reference"), (parent.table or {}).get(COMPARED)
    for (arm, name), values in figures.items():
        theirs = figures.get((str(reference), name), {})
        if name == first and arm != reference and (shared := sorted(set(values) & set(theirs))):
            wanted[f"{arm}/difference"] = statistics.fmean(values[seed] - theirs[seed] for seed in shared)
    known = {key: value for key, value in wanted.items() if _name(parent, key) in parent.metrics}
    if known:
        yield _compared(parent, known, source, exact=False)


def _values(
    runs: Sequence[RunRecord], column: Mapping[str, Any], metrics: Mapping[str, Mapping[str, float]]
) -> dict[str, float]:
    """Return seed -> a column's figure, the mean of its keys; empty unless all runs have it."""
    found = {}
    for run in runs:
        values = [metrics[run.run_id].get(clean_key(f"trained/{key}")) for key in column.get("keys", ())]
        known = [value for value in values if value is not None]
        if not known or len(known) != len(values):
            return {}
        found[run.tags.get(SEED, "")] = statistics.fmean(known)
    return found


def _compared(parent: RunRecord, wanted: Mapping[str, float], source: str, *, exact: bool) -> Finding:
    near = same if exact else equal
    said = {key: parent.metrics.get(_name(parent, key)) for key in wanted}
    wrong = [key for key, value in wanted.items() if not near(said[key], value)]
    if not wrong:
        return Finding("arms", "table", PASS, f"{len(wanted)} figures in the database are those of {source}")
    first = wrong[0]
    values = f"{said[first]} in the database, {wanted[first]:.6g} by {source}"
    return Finding("arms", "table", FAIL, f"{len(wrong)} figures differ, first {first}: {values}", _REMEDY)


def _name(parent: RunRecord, key: str) -> str:
    return clean_key(f"{parent.tags[GROUP]}/{key}")
