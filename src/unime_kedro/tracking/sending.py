"""Sends runs that were kept in the project to a tracking server.

A run is found again there by the tag ``unime.sent_from``, which it is created with. So sending can be stopped anywhere
and repeated: what is there already stays, what is missing is added, and the run ends as the last thing.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlparse

from unime_kedro.atomic import locked
from unime_kedro.tracking.orphans import ENDED, ProcessIdentity, mark_orphans
from unime_kedro.tracking.provenance import without_password
from unime_kedro.tracking.store import artifact_root, at_the_store, client_of, experiment_of, impatient, store_errors
from unime_kedro.tracking.unsent import CONTINUES, FILE, SENT_FROM, SENT_TO, open_unsent, unsent_runs

log = logging.getLogger(__name__)

_PARENT = "mlflow.parentRunId"
_OURS = frozenset({CONTINUES, SENT_TO})


def send_runs(root: Path, uri: str, say: Callable[[str], None], only: str | None = None) -> int:
    """Send the runs that wait; those that are still being written are left alone.

    Args:
        root: The project root.
        uri: The store to send them to.
        say: Is told of every run.
        only: Id of the one to send, with its children; a child waits for its parent. None for all.

    Returns:
        How many still wait.

    Raises:
        TrackingError: A store fails; what was sent before stays sent.
    """
    local = open_unsent(root)
    if local is None:
        return 0
    with locked(root / f".{FILE}.sending"):
        _mark_dead(local)
        waiting = unsent_runs(local)
        if only is not None:
            waiting = _with_children(only, waiting)
        ready = [run for run in waiting if run.info.status != "RUNNING"]
        if ready:
            with store_errors(uri, "Runs cannot be sent to {place}: {reason}"), at_the_store(uri):
                target = client_of(uri)
                target.search_experiments(max_results=1)
            for run in ready:
                with store_errors(uri, f"Run {run.info.run_name} cannot be sent to {{place}}: {{reason}}"), impatient():
                    there = _send(local, run, target, artifact_root(uri, root))
                local.set_tag(run.info.run_id, SENT_TO, f"{without_password(uri)} {there}")
                say(f"sent {run.info.run_name} ({run.info.run_id}), there it is {there}")
        return len(waiting) - len(ready)


def _with_children(wanted: str, waiting: list[Any]) -> list[Any]:
    parents = {run.info.run_id: run.data.tags.get(_PARENT, "") for run in waiting}
    if parents.get(wanted, "") in parents:
        return []
    return [run for run in waiting if wanted in (run.info.run_id, parents[run.info.run_id])]


def _mark_dead(local: Any) -> None:
    here = ProcessIdentity.current()
    for experiment in local.search_experiments():
        mark_orphans(local, experiment.experiment_id, here, "`unime runs send`")


def _send(local: Any, run: Any, target: Any, artifacts: str | None) -> str:
    """Make a run on the target what it is here; returns its id there."""
    old = run.info.run_id
    experiment = experiment_of(target, local.get_experiment(run.info.experiment_id).name, artifacts)
    tags = {key: value for key, value in run.data.tags.items() if key not in _OURS} | {SENT_FROM: old}
    if parent := _sent(target, experiment, tags.get(_PARENT, "")):
        tags[_PARENT] = parent
    new = _continued(target, run) or _sent(target, experiment, old)
    if new is None:
        name, start = run.info.run_name, run.info.start_time
        new = target.create_run(experiment, start_time=start, tags=tags, run_name=name).info.run_id
    _send_values(local, run, target, new, tags)
    _send_artifacts(run, target, new)
    for child in target.search_runs([experiment], f"tags.`{_PARENT}` = '{old}'", max_results=1000):
        target.set_tag(child.info.run_id, _PARENT, new)  # sent, or written there, before its parent
    target.set_terminated(new, status=run.info.status, end_time=run.info.end_time)
    return str(new)


def _sent(target: Any, experiment: str, old: str) -> str | None:
    """Return what a run was named when it was sent, perhaps not to its end."""
    found = target.search_runs([experiment], f"tags.`{SENT_FROM}` = '{old}'", max_results=1) if old else []
    return found[0].info.run_id if found else None


def _continued(target: Any, run: Any) -> str | None:
    """Return the run that has the first part, if the target has it (it may be another server)."""
    from mlflow.exceptions import MlflowException

    first = run.data.tags.get(CONTINUES)
    if first is None:
        return None
    try:
        found = target.get_run(first)
    except MlflowException as error:
        if error.get_http_status_code() == 404:
            return None
        raise
    return first if found.info.lifecycle_stage == "active" else None


def _send_values(local: Any, run: Any, target: Any, new: str, tags: dict[str, str]) -> None:
    """Add the parameters, points of metrics and tags that the run there does not have."""
    from mlflow.entities import Param, RunTag

    there = target.get_run(new).data
    params = [Param(key, value) for key, value in run.data.params.items() if key not in there.params]
    points = []
    for key in run.data.metrics:
        known = {_point(one) for one in target.get_metric_history(new, key)} if key in there.metrics else set()
        points += [one for one in local.get_metric_history(run.info.run_id, key) if _point(one) not in known]
    changed = [RunTag(key, value) for key, value in tags.items() if there.tags.get(key) != value]
    target.log_batch(new, metrics=[_bare(one) for one in points], params=params, tags=changed)
    if ENDED in there.tags and ENDED not in tags:  # marked as dead by another run while its end was waiting here
        target.delete_tag(new, ENDED)


def _point(metric: Any) -> tuple[int, int, str]:
    """Return what tells two points of one metric apart; as a text also NaN is equal to itself."""
    return metric.step, metric.timestamp, repr(float(metric.value))


def _bare(metric: Any) -> Any:
    """Return a point without the ids that it has in its store."""
    from mlflow.entities import Metric

    return Metric(metric.key, metric.value, metric.timestamp, metric.step)


def _send_artifacts(run: Any, target: Any, new: str) -> None:
    folder = Path(unquote(urlparse(run.info.artifact_uri).path))
    if folder.is_dir() and any(folder.iterdir()):
        target.log_artifacts(new, str(folder))
