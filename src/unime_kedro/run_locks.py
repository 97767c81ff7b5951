"""Two runs at once in one workspace: side by side where they touch different files, else the second is told so.

A run locks every dataset that it writes for itself, and those that it only reads together with other readers, before
it touches anything. The operating system holds the locks (``flock`` on ``<data root>/.locks/<dataset>``) and drops them
when a process ends, however it ends. Nobody waits: two runs that want the same file are most often one too many.

Folders of work (``metadata: {dvc: work}``: the judge's scores, checkpoints, results of evaluations) take several
writers by their own means: everything in them is named by its content or locked by itself. They count as read.

An arm of an ablation has a data root of its own, with links to files of the project's. What is locked is the file
itself, so that arms run side by side, and nobody mines anew under them.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

from kedro.framework.hooks import hook_impl

from unime_kedro.config import data_root
from unime_kedro.errors import UnimeError

if TYPE_CHECKING:
    from kedro.framework.context import KedroContext
    from kedro.io import CatalogProtocol
    from kedro.pipeline import Pipeline

#: folder of locks below a data root, and in it that of who holds some
FOLDER, HOLDERS = ".locks", "holders"
_KINDS = {True: "writes", False: "reads"}
#: seconds that a holder, who has a lock already, may take to be found by name
_PATIENCE = 0.5


class InUse(UnimeError):
    """Another run works on the same files."""


class RunLocks:
    """The locks that this process holds."""

    def __init__(self) -> None:
        self._descriptors: list[int] = []
        self._card: Path | None = None
        self._links: list[Path] = []
        _all.add(self)

    def take(self, root: Path, files: Mapping[str, tuple[Path, bool]]) -> None:
        """Lock files, all or none.

        Args:
            root: The data root of this run.
            files: dataset -> its file or folder, and whether it is written.

        Raises:
            InUse: Another run holds one of them; names it and its process.
        """
        places = sorted((_place(root, name, file), name, writes) for name, (file, writes) in files.items())
        try:
            self._announce(root.resolve() / FOLDER, places)
            for place, name, writes in places:
                self._lock(place, name, writes)
        except BaseException:
            self.release()
            raise

    def _announce(self, locks: Path, places: list[tuple[Path, str, bool]]) -> None:
        """Say who wants the locks, before they are taken: whoever is refused later must find the name."""
        from unime_kedro.tracking.provenance import command_line

        folder = locks / HOLDERS
        folder.mkdir(parents=True, exist_ok=True)
        _remove_dead(folder)
        self._card = folder / f"{os.getpid()}-{uuid.uuid4().hex[:8]}.json"
        who = {
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "command": command_line(),
            "start": datetime.now().astimezone().isoformat(sep=" ", timespec="seconds"),
            "locks": {str(place): writes for place, _, writes in places},
        }
        # locked before it has its name, or another run could take it for that of a dead one
        temporary = self._card.with_suffix(".new")
        descriptor = os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
        self._descriptors.append(descriptor)
        with suppress(OSError):  # a file system without locks
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.write(descriptor, json.dumps(who).encode("utf-8"))
        os.replace(temporary, self._card)
        for other in sorted({place.parent for place, *_ in places} - {locks}):
            with suppress(OSError):  # may not be ours to write; then the message knows no name
                (other / HOLDERS).mkdir(parents=True, exist_ok=True)
                self._links.append(other / HOLDERS / f"{self._card.stem}.link")
                self._links[-1].symlink_to(self._card)

    def _lock(self, place: Path, name: str, writes: bool) -> None:
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(place, os.O_CREAT | os.O_RDWR, 0o666)
        except OSError:
            if writes:
                raise
            return  # in another's data root, which we may only read
        self._descriptors.append(descriptor)
        try:
            fcntl.flock(descriptor, (fcntl.LOCK_EX if writes else fcntl.LOCK_SH) | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise InUse(_message(place, name, writes, self._card)) from error
        except OSError:  # a file system without locks
            return

    def release(self) -> None:
        """Let go of all."""
        for file in (self._card, *self._links):
            if file is not None:
                with suppress(OSError):
                    file.unlink()
        self.forget()

    def forget(self) -> None:
        """Close what was inherited; the process that forked keeps its locks."""
        self._card, self._links = None, []
        descriptors, self._descriptors = self._descriptors, []
        for descriptor in descriptors:
            with suppress(OSError):
                os.close(descriptor)


#: a fork has the same locks, and would hold them for as long as it lives: workers of Kedro's ParallelRunner
_all: WeakSet[RunLocks] = WeakSet()


def _forget_all() -> None:
    for locks in list(_all):
        locks.forget()


os.register_at_fork(after_in_child=_forget_all)


def _place(root: Path, name: str, file: Path) -> Path:
    """Return the lock of a dataset: in the data root that its file really lies in."""
    real, inside = file.resolve(), file.is_relative_to(root)
    parts = file.relative_to(root).parts if inside else ()
    if inside and real.parts[-len(parts) :] == parts:
        return Path(*real.parts[: -len(parts)]) / FOLDER / name
    return root.resolve() / FOLDER / name


def _message(place: Path, name: str, writes: bool, own: Path | None) -> str:
    who = _holder(place, writes, own)
    if who is None:
        by, todo = "another run", "Wait for it to end"
    else:
        doing = _KINDS[who["locks"][str(place)]]
        host = "" if who["host"] == socket.gethostname() else f" on {who['host']}"
        by = f"`{who['command']}` (process {who['pid']}{host}, since {who['start']}), which {doing} it"
        todo = f"Wait for it to end, or stop it (kill {who['pid']})"
    return (
        f"{name} is in use by {by}; this run {_KINDS[writes]} it. Nothing was run. {todo}, or give this run a data "
        "root of its own: UNIME_DATA_ROOT=... kedro run ..."
    )


def _holder(place: Path, writes: bool, own: Path | None) -> dict[str, Any] | None:
    """Return who holds a lock that we cannot have: a writer, or if we want to write a reader."""
    end = time.monotonic() + _PATIENCE
    while True:
        for card, who in _living(place.parent / HOLDERS):
            theirs = who["locks"].get(str(place))
            if theirs is not None and (theirs or writes) and (own is None or card.resolve() != own.resolve()):
                return who
        if time.monotonic() > end:
            return None
        time.sleep(0.05)


def _living(folder: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Yield the cards of living runs, those of this data root and of others that read from it."""
    for card in sorted([*folder.glob("*.json"), *folder.glob("*.link")]):
        if not _is_dead(card):
            with suppress(OSError, ValueError):
                yield card, json.loads(card.read_text(encoding="utf-8"))


