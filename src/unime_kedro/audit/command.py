"""``unime audit``."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from unime_kedro.audit.findings import Finding
    from unime_kedro.audit.record import RunRecord


@click.command("audit")
@click.argument("run", required=False)
@click.option("--rerun", is_flag=True, help="Run it again in a clean worktree of its commit, and compare.")
@click.option("--artifact", type=click.Path(path_type=Path), help="Audit a package of `unime export-artifact` instead.")
@click.option(
    "--data-root",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Where the run's data are now, if not where they were.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document instead of a table.")
def audit_command(run: str | None, rerun: bool, artifact: Path | None, data_root: Path | None, as_json: bool) -> None:
    """Check a finished run against its files, code, configuration and predictions.

    RUN is a run's id, the first characters of it, or its name. Ends with status 1 if something is not as it was
    recorded.
    """
    import unime_kedro.settings  # noqa: F401  (switches off usage statistics of what is imported below)
    from unime_kedro.audit import table
    from unime_kedro.audit.findings import FAIL
    from unime_kedro.command_errors import readable_errors

    if (run is None) == (artifact is None):
        raise click.UsageError("Name a run, or a package by --artifact=FILE.")
    if artifact is not None and rerun:
        raise click.UsageError("--rerun needs the clone that the run was made in; a package has no code to run.")
    with readable_errors(), _interruptible():
        if artifact is not None:
            from unime_kedro.artifact.reading import audit_artifact

            record, findings = audit_artifact(artifact)
        else:
            assert run is not None
            record, findings = _audit_run(run, rerun, data_root)
    click.echo(table.as_json(record, findings) if as_json else table.as_text(record, findings))
    if any(one.status == FAIL for one in findings):
        sys.exit(1)


@contextmanager
def _interruptible() -> Iterator[None]:
    """End with the usual status, 1 being that of an audit that found something; SIGTERM cleans up like Ctrl-C."""
    before: Any = None
    with suppress(ValueError):  # not the main thread
        before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    except KeyboardInterrupt:
        click.echo("Interrupted. Nothing of the project was changed; what the audit had made is removed.", err=True)
        sys.exit(130)
    finally:
        if before is not None:
            signal.signal(signal.SIGTERM, before)


def _audit_run(run: str, rerun: bool, data_root: Path | None) -> tuple[RunRecord, list[Finding]]:
    from unime_kedro.audit.audit import audit, place_of
    from unime_kedro.audit.record import find_run, read_record
    from unime_kedro.audit.rerun import check_rerun
    from unime_kedro.paths import project_root
    from unime_kedro.tracking.opening import open_client, tracking_uri

    root = project_root()
    client = open_client(tracking_uri(root))
    record = read_record(client, find_run(client, run))
    place = place_of(record, client, root, data_root and data_root.absolute())
    findings = audit(record, place)
    if rerun:
        findings += check_rerun(record, place, lambda text: click.echo(text, err=True))
    return record, findings
