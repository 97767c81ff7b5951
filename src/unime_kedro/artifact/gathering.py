"""What belongs to a run: the runs that wrote what it read, and the files of all of them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from unime_kedro.audit.audit import place_of
from unime_kedro.audit.findings import Place
from unime_kedro.audit.record import RunRecord, read_record
from unime_kedro.errors import DataError
from unime_kedro.tracking.files import DATA_ROOT, FileRecord
from unime_kedro.tracking.made_by import made_by_hash

#: tags that say who ran it and where, which is nobody's business
_PRIVATE = ("unime.host", "unime.pid", "unime.pid_namespace", "unime.boot_id", "unime.process_start", "mlflow.user")
#: larger files are named by their hash
MAX_FILE = 64 * 2**20
#: folders that are pictures for people; of others, models, the card is taken, and a list of the hashes of all files
_PICTURES, CARD, LIST = ("report_figures",), "README.md", "sha256.txt"


@dataclass
class Gathered:
    """What goes into a package.

    Attributes:
        records: The run itself first, then those upstream of it, the latest first. What is private, and where the
            project lies on this machine, is not in them.
        files: Path in the package -> file that holds its bytes.
        lists: Path in the package -> hashes of the files of a model that is not in it, or only with its card.
        absent: Files of the runs that are not taken, with why.
    """

    records: list[RunRecord]
    files: dict[str, Path] = field(default_factory=dict)
    lists: dict[str, bytes] = field(default_factory=dict)
    absent: dict[str, str] = field(default_factory=dict)


def gather(run_id: str, client: Any, root: Path, *, with_models: bool = False, with_data: bool = True) -> Gathered:
    """Collect a run, the runs upstream of it, and their files as they were recorded.

    Args:
        run_id: The run.
        client: MLflow's client.
        root: The project root.
        with_models: Whether weights are taken, too.
        with_data: Whether the tables of the runs are taken; without them only metrics, predictions and pages are.

    Raises:
        DataError: An output of a run is gone or was changed, and DVC's cache does not have it.
    """
    records = list(upstream(run_id, client))
    found = Gathered([])
    changed: list[str] = []
    for record in records:
        place = place_of(record, client, root)
        found.records.append(without_places(record, root, place.data_root))
        for entry in record.side("input"):
            if (entry.md5 or "").endswith(".dir") and not entry.path.startswith(DATA_ROOT):
                _take_card(found, entry, record, place)  # a model that comes with the project
        for entry in record.side("output"):
            reason = left_out(entry, with_models, with_data)
            name = member_of(record, entry)
            if reason:
                found.absent[name] = reason
            if (reason and not entry.md5) or not entry.path.startswith(DATA_ROOT):
                continue
            changed += _take(found, name, entry, record, place, bool(reason))
    if changed:
        raise DataError(
            f"{len(changed)} outputs are not as their runs wrote them: {'; '.join(changed[:4])}. `unime audit` names "
            "all; bring them back (dvc checkout), or make the runs again."
        )
    return found


def upstream(run_id: str, client: Any) -> Iterator[RunRecord]:
    """Yield a run and the runs that wrote what it read, each once, the latest first; an ablation's runs with it."""
    known: dict[str, RunRecord] = {}
    waiting = [run_id]
    while waiting:
        one = waiting.pop()
        if one in known:
            continue
        record = known[one] = read_record(client, one)
        waiting += record.children
        for entry in record.side("input"):
            writers = made_by_hash(entry.md5, client) if entry.md5 else []
            # the same bytes may have been written again since: the first that was there when the run began
            before = [w["run_id"] for w in writers if (w["ended"] or 0) <= record.start] or [
                w["run_id"] for w in writers
            ]
            waiting += before[:1]
    yield known.pop(run_id)
    yield from sorted(known.values(), key=lambda record: record.start, reverse=True)


def package_root(record: RunRecord) -> str:
    """Return the folder of a package that stands for a run's data root."""
    root = record.tags.get("data.root", "data")
    return "files/data" if Path(root).is_absolute() else f"files/{root}"


def member_of(record: RunRecord, entry: FileRecord) -> str:
    """Return where a file of a run is in the package, if it is there."""
    return f"{package_root(record)}/{entry.path.removeprefix(f'{DATA_ROOT}/')}"


def left_out(entry: FileRecord, with_models: bool, with_data: bool) -> str:
    """Return why a file is not taken, "" if it is."""
    if entry.sha256 is None:
        return "too large, or of too many files, to have been hashed by its run"
    is_folder = (entry.md5 or "").endswith(".dir")
    is_model = is_folder and "06_models" in entry.path
    if is_model and with_models:
        return ""
    if entry.bytes > MAX_FILE:
        return f"{entry.bytes / 2**20:.0f} MiB" + ("; --with-models takes it" if is_model else "")
    if is_folder and entry.dataset not in _PICTURES:
        return "a model or an array; its card is here if it has one"
    kept = ("metrics", "history", "predictions", "rankings", "queries")
    page = entry.path.endswith((".html", ".md"))
    if not with_data and not (page or is_folder or entry.dataset.endswith(kept)):
        return "packed without data"
    if entry.path.endswith(".npy"):
        return "an array of embeddings"
    return ""


