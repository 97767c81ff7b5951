"""Runs that died without a word (SIGKILL, power cut): recognised and marked by the next run.

Every run carries the identity of its process. A process id alone is not enough, ids are used again: the start time
(in ticks since boot) and the id of that boot make it unique.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unime_kedro.processes import process_start

HOST = "unime.host"
PID = "unime.pid"
START = "unime.process_start"
BOOT = "unime.boot_id"
NAMESPACE = "unime.pid_namespace"
ENDED = "unime.ended"

_PROC = Path("/proc")
_DEAD = frozenset("ZXx")  # zombie, dead


@dataclass(frozen=True)
class ProcessIdentity:
    """Which process on which machine."""

    host: str
    pid: int
    start: str
    boot: str
    namespace: str

    @classmethod
    def current(cls) -> ProcessIdentity:
        """Return this process."""
        pid = os.getpid()
        return cls(socket.gethostname(), pid, process_start(pid) or "", _boot_id(), _namespace())

    def tags(self) -> dict[str, str]:
        """Return what a run carries."""
        return {HOST: self.host, PID: str(self.pid), START: self.start, BOOT: self.boot, NAMESPACE: self.namespace}


def is_dead(tags: Mapping[str, str], here: ProcessIdentity) -> bool:
    """Whether the process that started a run certainly lives no more, judged from the run's tags.

    False whenever it cannot be told from here: another host, another container of this host (its process ids mean
    nothing here), no ``/proc``, or a run of other software without these tags.

    Args:
        tags: The tags of a run that is marked as running.
        here: This process.
    """
    if tags.get(HOST) != here.host or not here.start or not tags.get(PID, "").isdigit():
        return False
    if tags.get(BOOT) != here.boot:
        return True
    if tags.get(NAMESPACE) != here.namespace:
        return False
    return process_start(int(tags[PID])) != tags.get(START)


def mark_orphans(client: Any, experiment_id: str, here: ProcessIdentity, run_id: str) -> list[str]:
    """Mark the runs of dead processes of this host as KILLED.

    Args:
        client: An ``mlflow.MlflowClient``.
        experiment_id: Runs of this experiment are looked at.
        here: This process.
        run_id: The run that has just begun; it is named in the tag ``unime.ended`` of the dead ones.

    Returns:
        The ids of the runs that were marked.
    """
    host = here.host.replace("'", "")
    query = f"attributes.status = 'RUNNING' and tags.`{HOST}` = '{host}'"
    running = client.search_runs([experiment_id], filter_string=query, max_results=1000)
    dead = [run.info.run_id for run in _others(running, run_id) if is_dead(run.data.tags, here)]
    for dead_id in dead:
        client.set_tag(dead_id, ENDED, f"found dead by run {run_id}")
        client.set_terminated(dead_id, status="KILLED")
    return dead


def _others(runs: Iterable[Any], run_id: str) -> Iterable[Any]:
    return (run for run in runs if run.info.run_id != run_id)


def _boot_id() -> str:
    try:
        return (_PROC / "sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""


def _namespace() -> str:
    try:
        return os.readlink(_PROC / "self/ns/pid")
    except OSError:
        return ""
