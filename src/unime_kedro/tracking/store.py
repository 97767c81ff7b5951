"""Stores of runs: opened within seconds, or an error that says whether it is their fault or that of the way to them."""

from __future__ import annotations

import fcntl
import os
import re
import socket
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from unime_kedro.errors import UnimeError
from unime_kedro.imports import quick_imports
from unime_kedro.tracking.config import sqlite_path
from unime_kedro.tracking.provenance import without_password

#: seconds to wait for another process to finish writing to the sqlite file
LOCK_TIMEOUT = 20.0
#: MLflow's own are seven attempts with growing pauses, each of two minutes: whoever starts a run waits
_PATIENCE = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1", "MLFLOW_HTTP_REQUEST_TIMEOUT": "5"}
_PORTS = {"postgresql": 5432, "mysql": 3306, "mssql": 1433}
_CONNECT_TIMEOUT = 5.0
_LONGEST_CHAIN = 20
#: characters of a tag's value that every store takes
MAX_TAG = 5000


class TrackingError(UnimeError):
    """The tracking store cannot be used."""


class Unreachable(TrackingError):
    """The tracking store is elsewhere and does not answer now; it may later."""


def open_store(uri: str) -> Any:
    """Return MLflow's client of a store that answers; a new sqlite file gets its tables.

    Raises:
        TrackingError: It cannot be used; ``Unreachable`` if that may be another matter in an hour.
    """
    with store_errors(uri, "The runs in {place} cannot be read: {reason}"), at_the_store(uri):
        client = client_of(uri)
        client.search_experiments(max_results=1)
    return client


@contextmanager
def store_errors(uri: str, message: str) -> Iterator[None]:
    """Turn whatever a store raises into a TrackingError.

    Args:
        uri: The store.
        message: Text with ``{place}`` and ``{reason}``.
    """
    try:
        yield
    except TrackingError:
        raise
    except Exception as error:
        kind = Unreachable if is_remote(uri) and is_unreachable(error) else TrackingError
        text = message.format(place=without_password(uri), reason=reason_of(error))
        raise kind(
            f"{text}\nMLFLOW_TRACKING_URI, or server.mlflow_tracking_uri in conf/base/mlflow.yml, names the store."
        ) from error


@contextmanager
def at_the_store(uri: str) -> Iterator[None]:
    """Make sure that a store can be asked, one process at a time where that matters, and ask it without long waits."""
    check_uri(uri)
    with quick_imports():
        import mlflow  # noqa: F401  (takes a second, in which no other run needs to wait)
    check_database_server(uri)
    with one_at_a_time(uri), impatient():
        check_sqlite(uri)
        yield


def is_remote(uri: str) -> bool:
    """Whether a store can be out of reach: a server or a database server, not an sqlite file."""
    return not uri.startswith(("sqlite:", "file:", "/", "."))


def is_unreachable(error: BaseException) -> bool:
    """Whether an error of a store that :func:`is_remote` says that it does not answer, and not that it refuses."""
    link: BaseException | None = error
    for _ in range(_LONGEST_CHAIN):
        if link is None:
            return False
        if _says_so(link):
            return True
        link = link.__cause__ or link.__context__
    return False


def _says_so(error: BaseException) -> bool:
    from mlflow.exceptions import MlflowException
    from requests.exceptions import ConnectionError, HTTPError, RetryError, Timeout
    from sqlalchemy.exc import InterfaceError, OperationalError

    if isinstance(error, MlflowException):  # 500 for a request that had no answer, too
        return _is_trouble(error.get_http_status_code())
    if isinstance(error, HTTPError):
        return error.response is None or _is_trouble(error.response.status_code)
    refused = (ConnectionRefusedError, ConnectionResetError, TimeoutError, socket.gaierror)
    return isinstance(error, (ConnectionError, RetryError, Timeout, InterfaceError, OperationalError, *refused))


def _is_trouble(status: int) -> bool:
    """Whether a status of HTTP is one that may be another later: too many requests, or the server's own fault."""
    return status == 429 or status >= 500


def reason_of(error: Exception) -> str:
    """Return an error's text in one line, short and without passwords."""
    text = " ".join(str(error).split())
    if "Max retries exceeded" in text and (causes := re.findall(r"\[Errno -?\d+\] [\w ]+|timed out", text)):
        return f"no answer ({causes[-1]})"  # not the four exceptions around it
    return without_password(text)[:300] or type(error).__name__


@contextmanager
def one_at_a_time(uri: str) -> Iterator[None]:
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


def check_sqlite(uri: str) -> None:
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


def check_database_server(uri: str) -> None:
    """Fail within seconds when nobody listens at a database's address; MLflow would try again for minutes."""
    if not is_remote(uri) or uri.startswith(("http", "databricks")):
        return
    from sqlalchemy.engine import make_url

    url = make_url(uri)
    port = url.port or _PORTS.get(url.get_backend_name())
    if url.host and port:
        socket.create_connection((url.host, port), timeout=_CONNECT_TIMEOUT).close()


def check_uri(uri: str) -> None:
    """Refuse plain folders."""
    if uri.startswith(("file:", "/", ".")):
        raise ValueError("MLflow no longer keeps runs in plain folders; use sqlite:///<file>.db")


def client_of(uri: str) -> Any:
    """Return a client; a new database gets its tables."""
    with quick_imports():
        from mlflow import MlflowClient

        return MlflowClient(tracking_uri=uri)  # imports as much again, for its kind of store


@contextmanager
def impatient() -> Iterator[None]:
    """Ask a tracking server twice, for seconds, unless variables of MLflow say otherwise."""
    added = {key: value for key, value in _PATIENCE.items() if key not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for key in added:
            os.environ.pop(key, None)


def artifact_root(uri: str, root: Path) -> str | None:
    """Return where a new experiment's artifacts go; a tracking server decides for itself."""
    if uri.startswith(("http", "databricks")):
        return None
    file = sqlite_path(uri)
    return ((file.parent if file else root) / "mlartifacts").resolve().as_uri()


def experiment_of(client: Any, name: str, artifacts: str | None) -> str:
    """Return the id of the experiment, which is created if need be, perhaps by another run at the same moment."""
    found = client.get_experiment_by_name(name)
    if found is None:
        try:
            created: str = client.create_experiment(name, artifact_location=artifacts)
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


def create_run(
    uri: str, artifacts: str | None, experiment: str, name: str, tags: Mapping[str, str]
) -> tuple[Any, str, str]:
    """Start a run in a store, creating store and experiment if need be.

    Returns:
        The client, the experiment's id and the run's.

    Raises:
        TrackingError: See :func:`open_store`.
    """
    with store_errors(uri, "Runs cannot be tracked in {place}: {reason}"), at_the_store(uri):
        client = client_of(uri)
        experiment_id = experiment_of(client, experiment, artifacts)
        run = client.create_run(experiment_id, run_name=name, tags={k: v[:MAX_TAG] for k, v in tags.items()})
    return client, experiment_id, run.info.run_id