def _take(
    found: Gathered, name: str, entry: FileRecord, record: RunRecord, place: Place, card_only: bool
) -> Iterator[str]:
    """Take a file, or the files of a folder; yields a name if its bytes are not the recorded ones."""
    if card_only:
        _take_card(found, entry, record, place)
        return
    file = place.unchanged(record, entry.dataset)
    if file is None:
        later = name in found.files  # a later run of the lineage wrote there, and its bytes are taken
        if not later:
            yield entry.path
        found.absent.setdefault(name, "written again by a later run")
        return
    if file.is_dir():
        found.files |= {f"{name}/{p.relative_to(file).as_posix()}": p for p in sorted(file.rglob("*")) if p.is_file()}
    else:
        found.files.setdefault(name, file)


def _take_card(found: Gathered, entry: FileRecord, record: RunRecord, place: Place) -> None:
    """Take the card of a model whose weights are not taken, if the model is still the recorded one.

    The recorded hash of a folder is that of the list of its files' hashes: with the list, a card can be checked against
    the record even though the weights are not there.
    """
    folder = place.find(entry)
    if entry.sha256 is None or not (folder / CARD).is_file():
        return
    listed = folder_list(folder)
    if hashlib.sha256(listed).hexdigest() != entry.sha256:
        return
    name = f"{package_root(record).removeprefix('files/')}/{entry.path.removeprefix(f'{DATA_ROOT}/')}"
    if not entry.path.startswith(DATA_ROOT):
        name = folder.name  # a model that comes with the project, or lies elsewhere
    if found.lists.get(f"cards/{name}/{LIST}", listed) != listed:
        name = f"{name}-{entry.sha256[:8]}"  # another model of the same name
    found.files[f"cards/{name}/{CARD}"] = folder / CARD
    found.lists[f"cards/{name}/{LIST}"] = listed


def folder_list(folder: Path) -> bytes:
    """Return what ``sha256sum`` prints of all files of a folder in sorted order; its sha256 is that of the folder."""
    files = {p.relative_to(folder).as_posix(): p for p in folder.rglob("*") if p.is_file()}
    return "".join(f"{sha256_of(files[name])}  {name}\n" for name in sorted(files)).encode("utf-8")


def sha256_of(file: Path) -> str:
    """Return the hash of a file, which need not fit into memory."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def without_places(record: RunRecord, root: Path, data_root: Path) -> RunRecord:
    """Return a record without who ran it and where the project lies on the machine; hashes stay what they are."""
    name = package_root(record).removeprefix("files/")
    tags = {key: value for key, value in record.tags.items() if key not in _PRIVATE}
    places = {str(data_root): name, str(root): "."}

    def clean(text: str) -> str:
        for place, word in places.items():
            text = text.replace(place, word)
        return text

    tags = {key: clean(value) for key, value in tags.items()} | {"data.root": name}
    params = {key: clean(value) for key, value in record.params.items()}
    return replace(record, tags=tags, params=params)


def record_files(records: list[RunRecord]) -> Mapping[str, bytes]:
    """Return the files of a package that describe its runs."""
    import yaml

    found: dict[str, bytes] = {}
    for record in records:
        folder = f"runs/{record.run_id}"
        found[f"{folder}/record.json"] = _json(record.to_json())
        if record.config is not None:
            text = yaml.safe_dump(record.config, sort_keys=True, allow_unicode=True)
            found[f"{folder}/config.yml"] = text.encode("utf-8")
        if record.environment:
            found[f"{folder}/environment.txt"] = "".join(f"{line}\n" for line in record.environment).encode("utf-8")
        if record.changes:
            found[f"{folder}/git.diff"] = record.changes.encode("utf-8", errors="surrogateescape")
    return found


def _json(value: Any) -> bytes:
    return (json.dumps(value, indent=1, ensure_ascii=True, sort_keys=True) + "\n").encode("utf-8")


#: what a package has of the project itself, where it is there
PROJECT_FILES = (
    "dvc.yaml", "dvc.lock", "runs.json", "expected.yml", "CITATION.cff", "REPRODUCING.md", "LICENSE", "NOTICE",
)  # fmt: skip
CONSTRAINTS = "constraints.txt"


def project_files(root: Path, record: RunRecord) -> dict[str, Path]:
    """Return the project's own files that a package has; ``constraints.txt`` if it still is that of the run."""
    names = [name for name in PROJECT_FILES if (root / name).is_file()]
    constraints = root / CONSTRAINTS
    if constraints.is_file() and sha256_of(constraints) == record.tags.get("environment.constraints"):
        names.append(CONSTRAINTS)
    return {f"project/{name}": root / name for name in names}
