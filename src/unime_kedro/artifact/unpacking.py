"""Packages come from somebody else: nothing in them is written elsewhere, and none fills the disk."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path, PurePosixPath

from unime_kedro.errors import DataError

#: what a package may hold at most: it is unpacked before anything in it can be checked
MAX_BYTES, MAX_FILES = 8 * 2**30, 100_000
EXPECTED = "Expected what `unime export-artifact` writes."
REMEDY = "the package was changed or damaged after it was made; ask for it again"
_ENCRYPTED, _LINK = 0x1, 0xA


def unpack(file: Path, folder: Path) -> None:
    """Unpack a zip file into an empty folder.

    Raises:
        DataError: The file is missing, damaged, no zip file, too large, or would write anywhere but below the folder.
    """
    if not file.is_file():
        raise DataError(f"{file} does not exist")
    try:
        with zipfile.ZipFile(file) as archive:
            _check_safe(archive, file)
            damaged = archive.testzip()
            if damaged is not None:
                raise DataError(f"{file}: {damaged} is damaged; {REMEDY}")
            archive.extractall(folder)
    except (zipfile.BadZipFile, zipfile.LargeZipFile, zlib.error, EOFError, OSError, NotImplementedError) as error:
        raise DataError(f"{file} cannot be unpacked: {error}. {EXPECTED}") from error


def _check_safe(archive: zipfile.ZipFile, file: Path) -> None:
    """Refuse what unpacking would do harm with; no entry yields more bytes than its header names."""
    entries = archive.infolist()
    if len(entries) > MAX_FILES or sum(entry.file_size for entry in entries) > MAX_BYTES:
        raise DataError(f"{file} would unpack to more than {MAX_BYTES / 2**30:.0f} GiB or {MAX_FILES:,} files; refused")
    seen: set[str] = set()
    for entry in entries:
        path = PurePosixPath(entry.filename)
        is_link = entry.external_attr >> 28 == _LINK
        if path.is_absolute() or ".." in path.parts or "\\" in entry.filename or is_link:
            raise DataError(f"{file} holds {entry.filename!r}, which would be written elsewhere; refused")
        if entry.filename in seen:
            raise DataError(f"{file} holds {entry.filename!r} twice, and programs differ in which they show; refused")
        if entry.flag_bits & _ENCRYPTED:
            raise DataError(f"{file}: {entry.filename!r} is encrypted. {EXPECTED}")
        seen.add(entry.filename)
