"""Metrics, tags and texts that a node reports while it runs, to the run that is being tracked.

:class:`~unime_kedro.tracking.hook.TrackingHook` says which run that is. Without one (tracking is off, the function
is called outside of Kedro, or in a copy of the process, as under Kedro's ParallelRunner) nothing happens. A store that
fails or is slow stops no work: what it did not take is sent again later.
"""

from __future__ import annotations

import logging
import math
import os
import threading
from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any

from unime_kedro.tracking.metrics import HISTORY, Point, clean_key, history_points

if TYPE_CHECKING:
    from unime_kedro.tracking.run import TrackedRun

log = logging.getLogger(__name__)


class _Open:
    """The run that is being written by this process, and the points that it was given while nodes ran."""

    def __init__(self, run: TrackedRun) -> None:
        self.run, self.owner = run, os.getpid()
        self.sent: dict[tuple[str, int], float] = {}
        self.lock = threading.Lock()


_open: _Open | None = None


def attach(run: TrackedRun) -> None:
    """Make a run the one that nodes report to."""
    global _open
    _open = _Open(run)


def detach() -> None:
    """Let nodes report to nobody."""
    global _open
    _open = None


def _current() -> _Open | None:
    return _open if _open is not None and _open.owner == os.getpid() else None


def open_run() -> TrackedRun | None:
    """Return the run that is being written, for looking things up in its store; None without one."""
    now = _current()
    return now.run if now is not None else None


def unsent(points: Iterable[Point]) -> list[Point]:
    """Return the points that the open run was not given yet, or with another value; all of them if there is none."""
    now = _current()
    if now is None:
        return list(points)
    with now.lock:
        return [point for point in points if not _same(now.sent.get((point.key, point.step)), point.value)]


def live_metrics(values: Mapping[str, float]) -> None:
    """Report metrics as of now, under names such as ``train/best_precision_at_1``."""
    if (now := _current()) is not None:
        now.run.metrics({clean_key(key): float(value) for key, value in values.items()})
        now.run.flush()


def live_tags(values: Mapping[str, str]) -> None:
    """Report texts that say what a run is, under names such as ``train.resumed_at``; MLflow can be searched by them."""
    if (now := _current()) is not None:
        now.run.tags({clean_key(key): str(value) for key, value in values.items()})
        now.run.flush()


def live_text(text: str, path: str) -> None:
    """Store a text as an artifact of the run, for example the batch that a training failed at."""
    if (now := _current()) is not None:
        now.run.text(text, path)


class LiveHistory:
    """Sends the metrics of a stage, step by step, while it runs; to be closed, or used in a ``with`` statement.

    What was sent so is not sent again when the dataset ``<stage>_history`` is saved, save for values that changed.

    Args:
        stage: The first part of the metrics' names, ``<stage>/loss``.
        every_seconds: Steps are gathered and sent that often.
    """

    def __init__(self, stage: str, every_seconds: float = 5.0) -> None:
        self._dataset, self._every = f"{stage}{HISTORY}", every_seconds
        self._run = _current()
        self._rows: list[Mapping[str, Any]] = []
        self._adding, self._sending = threading.Lock(), threading.Lock()
        self._closed = threading.Event()
        self._thread: threading.Thread | None = None

    def event(self, row: Mapping[str, Any]) -> None:
        """Take the metrics of one step.

        Args:
            row: A whole number ``step`` and numbers by name; what is no number is left out. The same step may come
                again, with other metrics or other values.
        """
        if self._run is None:
            return
        with self._adding:
            self._rows.append(row)
        if self._thread is None:
            self._thread = threading.Thread(target=self._send_now_and_then, name="live-history", daemon=True)
            self._thread.start()

    def close(self) -> None:
        """Send what waits."""
        self._closed.set()
        if self._thread is not None:
            self._thread.join()
        self._send()

    def __enter__(self) -> LiveHistory:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _send_now_and_then(self) -> None:
        while not self._closed.wait(self._every):
            self._send()

    def _send(self) -> None:
        now = _current()
        if now is None or now is not self._run:  # ended, perhaps from another thread
            return
        with self._sending:
            with self._adding:
                rows, self._rows = self._rows, []
            if not rows:
                return
            try:
                points = unsent(history_points(self._dataset, rows))
                now.run.history(points)
                with now.lock:
                    now.sent.update({(point.key, point.step): point.value for point in points})
                now.run.flush()
            except Exception as error:  # no curve is worth a training
                log.warning("metrics could not be sent while the node runs: %s: %s", type(error).__name__, error)


def _same(sent: float | None, value: float) -> bool:
    return sent is not None and (sent == value or (math.isnan(sent) and math.isnan(value)))
