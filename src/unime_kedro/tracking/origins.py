"""Where saved files come from: their hash, and the tracked run that wrote exactly these bytes."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kedro.io import AbstractDataset

from unime_kedro.errors import DataError
from unime_kedro.paths import resolve
from unime_kedro.tracking import live
from unime_kedro.tracking.contents import content_hash
from unime_kedro.tracking.provenance import code_commit

log = logging.getLogger(__name__)

_SEED, _INPUT = "seed.", re.compile(r"input\.(\w+)\.sha256")


class Origins(AbstractDataset[None, "dict[str, dict[str, Any]]"]):
    """What is known of files: which run wrote them, by command, commit and seeds.

    Hashes are of the files as they are. The run is looked up in the tracking store of the run that is open, by the
    hash under which it recorded the file; with tracking off, or for a file of an unrecorded run, only the hash is
    known.

    Args:
        files: dataset -> file.
        metadata: Kedro's free-form metadata.
    """

    def __init__(self, files: Mapping[str, str], metadata: dict[str, Any] | None = None) -> None:
        self._files = {name: resolve(file) for name, file in files.items()}
        self.metadata = metadata

    def load(self) -> dict[str, dict[str, Any]]:
        """Return dataset -> sha256, and command, commit, dirty, seeds where a run is known; of files that are there."""
        return {name: _origin(name, file) for name, file in self._files.items() if file.is_file()}

    def save(self, data: None) -> None:
        """Refuse: origins are found, not made."""
        raise DataError("origins are only read")

    def _exists(self) -> bool:
        return True  # files that are not there are left out

    def _describe(self) -> dict[str, Any]:
        return {"files": {name: str(file) for name, file in self._files.items()}}


def _origin(name: str, file: Path) -> dict[str, Any]:
    digest = content_hash(file)
    found: dict[str, Any] = {"sha256": digest}
    tags = _tags_of_writer(name, str(digest), file.stat().st_mtime)
    if tags:
        found |= {
            "command": tags.get("kedro.command", ""),
            "commit": code_commit(tags),
            "dirty": tags.get("git.dirty") == "true",
            "inputs": {key.split(".")[1]: tags[key] for key in sorted(tags) if _INPUT.fullmatch(key)},
            "seeds": {key.removeprefix(_SEED): tags[key] for key in sorted(tags) if key.startswith(_SEED)},
        }
    return found


def _tags_of_writer(dataset: str, digest: str, written: float) -> dict[str, str]:
    """Return the tags of the latest tracked run that wrote a file with these bytes; none if there is none.

    A file that is younger than the open run is taken for that run's own: it has recorded no hashes yet.
    """
    run = live.open_run()
    if run is None:
        return {}
    try:
        own = run.client.get_run(run.run_id)
        if 1000 * written >= own.info.start_time:
            return dict(own.data.tags)
        query = f"tags.`output.{dataset}.sha256` = '{digest}'"
        found = run.client.search_runs([run.experiment_id], query, max_results=1, order_by=["start_time DESC"])
    except Exception as error:  # no page is worth a failed run
        log.warning("the run that wrote %s cannot be looked up: %s: %s", dataset, type(error).__name__, error)
        return {}
    return dict(found[0].data.tags) if found else {}
