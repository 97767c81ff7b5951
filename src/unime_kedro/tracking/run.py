"""One MLflow run: opened once, written in batches, ended once."""

from __future__ import annotations

import logging
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from unime_kedro.tracking.metrics import Point
from unime_kedro.tracking.provenance import without_password
from unime_kedro.tracking.store import (
    MAX_TAG,
    TrackingError,
    Unreachable,
    artifact_root,
    create_run,
    impatient,
    is_remote,
    is_unreachable,
    reason_of,
)
from unime_kedro.tracking.unsent import KINDS, Journal, create_unsent, unsent_uri

log = logging.getLogger(__name__)

_SEND = "`unime runs send` sends it when the server is back"


def open_run(uri: str, root: Path, experiment: str, name: str, tags: Mapping[str, str]) -> TrackedRun:
    """Start a run, creating store and experiment if need be.

    A server that does not answer stops nobody: the run is kept in the project, to be sent later.

    Args:
        uri: Where runs are kept; an sqlite file is made when it is missing.
        root: The project root. Artifacts lie beside an sqlite file, or here for other databases; a tracking server
            decides for itself.
        experiment: Name of the experiment.
        name: Name of the run.
        tags: First tags; they are there from the first moment, so that a run that dies at once can be recognised.

    Raises:
        TrackingError: The store is locked, of another version, or refuses; says how to go on without.
    """
    first, start = dict(tags), int(time.time() * 1000)
    try:
        try:
            client, experiment_id, run_id = create_run(uri, artifact_root(uri, root), experiment, name, first)
        except Unreachable as error:
            here = create_unsent(root, experiment, name, first)
            log.warning("%s\nThe work goes on, the run is kept in %s: %s.", error, unsent_uri(root), _SEND)
            return TrackedRun(here[0], unsent_uri(root), here[1], here[2], name, send_to=(root, uri))
    except TrackingError as error:
        raise TrackingError(f"{error}\nOr run without tracking: UNIME_TRACKING=off kedro run ...") from error
    journal = Journal(root, experiment, start, first) if is_remote(uri) else None
    return TrackedRun(client, uri, experiment_id, run_id, name, journal=journal)


