"""Do the files of a package, its lists, and the records of its runs say the same?

Whoever changes a file and repacks can mend the manifest and the metadata. The records tell nevertheless: what is said
about runs is written again from them and compared, files have the hashes that runs recorded, and neither is one missing
that was not left out when the package was made nor is one there that no run wrote.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from unime_kedro.artifact import crate, croissant
from unime_kedro.artifact.gathering import CARD, CONSTRAINTS, LIST, Gathered, member_of, record_files, sha256_of
from unime_kedro.artifact.unpacking import REMEDY
from unime_kedro.artifact.writing import ABSENT, MANIFEST, README, metadata_of, texts_of
from unime_kedro.audit.findings import FAIL, NOTE, PASS, Finding
from unime_kedro.audit.record import RunRecord
from unime_kedro.tracking.files import DATA_ROOT

_RUNS, _FILES, _CARDS, _PROJECT = "runs/", "files/", "cards/", "project/"


def check_package(folder: Path, records: Sequence[RunRecord], document: Mapping[str, Any]) -> Iterator[Finding]:
    """Yield whether everything in an unpacked package agrees.

    Args:
        folder: Where it lies.
        records: Its runs, the one that it is about first.
        document: RO-Crate's entities by id.
    """
    paths = {p.relative_to(folder).as_posix(): p for p in sorted(folder.rglob("*")) if p.is_file()}
    hashes = {name: sha256_of(path) for name, path in paths.items() if name != MANIFEST}
    yield from _check_manifest(folder, hashes)
    yield from _check_metadata(document, hashes)
    yield from _check_records(folder, records, set(hashes))
    yield from _check_complete(folder, records, set(hashes))
    yield from _check_cards(folder, records, hashes)
    yield from _check_croissant(folder, hashes)
    yield from _check_wording(folder, records, paths, hashes)
    constraints, wanted = f"{_PROJECT}{CONSTRAINTS}", records[0].tags.get("environment.constraints")
    if hashes.get(constraints, wanted) != wanted:
        yield _fail(constraints, f"{constraints} is not the one that the run was made with")


def _fail(name: str, text: str) -> Finding:
    return Finding("package", name, FAIL, text, REMEDY)


def _check_manifest(folder: Path, hashes: Mapping[str, str]) -> Iterator[Finding]:
    text = (folder / MANIFEST).read_text(encoding="utf-8", errors="replace")
    lines = (line.partition("  ") for line in text.splitlines())
    manifest = {name: digest for digest, _, name in lines}
    wrong = [name for name in sorted({*hashes, *manifest}) if hashes.get(name) != manifest.get(name)]
    for name in wrong:
        what = "is not in the manifest" if name not in manifest else "has other bytes" if name in hashes else "is gone"
        yield _fail(name, f"{name} {what}")
    if not wrong:
        yield Finding("package", MANIFEST, PASS, f"{len(manifest)} files have the hashes that it names")


def _check_metadata(document: Mapping[str, Any], hashes: Mapping[str, str]) -> Iterator[Finding]:
    said = {name: entity.get("sha256") for name, entity in document.items() if entity.get("@type") == "File"}
    other = [name for name in sorted({*said, *hashes} - {crate.FILE}) if said.get(name) != hashes.get(name)]
    for name in other:
        yield _fail(name, f"{crate.FILE} has another hash of {name}")
    if not other:
        yield Finding("package", crate.FILE, PASS, f"{len(said)} files have the hashes that it names")


def _check_records(folder: Path, records: Sequence[RunRecord], names: set[str]) -> Iterator[Finding]:
    """Compare what stands beside the records, for people and other programs, to the records."""
    wanted = record_files(list(records))
    there = {name for name in names if name.startswith(_RUNS)}
    wrong = [name for name in sorted({*wanted, *there}) if not _same(folder / name, wanted.get(name))]
    for name in wrong:
        yield _fail(name, f"{name} is not what the run's record says")
    if not wrong:
        yield Finding("package", _RUNS, PASS, f"{len(wanted)} files are those of {len(records)} records")


def _same(file: Path, wanted: bytes | None) -> bool:
    """Whether a file says what is wanted; a record is read before, and how YAML is broken into lines may change."""
    if file.name == "record.json":
        return wanted is not None
    if wanted is None or not file.is_file():
        return False
    return file.read_bytes() == wanted or (file.suffix == ".yml" and _yaml(file.read_bytes()) == _yaml(wanted))


def _same_json(one: bytes | None, other: bytes | None) -> bool:
    try:
        return bool(json.loads(one or b"") == json.loads(other or b""))
    except ValueError:
        return False


def _yaml(content: bytes) -> Any:
    import yaml

    try:
        return yaml.safe_load(content)
    except (yaml.YAMLError, ValueError):
        return content


def _check_complete(folder: Path, records: Sequence[RunRecord], names: set[str]) -> Iterator[Finding]:
    """Compare the files to what runs wrote: none is missing without being named, and none is no run's."""
    absent = _absent(folder)
    if absent is None:
        yield _fail(ABSENT, f"{ABSENT}, which names what is not in the package, cannot be read")
        return
    written = {
        member_of(record, entry): record
        for record in records
        for entry in record.side("output")
        if entry.path.startswith(DATA_ROOT)
    }
    folders = {parent.as_posix() for name in names for parent in Path(name).parents}
    wrong = 0
    for name in sorted(set(written) - names - folders - set(absent)):
        wrong += 1
        yield _fail(name, f"{name} is not there, and {ABSENT} does not name it")
    for name in sorted(name for name in names if name.startswith(_FILES)):
        if not {name, *(parent.as_posix() for parent in Path(name).parents)} & set(written):
            wrong += 1
            yield _fail(name, f"{name}: no run of the package wrote it")
    if not wrong:
        left = f", {len(absent)} more are named in {ABSENT}" if absent else ""
        yield Finding("package", _FILES, PASS, f"all outputs of {len(records)} runs are there{left}")


