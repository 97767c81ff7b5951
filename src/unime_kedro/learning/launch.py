"""Starting the processes of a training, and following them.

The training is a child of the one process that runs the pipeline, alone or as several under ``torchrun``; so the
pipeline itself is never run by every rank, and a process that runs out of memory takes nothing else with it. Torch is
not imported here.
"""

from __future__ import annotations

import logging
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import unime_kedro
from unime_kedro.errors import ConfigurationError
from unime_kedro.learning.event_tail import EventTail
from unime_kedro.learning.events import EVENTS
from unime_kedro.learning.launch_failure import End, failure_of, read_ends
from unime_kedro.learning.worker_errors import ERRORS, read_errors
from unime_kedro.learning.worker_life import launcher_environment, only_writer

log = logging.getLogger(__name__)

#: seconds that processes have to end when they are asked to
GRACE = 10.0


@dataclass(frozen=True)
class Placement:
    """Which processes run on this machine.

    Attributes:
        processes: Processes on each machine.
        machines: Number of machines. The same run is started on each of them.
        machine_rank: Which of them this is, from 0; machine 0 has rank 0, which writes the model.
        address: ``host:port`` of machine 0 with a free port, the same on every machine; None for one machine.
        section: Top-level key of the parameters, for messages.

    Raises:
        ConfigurationError: If these do not go together.
    """

    processes: int = 1
    machines: int = 1
    machine_rank: int = 0
    address: str | None = None
    section: str = "train"

    def __post_init__(self) -> None:
        key = f"{self.section}.distributed"
        if self.processes < 1 or self.machines < 1:
            raise ConfigurationError(
                f"{key}: processes ({self.processes}) and machines ({self.machines}) must be at least 1."
            )
        if not 0 <= self.machine_rank < self.machines:
            raise ConfigurationError(
                f"{key}.machine_rank is {self.machine_rank}; with machines: {self.machines} it must be from 0 to "
                f"{self.machines - 1}, another one on each machine."
            )
        if self.machines > 1:
            host, _, port = (self.address or "").rpartition(":")
            if not host or not port.isdigit() or not 0 < int(port) < 65536:
                raise ConfigurationError(
                    f"{key}.address is {self.address!r}; with machines: {self.machines} it must be host:port of "
                    "machine 0, for example 10.0.0.1:29500, the same on every machine."
                )

    @property
    def world(self) -> int:
        """Number of processes over all machines."""
        return self.processes * self.machines

    @property
    def ranks(self) -> range:
        """Ranks of this machine's processes."""
        return range(self.machine_rank * self.processes, (self.machine_rank + 1) * self.processes)

    def file(self, folder: Path, name: str) -> Path:
        """Return a file of this machine in a folder that the machines may share: ``worker.log``, ``worker-1.log``."""
        path = folder / name
        return path.with_name(f"{path.stem}-{self.machine_rank}{path.suffix}") if self.machine_rank else path

    def command(self, folder: Path, module: str, ends: Path) -> list[str]:
        """Return the command that starts this machine's processes.

        Args:
            folder: Folder of the run.
            module: What each process runs, with the folder as its argument.
            ends: File for what :mod:`~unime_kedro.learning.launch_agent` reports.
        """
        run = ["-m", module, str(folder)]
        if self.world == 1:
            return [sys.executable, *run]
        agent = [sys.executable, "-m", "unime_kedro.learning.launch_agent", str(ends)]
        agent += [
            "--nproc-per-node",
            str(self.processes),
            "--max-restarts",
            "0",
            "--log-dir",
            str(ends.with_suffix("")),
        ]
        if self.machines == 1:
            # the name of a machine need not be known to itself, as in many containers
            return [*agent, "--standalone", "--local-addr", "127.0.0.1", *run]
        # torchrun's other way to meet (c10d) numbers the machines as it likes, but rank 0 has to be where the rest of
        # the pipeline looks for the model
        host, _, port = str(self.address).rpartition(":")
        meet = ["--rdzv-backend", "static", "--master-addr", host.strip("[]"), "--master-port", port]
        return [*agent, "--nnodes", str(self.machines), "--node-rank", str(self.machine_rank), *meet, *run]


