"""Are the metrics in the database those that were saved, and do the saved predictions give them?"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from unime_kedro.audit.findings import FAIL, PASS, SKIP, Finding, Place
from unime_kedro.audit.recomputed import RECOMPUTED
from unime_kedro.audit.record import RunRecord
from unime_kedro.errors import DataError
from unime_kedro.tracking.metrics import HISTORY, SUFFIX, history_points, metric_values

#: of figures computed anew: sums in another order; one query more or less that is right is far above it
TOLERANCE = 1e-6
#: what is left of a difference of equal figures
_ROUNDING = 1e-12
_CHANGED = "one of the two was changed after the run; do not trust it"


def check_metrics(record: RunRecord, place: Place) -> Iterator[Finding]:
    """Yield, for every metrics dataset, whether database, artifact, file and predictions say the same."""
    covered: set[str] = set()
    if record.curves:
        yield _check_last_values(record)
    for dataset in sorted(one.dataset for one in record.side("output") if one.dataset.endswith(HISTORY)):
        file = place.unchanged(record, dataset)
        if file is not None:  # else check_files tells of it
            yield from _check_history(record, dataset, file, covered)
    for dataset, content in sorted(record.metrics_files.items()):
        wanted = metric_values(dataset, content)
        covered |= set(wanted)
        yield _against(dataset, wanted, figures_of(record), f"metrics/{dataset}.json")
        yield from _check_file(record, dataset, content, place)
    yield from _check_complete(record)
    yield from _recompute(record, place)
    yield from _check_rest(record, covered)


def _check_last_values(record: RunRecord) -> Finding:
    """Compare MLflow's table of last values to that of all values: one is for lists, the other for plots."""
    last = {key: points[-1][1] for key, points in record.curves.items() if points}
    different = sorted(key for key in {*last, *record.metrics} if not same(record.metrics.get(key), last.get(key)))
    if not different:
        return Finding("metrics", "database", PASS, f"last values of {len(last)} metrics are those of their curves")
    first = different[0]
    text = f"{len(different)} last values are not those of their curves, first {first}: {record.metrics.get(first)} and"
    return Finding("metrics", "database", FAIL, f"{text} {last.get(first)}", _CHANGED)


def figures_of(record: RunRecord) -> dict[str, list[float]]:
    """Return what was recorded of each metric without a step; a curve may have gone on under its name."""
    found = {key: [value] for key, value in record.metrics.items()}
    for key, points in record.curves.items():
        found[key] = [value for step, value in points if step == 0] or found.get(key, [])
    return found


def _against(dataset: str, wanted: Mapping[str, float], said: Mapping[str, list[float]], source: str) -> Finding:
    different = [key for key, value in wanted.items() if not any(same(one, value) for one in said.get(key, ()))]
    if not different:
        return Finding("metrics", dataset, PASS, f"{len(wanted)} in the database are those of {source}")
    first = different[0]
    values = f"{_shown(said, first)} in the database, {wanted[first]} in {source}"
    return Finding("metrics", dataset, FAIL, f"{len(different)} differ, first {first}: {values}", _CHANGED)


def _shown(said: Mapping[str, list[float]], key: str) -> str:
    return ", ".join(str(one) for one in said.get(key, ())) or "nothing"


def _check_file(record: RunRecord, dataset: str, content: Any, place: Place) -> Iterator[Finding]:
    """Compare the saved file, which lacks figures of the run itself such as seconds, to the artifact."""
    file = place.unchanged(record, dataset)
    if file is None:
        return  # check_files tells of it
    artifact, numbers = metric_values(dataset, content), metric_values(dataset, _saved(file))
    different = [key for key, value in numbers.items() if not same(artifact.get(key), value)]
    if different:
        first = different[0]
        text = f"{len(different)} differ between the saved file and the artifact, first {first}: {numbers[first]}"
        remedy = "the artifact was changed after the run; do not trust it"
        yield Finding("metrics", dataset, FAIL, f"{text} and {artifact.get(first)}", remedy)


