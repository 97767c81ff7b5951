"""One MLflow run: opened once, written in batches, ended once."""

from __future__ import annotations

import fcntl
import logging
import os
import sqlite3
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from unime_kedro.errors import UnimeError
from unime_kedro.imports import quick_imports
from unime_kedro.tracking.config import sqlite_path
from unime_kedro.tracking.metrics import Point
from unime_kedro.tracking.provenance import without_password

log = logging.getLogger(__name__)

#: seconds to wait for another process to finish writing to the sqlite file
LOCK_TIMEOUT = 20.0
_KINDS = ("params", "tags", "metrics")
_MAX_TAG = 5000


class TrackingError(UnimeError):
    """The tracking store cannot be used."""


def open_run(uri: str, root: Path, experiment: str, name: str, tags: Mapping[str, str]) -> TrackedRun:
    """Start a run, creating store and experiment if need be.

    Args:
        uri: Where runs are kept; an sqlite file is made when it is missing.
        root: The project root. Artifacts lie beside an sqlite file, or here for other databases; a tracking server
            decides for itself.
        experiment: Name of the experiment.
        name: Name of the run.
        tags: First tags; they are there from the first moment, so that a run that dies at once can be recognised.

    Raises:
        TrackingError: The store is unreachable, locked or of another version; says how to go on without.
    """
    try:
        _check_uri(uri)
        with quick_imports():
            import mlflow  # noqa: F401  (takes a second, in which no other run needs to wait)
        with _one_at_a_time(uri), _impatient():
            _check_sqlite(uri)
            client = _client(uri)
            experiment_id = _experiment(client, experiment, _artifact_root(uri, root))
            run = client.create_run(experiment_id, run_name=name, tags={k: v[:_MAX_TAG] for k, v in tags.items()})
    except Exception as error:
        raise TrackingError(
            f"Runs cannot be tracked in {without_password(uri)}: {_reason(error)}\n"
            "Set server.mlflow_tracking_uri in conf/base/mlflow.yml or the variable MLFLOW_TRACKING_URI to a store "
            "that works, or run without tracking: UNIME_TRACKING=off kedro run ..."
        ) from error
    return TrackedRun(client, uri, experiment_id, run.info.run_id, name)


def connect(uri: str) -> Any:
    """Return a client of a store that answers.

    Raises:
        TrackingError: It does not.
    """
    try:
        _check_uri(uri)
        with _impatient():
            client = _client(uri)
            client.search_experiments(max_results=1)
    except Exception as error:
        raise TrackingError(
            f"The runs in {without_password(uri)} cannot be read: {_reason(error)}\n"
            "MLFLOW_TRACKING_URI, or server.mlflow_tracking_uri in conf/base/mlflow.yml, names the store."
        ) from error
    return client


def _reason(error: Exception) -> str:
    return without_password(" ".join(str(error).split()))[:300] or type(error).__name__


@contextmanager
def _one_at_a_time(uri: str) -> Iterator[None]:
    """Let one process at a time open an sqlite file: MLflow's migrations fail when two make the tables of a new one.

    The lock is a file of its own beside the database, which stays; a process that dies lets go of it.
    """
    file = sqlite_path(uri)
    if file is None:
        yield
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    with open(file.with_name(f"{file.name}.lock"), "a") as lock:
        with suppress(OSError):  # a file system without locks
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _check_sqlite(uri: str) -> None:
    """Fail at once when an sqlite file cannot be written; MLflow would try again for minutes."""
    file = sqlite_path(uri)
    if file is None:
        return
    connection = sqlite3.connect(file, timeout=LOCK_TIMEOUT, isolation_level=None)
    try:
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("ROLLBACK")
    finally:
        connection.close()


def _check_uri(uri: str) -> None:
    if uri.startswith(("file:", "/", ".")):
        raise ValueError("MLflow no longer keeps runs in plain folders; use sqlite:///<file>.db")


def _client(uri: str) -> Any:
    """Return a client; a new database gets its tables."""
    with quick_imports():
        from mlflow import MlflowClient

        return MlflowClient(tracking_uri=uri)  # imports as much again, for its kind of store


