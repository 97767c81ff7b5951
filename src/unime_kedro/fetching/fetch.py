"""Bring a source's files into their folder, and write down what came."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unime_kedro.atomic import atomic_write, locked
from unime_kedro.errors import DataError
from unime_kedro.fetching.download import checksums, fetch_file
from unime_kedro.fetching.listing import Listing, RemoteFile
from unime_kedro.fetching.sources import Source, WebPart
from unime_kedro.fetching.unpack import unpack

#: in the source's folder: commits, and size and checksum of every file that came
RECORD = "fetched.json"


@dataclass(frozen=True)
class Fetched:
    """What a fetch did.

    Attributes:
        new: Files that came now.
        there: Files that were there.
        unpacked: Files that came out of archives now.
    """

    new: int
    there: int
    unpacked: int


def fetch(
    source: Source,
    listing: Listing,
    folder: Path,
    *,
    token: str | None = None,
    keep_archives: bool = False,
    verify: bool = False,
    pause: float = 1.0,
    advance: Callable[[int], Any] = lambda n: None,
) -> Fetched:
    """Fetch what is missing of a source.

    Args:
        source: Which data.
        listing: Its files.
        folder: Where to.
        token: The hub's token.
        keep_archives: Keep zip files after they were unpacked.
        verify: Compute the checksums of files that are there again.
        pause: See :func:`.download.fetch_file`.
        advance: Is told how many bytes have come, or were there.

    Raises:
        DataError: A file cannot be fetched, is damaged, or is of another commit than those in the folder.
    """
    with locked(folder / ".fetching.lock"):
        record = read_record(folder)
        _check_commits(record, listing, folder)
        record |= {"source": source.name, "commits": {**record.get("commits", {}), **listing.commits}}
        files: dict[str, Any] = record.setdefault("files", {})
        new = there = unpacked = 0
        for remote in listing.files:
            if _is_there(remote, files.get(remote.path), folder, verify):
                there += 1
                advance(files[remote.path]["size"])
                continue
            target = folder / remote.path
            known = files.get(remote.path, {}).get("sha256")
            found = checksums(target) if target.exists() else {}
            if not found or not _fits(remote, found):
                found = fetch_file(remote, folder, token=token, pause=pause, advance=advance)
                new += 1
            if remote.sha256 is None and known is not None and known != found["sha256"]:
                raise DataError(
                    f"{remote.url} has changed since it was first fetched: sha256 {found['sha256']}, then {known} "
                    f"({folder / RECORD}). Delete that entry if the new one is wanted."
                )
            entry = {"size": found["size"], "sha256": found["sha256"], "url": remote.url}
            if remote.unpack_into is not None:
                entry["unpacked"] = unpack(target, folder / remote.unpack_into)
                entry["kept"] = keep_archives
                unpacked += entry["unpacked"]
            files[remote.path] = entry
            _write(folder, record)  # after each file: a killed run has them all
            if remote.unpack_into is not None and not keep_archives:
                target.unlink()
        return Fetched(new, there, unpacked)


def _fits(remote: RemoteFile, found: Mapping[str, Any]) -> bool:
    """Whether a file that lies there unrecorded is the published one; without a checksum nobody knows."""
    return (remote.sha256, remote.blob) != (None, None) and all(
        wanted is None or found[name] == wanted for name, wanted in (("sha256", remote.sha256), ("blob", remote.blob))
    )


def _is_there(remote: RemoteFile, entry: Mapping[str, Any] | None, folder: Path, verify: bool) -> bool:
    if entry is None or (remote.sha256 is not None and entry["sha256"] != remote.sha256):
        return False
    if remote.unpack_into is not None and not entry.get("kept"):
        return True
    target = folder / remote.path
    if not target.exists() or target.stat().st_size != entry["size"]:
        return False
    return not verify or checksums(target)["sha256"] == entry["sha256"]


def read_record(folder: Path) -> dict[str, Any]:
    """Return what ``fetched.json`` of a folder says; empty where there is none.

    Raises:
        DataError: It cannot be read.
    """
    file = folder / RECORD
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise DataError(
            f"{file} cannot be read: {error}. Delete it; files are then checked and recorded anew."
        ) from error
    if not isinstance(found, dict):
        raise DataError(f"{file} is no record of fetched files. Delete it; files are then checked and recorded anew.")
    return found


def _check_commits(record: Mapping[str, Any], listing: Listing, folder: Path) -> None:
    for repository, commit in listing.commits.items():
        earlier = record.get("commits", {}).get(repository, commit)
        if earlier != commit:
            raise DataError(
                f"{folder} holds {repository} at {earlier}, {commit} is asked for; files of two versions in one folder "
                f"would be neither. Give --revision {earlier}, or another folder by --root."
            )


def _write(folder: Path, record: Mapping[str, Any]) -> None:
    with atomic_write(folder / RECORD) as temporary:
        temporary.write_text(json.dumps(record, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def by_hand(source: Source, folder: Path, datasets: Sequence[str] = (), split: str | None = None) -> str:
    """Return what to put where without this program, from what is declared alone.

    Args:
        source: Which data.
        folder: Where to.
        datasets: Data sets; none for all.
        split: Of training data.
    """
    lines = [f"By hand, into {folder}:", *_steps(source, datasets, split or next(iter(source.splits), ""))]
    if source.by_hand:
        lines.append("  " + source.by_hand.format(folder=folder))
    lines.append(f"Then: unime check-data {folder}")
    return "\n".join(lines)


def _steps(source: Source, datasets: Sequence[str], split: str) -> Iterator[str]:
    for part in source.parts:
        into = {archive.file: archive.into or "." for archive in part.archives}
        if isinstance(part, WebPart):
            files: dict[str, str] = part.files
            for there, path in files.items():
                unzip = f", unzip it into {into[there]}" if there in into else ""
                yield f"  {part.base}{there}  ->  {path}{unzip}"
            continue
        commit = part.revision or "main"
        yield f"  https://huggingface.co/datasets/{part.repository}/tree/{commit}"
        for pattern in part.files:
            unzip = f", unzip into {into[pattern]}" if pattern in into else ""
            named = pattern.replace("{dataset}", "<data set>").replace("{split}", split)
            yield f"    {named}{unzip}"
    if names := datasets or source.datasets:
        yield f"    data sets: {', '.join(names)}"
