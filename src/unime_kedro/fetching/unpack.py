"""Unpack zip files: nothing outside the folder, nothing half in it."""

from __future__ import annotations

import shutil
import stat
import zipfile
from pathlib import Path, PurePosixPath

from unime_kedro.errors import DataError

#: bytes that are to be left on the disk
_SPARE = 1 << 28


def unpack(archive: Path, folder: Path) -> int:
    """Unpack an archive beside the folder's other content.

    It is unpacked into a folder of its own first, and moved from there file by file. A run that was killed leaves that
    folder, and the next one begins it anew; a file that is there already is replaced, so that both end with the same.

    Args:
        archive: The zip file.
        folder: Where to.

    Returns:
        How many files it had.

    Raises:
        DataError: It is no zip file, is damaged, names a path outside the folder, or does not fit on the disk.
    """
    work = folder / f".unpacking-{archive.name}"
    shutil.rmtree(work, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with zipfile.ZipFile(archive) as opened:
            entries = [entry for entry in opened.infolist() if not entry.is_dir()]
            _check(archive, entries, folder)
            for entry in entries:
                opened.extract(entry, work)
    except (zipfile.BadZipFile, NotImplementedError, EOFError, zlib_error()) as error:
        shutil.rmtree(work, ignore_errors=True)
        raise DataError(f"{archive} cannot be unpacked: {error}. Delete it and fetch it again.") from error
    for entry in entries:
        target = folder / entry.filename
        target.parent.mkdir(parents=True, exist_ok=True)
        (work / entry.filename).replace(target)
    shutil.rmtree(work, ignore_errors=True)
    return len(entries)


def zlib_error() -> type[Exception]:
    """Return the error of damaged compressed bytes."""
    import zlib

    return zlib.error


def _check(archive: Path, entries: list[zipfile.ZipInfo], folder: Path) -> None:
    for entry in entries:
        path = PurePosixPath(entry.filename.replace("\\", "/"))
        link = stat.S_ISLNK(entry.external_attr >> 16)
        if path.is_absolute() or ".." in path.parts or ":" in path.parts[0] or link:
            raise DataError(
                f"{archive} holds {entry.filename!r}, which lies outside its folder or is a link; not used."
            )
    needed, free = sum(entry.file_size for entry in entries), shutil.disk_usage(folder).free
    if needed + _SPARE > free:
        raise DataError(
            f"{archive} needs {needed / 2**30:.1f} GiB unpacked, {folder} has {free / 2**30:.1f} GiB left. Make room, "
            "or give another folder by --root, and run again."
        )
