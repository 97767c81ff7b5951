"""Hashes of files and folders: sha256, as everybody checks it, and md5 in DVC's manner, as dvc.lock has it."""

from __future__ import annotations

import fnmatch
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

#: folders up to this size and number of files are hashed
MAX_FOLDER_BYTES, MAX_FOLDER_FILES = 256 * 2**20, 2_000
#: what DVC does not look at either, as .dvcignore has it
_IGNORED = (".lock", ".*.lock", ".*.part", "*.partial")
_BLOCK = 2**20


class Contents(NamedTuple):
    """What a file or folder holds.

    Attributes:
        sha256: Of a file its bytes'; of a folder that of the lines ``<sha256>  <relative path>`` of its files in sorted
            order, what ``sha256sum`` prints. None for a folder beyond 256 MiB or 2,000 files.
        md5: As DVC has it: of a file its bytes'; of a folder ``<md5>.dir``, that of a JSON list of its files' paths and
            md5. None as above.
        bytes: Size, of a folder that of all its files.
    """

    sha256: str | None
    md5: str | None
    bytes: int


def contents_of(path: Path) -> Contents | None:
    """Return the hashes of a file or of a small folder, each byte read once; None for what does not exist."""
    if path.is_file():
        return _file(path)
    if not path.is_dir():
        return None
    files, size = _small_folder(path)
    if files is None:
        return Contents(None, None, size)
    found = {file.relative_to(path).as_posix(): _file(file) for file in files}
    lines = "".join(f"{one.sha256}  {name}\n" for name, one in found.items())
    md5 = folder_md5({name: str(one.md5) for name, one in found.items()})
    return Contents(hashlib.sha256(lines.encode("utf-8")).hexdigest(), md5, size)


def folder_md5(files: Mapping[str, str]) -> str:
    """Return a folder's ``<md5>.dir``, as DVC has it, from relative path -> md5 of its files."""
    entries = [{"md5": files[name], "relpath": name} for name in sorted(files) if not _is_ignored(name)]
    digest = hashlib.md5(json.dumps(entries, sort_keys=True).encode("utf-8"), usedforsecurity=False)
    return f"{digest.hexdigest()}.dir"


def content_hash(path: Path) -> str | None:
    """Return the sha256 of a file or of a small folder, see :class:`Contents`; None for what does not exist."""
    found = contents_of(path)
    return found.sha256 if found else None


def _file(path: Path) -> Contents:
    sha256, md5, size = hashlib.sha256(), hashlib.md5(usedforsecurity=False), 0
    with path.open("rb") as stream:
        while block := stream.read(_BLOCK):
            sha256.update(block)
            md5.update(block)
            size += len(block)
    return Contents(sha256.hexdigest(), md5.hexdigest(), size)


def _small_folder(folder: Path) -> tuple[list[Path] | None, int]:
    """Return the sorted files below a folder and their size; None, and the size so far, once it proves too large."""
    files, size = [], 0
    for file in _walk(folder):
        files.append(file)
        size += file.stat().st_size
        if size > MAX_FOLDER_BYTES or len(files) > MAX_FOLDER_FILES:
            return None, size
    return sorted(files, key=lambda file: file.relative_to(folder).as_posix()), size


def _walk(folder: Path) -> Iterator[Path]:
    for parent, _, names in os.walk(folder):
        yield from (path for name in names if (path := Path(parent, name)).is_file())


def _is_ignored(name: str) -> bool:
    return any(fnmatch.fnmatch(part, pattern) for part in name.split("/") for pattern in _IGNORED)
