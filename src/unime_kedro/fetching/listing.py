"""Which files a source consists of: names, addresses, sizes and checksums, by the hub's own list."""

from __future__ import annotations

import fnmatch
from collections.abc import Sequence
from dataclasses import dataclass

from unime_kedro.errors import ConfigurationError, DataError
from unime_kedro.fetching.sources import HubPart, Source, WebPart

HUB = "https://huggingface.co"


@dataclass(frozen=True)
class RemoteFile:
    """A file to fetch.

    Attributes:
        path: Where it belongs in the source's folder.
        url: Where it is.
        size: Bytes; None if not known beforehand.
        sha256: Of its content, in hexadecimal; None if not published.
        blob: Git's SHA-1 of its content; None if not published.
        unpack_into: Folder, relative to the source's own, that it is unpacked into; None if it is no archive.
        token: Whether the hub's token may be sent with the request.
    """

    path: str
    url: str
    size: int | None = None
    sha256: str | None = None
    blob: str | None = None
    unpack_into: str | None = None
    token: bool = False


@dataclass(frozen=True)
class Listing:
    """Files of a source, in order of path, and the commits they are of, by repository."""

    files: tuple[RemoteFile, ...]
    commits: dict[str, str]


def list_source(
    source: Source, datasets: Sequence[str] = (), split: str | None = None, endpoint: str = HUB, web: str | None = None
) -> Listing:
    """Ask the hub for the files of a source.

    Args:
        source: Which data.
        datasets: Data sets; none for all.
        split: Of training data; None for the usual one.
        endpoint: Address of the hub, or of a mirror of it.
        web: Address in place of those that files outside the hub are at; for mirrors.

    Raises:
        ConfigurationError: A data set or split does not exist.
        DataError: The hub cannot be reached, or lacks a file that should be there.
    """
    _check(source, datasets, split)
    split = split or (source.splits[0] if source.splits else "")
    files: list[RemoteFile] = []
    commits: dict[str, str] = {}
    for part in source.parts:
        if isinstance(part, WebPart):
            files += _of_web(part, web)
        else:
            commit, found = _of_hub(part, datasets or source.datasets, split, endpoint)
            commits[part.repository] = commit
            files += found
    return Listing(tuple(sorted(files, key=lambda file: file.path)), commits)


def _check(source: Source, datasets: Sequence[str], split: str | None) -> None:
    for name in datasets:
        if name not in source.datasets:
            there = ", ".join(source.datasets) or "it has none that can be fetched alone"
            raise ConfigurationError(f"{source.name} has no data set {name!r}: {there}.")
    if split is not None and split not in source.splits:
        raise ConfigurationError(
            f"{source.name} has no split {split!r}: {', '.join(source.splits) or 'it has no splits'}."
        )


def _of_web(part: WebPart, web: str | None) -> list[RemoteFile]:
    archives = {archive.file: archive.into for archive in part.archives}
    base = part.base if web is None else web.rstrip("/") + "/"
    return [
        RemoteFile(path, base + there, unpack_into=archives.get(there)) for there, path in sorted(part.files.items())
    ]


def _of_hub(part: HubPart, datasets: Sequence[str], split: str, endpoint: str) -> tuple[str, list[RemoteFile]]:
    """Return the commit and the files of one repository."""
    from huggingface_hub import HfApi
    from huggingface_hub.hf_api import RepoFile

    _need_answer(endpoint)
    api = HfApi(endpoint=endpoint)
    try:
        commit = part.revision or api.dataset_info(part.repository).sha
        tree = list(api.list_repo_tree(part.repository, recursive=True, revision=commit, repo_type="dataset"))
    except Exception as error:  # the library's own and its HTTP library's, which has changed between versions
        raise DataError(
            f"{endpoint} does not list the files of {part.repository}"
            f"{f' at {part.revision}' if part.revision else ''}: {_first_line(error)}"
        ) from error
    there = {entry.path: entry for entry in tree if isinstance(entry, RepoFile)}
    into = {_filled(archive.file, name, split): archive.into for archive in part.archives for name in datasets or ("",)}
    wanted: dict[str, RepoFile] = {}
    for pattern in part.files:
        for name in datasets if "{dataset}" in pattern else ("",):
            filled = _filled(pattern, name, split)
            found = {path: entry for path, entry in there.items() if fnmatch.fnmatchcase(path, filled)}
            if not found:
                raise DataError(
                    f"{part.repository} at {commit} has no file {filled}: it is laid out differently from when this "
                    "was written. Fetch it by hand, or name another revision by --revision."
                )
            wanted |= found
    address = f"{endpoint}/datasets/{part.repository}/resolve/{commit}/"
    return str(commit), [
        RemoteFile(
            path,
            address + path,
            entry.size,
            entry.lfs.sha256 if entry.lfs else None,
            None if entry.lfs else entry.blob_id,
            into.get(path),
            token=True,
        )
        for path, entry in wanted.items()
    ]


def _need_answer(endpoint: str) -> None:
    """Make sure that there is a network; the hub's library tries for half a minute before it says so."""
    import requests

    try:
        requests.head(endpoint, timeout=15)
    except OSError as error:
        raise DataError(f"{endpoint} cannot be reached: {_first_line(error)}") from error


def _filled(pattern: str, dataset: str, split: str) -> str:
    return pattern.replace("{dataset}", dataset).replace("{split}", split)


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
