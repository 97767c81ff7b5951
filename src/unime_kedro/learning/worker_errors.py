"""How the error of a training process reaches the process that started it: through a file per rank.

When one of several processes fails, the others fail a moment later, because the connection to it is lost. Such
consequences are marked where they happen, where the exception is still at hand, so that they are never taken for the
reason.
"""

from __future__ import annotations

import builtins
import json
import os
import re
import sys
import time
import traceback as tracebacks
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from unime_kedro import errors
from unime_kedro.atomic import atomic_write
from unime_kedro.errors import UnimeError

#: folder of the error files, in the folder of the run
ERRORS = "errors"

#: what torch.distributed raises when the other side is gone; the rest are RuntimeErrors told by their text
_DISTRIBUTED = frozenset({"DistError", "DistBackendError", "DistNetworkError", "DistStoreError"})
_LOST_CONNECTION = re.compile(
    r"connection (was )?(likely )?(closed|reset|refused|timed out)|closed by peer|reset by peer|broken pipe"
    r"|socket ?timeout|timed out waiting \d+ms|connectFullMesh failed|remote process exited|NCCL (communicator|error)"
    r"|watchdog|gloo/transport",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class WorkerError:
    """The error of one process.

    Attributes:
        rank: Rank of the process over all machines.
        type: Name of a class in :mod:`unime_kedro.errors` if it was one of ours, else of whatever it was.
        message: Its text.
        traceback: All of it, with causes.
        time: When, in seconds since 1970, by the clock of its machine.
        secondary: Whether it is but a consequence of another process's end.
    """

    rank: int
    type: str
    message: str
    traceback: str
    time: float
    secondary: bool = False

    @classmethod
    def of(cls, error: BaseException, rank: int) -> WorkerError:
        """Describe an exception, now."""
        text = "".join(tracebacks.format_exception(error))
        return cls(rank, _name(type(error)), str(error), text, time.time(), is_lost_connection(error))

    @property
    def own(self) -> builtins.type[UnimeError] | None:
        """The class of :mod:`unime_kedro.errors`, None for any other error."""
        found = getattr(errors, self.type, None)
        return found if isinstance(found, type) and issubclass(found, UnimeError) else None


@contextmanager
def recorded(folder: Path, rank: int, *, leave: Callable[[int], Any] = os._exit) -> Iterator[None]:
    """Write the error of a worker to ``<folder>/errors/rank-<rank>.json`` and end the process with status 1.

    To be wrapped around all of a worker's work. The traceback goes to the error stream as well.

    Args:
        folder: Folder of the run.
        rank: Rank of this process over all machines.
        leave: Ends the process with a status. By default at once: an orderly exit would wait for communication with
            other processes, which will not come, and these wait for this one to be gone.
    """
    try:
        yield
    except Exception as error:
        tracebacks.print_exc()
        with suppress(OSError):  # a full disk; the traceback is in the log
            write_error(folder, WorkerError.of(error, rank))
        sys.stdout.flush()
        sys.stderr.flush()
        leave(1)


def write_error(folder: Path, error: WorkerError) -> None:
    """Write an error to its file, whole or not at all."""
    with atomic_write(folder / ERRORS / f"rank-{error.rank}.json") as path:
        path.write_text(json.dumps(asdict(error), indent=1) + "\n", encoding="utf-8")


def read_errors(folder: Path, processes: int) -> list[WorkerError]:
    """Return the errors of ranks 0 to ``processes`` - 1, the reasons before their consequences, the earliest first."""
    found = []
    for rank in range(processes):
        with suppress(OSError, ValueError, TypeError):  # no such file, or not one of ours
            text = (folder / ERRORS / f"rank-{rank}.json").read_text(encoding="utf-8")
            found.append(WorkerError(**json.loads(text)))
    return sorted(found, key=lambda error: (error.secondary, error.time, error.rank))


def is_lost_connection(error: BaseException) -> bool:
    """Whether an error, or one that caused it, says that another process of the training is gone."""
    link: BaseException | None = error
    seen: set[int] = set()
    while link is not None and id(link) not in seen:
        seen.add(id(link))
        names = {kind.__name__ for kind in type(link).__mro__}
        if names & _DISTRIBUTED or isinstance(link, ConnectionError | BrokenPipeError):
            return True
        if isinstance(link, RuntimeError) and _LOST_CONNECTION.search(str(link)):
            return True
        link = link.__cause__
    return False


def _name(kind: type[BaseException]) -> str:
    """Return the name of an exception's class; of one derived from ours, that of the nearest class of ours."""
    for base in kind.__mro__:
        if issubclass(base, UnimeError) and getattr(errors, base.__name__, None) is base:
            return base.__name__
    module = kind.__module__
    return kind.__name__ if module == "builtins" else f"{module}.{kind.__name__}"
