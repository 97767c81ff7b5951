"""Whether the outs that are there are those of ``dvc.lock``, by their bytes.

DVC trusts a file in its cache by its name, and one that it has put into the workspace by its time. So a cached file
that a disk or a program has damaged is handed out as the right one, and ``dvc repro`` says that all is up to date.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from unime_kedro.reproduce.lock import locked_stages
from unime_kedro.tracking.contents import folder_md5

_BLOCK = 2**20
_FOLDER = ".dir"


class Broken(NamedTuple):
    """An out with other bytes than ``dvc.lock`` says.

    Attributes:
        stage: The stage that makes it.
        path: The out, relative to the project root.
        md5: What it should have.
    """

    stage: str
    path: str
    md5: str


def broken_outs(root: Path) -> list[Broken]:
    """Return the outs that are there with other bytes than ``dvc.lock`` says; those that are not there do not count.

    Args:
        root: The project's folder.

    Raises:
        DataError: The lock is not what DVC writes.
    """
    outs = [(name, out) for name, stage in locked_stages(root).items() for out in stage.get("outs") or ()]
    found = [Broken(name, out["path"], out["md5"]) for name, out in outs if (root / out["path"]).exists()]
    return [one for one in found if _md5(root / one.path) != one.md5]


def forget(root: Path, broken: list[Broken]) -> list[Path]:
    """Make DVC look at broken outs anew, and remove what its cache has of them that is broken, too.

    Nothing that is whole is removed, and no out: their times change, so that DVC no longer takes them for known.

    Returns:
        The files that were removed from the cache.
    """
    shown = subprocess.run(["dvc", "cache", "dir"], cwd=root, capture_output=True, text=True, check=True).stdout
    cache = root / shown.strip() / "files/md5"
    removed = []
    for one in broken:
        for file in _files(root / one.path):
            os.utime(file)
        for digest in _objects(cache, one.md5):
            file = _object(cache, digest)
            if file.is_file() and _md5(file) != digest.removesuffix(_FOLDER):
                file.unlink()
                removed.append(file)
    return removed


def _objects(cache: Path, md5: str) -> Iterator[str]:
    """Yield the hash of an out, and of a folder those of its files as far as they are known."""
    yield md5
    if md5.endswith(_FOLDER):
        try:
            entries: list[dict[str, Any]] = json.loads(_object(cache, md5).read_bytes())
            yield from {entry["md5"]: None for entry in entries}
        except (OSError, ValueError, KeyError, TypeError):
            return


def _object(cache: Path, digest: str) -> Path:
    return cache / digest[:2] / digest[2:]


def _md5(path: Path) -> str:
    """Return the hash of a file, or of a folder, as DVC has it."""
    if path.is_dir():
        return folder_md5({file.relative_to(path).as_posix(): _md5(file) for file in _files(path)})
    digest = hashlib.md5(usedforsecurity=False)
    with path.open("rb") as stream:
        while block := stream.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def _files(path: Path) -> Iterator[Path]:
    if path.is_file():
        yield path
    for parent, _, names in os.walk(path):
        yield from (Path(parent, name) for name in names)
