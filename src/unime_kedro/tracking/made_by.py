"""Which run made these bytes?"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

from unime_kedro.errors import DataError
from unime_kedro.tracking.contents import contents_of
from unime_kedro.tracking.stage_runs import makers
from unime_kedro.tracking.unsent import SENT_FROM, all_runs


class MadeBy(NamedTuple):
    """A file or folder and the runs that wrote exactly its bytes.

    Attributes:
        path: As it was given.
        md5: As DVC has it.
        stage: The stage of DVC that ``runs.json`` names, "" if none.
        runs: run_id, name, command, commit, dirty, ended (milliseconds) and sent_from (its id before it was sent to a
            server, "" for most) of every known run, the latest first. A run that ``runs.json`` names and no store
            knows has its run_id alone.
    """

    path: Path
    md5: str
    stage: str
    runs: list[dict[str, Any]]


def made_by(path: Path, root: Path, clients: Sequence[Any]) -> MadeBy:
    """Look the bytes of a file or folder up in ``runs.json`` and in the tracking store.

    Args:
        path: A file or folder.
        root: The project root.
        clients: MLflow's clients of the stores that may know: the project's, and that of runs not sent yet.

    Raises:
        DataError: The path does not exist, or is a folder too large to hash.
    """
    found = contents_of(path)
    if found is None:
        raise DataError(f"{path} does not exist")
    if found.md5 is None:
        raise DataError(f"{path} has too many files to be hashed; name one of them, or what describes them")
    named = [one for one in makers(root) if one.md5 == found.md5]
    known = [run for client in clients for run in made_by_hash(found.md5, client)]
    ids = {name for run in known for name in (run["run_id"], run["sent_from"])}
    others = [{"run_id": one.run_id} for one in named if one.run_id not in ids]
    return MadeBy(path, found.md5, named[0].stage if named else "", [*known, *others])


def made_by_hash(md5: str, client: Any) -> list[dict[str, Any]]:
    """Return the facts of all runs of a store that wrote these bytes, the latest first; hashes are tags, by dataset."""
    if client not in _WRITERS:
        _WRITERS[client] = _writers(client)
    return _WRITERS[client].get(md5, [])


#: every run of a store is read once per process, not once per file
_WRITERS: WeakKeyDictionary[Any, dict[str, list[dict[str, Any]]]] = WeakKeyDictionary()


def _writers(client: Any) -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = {}
    for run in reversed(all_runs(client)):
        tags = run.data.tags
        for md5 in {tags[key] for key in tags if key.startswith("output.") and key.endswith(".md5")}:
            found.setdefault(md5, []).append(_facts(run))
    return found


def _facts(run: Any) -> dict[str, Any]:
    tags = run.data.tags
    return {
        "run_id": run.info.run_id,
        "name": run.info.run_name,
        "command": tags.get("kedro.command", ""),
        "commit": tags.get("mlflow.source.git.commit", ""),
        "dirty": tags.get("git.dirty") == "true",
        "ended": run.info.end_time,
        "sent_from": tags.get(SENT_FROM, ""),
    }