def _remove_dead(folder: Path) -> None:
    for card in [*folder.glob("*.json"), *folder.glob("*.link")]:
        if _is_dead(card):
            card.unlink(missing_ok=True)


def _is_dead(card: Path) -> bool:
    """Whether nobody holds a card's lock any more."""
    try:
        descriptor = os.open(card, os.O_RDONLY)
    except OSError:
        return card.is_symlink()  # to a card that is gone
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return True
    except OSError:
        return False
    finally:
        os.close(descriptor)


class RunLocksHook:
    """Locks what a run reads and writes, for as long as it runs."""

    def __init__(self) -> None:
        self._locks = RunLocks()
        self._root = Path()

    @hook_impl
    def after_context_created(self, context: KedroContext) -> None:
        """Remember where the data lie."""
        self._root = data_root(context.config_loader, context.project_path)

    @hook_impl(tryfirst=True)
    def before_pipeline_run(self, pipeline: Pipeline, catalog: CatalogProtocol) -> None:
        """Take the locks; those of a run before it in this process that was interrupted are let go of."""
        self._locks.release()
        self._locks.take(self._root, touched(pipeline, catalog))

    @hook_impl(trylast=True)
    def after_pipeline_run(self) -> None:
        """Let go of the locks."""
        self._locks.release()

    @hook_impl(trylast=True)
    def on_pipeline_error(self) -> None:
        """Let go of the locks."""
        self._locks.release()


def touched(pipeline: Pipeline, catalog: CatalogProtocol) -> dict[str, tuple[Path, bool]]:
    """Return the datasets with files that a pipeline reads or writes: the file, and whether it is written."""
    from unime_kedro.io.datasets import Folder
    from unime_kedro.tracking.files import files_of

    written = pipeline.all_outputs()
    for name in pipeline.inputs():
        dataset = catalog.get(name) if not name.startswith("param") and name in catalog else None
        if isinstance(dataset, Folder) and (dataset.metadata or {}).get("dvc") != "work":
            written = written | {name}
    files = files_of(pipeline.inputs() | written, catalog)
    return {name: (file, name in written) for name, file in files.items()}
