"""What ``dvc.lock`` says of the code: whether its results are those of the code as it is now."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from unime_kedro.errors import DataError

FILE = "dvc.lock"
_CODE = "src/"
#: file names of a stage that a line names
_MOST = 3


def changed_code(root: Path, stages: Mapping[str, Mapping[str, Any]]) -> dict[str, list[str]]:
    """Return the stages whose results in ``dvc.lock`` are of other code than the present.

    Args:
        root: The project's folder.
        stages: The stages of ``dvc.yaml``, by name. Those of a matrix are one here, and one for each value in the lock.

    Returns:
        Name of a stage in the lock -> the files of the package that are not those of the lock, that it does not know,
        or that the stage no longer runs; sorted. Stages without results are left out.

    Raises:
        DataError: The lock is not what DVC writes.
    """
    found = {}
    for name, entry in locked_stages(root).items():
        stage = stages.get(name.split("@")[0])
        if stage is not None:
            then = {dep["path"]: dep.get("md5") for dep in entry.get("deps") or () if dep["path"].startswith(_CODE)}
            now = {path: _md5(root / path) for path in stage["deps"] if path.startswith(_CODE)}
            if changed := sorted(path for path in {*then, *now} if then.get(path) != now.get(path)):
                found[name] = changed
    return found


def note_on(changed: Mapping[str, list[str]]) -> str:
    """Say in a few lines which stages are of other code, "" for none."""
    if not changed:
        return ""
    together: dict[str, list[str]] = {}  # arms of one group run the same code
    for name, files in changed.items():
        together.setdefault(_some(files), []).append(name)
    lines = [f"  {', '.join(names)}: {files}" for files, names in together.items()]
    last = "`dvc repro` makes them anew; what comes out the same reruns nobody else."
    return "\n".join([f"Note: {FILE} has results of other code than this, of {len(changed)} stages:", *lines, last])


def _some(files: list[str]) -> str:
    names = [file.split("/", 2)[-1] for file in files[:_MOST]]
    more = len(files) - len(names)
    return ", ".join(names) + (f" and {more} more" if more else "")


def _md5(file: Path) -> str | None:
    """Return a file's hash as DVC has it, None where there is no such file."""
    return hashlib.md5(file.read_bytes(), usedforsecurity=False).hexdigest() if file.is_file() else None


def locked_stages(root: Path) -> Mapping[str, Any]:
    """Return the stages of a project's ``dvc.lock``, none where there is no lock.

    Raises:
        DataError: The lock is not what DVC writes.
    """
    import yaml

    file = root / FILE
    if not file.is_file():
        return {}
    try:
        return dict(yaml.safe_load(file.read_text(encoding="utf-8"))["stages"])
    except (yaml.YAMLError, UnicodeDecodeError, KeyError, TypeError, ValueError) as error:
        raise DataError(f"{file} is not what DVC writes: {error}. `git checkout {FILE}` brings it back.") from error