def _absent(folder: Path) -> dict[str, str] | None:
    try:
        found = json.loads((folder / ABSENT).read_bytes())
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) and all(isinstance(why, str) for why in found.values()) else None


def _check_cards(folder: Path, records: Sequence[RunRecord], hashes: Mapping[str, str]) -> Iterator[Finding]:
    """Compare cards to their models' lists of files, and these to the hashes that runs recorded of the models."""
    known = {entry.sha256 for record in records for entry in record.files or ()}
    here = {name.rpartition("/")[0] for name in hashes if name.startswith(_CARDS)}
    wrong = 0
    for parent in sorted(here):
        listed, card = f"{parent}/{LIST}", f"{parent}/{CARD}"
        if hashes.get(listed) not in known:
            wrong += 1
            yield _fail(listed, f"{listed} is not of a model that a run recorded")
        elif f"{hashes.get(card)}  {CARD}" not in (folder / listed).read_text("utf-8").splitlines():
            wrong += 1
            yield _fail(card, f"{card} is not the card of the model that a run recorded")
    if here and not wrong:
        yield Finding("package", _CARDS, PASS, f"{len(here)} cards are those of recorded models")


def _check_croissant(folder: Path, hashes: Mapping[str, str]) -> Iterator[Finding]:
    """Compare the hashes in the description of the mined data to the files."""
    if croissant.FILE not in hashes:
        return
    try:
        objects = json.loads((folder / croissant.FILE).read_bytes())["distribution"]
        said = {str(one["contentUrl"]): one["sha256"] for one in objects}
    except (ValueError, KeyError, TypeError) as error:
        yield _fail(croissant.FILE, f"{croissant.FILE} cannot be read: {error!r}")
        return
    for name in sorted(name for name, digest in said.items() if hashes.get(name) != digest):
        yield _fail(croissant.FILE, f"{croissant.FILE} has another hash of {name}")


def _check_wording(
    folder: Path, records: Sequence[RunRecord], paths: Mapping[str, Path], hashes: Mapping[str, str]
) -> Iterator[Finding]:
    """Write README, Croissant and RO-Crate again from the records; a note where other words are there.

    They carry no figure that is not checked above, and another version of this program words them differently.
    """
    absent = _absent(folder)
    lists = {name: path.read_bytes() for name, path in paths.items() if name.startswith(_CARDS) and path.name == LIST}
    files = {n: p for n, p in paths.items() if n.startswith((_FILES, _CARDS, _PROJECT)) and n not in lists}
    texts = texts_of(Gathered(list(records), {}, lists, absent or {}), files)
    members = [crate.Member(name, hashes[name], paths[name].stat().st_size) for name in set(hashes) - {crate.FILE}]
    texts[crate.FILE] = metadata_of(records, members)
    for name in (README, croissant.FILE, crate.FILE):
        there, wanted = paths[name].read_bytes() if name in paths else None, texts.get(name)
        if there is None and wanted is not None:
            yield _fail(name, f"{name} is gone")
        elif there != wanted and not _same_json(there, wanted):
            text = "is worded otherwise than this version writes it from the records"
            yield Finding("package", name, NOTE, text, "believe the records, or ask the sender for the file's sha256")
