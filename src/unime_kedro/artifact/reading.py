"""A package read back: unpacked with care, compared to its manifest and metadata, and audited like a run."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from unime_kedro.artifact import crate
from unime_kedro.artifact.agreement import check_package
from unime_kedro.artifact.gathering import package_root
from unime_kedro.artifact.unpacking import EXPECTED, REMEDY, unpack
from unime_kedro.artifact.writing import MANIFEST
from unime_kedro.audit.audit import audit
from unime_kedro.audit.findings import FAIL, Finding, Place
from unime_kedro.audit.record import RunRecord
from unime_kedro.errors import DataError
from unime_kedro.tracking.files import FileRecord

#: stands before a path that was absolute, so that no file of the recipient's machine is taken for it
_ELSEWHERE = "(elsewhere)"
#: what reading values of other types than a run records raises
_MALFORMED = (AttributeError, LookupError, TypeError, ValueError, ArithmeticError, RecursionError)


class Opened(NamedTuple):
    """An unpacked package.

    Attributes:
        folder: Where it lies.
        records: Its runs, the one that it is about first.
        findings: Whether manifest, metadata, records and files agree.
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
            found = _audit(record, place)
            findings += found if record is main else [_of(record, one) for one in found]
    return main, findings


def _audit(record: RunRecord, place: Place) -> list[Finding]:
    """Audit a run; a record that holds what no run records is a finding, too."""
    try:
        return audit(record, place)
    except _MALFORMED as error:
        text = f"cannot be checked: {type(error).__name__}: {str(error)[:120]}"
        return [Finding("run", "record.json", FAIL, text, REMEDY)]


def _of(record: RunRecord, finding: Finding) -> Finding:
    return finding._replace(subject=f"{record.name} {record.run_id[:6]}: {finding.subject}")


@contextmanager
def open_artifact(file: Path) -> Iterator[Opened]:
    """Unpack a package into a folder that is gone afterwards.

    Raises:
        DataError: The file is missing, no zip file, unsafe, or no package of this project.
    """
    with tempfile.TemporaryDirectory(prefix="unime-artifact-") as name:
        folder = Path(name)
        unpack(file, folder)
        if not (folder / MANIFEST).is_file() or not (folder / crate.FILE).is_file():
            raise DataError(f"{file} has no {MANIFEST} and {crate.FILE}. {EXPECTED}")
        try:
            document = _document(folder / crate.FILE)
            records = _records(folder, document)
            findings = list(check_package(folder, records, document))
        except _MALFORMED as error:
            raise DataError(f"{file} cannot be read: {error!r}; {REMEDY}") from error
        yield Opened(folder, [_contained(record) for record in records], findings)


def _document(file: Path) -> dict[str, Any]:
    try:
        content: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        return {entity["@id"]: entity for entity in content["@graph"]}
    except _MALFORMED as error:
        raise DataError(f"{file.name} of the package cannot be read: {error!r}; {REMEDY}") from error


def _records(folder: Path, document: dict[str, Any]) -> list[RunRecord]:
    """Read the records of all runs, in the order of the metadata: the run that the package is about first."""
    found: list[RunRecord] = []
    for action in document["./"]["mentions"]:
        run_id = str(action["@id"]).removeprefix("#run-")
        name = f"runs/{run_id}/record.json"
        if not run_id.isalnum():
            raise DataError(f"{crate.FILE} of the package names a run {run_id!r}; {REMEDY}")
        try:
            record = RunRecord.from_json(json.loads((folder / name).read_text(encoding="utf-8")))
        except FileNotFoundError as error:
            raise DataError(f"{name} of the package is gone; {REMEDY}") from error
        except (OSError, ValueError, RecursionError) as error:
            raise DataError(f"{name} of the package cannot be read: {error}; {REMEDY}") from error
        _check_record(record, run_id, name)
        found.append(record)
    if not found:
        raise DataError(f"the package names no run; {REMEDY}")
    return found


def _check_record(record: RunRecord, run_id: str, name: str) -> None:
    """Refuse a record of another run, of other types than a run has, or whose files lie outside the package."""
    texts = [record.run_id, record.name, record.status, record.experiment, *record.environment, *record.children]
    texts += [*record.tags.values(), *record.params.values()]
    numbers = [record.start, record.start if record.end is None else record.end]
    for one in record.files or ():
        texts += [one.side, one.dataset, one.path, one.sha256 or "", one.md5 or ""]
        numbers.append(one.bytes)
    if not all(isinstance(text, str) for text in texts) or not all(isinstance(number, int) for number in numbers):
        raise DataError(f"{name} of the package holds values of other types than a run records; {REMEDY}")
    if record.run_id != run_id:
        raise DataError(f"{name} of the package is the record of run {record.run_id!r}; {REMEDY}")
    places = [record.tags.get("data.root", ""), *(one.path for one in record.files or ())]
    for place in places:
        if ".." in PurePosixPath(place).parts:
            raise DataError(f"{name} of the package names {place!r}, which lies outside of it; refused")


def _contained(record: RunRecord) -> RunRecord:
    """Return a record whose files are looked for in the package only."""
    return replace(record, files=None if record.files is None else [_inside(one) for one in record.files])


def _inside(entry: FileRecord) -> FileRecord:
    if PurePosixPath(entry.path).is_absolute():
        return entry._replace(path=f"{_ELSEWHERE}{entry.path}")
    return entry