class TrackedRun:
    """A run that is being written.

    Values are gathered and sent by :meth:`flush` in few calls. When a local store fails in the middle of a run the
    work goes on: what was not written is kept and tried again at the next flush, and if the last one fails too, an
    error is logged that says what is missing. When a server goes away the whole run goes on in the project's store of
    unsent runs, and is sent when it ends, or by ``unime runs send``.

    Attributes:
        client, uri, experiment_id, run_id: Where the run is written now.
        opened_id: The id that it was opened with, by which other records name it.

    Args:
        journal: Has what was written so far; None: nobody takes over if the store fails.
        send_to: Project root and store, for a run that is in the store of unsent runs.
    """

    def __init__(
        self,
        client: Any,
        uri: str,
        experiment_id: str,
        run_id: str,
        name: str,
        *,
        journal: Journal | None = None,
        send_to: tuple[Path, str] | None = None,
    ) -> None:
        self.client, self.uri, self.experiment_id, self.run_id, self.name = client, uri, experiment_id, run_id, name
        self.opened_id = run_id
        self._journal, self._send_to = journal, send_to
        self._waiting: dict[str, list[Any]] = {kind: [] for kind in KINDS}
        self._lost_artifacts: list[str] = []
        self._lock = threading.RLock()
        self._warned = False

    @property
    def place(self) -> str:
        """Where a person finds the run: its page on a server, or how to start one here."""
        if self._send_to is not None:
            return f"kept here as {self.run_id}; {_SEND}"
        if self.uri.startswith("http"):
            server = without_password(self.uri).rstrip("/")
            return f"{server}/#/experiments/{self.experiment_id}/runs/{self.run_id}"
        return f"make ui, then run {self.name} ({self.run_id})"

    # ---------------------------------------------------------------- values

    def params(self, values: Mapping[str, str]) -> None:
        """Add parameters to the next batch."""
        from mlflow.entities import Param

        self._add("params", [Param(key, value) for key, value in values.items()])

    def tags(self, values: Mapping[str, str]) -> None:
        """Add tags to the next batch."""
        from mlflow.entities import RunTag

        self._add("tags", [RunTag(key, value[:MAX_TAG]) for key, value in values.items()])

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
            if self._journal is not None:
                self._journal.values[kind] += entities

    def flush(self) -> None:
        """Send everything that waits; MLflow's client splits it by the limits of its protocol."""
        self._written(self._write_waiting)

    def _write_waiting(self) -> None:
        for kind in KINDS:
            if self._waiting[kind]:
                self.client.log_batch(self.run_id, **{kind: self._waiting[kind]})
                self._waiting[kind] = []

    # ---------------------------------------------------------------- artifacts

    def text(self, text: str, path: str) -> None:
        """Store a text as an artifact."""
        self._artifact(path, lambda file: file.write_text(text, encoding="utf-8"))

    def data(self, data: bytes, path: str) -> None:
        """Store bytes as an artifact."""
        self._artifact(path, lambda file: file.write_bytes(data))

    def file(self, file: Path, folder: str | None = None) -> None:
        """Store a copy of a file as an artifact."""
        path = f"{folder}/{file.name}" if folder else file.name
        self._artifact(path, lambda copy: shutil.copyfile(file, copy))

    def figure(self, figure: Any, path: str) -> None:
        """Store a matplotlib figure as an artifact."""
        self._artifact(path, figure.savefig)

    def _artifact(self, path: str, write: Callable[[Path], Any]) -> None:
        before = self._send_to
        if not self._written(lambda: self._store(path, write)) and self._send_to is before:
            self._lost_artifacts.append(path)

    def _store(self, path: str, write: Callable[[Path], Any]) -> None:
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary) if self._journal is None else self._journal.artifacts
            file = folder / path
            file.parent.mkdir(parents=True, exist_ok=True)
            write(file)
            parent = file.parent.relative_to(folder).as_posix()
            self.client.log_artifact(self.run_id, str(file), None if parent == "." else parent)

    # ---------------------------------------------------------------- stores that fail

    def _written(self, write: Callable[[], Any]) -> bool:
        """Let no failure of the store reach the work; a server that is away is replaced. Returns whether it worked."""
        with self._lock, impatient():
            try:
                write()
            except Exception as error:
                if self._journal is not None and is_unreachable(error):
                    self._go_on_here(error)
                else:
                    self._warn(error)
                return False
        return True

    def _go_on_here(self, error: Exception) -> None:
        """Write the whole run to the store of unsent runs, and from now on only there."""
        assert self._journal is not None
        try:
            here = self._journal.replay(self.name, self.run_id)
        except TrackingError as second:
            self._warn(second)
            return
        log.warning(
            "%s does not answer: %s\nThe work goes on, the run is kept in %s from its beginning: %s.",
            *(without_password(self.uri), reason_of(error), unsent_uri(self._journal.root), _SEND),
        )
        self._send_to = self._journal.root, self.uri
        self.client, self.experiment_id, self.run_id = here
        self.uri = unsent_uri(self._journal.root)
        self._waiting = {kind: [] for kind in KINDS}
        self._lost_artifacts = [path for path in self._lost_artifacts if not (self._journal.artifacts / path).exists()]
        self._journal.close()
        self._journal = None

    def _warn(self, error: Exception) -> None:
        if not self._warned:
            self._warned = True
            log.warning("MLflow does not answer, the run goes on and will be written later: %s", str(error)[:300])

    # ---------------------------------------------------------------- the end

    def end(self, status: str) -> None:
        """Send what waits and end the run as FINISHED, FAILED or KILLED."""
        self.flush()
        before = self._send_to
        ended = self._ended(status) or (self._send_to is not before and self._ended(status))
        if not ended:
            log.error("MLflow run %s could not be ended as %s", self.run_id, status)
        missing = [f"{len(values)} {kind}" for kind, values in self._waiting.items() if values]
        missing += [f"artifact {name}" for name in self._lost_artifacts]
        if missing:
            log.error("MLflow run %s lacks %s: the store failed", self.run_id, ", ".join(missing))
        if self._journal is not None:
            self._journal.close()
        if self._send_to is not None and ended and status != "KILLED":  # whoever interrupts does not want to wait
            self._send(*self._send_to)

    def _ended(self, status: str) -> bool:
        return self._written(lambda: self.client.set_terminated(self.run_id, status=status))

    def _send(self, root: Path, uri: str) -> None:
        """Try once whether the server is back."""
        from unime_kedro.tracking.sending import send_runs

        try:
            send_runs(root, uri, lambda text: log.info("%s", text), only=self.run_id)
        except Exception as error:
            log.warning("MLflow run %s is not on its server yet. %s: %s", self.run_id, _SEND, reason_of(error))
