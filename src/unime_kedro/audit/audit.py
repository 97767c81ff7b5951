"""The checks of a run, in the order in which a reader wants them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from unime_kedro.audit.arms import check_arms
from unime_kedro.audit.commit import check_commit
from unime_kedro.audit.configuration import check_configuration
from unime_kedro.audit.environment import check_environment
from unime_kedro.audit.files import check_files, check_lineage, check_raw, check_run
from unime_kedro.audit.findings import Finding, Place
from unime_kedro.audit.metrics import check_metrics
from unime_kedro.audit.record import RunRecord, read_record
from unime_kedro.audit.stage import check_stage
from unime_kedro.tracking.made_by import made_by_hash

CHECKS: tuple[Callable[[RunRecord, Place], Iterator[Finding]], ...] = (
    check_run,
    check_files,
    check_raw,
    check_lineage,
    check_stage,
    check_configuration,
    check_commit,
    check_metrics,
    check_arms,
    check_environment,
)
#: those that a package can be asked; code and packages are the recipient's own
PACKAGE_CHECKS = (check_run, check_files, check_lineage, check_configuration, check_metrics, check_arms)


def audit(record: RunRecord, place: Place) -> list[Finding]:
    """Return what all checks say of a run."""
    checks = PACKAGE_CHECKS if place.packaged else CHECKS
    return [finding for check in checks for finding in check(record, place)]


def place_of(record: RunRecord, client: Any, root: Path, data_root: Path | None = None) -> Place:
    """Return where a run's files lie, and the runs that belong to it.

    Args:
        record: The run.
        client: MLflow's client of the store it is in.
        root: The project root.
        data_root: Where its data are now; None for where they were.
    """
    family = list(record.children)
    if parent := record.tags.get("mlflow.parentRunId"):
        family.append(parent)
    known = {one: found for one in family if (found := _read(client, one)) is not None}
    for one in list(known.values()):
        for child in one.children:
            if child not in known and child != record.run_id and (found := _read(client, child)) is not None:
                known[child] = found
    known[record.run_id] = record

    def whose(md5: str) -> list[str]:
        return [f"run {one['name']} ({one['run_id'][:8]})" for one in made_by_hash(md5, client)]

    return Place(root, data_root or root / record.tags.get("data.root", "data"), known, whose)


def _read(client: Any, run_id: str) -> RunRecord | None:
    from mlflow.exceptions import MlflowException

    try:
        return read_record(client, run_id, curves=False)
    except MlflowException:  # deleted, or in another store
        return None
