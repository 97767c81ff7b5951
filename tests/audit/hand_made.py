"""Records of runs made by hand."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from unime_kedro.audit.findings import Finding, Place
from unime_kedro.audit.record import RunRecord
from unime_kedro.tracking.files import FileRecord


def a_record(**values: Any) -> RunRecord:
    """Return a finished run with other values than the usual ones."""
    usual: dict[str, Any] = {
        "run_id": "ab" * 16,
        "name": "train",
        "status": "FINISHED",
        "experiment": "unime-kedro",
        "start": 1000,
        "end": 2000,
        "tags": {},
        "params": {},
        "metrics": {},
    }
    return RunRecord(**usual | values)


def written(root: Path, path: str, content: bytes, dataset: str = "table", side: str = "output") -> FileRecord:
    """Write a file below a data root; returns what a run records of it."""
    file = root / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content)
    digests = hashlib.sha256(content).hexdigest(), hashlib.md5(content).hexdigest()
    return FileRecord(side, dataset, f"<data root>/{path}", *digests, len(content))


def hash_tags(*entries: FileRecord) -> dict[str, str]:
    """Return the tags that a run has for its files."""
    return {f"{one.side}.{one.dataset}.{kind}": getattr(one, kind) for one in entries for kind in ("sha256", "md5")}


def place_at(root: Path, *records: RunRecord, **values: Any) -> Place:
    """Return a project with its data in ``data``."""
    return Place(root, root / "data", {one.run_id: one for one in records}, **values)


def statuses(findings: list[Finding]) -> dict[str, str]:
    """Return subject -> status; of several findings the worst."""
    worst = ["skip", "pass", "note", "fail"]
    found: dict[str, str] = {}
    for one in findings:
        if one.subject not in found or worst.index(one.status) > worst.index(found[one.subject]):
            found[one.subject] = one.status
    return found
