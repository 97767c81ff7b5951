"""A training without a model: what each rank does is read from ``plan.json`` in the folder of the run.

``{"steps": 3, "then": {"1": "data_error"}}``: every rank adds its rank to those of all others in each step, and rank 1
then fails.
"""

from __future__ import annotations

import faulthandler
import json
import os
import signal
import sys
from pathlib import Path

from unime_kedro.errors import DataError
from unime_kedro.learning.events import EVENTS, EventLog
from unime_kedro.learning.worker_errors import recorded
from unime_kedro.learning.worker_life import die_with_launcher, only_writer

RANK, WORLD = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))


def total(rank: int) -> int:
    """Return the sum of a number over all processes; waits for them."""
    if WORLD == 1:
        return rank
    import torch

    value = torch.tensor([rank])
    torch.distributed.all_reduce(value)
    return int(value)


def connect() -> None:
    if WORLD > 1:
        from datetime import timedelta

        import torch.distributed

        torch.distributed.init_process_group("gloo", timeout=timedelta(seconds=60))


def end(how: str) -> None:
    if how == "data_error":
        raise DataError("items.parquet, row 3: no text and no image; remove the row")
    if how == "zero_division":
        raise ZeroDivisionError("division by zero")
    if how == "kill":
        print("about to be killed")
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "status":
        os._exit(7)
    if how in ("hang", "stubborn"):
        if how == "stubborn":
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        while True:
            signal.pause()


def train(folder: Path) -> None:
    plan = json.loads((folder / "plan.json").read_text())
    log = EventLog(folder / EVENTS, plan.get("resume", 0)) if RANK == 0 else None
    connect()
    pids = {"pid": os.getpid(), "agent": os.getppid()}
    (folder / f"pids-{RANK}.json").write_text(json.dumps(pids))
    total(0)  # all are there, and have said so
    for step in range(plan.get("resume", 0) + 1, plan["steps"] + 1):
        value = total(RANK)
        if log:
            log.write(step, {"value": value, "home": os.environ.get("TOY_HOME", "")})
    end(plan.get("then", {}).get(str(RANK), ""))
    total(0)
    (folder / f"done-{RANK}").touch()
    if WORLD > 1:  # else its threads may still run when Python ends, which then aborts
        import torch.distributed

        torch.distributed.destroy_process_group()


def main() -> None:
    faulthandler.dump_traceback_later(90, exit=True)  # no test may wait for ever
    die_with_launcher(0.05)
    folder = Path(sys.argv[1])
    with recorded(folder, RANK):
        if RANK == 0:
            with only_writer(folder):
                train(folder)
        else:
            train(folder)


if __name__ == "__main__":
    main()
