"""Whether outs are what dvc.lock says, against DVC's own hashes; and what is forgotten when they are not."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from unime_kedro.reproduce.run import reproduce
from unime_kedro.reproduce.verify import broken_outs, forget

BIN = Path(sys.executable).parent
DVC_YAML = """\
stages:
  file:
    cmd: printf one > file
    outs: [file]
  folder:
    cmd: mkdir -p folder/inner && printf two > folder/inner/b && printf three > folder/a && touch folder/.x.lock
    outs: [folder]
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PATH", f"{BIN}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("DVC_SITE_CACHE_DIR", str(tmp_path / "state"))
    root = tmp_path / "project"
    root.mkdir()
    (root / "dvc.yaml").write_text(DVC_YAML)
    (root / ".dvcignore").write_text(".*.lock\n")
    for command in ("dvc init --quiet --no-scm --force", "dvc repro --quiet"):
        subprocess.run(command.split(), cwd=root, check=True)
    return root


def cached(root: Path, text: str) -> Path:
    (found,) = (
        file for file in (root / ".dvc/cache").rglob("*") if file.is_file() and file.read_bytes() == text.encode()
    )
    return found


def damage(file: Path, text: str) -> None:
    """Change a file so that its time does not say so."""
    before = file.stat()
    file.chmod(0o644)
    file.write_text(text)
    file.chmod(before.st_mode)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))


def test_what_is_there_is_compared_with_the_lock(project):
    assert broken_outs(project) == []
    (project / "file").write_text("eno")
    assert [(one.stage, one.path) for one in broken_outs(project)] == [("file", "file")]
    (project / "file").unlink()  # what is not there is not broken
    (project / "folder/inner/b").write_text("owt")
    assert [(one.stage, one.path) for one in broken_outs(project)] == [("folder", "folder")]
    (project / "folder/inner/b").write_text("two")
    (project / "folder/.y.lock").write_text("anything")  # .dvcignore
    assert broken_outs(project) == []
    (project / "folder/c").write_text("one more")
    assert [one.path for one in broken_outs(project)] == ["folder"]


def test_only_what_is_damaged_is_removed_from_the_cache(project):
    damaged, whole = cached(project, "two"), [cached(project, "one"), cached(project, "three")]
    for file, text in ((damaged, "owt"), (project / "folder/inner/b", "owt"), (project / "file", "eno")):
        damage(file, text)
    times = {name: (project / name).stat().st_mtime_ns for name in ("file", "folder/inner/b")}
    assert forget(project, broken_outs(project)) == [damaged]
    assert not damaged.exists()
    assert all(file.exists() for file in whole)
    assert (project / "file").read_text() == "eno"  # no out is removed, but DVC looks at it again
    assert all((project / name).stat().st_mtime_ns > before for name, before in times.items())


def test_a_damaged_list_of_a_folder_is_removed(project):
    (listed,) = (project / ".dvc/cache").rglob("*.dir")
    damage(listed, "[")
    (project / "folder/a").write_text("eerht")
    assert forget(project, broken_outs(project)) == [listed]


def test_reproduce_names_what_dvc_does_not_see_and_the_next_time_mends_it(project, capfd):
    assert reproduce(project, []) == 0
    damage(cached(project, "two"), "owt")
    damage(project / "folder/inner/b", "owt")
    damage(project / "file", "eno")
    assert reproduce(project, []) == 1
    error = capfd.readouterr().err
    assert "2 outs have other bytes than dvc.lock says" in error
    assert "  folder (stage folder) should have md5" in error
    assert "1 files of DVC's cache were damaged" in error
    assert reproduce(project, []) == 0
    assert (project / "file").read_text() == "one"
    assert (project / "folder/inner/b").read_text() == "two"


def test_reproduce_passes_on_what_dvc_is_told_and_its_status(project, capfd):
    assert reproduce(project, ["--dry", "file"]) == 0
    assert reproduce(project, ["no-such-stage"]) == 255
    output = capfd.readouterr()
    assert "no-such-stage" in output.out + output.err
    assert output.err.endswith("What is finished is kept. Give the same command again, it goes on from there.\n")
