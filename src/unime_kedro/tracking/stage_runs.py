"""``runs.json``: which MLflow run made what a stage of DVC wrote. It lies beside ``dvc.lock`` and is committed with it.

The two have the same hashes: a file that DVC restores from its cache is still known by them.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from unime_kedro.atomic import atomic_write, locked
from unime_kedro.errors import DataError
from unime_kedro.tracking.files import DATA_ROOT, FileRecord

FILE, LOCK = "runs.json", ".runs.lock"
#: set by DVC to the name of the stage that it runs
STAGE_VARIABLE = "DVC_STAGE"


class Maker(NamedTuple):
    """Who made a file.

    Attributes:
        path: The file, relative to the project root.
        md5: Its hash, as DVC has it.
        stage: The stage of DVC.
        run_id: Its MLflow run.
    """

    path: str
    md5: str
    stage: str
    run_id: str


def record_stage(root: Path, data_root: Path, run_id: str, records: Iterable[FileRecord]) -> None:
    """Write down that a run made files, if DVC runs it as a stage; else do nothing.

    Stages that run side by side wait for each other. An entry of the same stage is replaced.

    Args:
        root: The project root.
        data_root: What ``<data root>`` stands for.
        run_id: The MLflow run.
        records: What it wrote; files outside of the project are left out.
    """
    stage = os.environ.get(STAGE_VARIABLE)
    if not stage:
        return
    outs = {path: one.md5 for one in records if one.md5 and (path := _below(root, data_root, one.path))}
    file = root / FILE
    with locked(root / LOCK):
        stages = dict(read_stages(root))
        stages[stage] = {"run_id": run_id, "outs": dict(sorted(outs.items()))}
        with atomic_write(file) as temporary:
            content = {"stages": dict(sorted(stages.items()))}
            temporary.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _below(root: Path, data_root: Path, path: str) -> str | None:
    """Return a record's path relative to the project root, None for one that lies elsewhere."""
    full = root / (str(data_root) + path.removeprefix(DATA_ROOT) if path.startswith(DATA_ROOT) else path)
    return full.relative_to(root).as_posix() if full.is_relative_to(root) else None


def read_stages(root: Path) -> Mapping[str, Any]:
    """Return stage -> run_id and outs; empty where no stage was recorded.

    Raises:
        DataError: The file is not what was written.
    """
    file = root / FILE
    try:
        stages = json.loads(file.read_text(encoding="utf-8"))["stages"]
    except FileNotFoundError:
        return {}
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{file} cannot be read: {error!r}. It is made by DVC's stages: git checkout {FILE}") from error
    if not isinstance(stages, dict):
        raise DataError(f"{file}: stages is no object. It is made by DVC's stages: git checkout {FILE}")
    return stages


def makers(root: Path) -> Iterator[Maker]:
    """Yield the maker of every file that is written down."""
    for stage, entry in read_stages(root).items():
        for path, md5 in entry["outs"].items():
            yield Maker(path, md5, stage, entry["run_id"])
