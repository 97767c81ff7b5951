"""Fetch one file: on from where it was left, checked against its published checksum, in place only when whole.

huggingface_hub no longer goes on with a file that an earlier process began (since a broken lock can then mix two
downloads); the largest archive here is 12.9 GB. So bytes are fetched here, by HTTP ranges, under a lock of our own.
"""

from __future__ import annotations

import hashlib
import logging
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unime_kedro.atomic import flush
from unime_kedro.errors import DataError
from unime_kedro.fetching.listing import RemoteFile

if TYPE_CHECKING:
    import requests

log = logging.getLogger(__name__)

#: bytes read at a time
_BLOCK = 1 << 20
#: tries in a row that bring nothing new, before it is given up
TRIES = 5
#: seconds to wait for an answer
_TIMEOUT = 30.0
_PART = ".part"


def fetch_file(
    remote: RemoteFile,
    folder: Path,
    *,
    token: str | None = None,
    pause: float = 1.0,
    advance: Callable[[int], Any] = lambda n: None,
) -> dict[str, Any]:
    """Fetch a file into its place.

    Args:
        remote: Which file.
        folder: Folder of the source.
        token: The hub's token, sent where ``remote.token`` allows it.
        pause: Seconds to wait after the first failure; twice as long after each further one.
        advance: Is told how many bytes have come.

    Returns:
        size and sha256 of the file.

    Raises:
        DataError: It cannot be reached, or has not the published size or checksum; what came stays in a ``.part`` file
            and is gone on with, unless it was wrong.
    """
    target = folder / remote.path
    part = target.with_name(target.name + _PART)
    part.parent.mkdir(parents=True, exist_ok=True)
    headers = {"Authorization": f"Bearer {token}"} if token and remote.token else {}
    failures = 0
    while True:
        before = part.stat().st_size if part.exists() else 0
        try:
            if _receive(remote, part, headers, advance):
                break
            problem = "the connection was closed early"
        except OSError as error:  # requests' errors are such, and a disk's
            if getattr(error, "errno", None) == 28:
                raise DataError(f"the disk is full: {part} could not be written further") from error
            problem = str(error)
        failures = 0 if part.exists() and part.stat().st_size > before else failures + 1
        if failures >= TRIES:
            raise DataError(f"{remote.url} could not be fetched ({TRIES} tries): {problem}")
        time.sleep(pause * 2 ** max(0, failures - 1))
    found = _checked(remote, part)
    flush(part)
    os.replace(part, target)
    flush(target.parent)
    return found


def _receive(remote: RemoteFile, part: Path, headers: dict[str, str], advance: Callable[[int], Any]) -> bool:
    """Append what is missing; returns whether the file is whole as far as sizes tell."""
    import requests
    import urllib3

    have = part.stat().st_size if part.exists() else 0
    if remote.size is not None and have == remote.size:
        return True
    ranged = {"Range": f"bytes={have}-"} if have else {}
    # identity: a compressed answer's ranges and length would be those of other bytes
    asked = {**headers, **ranged, "Accept-Encoding": "identity"}
    with requests.get(remote.url, headers=asked, stream=True, timeout=_TIMEOUT) as answer:
        if answer.status_code == requests.codes.requested_range_not_satisfiable:
            if _total(answer) == have:
                return True
            part.unlink()
            return False
        if answer.status_code in (401, 403, 404, 410):
            raise DataError(f"{remote.url}: {answer.status_code} {answer.reason}. {_advice(answer.status_code)}")
        answer.raise_for_status()
        goes_on = answer.status_code == requests.codes.partial_content and have > 0
        expected = _total(answer) if goes_on else _length(answer)
        with part.open("ab" if goes_on else "wb") as file:
            # read1: what has come is written at once, so that a connection that breaks takes nothing with it
            try:
                while block := answer.raw.read1(_BLOCK, decode_content=False):
                    file.write(block)
                    advance(len(block))
            except urllib3.exceptions.HTTPError:
                return False
    return expected is None or part.stat().st_size == expected


def _advice(status: int) -> str:
    if status in (401, 403):
        return "Accept the data set's terms on its page and give your token: HF_TOKEN=..., or `hf auth login`."
    return "It is not there any more; see --revision, or fetch it by hand."


def _total(answer: requests.Response) -> int | None:
    """Return the size of the whole file by ``Content-Range: bytes 5-9/10``."""
    total = answer.headers.get("Content-Range", "").rpartition("/")[2]
    return int(total) if total.isdigit() else None


def _length(answer: requests.Response) -> int | None:
    length = answer.headers.get("Content-Length", "")
    return int(length) if length.isdigit() else None


def _checked(remote: RemoteFile, part: Path) -> dict[str, Any]:
    """Compare with what was published; what differs is deleted, for nothing can be made of it."""
    found = checksums(part)
    wrong = [
        f"{name} {found[name]}, published: {wanted}"
        for name, wanted in (("size", remote.size), ("sha256", remote.sha256), ("blob", remote.blob))
        if wanted is not None and found[name] != wanted
    ]
    if wrong:
        part.unlink()
        raise DataError(f"{remote.url} came damaged: {'; '.join(wrong)}. It was deleted; run again to fetch it anew.")
    return {"size": found["size"], "sha256": found["sha256"]}


def checksums(file: Path) -> dict[str, Any]:
    """Return size, SHA-256, and git's SHA-1 (blob) of a file."""
    size = file.stat().st_size
    sha256, blob = hashlib.sha256(), hashlib.sha1(f"blob {size}\0".encode(), usedforsecurity=False)
    with file.open("rb") as data:
        while block := data.read(_BLOCK):
            sha256.update(block)
            blob.update(block)
    return {"size": size, "sha256": sha256.hexdigest(), "blob": blob.hexdigest()}
