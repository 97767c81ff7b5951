"""Why a training ended: the one error that a user needs, out of all that were left behind."""

from __future__ import annotations

import json
import signal
from dataclasses import dataclass
from pathlib import Path

from unime_kedro.errors import ModelError, UnimeError
from unime_kedro.learning.worker_errors import WorkerError

_LAST_LINES = 12
#: an end by a signal within these seconds of the first end is no work of torchrun, which kills after 30
_OWN_SECONDS = 20
#: signals that are more often the consequence of another process's end
_CONSEQUENCES = (signal.SIGTERM, signal.SIGABRT)

_AGAIN = "Give the same command again: it goes on from the last checkpoint."
_THEN_AGAIN = "Then give the same command again: it goes on from the last checkpoint."
_REMEDIES = {
    signal.SIGKILL: "Most often the machine had no memory left (dmesg tells), or a batch system's limit was reached: "
    "make {section}.chunk smaller, or ask for more memory. " + _THEN_AGAIN,
    signal.SIGBUS: "Most often the shared memory is full (df /dev/shm): make {section}.image_workers smaller. "
    + _THEN_AGAIN,
    signal.SIGTERM: "Something outside stopped it. " + _AGAIN,
}
_OUT_OF_MEMORY = " Make {section}.chunk smaller. " + _THEN_AGAIN


@dataclass(frozen=True)
class End:
    """How a process ended that did not end well.

    Attributes:
        rank: Its rank over all machines; None if it is not known which process it was.
        exitcode: Its exit status, negative for the number of a signal.
        pid: Its process id.
        time: When that was noticed, in whole seconds since 1970.
    """

    rank: int | None
    exitcode: int
    pid: int
    time: float = 0.0


def read_ends(file: Path) -> list[End]:
    """Return what :mod:`~unime_kedro.learning.launch_agent` wrote, an empty list if it wrote nothing."""
    try:
        return [End(**end) for end in json.loads(file.read_text(encoding="utf-8"))]
    except (OSError, ValueError, TypeError):
        return []


def failure_of(
    found: list[WorkerError], ends: list[End], *, processes: int, log: Path, begin: int, section: str = "train"
) -> UnimeError:
    """Choose and word the reason of a failed training.

    First the earliest error that was written and is no mere consequence of a lost connection; then a process that ended
    without writing one; then a lost connection, whose reason is on another machine.

    Args:
        found: Errors that processes wrote, as :func:`~unime_kedro.learning.worker_errors.read_errors` orders them.
        ends: How the processes of this machine ended, in the order in which it was noticed.
        processes: Number of processes over all machines.
        log: Everything they printed.
        begin: Where in it, in bytes, this start begins.
        section: Top-level key of the parameters that a remedy names.
    """
    if found and not found[0].secondary:
        return _told(found[0], processes, log, section)
    silent = _silent(ends, {error.rank for error in found})
    if silent is not None:
        return ModelError(_death(silent, processes, section) + _last_lines(log, begin))
    if found:
        return _told(found[0], processes, log, section)
    return ModelError("training ended without saying why." + _last_lines(log, begin))


def _silent(ends: list[End], told: set[int]) -> End | None:
    """Return the first end without an error file; ends that torchrun brought about itself come last or not at all."""
    quiet = [end for end in ends if end.rank not in told]
    first = min((end.time for end in ends), default=0.0)
    late = [end for end in quiet if end.exitcode == -signal.SIGKILL and end.time - first > _OWN_SECONDS]
    quiet = [end for end in quiet if end not in late]
    return min(quiet, key=lambda end: -end.exitcode in _CONSEQUENCES, default=None)


def _told(error: WorkerError, processes: int, log: Path, section: str) -> UnimeError:
    where = f" (rank {error.rank})" if processes > 1 else ""
    if error.own is not None:
        return error.own(f"{error.message}{where}")
    if error.secondary:
        hint = " Another process ended first; on several machines the log of that one's machine tells why."
    elif "OutOfMemory" in error.type or error.type == "MemoryError":
        hint = _OUT_OF_MEMORY.format(section=section)
    else:
        hint = ""
    message = error.message.strip() or "(no message)"
    return ModelError(f"training failed: {error.type}: {message}{where}. The traceback is in {log}.{hint}")


def _death(end: End, processes: int, section: str) -> str:
    who = f"rank {end.rank} (process {end.pid})" if processes > 1 and end.rank is not None else f"process {end.pid}"
    if end.exitcode >= 0:
        return f"training failed: {who} ended with status {end.exitcode} without saying why."
    try:
        number = signal.Signals(-end.exitcode)
    except ValueError:  # a real-time signal
        return f"training failed: {who} was killed by signal {-end.exitcode}. {_AGAIN}"
    remedy = _REMEDIES.get(number, _AGAIN).format(section=section)
    return f"training failed: {who} was killed by {number.name}. {remedy}"


def _last_lines(log: Path, begin: int) -> str:
    try:
        with log.open("rb") as file:
            file.seek(begin)
            lines = file.read().decode("utf-8", errors="replace").splitlines()[-_LAST_LINES:]
    except OSError:
        lines = []
    return f"\nThe last lines of {log}:\n" + "\n".join(f"  {line}" for line in lines)
