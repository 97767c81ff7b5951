"""``dvc repro`` with what it does not say: why it may have stopped, and whether its results are whole."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from unime_kedro.reproduce.verify import Broken, broken_outs, forget

#: less free space than this is said to be the reason, in bytes
_LITTLE = 64 * 2**20
#: files that a message names
_MOST = 10


def reproduce(root: Path, arguments: Sequence[str]) -> int:
    """Run ``dvc repro`` and look at its results.

    Args:
        root: The project's folder.
        arguments: What else ``dvc repro`` is given.

    Returns:
        DVC's exit status; 1 where DVC is content, and an out is not what ``dvc.lock`` says.
    """
    # the stages' commands, and dvc, are those beside this Python
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    os.environ["PATH"] = path
    status = subprocess.run(["dvc", "repro", *arguments], cwd=root).returncode
    if status:
        for line in [*_reasons(root), "What is finished is kept. Give the same command again, it goes on from there."]:
            print(line, file=sys.stderr)
        return status
    broken = broken_outs(root)
    if broken:
        removed = forget(root, broken)
        print(_message(broken, len(removed)), file=sys.stderr)
    return int(bool(broken))


def _reasons(root: Path) -> Iterator[str]:
    """Yield what is wrong with the places that stages and DVC write to."""
    for place in (root / "data", root / ".dvc", root / ".dvc/cache"):
        if not place.is_dir():
            continue
        if os.statvfs(place).f_flag & os.ST_RDONLY or not os.access(place, os.W_OK):
            yield f"{place} cannot be written to: make it writable for you."
        elif (free := shutil.disk_usage(place).free) < _LITTLE:
            yield f"The disk of {place} has {free / 2**20:.0f} MiB left: free some space."


def _message(broken: Sequence[Broken], removed: int) -> str:
    lines = [f"  {one.path} (stage {one.stage}) should have md5 {one.md5}" for one in broken[:_MOST]]
    lines += [f"  and {len(broken) - _MOST} more"] if len(broken) > _MOST else []
    cached = f" {removed} files of DVC's cache were damaged, too, and are removed." if removed else ""
    return "\n".join(
        [
            f"Error: {len(broken)} outs have other bytes than dvc.lock says, a disk or a program has damaged them:",
            *lines,
            f"DVC has not noticed.{cached} Give the same command again, it makes them anew.",
        ]
    )