def _check_history(record: RunRecord, dataset: str, file: Path, covered: set[str]) -> Iterator[Finding]:
    """Compare every step of a saved history to the curves, or the last ones where curves were not read."""
    points = history_points(dataset, _saved(file))
    last = {point.key: point.value for point in points}  # sorted by step
    covered |= set(last)
    if not record.curves:
        said = {key: [value] for key, value in record.metrics.items()}
        yield _against(dataset, last, said, "the saved file's last steps")
        return
    recorded: dict[str, list[float]] = {}
    for key, curve in record.curves.items():
        for step, value in curve:
            recorded.setdefault(f"{key} at step {step}", []).append(value)
    wanted = {f"{point.key} at step {point.step}": point.value for point in points}
    yield _against(dataset, wanted, recorded, "the saved file")


def _check_complete(record: RunRecord) -> Iterator[Finding]:
    """Yield metrics datasets that were written and of which MLflow has no copy (any more)."""
    written = {one.dataset for one in record.side("output") if one.dataset.endswith(SUFFIX)}
    for dataset in sorted(written - set(record.metrics_files)):
        text = record.unreadable.get(f"metrics/{dataset}.json", "is gone")
        remedy = "it was removed or changed after the run; the saved file may still have its figures"
        yield Finding("metrics", dataset, FAIL, f"the run's artifact metrics/{dataset}.json: {text}", remedy)


def _recompute(record: RunRecord, place: Place) -> Iterator[Finding]:
    import polars as pl

    for dataset, (tables, recompute) in sorted(RECOMPUTED.items()):
        if not record.metrics_files.get(dataset):
            continue
        files = {table: _table(record, place, table) for table in tables}
        missing = [table for table, file in files.items() if file is None]
        if missing:
            text = f"not recomputed: {missing[0]} is not there as it was when the run was made"
            yield Finding("metrics", dataset, SKIP, text)
            continue
        source = ", ".join(tables)
        try:
            wanted = metric_values(dataset, recompute(*(_read(file) for file in files.values()), record=record))
        except (DataError, KeyError, TypeError, ValueError, pl.exceptions.PolarsError) as error:
            reason = f"{type(error).__name__}: {str(error)[:120]}"
            yield Finding("metrics", dataset, SKIP, f"not recomputed from {source} by this version ({reason})")
            continue
        if wanted:
            yield _recomputed(dataset, source, wanted, figures_of(record))


def _recomputed(dataset: str, source: str, wanted: Mapping[str, float], said: Mapping[str, list[float]]) -> Finding:
    different = [key for key, value in wanted.items() if not any(equal(one, value) for one in said.get(key, ()))]
    if not different:
        text = f"{len(wanted)} recomputed from {source} are those in the database"
        return Finding("metrics", dataset, PASS, text)
    first = different[0]
    text = f"{len(different)} of {len(wanted)} differ from {source}, first {first}: {_shown(said, first)} in "
    return Finding(
        "metrics", dataset, FAIL, f"{text}the database, {wanted[first]:.10g} recomputed", "do not trust these figures"
    )


def _table(record: RunRecord, place: Place, dataset: str) -> Path | None:
    """Return a table that the run wrote or read, if it is still the same."""
    return place.unchanged(record, dataset) or place.unchanged(record, dataset, "input")


def _read(file: Path | None) -> Any:
    import polars as pl

    assert file is not None
    return pl.read_parquet(file, glob=False, hive_partitioning=False)


def _saved(file: Path) -> Any:
    return json.loads(file.read_text(encoding="utf-8"))


def _check_rest(record: RunRecord, covered: set[str]) -> Iterator[Finding]:
    """Yield how many metrics nothing was saved of: curves whose file is gone. Seconds of nodes are left out."""
    rest = sorted(key for key in set(record.metrics) - covered if key.split("/")[0] != "seconds")
    if rest and (record.metrics_files or record.files):
        text = f"{len(rest)} metrics have no saved file to compare them to, first {rest[0]}"
        yield Finding("metrics", "others", SKIP, text)


def same(said: float | None, value: float | None) -> bool:
    """Whether two figures are the same but for how a database prints them; NaN equals itself."""
    return _near(said, value, _ROUNDING)


def equal(said: float | None, value: float | None) -> bool:
    """Whether two figures are the same but for the order of sums; NaN equals itself."""
    return _near(said, value, TOLERANCE)


def _near(said: float | None, value: float | None, tolerance: float) -> bool:
    if said is None or value is None:
        return False
    if math.isnan(value) or math.isnan(said):
        return math.isnan(value) and math.isnan(said)
    return said == value or abs(said - value) <= max(tolerance * abs(value), _ROUNDING)
