"""What shapes a run besides its data and parameters: installed packages, and changes of the code since the commit."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from importlib import metadata
from pathlib import Path

#: what `dvc repro` writes between two stages: results, no code
RESULTS = ("dvc.lock", "runs.json")
#: larger files that git does not know are named instead of copied
MAX_NEW_FILE = 2**20


def environment_text() -> str:
    """Return the installed distributions, one ``name==version`` a line, in sorted order."""
    found = {
        re.sub(r"[-_.]+", "-", name).lower(): one.version
        for one in metadata.distributions()
        if (name := one.metadata["Name"])
    }
    return "".join(f"{name}=={found[name]}\n" for name in sorted(found))


def environment_tags(text: str, root: Path) -> dict[str, str]:
    """Return the hash of the installed packages, and that of the project's list of versions."""
    tags = {"environment.hash": hashlib.sha256(text.encode("utf-8")).hexdigest()}
    constraints = root / "constraints.txt"
    if constraints.is_file():
        tags["environment.constraints"] = hashlib.sha256(constraints.read_bytes()).hexdigest()
    return tags


def changes_of(root: Path) -> tuple[str, list[str]]:
    """Return what differs from the commit as a patch, new files included, and the new files that are too large for it.

    ``git apply`` of the patch on the commit gives the tree again. Files that are ignored, and the results of DVC, are
    no part of it. The repository itself is not touched. Empty where there is no git or no repository.

    Args:
        root: The project root. What lies elsewhere in its repository is not looked at.
    """
    try:
        listed = _git(root, "ls-files", "--others", "--exclude-standard", "-z", "--", ".")
    except (OSError, subprocess.SubprocessError):
        return "", []
    new = [name for name in listed.split("\0") if name and name not in RESULTS]
    left_out = [name for name in new if not _is_small(root / name)]
    try:
        return _patch(root, sorted(set(new) - set(left_out))), sorted(left_out)
    except (OSError, subprocess.SubprocessError):
        return "", sorted(new)


def _patch(root: Path, new: list[str]) -> str:
    """Compare the tree to the commit by a copy of git's index, in which new files are announced."""
    index = Path(_git(root, "rev-parse", "--path-format=absolute", "--git-path", "index").strip())
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "index"
        if index.is_file():
            shutil.copyfile(index, copy)
        if new:
            names = "".join(f"{name}\0" for name in new)
            options = ("--pathspec-from-file=-", "--pathspec-file-nul")
            _git(root, "--literal-pathspecs", "add", "--intent-to-add", *options, index=copy, given=names)
        without = [f":(exclude,literal){name}" for name in RESULTS]
        return _git(root, "diff", "HEAD", "--binary", "--no-color", "--no-ext-diff", "--", ".", *without, index=copy)


def _git(root: Path, *arguments: str, index: Path | None = None, given: str | None = None) -> str:
    variables = {**os.environ, "GIT_OPTIONAL_LOCKS": "0"} | ({"GIT_INDEX_FILE": str(index)} if index else {})
    done = subprocess.run(
        ["git", *arguments],
        cwd=root,
        env=variables,
        input=given,
        capture_output=True,
        timeout=60,
        check=True,
        encoding="utf-8",
        errors="surrogateescape",
    )
    return done.stdout


def _is_small(file: Path) -> bool:
    try:
        return file.lstat().st_size <= MAX_NEW_FILE
    except OSError:
        return False
