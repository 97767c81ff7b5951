"""What keeps two trainings from writing into one folder: workers end with whoever started them, and hold a lock.

A process that is killed with SIGKILL cannot tell its children. So every process of a training looks, twice a second,
whether those above it still live. They are named in the environment by process id and start time, because ids are
used again.
"""

from __future__ import annotations

import fcntl
import logging
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from unime_kedro.errors import ModelError
from unime_kedro.processes import process_start

log = logging.getLogger(__name__)

#: the processes above a worker, as ``<pid>:<start time>``, separated by blanks
LAUNCHER_VARIABLE = "UNIME_LAUNCHER"
#: the lock that rank 0 holds, in the folder of the run
LOCK = ".lock"


def launcher_environment() -> dict[str, str]:
    """Return the variable that tells a child to end with this process and with those that this one ends with.

    Empty on a system without ``/proc``, where nobody can tell one process from another.
    """
    start = process_start(os.getpid())
    if start is None:
        return {}
    above = os.environ.get(LAUNCHER_VARIABLE, "")
    return {LAUNCHER_VARIABLE: f"{above} {os.getpid()}:{start}".strip()}


def die_with_launcher(poll_seconds: float = 0.5) -> threading.Thread | None:
    """End this process, at once and with status 1, when a process that started it is gone.

    To be called first thing in a worker. Nothing is cleaned up, as nothing could be after a SIGKILL either: what a
    training leaves behind is good at any moment.

    Args:
        poll_seconds: Time between two looks.

    Returns:
        The thread that looks; None when the worker was started by hand, without ``UNIME_LAUNCHER``.
    """
    above = [tuple(name.split(":", 1)) for name in os.environ.get(LAUNCHER_VARIABLE, "").split()]
    if not above:
        return None

    def watch() -> None:
        while all(process_start(int(pid)) == start for pid, start in above):
            time.sleep(poll_seconds)
        os._exit(1)

    thread = threading.Thread(target=watch, name="die-with-launcher", daemon=True)
    thread.start()
    return thread


@contextmanager
def only_writer(folder: Path, *, name: str = LOCK, wait_seconds: float = 30.0) -> Iterator[None]:
    """Be the only process that works on a folder for the time of the block.

    The operating system drops the lock when its holder dies, in any way. Waiting is for a holder that is about to:
    workers outlive a killed launcher by half a second, their data loaders by some more.

    Args:
        folder: Folder of the run; made if missing.
        name: Name of the lock file in it, which stays behind and tells its last holder.
        wait_seconds: How long to wait for another holder.

    Raises:
        ModelError: Another process still holds the lock after ``wait_seconds``; it is named.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / name).open("a+", encoding="utf-8") as file:
        if not _locked(file.fileno(), time.monotonic() + wait_seconds):
            file.seek(0)
            raise ModelError(
                f"another training is writing to {folder} ({file.read().strip() or 'it left no name'}). Wait for its "
                "end or stop it, then give the same command again."
            )
        file.seek(0)
        file.truncate()
        file.write(f"pid {os.getpid()} on {socket.gethostname()}\n")
        file.flush()
        yield


def _locked(descriptor: int, deadline: float) -> bool:
    """Take a lock, trying until the deadline (monotonic seconds); False if another process had it all the time."""
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if time.monotonic() >= deadline:
                return False
            time.sleep(0.1)
        except OSError as error:  # a file system without locks: better trained unguarded than not at all
            log.warning("no lock can be taken here, so nothing keeps a second training away: %s", error)
            return True
