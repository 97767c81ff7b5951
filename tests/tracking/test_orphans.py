"""Telling dead processes from living ones, and marking the runs of the dead."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from unime_kedro.tracking import orphans
from unime_kedro.tracking.orphans import BOOT, HOST, NAMESPACE, PID, START, ProcessIdentity, is_dead, mark_orphans

HERE = ProcessIdentity.current()


def start_process(name: str | None = None, folder: Path | None = None) -> subprocess.Popen[bytes]:
    """Start a process that lives until its input is closed, under a name of our choice."""
    program = "/bin/cat"
    if name and folder:
        (folder / name).symlink_to(program)
        program = str(folder / name)
    return subprocess.Popen([program], stdin=subprocess.PIPE)


def test_start_is_the_one_ps_knows() -> None:
    psutil = pytest.importorskip("psutil")
    ticks = int(orphans.process_start(os.getpid()) or 0)
    seconds = psutil.boot_time() + ticks / os.sysconf("SC_CLK_TCK")
    assert seconds == pytest.approx(psutil.Process().create_time(), abs=1.5)


def test_name_with_brackets_and_blanks_does_not_shift_the_fields(tmp_path: Path) -> None:
    process = start_process("a) R 1 (b", tmp_path)
    try:
        own, other = int(HERE.start), int(orphans.process_start(process.pid) or 0)
        assert own < other < own + 3600 * os.sysconf("SC_CLK_TCK")
    finally:
        process.communicate()


def test_killed_process_is_dead_even_before_its_parent_asks() -> None:
    process = start_process()
    tags = replace(HERE, pid=process.pid, start=orphans.process_start(process.pid) or "").tags()
    assert not is_dead(tags, HERE)
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # now a zombie
    assert is_dead(tags, HERE)
    process.communicate()
    assert is_dead(tags, HERE)


@pytest.mark.parametrize(
    ("change", "dead"),
    [
        ({}, False),  # this very process
        ({START: "1"}, True),  # its id was given to another process since
        ({PID: "4194999"}, True),  # beyond the largest process id Linux gives
        ({BOOT: "before the machine was started again"}, True),
        ({HOST: "elsewhere", START: "1"}, False),
        ({NAMESPACE: "pid:[1]", START: "1"}, False),  # another container: its ids mean nothing here
        ({PID: "no number", START: "1"}, False),
    ],
)
def test_judgement_from_tags(change: dict[str, str], dead: bool) -> None:
    assert is_dead(HERE.tags() | change, HERE) is dead


def test_runs_without_our_tags_are_left_alone() -> None:
    assert not is_dead({}, HERE)


def test_no_proc_means_nothing_is_declared_dead() -> None:
    assert not is_dead(HERE.tags() | {BOOT: "another"}, replace(HERE, start=""))


@pytest.fixture
def client(empty_store: Path, tmp_path: Path) -> Any:
    from mlflow import MlflowClient

    file = tmp_path / "mlflow.db"
    file.write_bytes(empty_store.read_bytes())
    return MlflowClient(f"sqlite:///{file}")


def test_only_dead_running_runs_of_this_host_and_experiment_are_marked(client: Any) -> None:
    ours, other = client.create_experiment("ours"), client.create_experiment("other")
    dead = HERE.tags() | {START: "1"}

    def create(tags: dict[str, str], experiment: str = ours) -> str:
        return client.create_run(experiment, tags=tags).info.run_id

    marked = {create(dead), create(dead | {PID: "4194999"})}
    finished = create(dead)
    client.set_terminated(finished, "FINISHED")
    left = {create(HERE.tags()), create(dead | {HOST: "elsewhere"}), create({}), create(dead, other)}
    me = create(dead)

    assert set(mark_orphans(client, ours, HERE, me)) == marked
    for run_id in marked:
        run = client.get_run(run_id)
        assert (run.info.status, run.data.tags["unime.ended"]) == ("KILLED", f"found dead by run {me}")
    assert {client.get_run(run_id).info.status for run_id in left | {me}} == {"RUNNING"}
    assert client.get_run(finished).info.status == "FINISHED"
    assert mark_orphans(client, ours, HERE, me) == []


def test_identity_of_a_child_is_not_ours() -> None:
    script = (
        "from unime_kedro.tracking.orphans import ProcessIdentity as P; p = P.current(); print(p.pid, p.start, p.boot)"
    )
    child = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.split()
    assert child[2] == HERE.boot
    assert int(child[0]) != HERE.pid
    assert int(child[1]) > int(HERE.start)
