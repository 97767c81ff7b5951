"""A package read back: nothing in it is trusted before it was checked."""

from __future__ import annotations

import hashlib
import json
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from unime_kedro.artifact import crate
from unime_kedro.artifact.gathering import package_root
from unime_kedro.artifact.writing import MANIFEST
from unime_kedro.audit.audit import audit
from unime_kedro.audit.findings import FAIL, PASS, Finding, Place
from unime_kedro.audit.record import RunRecord
from unime_kedro.errors import DataError

#: what a package may hold at most: it is unpacked before anything in it can be checked
MAX_BYTES, MAX_FILES = 8 * 2**30, 100_000
_EXPECTED = "Expected what `unime export-artifact` writes."
_REMEDY = "the package was changed or damaged after it was made; ask for it again"


class Opened(NamedTuple):
    """An unpacked package.

    Attributes:
        folder: Where it lies.
        records: Its runs, the one that it is about first.
        findings: Whether manifest, metadata and files agree.
    """

    folder: Path
    records: list[RunRecord]
    findings: list[Finding]


def audit_artifact(file: Path) -> tuple[RunRecord, list[Finding]]:
    """Check a package and every run in it.

    Args:
        file: What ``unime export-artifact`` wrote.

    Returns:
        The run that it is about, and what was found of it and of the runs upstream.

    Raises:
        DataError: The file is no such package.
    """
    with open_artifact(file) as opened:
        main = opened.records[0]
        known = {record.run_id: record for record in opened.records}
        findings = list(opened.findings)
        for record in opened.records:
            data_root = opened.folder / package_root(record)
            place = Place(opened.folder / "files", data_root, known, packaged=True)
            named = record is not main
            findings += [_of(record, one) if named else one for one in audit(record, place)]
    return main, findings


def _of(record: RunRecord, finding: Finding) -> Finding:
    return finding._replace(subject=f"{record.name} {record.run_id[:6]}: {finding.subject}")


@contextmanager
def open_artifact(file: Path) -> Iterator[Opened]:
    """Unpack a package into a folder that is gone afterwards.

    Raises:
        DataError: The file is missing, no zip file, unsafe, or no package of this project.
    """
    if not file.is_file():
        raise DataError(f"{file} does not exist")
    with tempfile.TemporaryDirectory(prefix="unime-artifact-") as name:
        folder = Path(name)
        try:
            with zipfile.ZipFile(file) as archive:
                _check_safe(archive, file)
                damaged = archive.testzip()
                if damaged is not None:
                    raise DataError(f"{file}: {damaged} is damaged; {_REMEDY}")
                archive.extractall(folder)
        except (zipfile.BadZipFile, EOFError, OSError, zipfile.LargeZipFile) as error:
            raise DataError(
                f"{file} cannot be unpacked: {error}. Expected what `unime export-artifact` writes."
            ) from error
        if not (folder / MANIFEST).is_file() or not (folder / crate.FILE).is_file():
            raise DataError(f"{file} has no {MANIFEST} and {crate.FILE}. {_EXPECTED}")
        document = _document(folder / crate.FILE)
        yield Opened(folder, _records(folder, document), list(_check_contents(folder, document)))


def _check_safe(archive: zipfile.ZipFile, file: Path) -> None:
    entries = archive.infolist()
    if len(entries) > MAX_FILES or sum(entry.file_size for entry in entries) > MAX_BYTES:
        raise DataError(f"{file} would unpack to more than {MAX_BYTES / 2**30:.0f} GiB or {MAX_FILES:,} files; refused")
    for entry in entries:
        path = PurePosixPath(entry.filename)
        if path.is_absolute() or ".." in path.parts or "\\" in entry.filename or entry.external_attr >> 28 == 0xA:
            raise DataError(f"{file} holds {entry.filename!r}, which would be written elsewhere; refused")


def _document(file: Path) -> dict[str, Any]:
    try:
        content: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        return {entity["@id"]: entity for entity in content["@graph"]}
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{file.name} of the package cannot be read: {error!r}; {_REMEDY}") from error


def _records(folder: Path, document: dict[str, Any]) -> list[RunRecord]:
    """Read the records of all runs, in the order of the metadata: the run that the package is about first."""
    found = []
    for action in document.get("./", {}).get("mentions", ()):
        file = folder / "runs" / str(action["@id"]).removeprefix("#run-") / "record.json"
        try:
            found.append(RunRecord.from_json(json.loads(file.read_text(encoding="utf-8"))))
        except (OSError, ValueError) as error:
            raise DataError(f"{file.relative_to(folder)} of the package cannot be read: {error}; {_REMEDY}") from error
    if not found:
        raise DataError(f"the package names no run; {_REMEDY}")
    return found


def _check_contents(folder: Path, document: dict[str, Any]) -> Iterator[Finding]:
    """Yield whether files, manifest and metadata say the same."""
    lines = (line.partition("  ") for line in (folder / MANIFEST).read_text("utf-8").splitlines())
    manifest = {name: digest for digest, _, name in lines}
    there = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()} - {MANIFEST}
    hashes = {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in sorted(there)}
    wrong = [name for name in sorted({*there, *manifest}) if hashes.get(name) != manifest.get(name)]
    for name in wrong:
        what = (
            "is not in the manifest" if name not in manifest else "is gone" if name not in there else "has other bytes"
        )
        yield Finding("package", name, FAIL, f"{name} {what}", _REMEDY)
    if not wrong:
        yield Finding("package", MANIFEST, PASS, f"{len(manifest)} files have the hashes that it names")
    said = {name: entity.get("sha256") for name, entity in document.items() if entity.get("@type") == "File"}
    other = [name for name in sorted({*said, *(there - {crate.FILE})}) if said.get(name) != hashes.get(name)]
    for name in other:
        yield Finding("package", name, FAIL, f"{crate.FILE} has another hash of {name}", _REMEDY)
    if not other:
        yield Finding("package", crate.FILE, PASS, f"{len(said)} files have the hashes that it names")
