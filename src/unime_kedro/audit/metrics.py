"""Are the metrics in the database those that were saved, and do the saved predictions give them?"""

from __future__ import annotations

import json
import math
from collections.abc import Generator, Iterator, Mapping
from pathlib import Path
from typing import Any

from unime_kedro.audit.findings import FAIL, PASS, SKIP, Finding, Place
from unime_kedro.audit.recomputed import RECOMPUTED
from unime_kedro.audit.record import RunRecord
from unime_kedro.tracking.metrics import HISTORY, history_points, metric_values

#: sums of float32 in another order; one query more or less that is right is far above it
TOLERANCE = 1e-6


def check_metrics(record: RunRecord, place: Place) -> Iterator[Finding]:
    """Yield, for every metrics dataset, whether database, artifact, file and predictions say the same."""
    covered: set[str] = set()
    for entry in record.side("output"):
        if entry.dataset.endswith(HISTORY):
            found = yield from _check_history(record, entry.dataset, place)
            covered |= found
    for dataset, content in sorted(record.metrics_files.items()):
        wanted = metric_values(dataset, content)
        yield _against(record, dataset, wanted, f"metrics/{dataset}.json", record.beginnings)
        covered |= set(wanted)
        yield from _check_file(record, dataset, content, place)
    yield from _recompute(record, place)
    yield from _check_rest(record, covered)


def _against(
    record: RunRecord,
    dataset: str,
    wanted: Mapping[str, float],
    source: str,
    beginnings: Mapping[str, float] | None = None,
) -> Finding:
    said = {**record.metrics, **(beginnings or {})}
    different = [key for key, value in wanted.items() if not equal(said.get(key), value)]
    if not different:
        return Finding("metrics", dataset, PASS, f"{len(wanted)} in the database are those of {source}")
    first = different[0]
    values = f"{said.get(first)} in the database, {wanted[first]} in {source}"
    text = f"{len(different)} differ, first {first}: {values}"
    return Finding("metrics", dataset, FAIL, text, "one of the two was changed after the run; do not trust it")


def _check_file(record: RunRecord, dataset: str, content: Any, place: Place) -> Iterator[Finding]:
    """Compare the saved file, which lacks figures of the run itself such as seconds, to the artifact."""
    file = place.unchanged(record, dataset)
    if file is None:
        return  # check_files tells of it
    saved = json.loads(file.read_text(encoding="utf-8"))
    artifact = metric_values(dataset, content)
    numbers = metric_values(dataset, saved)
    different = [key for key, value in numbers.items() if not equal(artifact.get(key), value)]
    if different:
        first = different[0]
        text = f"{len(different)} differ between the saved file and the artifact, first {first}: {numbers[first]}"
        remedy = "the artifact was changed after the run; do not trust it"
        yield Finding("metrics", dataset, FAIL, f"{text} and {artifact.get(first)}", remedy)


def _check_history(record: RunRecord, dataset: str, place: Place) -> Generator[Finding, None, set[str]]:
    file = place.unchanged(record, dataset)
    if file is None:
        return set()
    points = history_points(dataset, json.loads(file.read_text(encoding="utf-8")))
    last = {point.key: point for point in points}  # sorted by step
    yield _against(record, dataset, {key: point.value for key, point in last.items()}, "the saved file's last steps")
    return set(last)


def _recompute(record: RunRecord, place: Place) -> Iterator[Finding]:
    for dataset, (table, recompute) in sorted(RECOMPUTED.items()):
        if dataset not in record.metrics_files:
            continue
        file = place.unchanged(record, table)
        if file is None:
            yield Finding("metrics", dataset, SKIP, f"not recomputed: {table} is not there as it was written")
            continue
        wanted = metric_values(dataset, recompute(_read(file), record, place))
        if not wanted:
            continue
        different = [key for key, value in wanted.items() if not equal(record.metrics.get(key), value)]
        if not different:
            yield Finding("metrics", dataset, PASS, f"{len(wanted)} recomputed from {table} are those in the database")
            continue
        first = different[0]
        text = f"{len(different)} differ from {table}, first {first}: {record.metrics.get(first)} in the database, "
        yield Finding("metrics", dataset, FAIL, f"{text}{wanted[first]:.10g} recomputed", "do not trust these figures")


def _read(file: Path) -> Any:
    import polars as pl

    return pl.read_parquet(file, glob=False, hive_partitioning=False)


def _check_rest(record: RunRecord, covered: set[str]) -> Iterator[Finding]:
    """Yield how many metrics nothing was saved of: seconds of nodes, and curves whose file is gone."""
    rest = sorted(key for key in set(record.metrics) - covered if "seconds" not in key)
    if rest and record.metrics_files:
        text = f"{len(rest)} metrics have no saved file to compare them to, first {rest[0]}"
        yield Finding("metrics", "others", SKIP, text)


def equal(said: float | None, value: float) -> bool:
    """Whether two figures are the same but for the order of sums; NaN equals itself."""
    if said is None:
        return False
    if math.isnan(value) or math.isnan(said):
        return math.isnan(value) and math.isnan(said)
    return said == value or abs(said - value) <= TOLERANCE * max(1.0, abs(value))
