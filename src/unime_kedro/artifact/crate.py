"""RO-Crate metadata of a package: a Process Run Crate (https://w3id.org/ro/wfrun/process/0.5), see decision 11."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from unime_kedro.artifact.gathering import member_of
from unime_kedro.audit.record import RunRecord
from unime_kedro.tracking.files import FileRecord

FILE = "ro-crate-metadata.json"
PROFILE = "https://w3id.org/ro/wfrun/process/0.5"
_CRATE = "https://w3id.org/ro/crate/1.1"
_TERMS = {"sha256": "https://w3id.org/ro/terms/workflow-run#sha256"}
_KINDS = {
    ".parquet": "application/x-parquet", ".json": "application/json", ".html": "text/html",
    ".md": "text/markdown", ".yml": "application/yaml", ".yaml": "application/yaml", ".txt": "text/plain",
    ".png": "image/png", ".diff": "text/x-diff", ".lock": "application/yaml",
}  # fmt: skip
_STATUS = {"FINISHED": "CompletedActionStatus", "FAILED": "FailedActionStatus", "KILLED": "FailedActionStatus"}
_LICENSE = {
    "@id": "https://creativecommons.org/licenses/by-sa/4.0/",
    "@type": "CreativeWork",
    "name": "CC BY-SA 4.0",
    "description": "of drawings, data and models; code is Apache-2.0, see project/NOTICE",
}
#: what is true of a corpus that somebody brought along
_UNKNOWN_LICENSE = {
    "@id": "#licence-of-the-data",
    "@type": "CreativeWork",
    "name": "not stated",
    "description": "The data that were mined are somebody's own; ask who handed this in. Code is Apache-2.0, see "
    "project/NOTICE.",
}


class Member:
    """A file of the package: path, sha256 and size in bytes."""

    def __init__(self, path: str, sha256: str, size: int) -> None:
        self.path, self.sha256, self.size = path, sha256, size


def metadata(
    records: Sequence[RunRecord], members: Sequence[Member], title: str, own_data: bool = False
) -> dict[str, Any]:
    """Return the document.

    Args:
        records: The run itself first.
        members: Every file of the package but the metadata and the manifest.
        title: The crate's name.
        own_data: Whether something else than the embedded corpus was mined, whose licence nobody here knows.
    """
    main, license_ = records[0], _UNKNOWN_LICENSE if own_data else _LICENSE
    inside = {member.path for member in members}
    actions = [_action(record, inside) for record in records]
    others = [entity for record in records for entity in _absent(record, inside)]
    software = {f"urn:unime-kedro:commit:{_version(record)}": _software(record) for record in records}
    properties = {one["@id"]: one for record in records for one in _parameters(record)}
    root = {
        "@id": "./",
        "@type": "Dataset",
        "name": title,
        "description": f"The run {main.name} ({main.run_id}) of unime-kedro with the runs upstream of it: records, "
        "configuration, metrics, predictions, tables and pages.",
        "datePublished": _moment(main.end or main.start),
        "license": {"@id": license_["@id"]},
        "conformsTo": {"@id": PROFILE},
        "hasPart": [{"@id": member.path} for member in members],
        "mentions": [{"@id": action["@id"]} for action in actions],
    }
    graph = [
        {
            "@id": FILE,
            "@type": "CreativeWork",
            "conformsTo": {"@id": _CRATE},
            "about": {"@id": "./"},
        },
        root,
        {"@id": PROFILE, "@type": "CreativeWork", "name": "Process Run Crate", "version": "0.5"},
        license_,
        {"@id": "#operator", "@type": "Person", "name": "who ran it (not recorded here)"},
        *software.values(),
        *properties.values(),
        *({one["@id"]: one for one in others}.values()),
        *actions,
        *(_file(member) for member in members),
    ]
    return {"@context": [f"{_CRATE}/context", _TERMS], "@graph": graph}


def _file(member: Member) -> dict[str, Any]:
    suffix = f".{member.path.rpartition('.')[2]}"
    return {
        "@id": member.path,
        "@type": "File",
        "name": member.path.rpartition("/")[2],
        "encodingFormat": _KINDS.get(suffix, "application/octet-stream"),
        "contentSize": str(member.size),
        "sha256": member.sha256,
    }


def _action(record: RunRecord, inside: set[str]) -> dict[str, Any]:
    software = {"@id": f"urn:unime-kedro:commit:{_version(record)}"}
    used = [_reference(record, entry, inside) for entry in record.side("input")]
    used += [{"@id": one["@id"]} for one in _parameters(record)]
    used += [{"@id": name} for name in (f"runs/{record.run_id}/config.yml",) if name in inside]
    made = [_reference(record, entry, inside) for entry in record.side("output")]
    made += [{"@id": f"runs/{record.run_id}/record.json"}]
    return {
        "@id": f"#run-{record.run_id}",
        "@type": "CreateAction",
        "name": f"run {record.name}",
        "description": record.tags.get("kedro.command", record.name),
        "startTime": _moment(record.start),
        "endTime": _moment(record.end or record.start),
        "actionStatus": f"http://schema.org/{_STATUS.get(record.status, 'ActiveActionStatus')}",
        "instrument": software,
        "agent": {"@id": "#operator"},
        "object": used,
        "result": made,
    }


def _reference(record: RunRecord, entry: FileRecord, inside: set[str]) -> dict[str, str]:
    name = member_of(record, entry)
    return {"@id": name if name in inside else _hash_id(entry)}


def _hash_id(entry: FileRecord) -> str:
    return f"#sha256-{entry.sha256}" if entry.sha256 else f"#{entry.dataset}"


def _absent(record: RunRecord, inside: set[str]) -> list[dict[str, Any]]:
    """Return files that are not in the package as what they are known by: their hash."""
    return [
        {
            "@id": _hash_id(entry),
            "@type": "CreativeWork",
            "name": entry.dataset,
            "description": f"{entry.path}, {entry.bytes} bytes; not in this package",
            **({"sha256": entry.sha256} if entry.sha256 else {}),
        }
        for entry in record.files or []
        if member_of(record, entry) not in inside
    ]


def _parameters(record: RunRecord) -> list[dict[str, Any]]:
    """Return seeds and the hash of the configuration as properties; config.yml has all parameters."""
    chosen = {key: value for key, value in record.tags.items() if key.startswith("seed.") or key == "config.hash"}
    return [
        {"@id": f"#{record.run_id[:8]}-{key}", "@type": "PropertyValue", "name": key, "value": value}
        for key, value in sorted(chosen.items())
    ]


def _version(record: RunRecord) -> str:
    return record.commit[:12] or "unknown"


def _software(record: RunRecord) -> dict[str, Any]:
    version = record.tags.get("version.unime-kedro", "unknown")
    dirty = " with changes" if record.tags.get("git.dirty") == "true" else ""
    return {
        "@id": f"urn:unime-kedro:commit:{_version(record)}",
        "@type": "SoftwareApplication",
        "name": "unime-kedro",
        "softwareVersion": f"{version}, commit {_version(record)}{dirty}",
        "url": "https://arxiv.org/abs/2510.13515",
        "softwareRequirements": f"Python {record.tags.get('version.python', '3.11')}",
    }


def _moment(milliseconds: int) -> str:
    return datetime.fromtimestamp(milliseconds / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%S+00:00")
