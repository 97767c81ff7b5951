"""Runs processes side by side, and leaves none behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")
#: seconds that a process is given to end by itself when it is asked to
GRACE = 20.0
_POLL = 0.1


@dataclass(frozen=True)
class Ended:
    """How a process ended.

    Attributes:
        status: Its exit status, negative for a signal.
        seconds: How long it ran.
        log: What it printed.
    """

    status: int
    seconds: float
    log: Path


class _Process:
    """A process in a session of its own, so that it and all it starts can be ended together."""

    def __init__(self, arguments: Sequence[str], log: Path, cwd: Path, environment: Mapping[str, str]) -> None:
        self.log, self._start = log, time.monotonic()
        with log.open("wb") as output:
            self._popen = subprocess.Popen(
                [sys.executable, "-m", "unime_kedro.ablations.worker", *arguments],
                cwd=cwd,
                env=dict(environment),
                stdin=subprocess.PIPE,  # see worker.py; never written to
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def poll(self) -> Ended | None:
        """Return how it ended, None if it has not; whatever it left in its group is ended too."""
        if os.waitid(os.P_PID, self._popen.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
            return None
        self.signal(signal.SIGKILL)  # before it is reaped, while no other process can have got its id
        assert self._popen.stdin is not None
        self._popen.stdin.close()
        return Ended(self._popen.wait(), time.monotonic() - self._start, self.log)

    def signal(self, number: int) -> None:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._popen.pid, number)


def run_all(
    tasks: Iterable[T],
    start: Callable[[T], tuple[Sequence[str], Path] | None],
    ended: Callable[[T, Ended], None],
    *,
    jobs: int,
    cwd: Path,
    environment: Mapping[str, str],
) -> None:
    """Run tasks in their order, several at a time.

    Args:
        tasks: What is to be run.
        start: Makes a task ready; returns the arguments of its command and the file of its output. None: leave it out.
        ended: Is told how a task's process ended.
        jobs: How many processes at a time.
        cwd: Their working directory.
        environment: Their environment.

    Raises:
        KeyboardInterrupt: As it came, when all processes have ended. Any other error likewise.
    """
    waiting, running = iter(tasks), dict[int, tuple[T, _Process]]()
    number, more = 0, True
    try:
        while more or running:
            while more and len(running) < jobs:
                task = next(waiting, None)
                if task is None:
                    more = False
                elif (command := start(task)) is not None:
                    running[number] = task, _Process(*command, cwd=cwd, environment=environment)
                    number += 1
            for key, (task, process) in list(running.items()):
                if (how := process.poll()) is not None:
                    del running[key]
                    ended(task, how)
            time.sleep(_POLL)
    finally:
        _stop([process for _, process in running.values()])


def _stop(processes: list[_Process]) -> None:
    """End processes and all that they started; at once if the user insists."""
    end = time.monotonic() + GRACE
    try:
        for process in processes:
            process.signal(signal.SIGTERM)
        while processes and time.monotonic() < end:
            processes = [process for process in processes if process.poll() is None]
            time.sleep(_POLL)
    except KeyboardInterrupt:
        pass
    finally:
        for process in processes:
            process.signal(signal.SIGKILL)
