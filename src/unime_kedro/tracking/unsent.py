"""Runs whose server did not answer: kept in an sqlite file in the project until ``unime runs send``.

A run whose server is away at the start is written there from the beginning. One whose server goes away in between is
copied there whole, from the :class:`Journal` that it keeps, and goes on there; the tag ``unime.continues`` names the
run on the server that has its first part.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

from unime_kedro.tracking.store import MAX_TAG, at_the_store, client_of, experiment_of, store_errors

FILE, ARTIFACTS = "mlflow-unsent.db", "mlartifacts-unsent"
#: tags of a run here: the run on the server that it continues, and what it has become there (store, blank, id)
CONTINUES, SENT_TO = "unime.continues", "unime.sent_to"
#: tag of a run on the server: its id here
SENT_FROM = "unime.sent_from"
KINDS = ("params", "tags", "metrics")


class Journal:
    """All that a run was given so far, for the day that its server goes away.

    Attributes:
        start: When the run began, in milliseconds since 1970.
        values: Kind -> MLflow's entities.
    """

    def __init__(self, root: Path, experiment: str, start: int, tags: dict[str, str]) -> None:
        self.root, self.experiment, self.start, self.tags = root, experiment, start, tags
        self.values: dict[str, list[Any]] = {kind: [] for kind in KINDS}
        self._folder = tempfile.TemporaryDirectory(prefix="unime-run-", ignore_cleanup_errors=True)

    @property
    def artifacts(self) -> Path:
        """The folder of copies of all artifacts."""
        return Path(self._folder.name)

    def replay(self, name: str, run_id: str) -> tuple[Any, str, str]:
        """Write everything to the store of unsent runs.

        Args:
            name: The run's name.
            run_id: Its id on the server.

        Returns:
            Client, experiment and run there.

        Raises:
            TrackingError: That store fails, too.
        """
        tags = self.tags | {CONTINUES: run_id}
        client, experiment_id, here = create_unsent(self.root, self.experiment, name, tags, self.start)
        with store_errors(unsent_uri(self.root), "The run cannot be kept in {place}: {reason}"):
            client.log_batch(here, **self.values)
            client.log_artifacts(here, str(self.artifacts))
        return client, experiment_id, here

    def close(self) -> None:
        """Remove the copies."""
        self._folder.cleanup()


def unsent_uri(root: Path) -> str:
    """Return the store of unsent runs; that of the project itself in a copy that an experiment of DVC works in."""
    return f"sqlite:///{_home(root) / FILE}"


def _home(root: Path) -> Path:
    return Path(os.environ.get("DVC_ROOT") or root)


def create_unsent(
    root: Path, experiment: str, name: str, tags: dict[str, str], start: int | None = None
) -> tuple[Any, str, str]:
    """Start a run in the store of unsent runs.

    Returns:
        Client, the experiment's id and the run's.

    Raises:
        TrackingError: The file cannot be written.
    """
    uri = unsent_uri(root)
    with store_errors(uri, "Runs cannot be kept in {place} until they are sent: {reason}"), at_the_store(uri):
        client = client_of(uri)
        experiment_id = experiment_of(client, experiment, (_home(root) / ARTIFACTS).resolve().as_uri())
        first = {key: value[:MAX_TAG] for key, value in tags.items()}
        run = client.create_run(experiment_id, start_time=start, tags=first, run_name=name)
    return client, experiment_id, run.info.run_id


def open_unsent(root: Path) -> Any | None:
    """Return the client of the store of unsent runs, None where there never was one.

    Raises:
        TrackingError: It cannot be read.
    """
    if not (_home(root) / FILE).is_file():
        return None
    uri = unsent_uri(root)
    with store_errors(uri, "Unsent runs in {place} cannot be read: {reason}"), at_the_store(uri):
        return client_of(uri)


def unsent_runs(client: Any) -> list[Any]:
    """Return the runs that were not sent yet, the oldest first."""
    return [run for run in all_runs(client) if SENT_TO not in run.data.tags]


def all_runs(client: Any) -> list[Any]:
    """Return all runs of a store, the oldest first."""
    experiments = [one.experiment_id for one in client.search_experiments()]
    found: list[Any] = []
    token = None
    while experiments:
        page = client.search_runs(
            experiments, max_results=1000, page_token=token, order_by=["attributes.start_time ASC"]
        )
        found += page
        token = page.token
        if not token:
            break
    return found


def sent_id(root: Path, run_id: str) -> str | None:
    """Return what a run of the store of unsent runs is called where it was sent to; None if it was not."""
    client = open_unsent(root)
    known = {run.info.run_id: run.data.tags.get(SENT_TO) for run in all_runs(client)} if client else {}
    return (known.get(run_id) or " ").rpartition(" ")[2] or None
