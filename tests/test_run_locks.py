"""Two runs at once in one workspace, as processes that are started, refused, and killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from kedro.pipeline import node, pipeline

from unime_kedro.catalog import Catalog
from unime_kedro.run_locks import FOLDER, HOLDERS, InUse, RunLocks, RunLocksHook, touched

HOLD = """
import sys
from pathlib import Path
from unime_kedro.run_locks import RunLocks

root = Path(sys.argv[1])
locks = RunLocks()
locks.take(root, {name: (root / name, writes == "w") for name, writes in (a.split(":") for a in sys.argv[2:])})
print("HOLDING", flush=True)
sys.stdin.readline()
"""


class Holder:
    """Another process that holds locks until it is told to end."""

    def __init__(self, root: Path, *wanted: str, script: str = HOLD) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", script, str(root), *wanted], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "HOLDING\n"

    def __enter__(self) -> Holder:
        return self

    def __exit__(self, *error: object) -> None:
        self.process.kill()
        self.process.communicate()


def take(root: Path, *wanted: str) -> RunLocks:
    locks = RunLocks()
    locks.take(root, {name: (root / name, writes == "w") for name, writes in (one.split(":") for one in wanted)})
    return locks


@pytest.mark.parametrize(
    ("theirs", "ours", "refused"),
    [("a:w", "a:w", True), ("a:w", "a:r", True), ("a:r", "a:w", True), ("a:r", "a:r", False), ("a:w", "b:w", False)],
)
def test_who_may_run_beside_whom(tmp_path: Path, theirs: str, ours: str, refused: bool) -> None:
    with Holder(tmp_path, theirs) as other:
        if not refused:
            take(tmp_path, ours).release()
            return
        with pytest.raises(InUse) as caught:
            take(tmp_path, "0:w", ours, "z:w")
        text = str(caught.value)
        assert text.startswith("a is in use by `-c")
        assert f"process {other.process.pid}" in text
        assert f"kill {other.process.pid}" in text
        assert time.strftime("since %Y-%m-%d") in text
        assert ("which writes it" in text) == (theirs == "a:w")
        assert "this run " + ("writes" if ours == "a:w" else "reads") in text
        # all or none: what was locked before the refusal is free again, and no card is left
        with Holder(tmp_path, "0:w", "z:w"):
            pass
        assert len(list((tmp_path / FOLDER / HOLDERS).glob(f"{os.getpid()}-*"))) == 0


def test_a_killed_run_leaves_nothing_locked_and_its_card_is_cleared_away(tmp_path: Path) -> None:
    with Holder(tmp_path, "a:w") as other:
        other.process.send_signal(signal.SIGKILL)
        other.process.wait()
        assert len(list((tmp_path / FOLDER / HOLDERS).iterdir())) == 1
        locks = take(tmp_path, "a:w")
        (card,) = (tmp_path / FOLDER / HOLDERS).iterdir()
        assert json.loads(card.read_text())["pid"] == os.getpid()
        locks.release()
        assert list((tmp_path / FOLDER / HOLDERS).iterdir()) == []


def test_a_process_that_was_forked_holds_nothing(tmp_path: Path) -> None:
    forking = HOLD.replace(
        "print(", "import os, time\nif os.fork() == 0:\n    os.close(1)\n    time.sleep(5)\n    os._exit(0)\nprint("
    )
    with Holder(tmp_path, "a:w", script=forking) as other:
        with pytest.raises(InUse):  # the one that forked still has it
            take(tmp_path, "a:w")
        other.process.kill()
        other.process.wait()
        take(tmp_path, "a:w").release()


def test_links_into_another_data_root_lock_what_they_point_to(tmp_path: Path) -> None:
    main, arms = tmp_path / "data", [tmp_path / "data/ablations/g/one", tmp_path / "data/ablations/g/two"]
    (main / "03").mkdir(parents=True)
    (main / "03/pool").write_text("x")
    for arm in arms:
        (arm / "03").mkdir(parents=True)
        (arm / "03/pool").symlink_to(main / "03/pool")
    both = [RunLocks(), RunLocks()]
    for locks, arm in zip(both, arms, strict=True):
        locks.take(arm, {"pool": (arm / "03/pool", False), "trained": (arm / "trained", True)})
    with pytest.raises(InUse, match=rf"pool is in use by .*process {os.getpid()}\b.*which reads it"):
        RunLocks().take(main, {"pool": (main / "03/pool", True)})
    take(main, "trained:w").release()
    for locks in both:
        locks.release()
    main_run = RunLocks()
    main_run.take(main, {"pool": (main / "03/pool", True)})
    with pytest.raises(InUse, match="which writes it; this run reads it"):
        both[0].take(arms[0], {"pool": (arms[0] / "03/pool", False)})
    main_run.release()
    assert list((main / FOLDER / HOLDERS).iterdir()) == []


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is read-only for root")
def test_another_data_root_that_is_read_only_is_read_without_a_lock(tmp_path: Path) -> None:
    main, arm = tmp_path / "main", tmp_path / "arm"
    for folder in (main, arm):
        folder.mkdir()
    (main / "pool").write_text("x")
    (arm / "pool").symlink_to(main / "pool")
    main.chmod(0o555)
    take(arm, "pool:r", "out:w").release()
    main.chmod(0o755)


def catalog(root: Path) -> Catalog:
    def entry(kind: str, name: str, **more: Any) -> dict[str, Any]:
        return {"type": f"unime_kedro.io.{kind}", "filepath": str(root / name), **more}

    return Catalog.from_config(
        {
            "raw": entry("JsonFile", "raw.json"),
            "made": entry("JsonFile", "made.json"),
            "work": entry("Folder", "work", metadata={"dvc": "work"}),
            "model": entry("Folder", "model"),
        }
    )


def several(*arguments: Any) -> tuple[dict[str, int], dict[str, int]]:
    return {}, {}


def test_files_are_written_or_read_and_folders_of_work_are_shared(tmp_path: Path) -> None:
    made = pipeline([node(several, ["raw", "work", "model", "memory", "params:x"], ["made", "memory2"])])
    assert touched(made, catalog(tmp_path)) == {
        "raw": (tmp_path / "raw.json", False),
        "work": (tmp_path / "work", False),
        "model": (tmp_path / "model", True),
        "made": (tmp_path / "made.json", True),
    }


def test_locks_last_from_before_a_run_to_its_end_and_an_interrupted_one_is_forgotten(tmp_path: Path) -> None:
    hook, made = RunLocksHook(), pipeline([node(several, "raw", ["made", "memory2"])])
    loader = {"globals": {"data_root": str(tmp_path)}}
    hook.after_context_created(SimpleNamespace(config_loader=loader, project_path=tmp_path))
    for ended in (hook.after_pipeline_run, hook.on_pipeline_error):
        hook.before_pipeline_run(made, catalog(tmp_path))
        with pytest.raises(InUse, match="made is in use"):
            take(tmp_path, "made:w")
        take(tmp_path, "raw:r").release()
        ended()
        take(tmp_path, "made:w", "raw:w").release()
    for _ in "interrupted", "again":
        hook.before_pipeline_run(made, catalog(tmp_path))
    hook.after_pipeline_run()
    take(tmp_path, "made:w").release()
