"""Files that are either the old ones or the new ones, never half of each.

A file is written under a temporary name in its own folder, flushed to the disk and then renamed over the old one.
A writer that is killed leaves its temporary file behind. The writer holds a lock on it for as long as it lives, and
the operating system lets go of that lock when a process ends in any way; so the next writer of the same file can tell
an abandoned temporary (lockable) from one that is being written (not lockable), and removes the abandoned ones. A
process id in the name would not do: ids are reused, and mean nothing in another container on the same disk.
"""

from __future__ import annotations

import fcntl
import glob
import logging
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import polars as pl

log = logging.getLogger(__name__)

_SUFFIX = ".part"


@contextmanager
def atomic_write(path: str | Path) -> Iterator[Path]:
    """Write a file so that a reader sees the old or the new content, also after a crash or a SIGKILL.

    Args:
        path: The file to make or replace. Missing folders above it are made.

    Yields:
        The path to write to instead, in the same folder. When the block ends normally it is flushed to the disk and
        takes the place of ``path``; when the block raises it is removed and ``path`` stays as it was.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_abandoned(path)
    temporary, lock = _open_locked(path)
    try:
        yield temporary
        flush(temporary)
        os.replace(temporary, path)
    except BaseException:
        with suppress(FileNotFoundError):
            temporary.unlink()
        raise
    finally:
        os.close(lock)
    flush(path.parent)


def save_parquet(frame: pl.DataFrame, path: str | Path) -> None:
    """Write a table as parquet (zstd, with column statistics), atomically."""
    with atomic_write(path) as temporary:
        frame.write_parquet(temporary, compression="zstd", statistics=True)


def _open_locked(path: Path) -> tuple[Path, int]:
    """Make a new temporary file for ``path`` and lock it; returns it and the descriptor that holds the lock."""
    while True:
        temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}{_SUFFIX}")
        # os.open and not tempfile: the finished file gets the usual permissions (umask), not 0600
        descriptor = os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.exists(temporary):
                return temporary, descriptor
        except BlockingIOError:
            pass
        except OSError:  # a file system without locks: works as well, but nobody can tell abandoned files there
            return temporary, descriptor
        # another writer's clean-up came between open and lock and took the file for abandoned
        os.close(descriptor)


def _remove_abandoned(path: Path) -> None:
    """Remove temporary files of ``path`` whose writers are dead."""
    for name in glob.glob(f".{glob.escape(path.name)}.*{_SUFFIX}", root_dir=path.parent):
        temporary = path.parent / name
        with suppress(OSError):  # gone already, locked by a living writer, or not ours to remove
            descriptor = os.open(temporary, os.O_RDWR)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                temporary.unlink()
            finally:
                os.close(descriptor)


def flush(path: Path) -> None:
    """Flush a file, or a folder's list of names, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def locked(path: str | Path) -> Iterator[None]:
    """Hold a lock file for the time of the block; a second process waits for the first, and says so.

    Args:
        path: The lock file; it stays behind, empty. The operating system drops the lock when its holder dies.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            log.warning("another run is working on %s; waiting for it", path.parent)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
