"""Did anything change in what the run read and wrote? And who made what it read?"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from unime_kedro.audit.findings import FAIL, NOTE, PASS, SKIP, Finding, Place
from unime_kedro.audit.record import RunRecord, located
from unime_kedro.minimmeb.corpus import folder_digest
from unime_kedro.tracking.contents import Contents
from unime_kedro.tracking.evidence import FILES
from unime_kedro.tracking.files import FileRecord

#: this tag is the hash of the raw files, not of the file that describes them
_CORPUS_TAG = "input.corpus.sha256"
#: an input with no known writer that needs none: it comes with the project
_COMMITTED = ("models/", "conf/", "src/")
_SIDES, _KINDS = ("input.", "output."), (".sha256", ".md5")
_CHANGED = "one of the two was changed after the run; do not trust it"


def check_run(record: RunRecord, place: Place) -> Iterator[Finding]:
    """Yield whether the run came to its end."""
    good = record.status == "FINISHED"
    remedy = "" if good else "its outputs are not those of a whole run; give its command again"
    error = record.tags.get("error", "")
    yield Finding("run", record.name, PASS if good else FAIL, f"{record.status}{f': {error}' if error else ''}", remedy)


def check_files(record: RunRecord, place: Place) -> Iterator[Finding]:
    """Yield every recorded file with whether its bytes are those that the run read or wrote."""
    if record.files is None:
        if reason := record.unreadable.get(FILES):
            yield Finding(
                "files", FILES, FAIL, f"cannot be read: {reason}", "it was changed after the run; run it again"
            )
        elif not record.children:
            yield Finding("files", FILES, FAIL, "the run recorded no files", "run it again with this version")
        return
    if not record.side("output") and not record.children:
        yield Finding("files", "outputs", NOTE, "the run wrote no file")
    tags = record.tags
    for entry in record.files:
        yield _check_tags(entry, tags) or _check_file(entry, place)
    yield from _left_out(record)
    yield from _check_pages(record)


def _left_out(record: RunRecord) -> Iterator[Finding]:
    """Yield datasets whose hashes the database has, and which files.json does not name."""
    named = {f"{one.side}.{one.dataset.removeprefix('params:')}" for one in record.files or ()}
    hashed = {key.rpartition(".")[0] for key in record.tags if key.startswith(_SIDES) and key.endswith(_KINDS)}
    for name in sorted(hashed - named - {_CORPUS_TAG.removesuffix(".sha256")}):
        text = f"{FILES} does not name it, the database has its hash"
        yield Finding("files", name.replace(".", " ", 1), FAIL, text, _CHANGED)


def _check_pages(record: RunRecord) -> Iterator[Finding]:
    """Yield pages whose copy in MLflow is not what the run wrote."""
    for entry in record.side("output"):
        name = PurePosixPath(entry.path).name
        if record.pages.get(name, entry.sha256) != entry.sha256:
            text = f"the run's artifact {name} is not the page that it wrote"
            yield Finding(
                "files", f"artifact {name}", FAIL, text, "it was changed after the run; look at the file instead"
            )


def _check_tags(entry: FileRecord, tags: dict[str, str]) -> Finding | None:
    """Return a finding if files.json and the database say different things."""
    subject = f"{entry.side} {entry.dataset}"
    for kind in ("sha256", "md5"):
        said = tags.get(f"{entry.side}.{entry.dataset.removeprefix('params:')}.{kind}")
        if f"{subject}.{kind}".replace(" ", ".", 1) != _CORPUS_TAG and said != getattr(entry, kind):
            text = f"files.json says {kind} {_short(getattr(entry, kind))}, the database {_short(said)}"
            return Finding("files", subject, FAIL, text, _CHANGED)
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
    if (cached := place.cached(entry)) is not None:
        status = NOTE if later or found is None else FAIL
        return Finding(
            "files", subject, status, f"{text}; DVC's cache has the recorded bytes", _restore(path, cached, place)
        )
    remedy = (
        "give the run's command again" if entry.side == "output" else "make or fetch the recorded file again (dvc pull)"
    )
    return Finding("files", subject, FAIL, f"{text}; expected sha256 {_short(entry.sha256)}", remedy)


def _restore(path: Path, cached: Path, place: Place) -> str:
    """Return the command that brings back what is in DVC's cache."""
    name = path.relative_to(place.root) if path.is_relative_to(place.root) else path
    md5 = cached.parent.name + cached.name
    lock = place.root / "dvc.lock"
    if lock.is_file() and md5 in lock.read_text(encoding="utf-8"):
        return f"dvc checkout --force {name}"
    if cached.suffix != ".dir":
        return f"cp {cached.relative_to(place.root)} {name}"
    return (
        f"git checkout $(git log --format=%h -S{md5} -- dvc.lock | tail -1) -- dvc.lock && dvc checkout --force {name}"
    )


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


def check_raw(record: RunRecord, place: Place) -> Iterator[Finding]:
    """Yield whether the raw files are those that the corpus' digest was made of."""
    digest = record.tags.get(_CORPUS_TAG)
    parameters = (record.config or {}).get("parameters") or {}
    if not digest or place.packaged or not {"demo", "ingest"} <= set(parameters):
        return
    root, pairs = (located(parameters[key]["root"], place.root, place.data_root) for key in ("demo", "ingest"))
    if root not in (pairs, *pairs.parents):
        yield Finding("files", "raw files", SKIP, f"{pairs} are data of your own, whose pictures ingest has hashed")
    elif not root.is_dir():
        yield Finding(
            "files", "raw files", NOTE, f"{root.name} is not there", "kedro run --pipeline=demo draws it again"
        )
    elif folder_digest(root) == digest:
        yield Finding("files", "raw files", PASS, f"{root.name} has the recorded digest, pictures included")
    else:
        remedy = "remove it, and kedro run --pipeline=demo draws it again"
        yield Finding("files", "raw files", FAIL, f"{root.name} has not the recorded digest, {_short(digest)}", remedy)


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
