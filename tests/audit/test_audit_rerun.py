"""Runs that are made again, for real."""

from __future__ import annotations

import hashlib
import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest
from audited_project import Copy, findings_of

pytestmark = pytest.mark.slow


def files_of(project: Copy) -> list[str]:
    return sorted(str(path) for path in project.root.rglob("*") if ".git" not in path.parts)


def again(findings: list[dict[str, str]]) -> dict[str, str]:
    return {one["subject"].removeprefix("output "): one["text"] for one in findings if one["check"] == "rerun"}


def into_the_cache(project: Copy, file: Path) -> None:
    """Move a file to where DVC has files by their md5."""
    md5 = hashlib.md5(file.read_bytes()).hexdigest()
    entry = project.root / ".dvc/cache/files/md5" / md5[:2] / md5[2:]
    entry.parent.mkdir(parents=True)
    file.rename(entry)


def test_a_run_again_gives_the_same_bytes(project: Copy) -> None:
    """An input has gone, and DVC's cache has it."""
    into_the_cache(project, project.data("02_intermediate/items.parquet"))
    before = files_of(project)
    findings = findings_of(project, "train", "--rerun", status=0)
    for dataset in ("trained_predictions", "trained_metrics", "trained_folder", "train_history"):
        assert again(findings)[dataset] == "the same bytes"
    (items,) = [one for one in findings if (one["check"], one["subject"]) == ("files", "input items")]
    assert items["status"] == "note"
    assert items["remedy"].startswith("cp .dvc/cache/files/md5/")
    assert files_of(project) == before
    assert project.run("git", "worktree", "list").count("\n") == 1


def test_an_arm_again_gives_the_same_bytes(project: Copy) -> None:
    """The file of its options has gone; the group says what was in it."""
    project.data("ablations/components/soft/seed-1/run.yml").unlink()
    findings = findings_of(project, "soft seed 1", "--rerun", status=0)
    assert again(findings)["trained_predictions"] == "the same bytes"
    assert any("its files give the" in one["text"] for one in findings)


def test_a_run_again_that_gives_other_figures_fails(project: Copy) -> None:
    """It was not made by the command that it says."""
    with sqlite3.connect(project.root / "mlflow.db") as database:
        database.execute(
            "UPDATE tags SET value = ? WHERE key = 'kedro.command' AND run_uuid = "
            "(SELECT run_uuid FROM runs WHERE name = 'train')",
            ("kedro run --env=smoke --pipeline=train --params=train.steps=5",),
        )
    findings = findings_of(project, "train", "--rerun", status=1)
    failed = {(one["check"], one["subject"].split()[0]) for one in findings if one["status"] == "fail"}
    assert failed == {("configuration", "commit"), ("rerun", "output")}
    assert "were not recorded, first train/" in again(findings)["train_history"]


def test_without_an_input_nothing_is_run(project: Copy) -> None:
    project.data("05_model_input/negatives.parquet").unlink()
    texts = again(findings_of(project, "train", "--rerun", status=1))
    assert texts == {"inputs": "not run: <data root>/05_model_input/negatives.parquet are not there as they were read"}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_nothing_is_left(project: Copy, tmp_path: Path, number: int) -> None:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    before = files_of(project)
    command = [sys.executable, "-c", "from unime_kedro.cli import main; main()", "audit", "train", "--rerun"]
    variables = {key: value for key, value in os.environ.items() if not key.startswith(("MLFLOW_", "UNIME_"))}
    variables |= {"TMPDIR": str(temporary), "PYTHONPATH": str(project.root / "src")}
    process = subprocess.Popen(
        command,
        cwd=project.root,
        env=variables,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's background jobs ignore it
    )
    try:
        assert process.stderr is not None
        while "running kedro run" not in (line := process.stderr.readline()):
            assert line, "it ended before it ran the command again"
        # the run itself has begun when it has written something
        while not any(file.stat().st_size for file in temporary.glob("unime-rerun-*/output.txt")):
            assert process.poll() is None
            time.sleep(0.05)
        process.send_signal(number)
        _, errors = process.communicate(timeout=120)
    finally:
        process.kill()
    assert process.returncode == 130
    assert "Interrupted. Nothing of the project was changed" in errors
    assert list(temporary.glob("unime-*")) == []  # torch has a cache of its own there
    assert files_of(project) == before
    assert project.run("git", "worktree", "list").count("\n") == 1
    assert [file for file in Path("/proc").glob("[0-9]*/cwd") if str(temporary) in _target(file)] == []


def _target(link: Path) -> str:
    try:
        return os.readlink(link)
    except OSError:  # it has ended, or is nobody's
        return ""