def run_training(
    folder: Path,
    *,
    processes: int = 1,
    machines: int = 1,
    machine_rank: int = 0,
    address: str | None = None,
    section: str = "train",
    on_event: Callable[[dict[str, Any]], None],
    module: str = "unime_kedro.learning.worker",
    poll_seconds: float = 0.2,
) -> None:
    """Run a training in processes of its own and wait for its end.

    What the processes print is added to ``<folder>/worker.log`` (``worker-<m>.log`` on machine m > 0). When this
    function is interrupted, by Ctrl-C or by an error in ``on_event``, they are ended; when this process is killed they
    end by themselves (:mod:`~unime_kedro.learning.worker_life`).

    Args:
        folder: Folder of the run, with all that the worker needs to know.
        processes: Processes on each machine; above 1, or on several machines, under ``torchrun``.
        machines: See :class:`Placement`, as for ``machine_rank`` and ``address``.
        machine_rank: Which of the machines this is.
        address: Where the machines meet.
        section: Top-level key of the parameters, for messages.
        on_event: Called with each event that rank 0 adds to ``<folder>/events.jsonl``, in this thread. What one says
            of a ``step`` replaces what earlier ones said (:class:`~unime_kedro.learning.event_tail.EventTail`).
        module: What each process runs, as ``python -m <module> <folder>``.
        poll_seconds: Time between two looks at the events.

    Raises:
        UnimeError: The error of the process that failed first, of its own class if it is one of ours.
        ModelError: A process failed in any other way: another exception, or a signal.
        ConfigurationError: If processes, machines, rank and address do not go together.
    """
    place = Placement(processes, machines, machine_rank, address, section)
    folder = Path(folder).resolve()
    # two launchers of one run would clear and read each other's files; workers have a lock of their own
    with only_writer(folder, name=place.file(folder, ".launch").name, wait_seconds=2.0):
        _run(folder, place, on_event, module, poll_seconds)


def _run(
    folder: Path, place: Placement, on_event: Callable[[dict[str, Any]], None], module: str, poll_seconds: float
) -> None:
    written, ends = place.file(folder, "worker.log"), place.file(folder, f"{ERRORS}/ends.json")
    _clear(folder, place, ends)
    command = place.command(folder, module, ends)
    begin = _add_header(written, command)
    tail = EventTail(folder / EVENTS)
    with closing(tail), written.open("ab") as output, _started(command, output) as child:
        while True:
            status = _wait(child, poll_seconds)
            for event in tail.read(all_of_it=status is not None):
                on_event(event)
            if status is not None:
                break
    if status == 0:
        return
    found = read_errors(folder, place.world)
    deaths = read_ends(ends) or [End(0 if place.world == 1 else None, status, child.pid)]
    raise failure_of(found, deaths, processes=place.world, log=written, begin=begin, section=place.section)


def _clear(folder: Path, place: Placement, ends: Path) -> None:
    """Remove what an earlier start left: on one machine of all ranks, as there may have been more processes then."""
    (folder / ERRORS).mkdir(parents=True, exist_ok=True)
    old = [ends, *(folder / ERRORS / f"rank-{rank}.json" for rank in place.ranks)]
    if place.machines == 1:
        old += (folder / ERRORS).glob("rank-*.json")
    for file in old:
        file.unlink(missing_ok=True)
    shutil.rmtree(ends.with_suffix(""), ignore_errors=True)  # torchrun's folders, which stay empty


def _add_header(written: Path, command: list[str]) -> int:
    """Add a line to the log that tells one start from another, and return where it begins."""
    moment = datetime.now().astimezone().isoformat(timespec="seconds")
    with written.open("ab") as file:
        begin = file.tell()
        file.write(f"==== {moment} start: {subprocess.list2cmdline(command)}\n".encode())
    return begin


def _wait(child: subprocess.Popen[bytes], seconds: float) -> int | None:
    try:
        return child.wait(seconds)
    except subprocess.TimeoutExpired:
        return None


@contextmanager
def _started(command: list[str], output: Any) -> Iterator[subprocess.Popen[bytes]]:
    """Start a child in a session of its own, so that Ctrl-C reaches only us; it ends when the block does."""
    child = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT,
        env=_environment(),
        start_new_session=True,
    )
    try:
        log.info("training started: process %d", child.pid)
        yield child
    finally:
        _stop(child)


def _environment() -> dict[str, str]:
    environment = {**os.environ, **launcher_environment()}
    # what was printed last must be in the log also after a SIGKILL, and where it was after a SIGSEGV
    environment |= {"PYTHONUNBUFFERED": "1", "PYTHONFAULTHANDLER": "1"}
    source = Path(unime_kedro.__file__).resolve().parents[1]
    if source.name not in ("site-packages", "dist-packages"):  # those are found anyway, and first would hide Python's
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, (str(source), os.environ.get("PYTHONPATH"))))
    return environment


def _stop(child: subprocess.Popen[bytes]) -> None:
    """End a child that still runs, with all of its processes: asked first, then killed, also if we are asked again."""
    if child.poll() is not None:
        return
    log.info("ending the training (process %d)", child.pid)
    try:
        _signal(child, signal.SIGTERM)
        child.wait(GRACE)
    except subprocess.TimeoutExpired:
        log.warning("the training did not end within %g s and is killed", GRACE)
    finally:
        if child.poll() is None:
            _signal(child, signal.SIGKILL)
            child.wait()


def _signal(child: subprocess.Popen[bytes], number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.killpg(child.pid, number)
