"""``unime runs`` and ``unime made-by``."""

from __future__ import annotations

import json
import sys
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from unime_kedro.tracking.made_by import MadeBy


@click.group("runs")
def runs_group() -> None:
    """Tracked runs that could not reach their server."""


@runs_group.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document instead of a table.")
def list_command(as_json: bool) -> None:
    """Show the runs that wait to be sent, the oldest first."""
    from unime_kedro.paths import project_root
    from unime_kedro.tracking.unsent import open_unsent, unsent_runs

    with _prepared():
        client = open_unsent(project_root())
        runs = [_line(run) for run in unsent_runs(client)] if client is not None else []
    if as_json:
        click.echo(json.dumps(runs, indent=1))
    elif runs:
        click.echo("\n".join(f"{run['run_id']}  {run['status']:8}  {run['start']}  {run['name']}" for run in runs))
    else:
        click.echo("no run waits to be sent")


@runs_group.command("send")
@click.option("--to", "uri", help="Another store than that of mlflow.yml or MLFLOW_TRACKING_URI.")
def send_command(uri: str | None) -> None:
    """Send the runs that wait, with parameters, metrics, tags and artifacts.

    It can be stopped and repeated: nothing is there twice. Runs keep their times and names and get new ids; the tag
    unime.sent_from is the old one.
    """
    from unime_kedro.paths import project_root
    from unime_kedro.tracking.opening import tracking_uri
    from unime_kedro.tracking.sending import send_runs

    root = project_root()
    with _prepared():
        left = send_runs(root, uri or tracking_uri(root), click.echo)
    if left:
        click.echo(f"{left} still running here; send again when {'it has' if left == 1 else 'they have'} ended")
    else:
        click.echo("no run waits to be sent any more")


@click.command("made-by")
@click.argument("paths", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="FILE_OR_FOLDER...")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def made_by_command(paths: tuple[Path, ...], as_json: bool) -> None:
    """Say which run made files or folders, judged by their bytes.

    Ends with status 1 if nobody is known for one of them.
    """
    from unime_kedro.paths import project_root
    from unime_kedro.tracking.made_by import made_by

    root = project_root()
    with _prepared():
        clients = _clients(root)
        found = [made_by(path, root, clients) for path in paths]
    if as_json:
        click.echo(json.dumps([{**one._asdict(), "path": str(one.path)} for one in found], indent=1))
    else:
        click.echo("\n".join(line for one in found for line in _lines(one)))
    sys.exit(0 if all(one.runs for one in found) else 1)


def _prepared() -> Any:
    import unime_kedro.settings  # noqa: F401  (switches off usage statistics of what is imported below)
    from unime_kedro.command_errors import readable_errors

    return readable_errors()


def _clients(root: Path) -> list[Any]:
    """Return the clients of the stores that are there; ``runs.json`` may know what none of them does."""
    from unime_kedro.tracking.config import sqlite_path
    from unime_kedro.tracking.opening import open_client, tracking_uri
    from unime_kedro.tracking.store import Unreachable
    from unime_kedro.tracking.unsent import open_unsent

    uri, found = tracking_uri(root), []
    file = sqlite_path(uri)
    try:
        found = [open_client(uri)] if file is None or file.is_file() else []
    except Unreachable as error:
        click.echo(f"{error}\nLooking in what is here.", err=True)
    unsent = open_unsent(root)
    return found if unsent is None else [*found, unsent]


def _line(run: Any) -> dict[str, str]:
    info = run.info
    return {"run_id": info.run_id, "status": info.status, "start": _time(info.start_time), "name": info.run_name}


def _lines(one: MadeBy) -> list[str]:
    """Return what a person reads of a file."""
    if not one.runs:
        return [f"{one.path}: no known run made these bytes (md5 {one.md5})"]
    stage = f", stage {one.stage} of DVC" if one.stage else ""
    lines = [f"{one.path}{stage}"]
    for run in one.runs:
        if "name" not in run:
            lines.append(f"  {run['run_id']}  (runs.json names it; the tracking store does not know it)")
            continue
        changed = ", with changes" if run["dirty"] else ""
        lines.append(f"  {run['run_id']}  {_time(run['ended'])}  {run['name']}")
        lines.append(f"    {run['command']}  (commit {run['commit'][:10] or 'unknown'}{changed})")
    return lines


def _time(milliseconds: int | None) -> str:
    if milliseconds is None:
        return "not ended"
    return datetime.fromtimestamp(milliseconds / 1000).astimezone().isoformat(sep=" ", timespec="seconds")
