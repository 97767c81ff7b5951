"""Did anything change in what the run read and wrote? And who made what it read?"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from unime_kedro.audit.findings import FAIL, NOTE, PASS, SKIP, Finding, Place
from unime_kedro.audit.record import RunRecord
from unime_kedro.tracking.contents import Contents
from unime_kedro.tracking.files import FileRecord

#: its tag is the hash of the raw files, not of the file that describes them
_CORPUS = "input corpus.sha256"
#: an input with no known writer that needs none: it comes with the project
_COMMITTED = ("models/", "conf/", "src/")


def check_run(record: RunRecord, place: Place) -> Iterator[Finding]:
    """Yield whether the run came to its end."""
    good = record.status == "FINISHED"
    remedy = "" if good else "its outputs are not those of a whole run; give its command again"
    error = record.tags.get("error", "")
    yield Finding("run", record.name, PASS if good else FAIL, f"{record.status}{f': {error}' if error else ''}", remedy)


def check_files(record: RunRecord, place: Place) -> Iterator[Finding]:
    """Yield every recorded file with whether its bytes are those that the run read or wrote."""
    if record.files is None:
        if not record.children:
            yield Finding("files", "files.json", FAIL, "the run recorded no files", "run it again with this version")
        return
    if not record.side("output") and not record.children:
        yield Finding("files", "outputs", NOTE, "the run wrote no file")
    tags = record.tags
    for entry in record.files:
        yield _check_tags(entry, tags) or _check_file(entry, place)


def _check_tags(entry: FileRecord, tags: dict[str, str]) -> Finding | None:
    """Return a finding if files.json and the database say different things."""
    subject = f"{entry.side} {entry.dataset}"
    for kind in ("sha256", "md5"):
        said = tags.get(f"{entry.side}.{entry.dataset.removeprefix('params:')}.{kind}")
        if f"{subject}.{kind}" != _CORPUS and said != getattr(entry, kind):
            text = f"files.json says {kind} {_short(getattr(entry, kind))}, the database {_short(said)}"
            return Finding("files", subject, FAIL, text, "one of the two was changed after the run; do not trust it")
    return None


def _check_file(entry: FileRecord, place: Place) -> Finding:
    subject, path = f"{entry.side} {entry.dataset}", place.find(entry)
    if entry.sha256 is None:
        return Finding("files", subject, SKIP, f"{entry.path} has too many files to be hashed")
    found = place.contents(path)
    if found is not None and found.sha256 == entry.sha256:
        return Finding("files", subject, PASS, f"{entry.path} has the recorded bytes")
    if place.packaged and found is None:
        return Finding("files", subject, SKIP, f"{entry.path} is not in the package; sha256 {_short(entry.sha256)}")
    if place.packaged and (later := _of_another_run(entry, found, place)):
        return Finding("files", subject, SKIP, f"{entry.path} is in the package as {later} wrote it")
    return _changed(entry, place, path, "is gone" if found is None else "has other bytes")


def _of_another_run(entry: FileRecord, found: Contents | None, place: Place) -> str:
    """Return the run of the same package that wrote the present bytes to the same place, "" if there is none."""
    for record in place.records.values():
        for other in record.side("output"):
            same = place.data_root == place.root / record.tags.get("data.root", "")
            if same and found and other.path == entry.path and other.sha256 == found.sha256:
                return f"run {record.name} ({record.run_id[:8]})"
    return ""


def _changed(entry: FileRecord, place: Place, path: Path, what: str) -> Finding:
    subject = f"{entry.side} {entry.dataset}"
    found = place.contents(path)
    later = list(place.whose(found.md5)) if found is not None and found.md5 else []
    text = f"{entry.path} {what}" + (f", written by {later[0]}" if later else "")
    if found is not None and not later and (problem := _damage(path)):
        text += f" and {problem}"
    if place.cached(entry) is not None:
        remedy = (
            f"the recorded bytes are in DVC's cache: git checkout <commit> -- dvc.lock && dvc checkout {entry.path}"
        )
        return Finding("files", subject, NOTE if later or found is None else FAIL, text, remedy)
    remedy = (
        "give the run's command again" if entry.side == "output" else "make or fetch the recorded file again (dvc pull)"
    )
    return Finding("files", subject, FAIL, f"{text}; expected sha256 {_short(entry.sha256)}", remedy)


def _damage(path: Path) -> str:
    """Return what is wrong with a table that cannot even be read, "" otherwise."""
    if path.suffix != ".parquet" or not path.is_file():
        return ""
    import polars as pl

    try:
        pl.read_parquet(path, glob=False)
    except (pl.exceptions.PolarsError, OSError) as error:
        return f"is no readable parquet file ({str(error).splitlines()[0][:80]})"
    return ""


def check_lineage(record: RunRecord, place: Place) -> Iterator[Finding]:
    """Yield who wrote what the run read."""
    for entry in record.side("input"):
        subject = f"input {entry.dataset}"
        writers = list(place.whose(entry.md5)) if entry.md5 else []
        inside = [one for one in place.records.values() if any(o.md5 == entry.md5 for o in one.side("output"))]
        if writers or inside:
            text = writers[0] if writers else f"run {inside[-1].name} ({inside[-1].run_id[:8]})"
            yield Finding("lineage", subject, PASS, f"written by {text}")
        elif entry.path.startswith(_COMMITTED):
            yield Finding("lineage", subject, PASS, f"{entry.path} comes with the project")
        else:
            yield Finding("lineage", subject, NOTE, f"{entry.path}: no known run wrote it")


def _short(digest: str | None) -> str:
    return f"{digest[:12]}..." if digest else "nothing"
