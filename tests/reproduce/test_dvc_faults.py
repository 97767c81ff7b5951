"""What a user sees of full and read-only disks, damaged and missing files, and two runs at once; nothing is lost."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from dvc_project import DvcProject

pytestmark = pytest.mark.slow
GOES_ON = "What is finished is kept. Give the same command again, it goes on from there."
POOL = "data/smoke/03_primary/pool.parquet"
PICTURES = "data/smoke/01_raw/mini_mmeb"


def may_mount() -> bool:
    if not (shutil.which("unshare") and shutil.which("mount")):
        return False
    trial = ["unshare", "--mount", "mount", "-t", "tmpfs", "tmpfs", "/mnt"]
    return subprocess.run(trial, capture_output=True).returncode == 0


mounts = pytest.mark.skipif(not may_mount(), reason="needs the right to mount file systems, as root has it")


def mounted(project: DvcProject, script: str) -> str:
    """Run a shell script that sees mounts of its own; they are gone after it."""
    return project.run("unshare", "--mount", "sh", "-ec", f'fails() {{ ! "$@"; }}\n{script}')


def ran(output: str) -> set[str]:
    return {line.split("'")[1] for line in output.splitlines() if line.startswith("Running stage '")}


def md5_of(project: DvcProject, stage: str, path: str) -> str:
    return next(out["md5"] for out in project.lock()[stage]["outs"] if out["path"] == path)


def cached(project: DvcProject, md5: str) -> Path:
    return project.root / ".dvc/cache/files/md5" / md5[:2] / md5[2:]


def flip(file: Path) -> None:
    """Change one bit, as a bad disk does: size and time stay."""
    stat, mode = file.stat(), file.stat().st_mode
    file.chmod(0o644)
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    file.chmod(mode)
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))


@mounts
def test_the_disk_of_the_data_is_full(here):
    outs = " ".join(out["path"] for out in here.lock()["select"]["outs"])
    kept = here.root.with_name("kept")
    output = mounted(
        here,
        f"""
        cp -a data {kept}
        mount -t tmpfs -o size=200m tmpfs data
        cp -a {kept}/. data
        rm -r {outs}
        fails dd if=/dev/zero of=data/filler bs=4096 status=none
        fails unime reproduce --force --single-item select
        rm data/filler
        echo now there is space
        unime reproduce --force --single-item select
        """,
    )
    before, after = output.split("now there is space")
    assert "No space left on device. The disk is full: free some space" in before  # the stage's words
    assert f"The disk of {here.root}/data has 0 MiB left: free some space." in before
    assert before.rstrip().endswith(GOES_ON)
    assert ran(after) == {"select"}
    shutil.rmtree(kept)


@mounts
def test_the_disk_of_the_cache_is_full(here):
    output = mounted(
        here,
        """
        mount -t tmpfs -o size=128k tmpfs .dvc/cache
        fails unime reproduce --force --single-item select
        mount -o remount,size=8m .dvc/cache
        echo now there is space
        unime reproduce --force --single-item select
        """,
    )
    before, after = output.split("now there is space")
    assert "No space left on device" in before
    assert f"The disk of {here.root}/.dvc/cache has 0 MiB left: free some space." in before
    assert before.rstrip().endswith(GOES_ON)
    assert ran(after) == {"select"}


@mounts
def test_a_read_only_data_folder(here):
    files = sorted(file for file in (here.root / "data").rglob("*") if file.is_file())
    output = mounted(
        here,
        """
        mount --bind data data
        mount -o remount,bind,ro data
        fails unime reproduce --force --single-item select
        """,
    )
    assert "Read-only file system" in output
    assert f"{here.root}/data cannot be written to: make it writable for you." in output
    assert output.rstrip().endswith(GOES_ON)
    assert sorted(file for file in (here.root / "data").rglob("*") if file.is_file()) == files
    assert ran(here.run("unime", "reproduce", "--single-item", "select")) == set()


def test_a_result_with_a_changed_byte_is_restored_from_the_cache(here):
    right = (here.root / POOL).read_bytes()
    (here.root / POOL).write_bytes(right[:5000] + bytes([right[5000] ^ 1]) + right[5001:])
    output = here.run("unime", "reproduce", "select")
    assert "Stage 'pool' is cached - skipping run, checking out outputs" in output
    assert ran(output) == set()
    assert (here.root / POOL).read_bytes() == right


def test_a_stage_names_the_file_that_it_cannot_read(here):
    right = (here.root / POOL).read_bytes()
    (here.root / POOL).write_bytes(right[:5000])
    output = here.run("unime", "reproduce", "--single-item", "select", status=255)
    assert f"Error: {here.root / POOL} cannot be read" in output
    assert "`kedro run --pipeline=pool` makes it." in output
    assert ran(here.run("unime", "reproduce", "select")) == set()  # both from the cache
    assert (here.root / POOL).read_bytes() == right


def test_a_result_that_is_damaged_without_a_trace_is_found(here):
    """Same size, same time: DVC takes the file for the one that it knows."""
    right = (here.root / POOL).read_bytes()
    here.dvc("status", "pool")  # it has seen the file
    flip(here.root / POOL)
    assert ran(here.dvc("repro", "pool")) == set()
    output = here.run("unime", "reproduce", "pool", status=1)
    assert f"  {POOL} (stage pool) should have md5 {md5_of(here, 'pool', POOL)}" in output
    assert ran(here.run("unime", "reproduce", "pool")) == set()  # what is cached is whole
    assert (here.root / POOL).read_bytes() == right


@pytest.mark.parametrize("gone", [False, True])
def test_a_damaged_file_of_the_cache_is_found_and_made_anew(here, gone):
    right, copy = (here.root / POOL).read_bytes(), cached(here, md5_of(here, "pool", POOL))
    flip(copy) if not gone else copy.unlink()
    (here.root / POOL).unlink()
    if gone:
        listed = here.run("dvc", "checkout", "pool", status=1)
        assert f"Checkout failed for following targets:\n{POOL}" in listed
    else:
        output = here.run("unime", "reproduce", "pool", status=1)  # restored from the cache, as it is there
        assert "Stage 'pool' is cached - skipping run" in output
        assert "Error: 1 outs have other bytes than dvc.lock says" in output
        assert "1 files of DVC's cache were damaged, too, and are removed." in output
        assert not copy.exists()
    assert ran(here.run("unime", "reproduce", "select")) == {"pool"}
    assert (here.root / POOL).read_bytes() == copy.read_bytes() == right


@pytest.mark.parametrize("fault", ["none", "gone", "damaged"])
def test_a_picture_is_missing(here, fault):
    """Of a folder that is one out, with the picture in the cache, gone there, too, or damaged there."""
    picture = min((here.root / PICTURES).rglob("*.png"))
    right = picture.read_bytes()
    copy = cached(here, hashlib.md5(right).hexdigest())
    picture.unlink()
    if fault == "gone":
        copy.unlink()
    elif fault == "damaged":
        flip(copy)
        output = here.run("unime", "reproduce", "demo", status=1)
        assert f"  {PICTURES} (stage demo) should have md5" in output
    expected = set() if fault == "none" else {"demo"}
    assert ran(here.run("unime", "reproduce", "ingest")) == expected
    assert picture.read_bytes() == copy.read_bytes() == right


def test_two_at_once(here):
    first = here.start("repro", "--force", "--single-item", "select")
    wait(lambda: "Running node" in here.printed.read_text())
    second = here.run("unime", "reproduce", "select", status=255)
    assert "is busy, it is being blocked by:" in second
    assert f"(PID {first.pid})" in second
    assert second.rstrip().endswith(GOES_ON)
    assert first.wait(timeout=120) == 0
    assert ran(here.run("unime", "reproduce", "select")) == set()


def test_a_killed_push_goes_on(here, tmp_path):
    store = tmp_path / "store"
    here.dvc("remote", "add", "--quiet", "--force", "--default", "--local", "store", str(store))
    here.kill(lambda: any(store.rglob("*")) and sum(1 for f in store.rglob("*") if f.is_file()) > 3, "push")
    whole = [file for file in (store / "files/md5").rglob("*") if file.is_file() and not file.name.endswith(".tmp")]
    for file in whole:  # what has its name has its content
        assert hashlib.md5(file.read_bytes()).hexdigest() == file.parent.name + file.name.removesuffix(".dir")
    here.dvc("push", "--quiet")
    clone = here.clone(tmp_path / "clone")
    clone.dvc("remote", "add", "--quiet", "--default", "--local", "store", str(store))
    clone.dvc("pull", "--quiet")
    assert ran(clone.run("unime", "reproduce")) == set()
    assert clone.lock() == here.lock()
    here.dvc("remote", "remove", "--local", "store")


def wait(until: Callable[[], Any]) -> None:
    end = time.monotonic() + 120
    while not until():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_runs_json_is_no_dependency_and_can_be_committed(here):
    deps = {dep["path"] for stage in here.lock().values() for dep in stage["deps"]}
    assert not deps & {"runs.json", "dvc.lock"}
    (here.root / "runs.json").write_text(json.dumps({"stages": {}}))
    assert "?? runs.json" in here.run("git", "status", "--porcelain")
    assert ran(here.dvc("repro", "select")) == set()
    (here.root / "runs.json").unlink()