@contextmanager
def _impatient() -> Iterator[None]:
    """Ask a tracking server twice instead of MLflow's eight times with growing pauses: whoever starts a run waits."""
    wanted = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1", "MLFLOW_HTTP_REQUEST_TIMEOUT": "15"}
    added = {key: value for key, value in wanted.items() if key not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for key in added:
            os.environ.pop(key, None)


def _artifact_root(uri: str, root: Path) -> str | None:
    if uri.startswith(("http", "databricks")):
        return None
    file = sqlite_path(uri)
    return ((file.parent if file else root) / "mlartifacts").resolve().as_uri()


def _experiment(client: Any, name: str, artifact_root: str | None) -> str:
    """Return the id of the experiment, which is created if need be, perhaps by another run at the same moment."""
    found = client.get_experiment_by_name(name)
    if found is None:
        try:
            created: str = client.create_experiment(name, artifact_location=artifact_root)
            return created
        except Exception:
            found = client.get_experiment_by_name(name)
            if found is None:
                raise
    if found.lifecycle_stage == "deleted":
        raise ValueError(
            f"the experiment {name!r} was deleted there; restore it or choose another tracking.experiment.name"
        )
    experiment_id: str = found.experiment_id
    return experiment_id


class TrackedRun:
    """A run that is being written.

    Values are gathered and sent by :meth:`flush` in few calls. When the store fails in the middle of a run the
    work goes on: what was not sent is kept and tried again at the next flush, and if the last one fails too, an error
    is logged that says what is missing.
    """

    def __init__(self, client: Any, uri: str, experiment_id: str, run_id: str, name: str) -> None:
        self.client, self.experiment_id, self.run_id, self.name = client, experiment_id, run_id, name
        self._uri = uri
        self._waiting: dict[str, list[Any]] = {kind: [] for kind in _KINDS}
        self._lost_artifacts: list[str] = []
        self._lock = threading.RLock()
        self._warned = False

    @property
    def place(self) -> str:
        """Where a person finds the run: its page on a server, or how to start one here."""
        if self._uri.startswith("http"):
            server = without_password(self._uri).rstrip("/")
            return f"{server}/#/experiments/{self.experiment_id}/runs/{self.run_id}"
        return f"make ui, then run {self.name} ({self.run_id})"

    def params(self, values: Mapping[str, str]) -> None:
        """Add parameters to the next batch."""
        from mlflow.entities import Param

        self._add("params", [Param(key, value) for key, value in values.items()])

    def tags(self, values: Mapping[str, str]) -> None:
        """Add tags to the next batch."""
        from mlflow.entities import RunTag

        self._add("tags", [RunTag(key, value[:_MAX_TAG]) for key, value in values.items()])

    def metrics(self, values: Mapping[str, float]) -> None:
        """Add metrics, as of now, to the next batch."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        self._add("metrics", [Metric(key, value, now, 0) for key, value in values.items()])

    def history(self, points: Iterable[Point]) -> None:
        """Add metrics that have a value per step to the next batch."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        self._add("metrics", [Metric(point.key, point.value, now, point.step) for point in points])

    def _add(self, kind: str, entities: list[Any]) -> None:
        with self._lock:
            self._waiting[kind] += entities

    def flush(self) -> None:
        """Send everything that waits; MLflow's client splits it by the limits of its protocol."""
        with self._lock:
            try:
                for kind in _KINDS:
                    if self._waiting[kind]:
                        self.client.log_batch(self.run_id, **{kind: self._waiting[kind]})
                        self._waiting[kind] = []
            except Exception as error:
                self._warn(error)

    def text(self, text: str, path: str) -> None:
        """Store a text as an artifact."""
        self._artifact(path, lambda: self.client.log_text(self.run_id, text, path))

    def data(self, data: bytes, name: str) -> None:
        """Store bytes as an artifact."""
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / name
            file.write_bytes(data)
            self.file(file)

    def file(self, file: Path, folder: str | None = None) -> None:
        """Store a copy of a file as an artifact."""
        self._artifact(file.name, lambda: self.client.log_artifact(self.run_id, str(file), folder))

    def figure(self, figure: Any, path: str) -> None:
        """Store a matplotlib figure as an artifact."""
        self._artifact(path, lambda: self.client.log_figure(self.run_id, figure, path))

    def _artifact(self, name: str, store: Any) -> None:
        try:
            store()
        except Exception as error:
            self._lost_artifacts.append(name)
            self._warn(error)

    def _warn(self, error: Exception) -> None:
        if not self._warned:
            self._warned = True
            log.warning("MLflow does not answer, the run goes on and will be written later: %s", str(error)[:300])

    def end(self, status: str) -> None:
        """Send what waits and end the run as FINISHED, FAILED or KILLED."""
        self.flush()
        try:
            self.client.set_terminated(self.run_id, status=status)
        except Exception as error:
            log.error("MLflow run %s could not be ended as %s: %s", self.run_id, status, str(error)[:300])
        missing = [f"{len(values)} {kind}" for kind, values in self._waiting.items() if values]
        missing += [f"artifact {name}" for name in self._lost_artifacts]
        if missing:
            log.error("MLflow run %s lacks %s: the store failed", self.run_id, ", ".join(missing))
