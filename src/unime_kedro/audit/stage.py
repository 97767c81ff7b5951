"""Do DVC and MLflow say the same of a run that was a stage of DVC?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from unime_kedro.audit.findings import FAIL, NOTE, PASS, Finding, Place
from unime_kedro.audit.record import RunRecord
from unime_kedro.tracking import stage_runs
from unime_kedro.tracking.unsent import SENT_FROM

LOCK = "dvc.lock"


def check_stage(record: RunRecord, place: Place) -> Iterator[Finding]:
    """Yield whether runs.json and dvc.lock name this run's outputs for its stage."""
    stage = record.tags.get("dvc.stage")
    if not stage or place.packaged or not record.side("output"):
        return
    subject = f"stage {stage}"
    entry = stage_runs.read_stages(place.root).get(stage)
    if entry is None:
        yield Finding(
            "lineage", subject, NOTE, f"{stage_runs.FILE} names no run of it", f"git checkout {stage_runs.FILE}"
        )
        return
    if entry["run_id"] not in {record.run_id, record.tags.get(SENT_FROM)}:
        yield Finding("lineage", subject, NOTE, f"run {entry['run_id'][:8]} has made it since")
        return
    mine = {path: one.md5 for one in record.side("output") if one.md5 and (path := _relative(place.find(one), place))}
    yield _compared(subject, stage_runs.FILE, mine, entry["outs"])
    outs = _locked(place.root / LOCK, stage)
    yield _compared(subject, LOCK, {path: md5 for path, md5 in mine.items() if path in outs}, outs)


def _compared(subject: str, file: str, mine: Mapping[str, str], said: Mapping[str, str]) -> Finding:
    different = sorted(path for path in mine if said.get(path) != mine[path])
    if not different:
        return Finding("lineage", subject, PASS, f"{file} has the md5 of {len(mine)} outputs")
    first = different[0]
    text = f"{file} has other hashes of {len(different)} outputs, first {first}: {said.get(first)}, not {mine[first]}"
    return Finding("lineage", subject, FAIL, text, f"git checkout {file}, or dvc repro makes the stage again")


def _relative(path: Path, place: Place) -> str:
    return path.relative_to(place.root).as_posix() if path.is_relative_to(place.root) else ""


def _locked(file: Path, stage: str) -> dict[str, str]:
    """Return path -> md5 of a stage's outs in dvc.lock, empty if it is not there."""
    import yaml

    try:
        stages: Mapping[str, Any] = (yaml.safe_load(file.read_text(encoding="utf-8")) or {}).get("stages") or {}
    except (OSError, yaml.YAMLError):
        return {}
    return {one["path"]: one["md5"] for one in (stages.get(stage) or {}).get("outs", ()) if "md5" in one}
