"""The tree of a run's commit, with the changes that the run had: in a folder of its own, gone afterwards."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from unime_kedro.audit.record import RunRecord
from unime_kedro.errors import UnimeError


class NoCheckout(UnimeError):
    """The tree of the run cannot be made again; the message says why."""


@contextmanager
def tree_of(record: RunRecord, root: Path) -> Iterator[Path]:
    """Make the tree of a run: its commit, and ``git.diff`` applied to it.

    Args:
        record: The run.
        root: A folder of a clone of the repository.

    Yields:
        The folder that corresponds to ``root`` in a worktree, which is removed again.

    Raises:
        NoCheckout: No commit was recorded, git or the commit is missing, or the changes do not apply.
    """
    if not record.commit:
        raise NoCheckout("the run recorded no commit")
    prefix = _git(root, "rev-parse", "--show-prefix").strip()
    known = subprocess.run(["git", "cat-file", "-e", f"{record.commit}^{{commit}}"], cwd=root, capture_output=True)
    if known.returncode:
        raise NoCheckout(
            f"commit {record.commit[:12]} is not in this clone; git fetch --unshallow, or fetch its branch"
        )
    with tempfile.TemporaryDirectory(prefix="unime-audit-") as folder:
        tree = Path(folder) / "tree"
        try:
            _git(root, "worktree", "add", "--quiet", "--detach", str(tree), record.commit)
            _apply(record, tree)
            yield tree / prefix
        finally:
            subprocess.run(["git", "worktree", "remove", "--force", str(tree)], cwd=root, capture_output=True)
            subprocess.run(["git", "worktree", "prune"], cwd=root, capture_output=True)


def _apply(record: RunRecord, tree: Path) -> None:
    if record.tags.get("git.dirty") != "true":
        return
    if not record.changes:
        raise NoCheckout("files differed from the commit, and the run did not record how")
    patch = record.changes.encode("utf-8", errors="surrogateescape")
    done = subprocess.run(["git", "apply", "--binary", "-"], cwd=tree, input=patch, capture_output=True)
    if done.returncode:
        raise NoCheckout(f"the recorded changes do not apply to {record.commit[:12]}: {done.stderr.decode()[:200]}")


def _git(root: Path, *arguments: str) -> str:
    try:
        done = subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, check=True, timeout=120)
    except FileNotFoundError as error:
        raise NoCheckout("git is not installed") from error
    except subprocess.CalledProcessError as error:
        raise NoCheckout(f"git {arguments[0]}: {error.stderr.strip()[:200]}") from error
    except subprocess.TimeoutExpired as error:
        raise NoCheckout(f"git {arguments[0]} did not end within two minutes") from error
    return done.stdout
