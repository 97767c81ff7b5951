"""Whether results in dvc.lock are of the present code."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
import yaml

from unime_kedro.errors import DataError
from unime_kedro.reproduce.lock import changed_code, note_on

STAGES = {
    "pool": {"deps": ["data/x", "src/p/a.py", "src/p/b.py"]},
    "train_arm": {"deps": ["src/p/b.py"]},
    "not_yet": {"deps": ["src/p/a.py"]},
}


def md5(file: Path) -> str:
    return subprocess.run(["md5sum", file], capture_output=True, text=True, check=True).stdout.split()[0]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "src/p").mkdir(parents=True)
    for name in "abc":
        (tmp_path / f"src/p/{name}.py").write_text(f"{name} = 1\n")

    def deps(*names: str) -> list[dict[str, str]]:
        found = [{"path": f"src/p/{name}.py", "md5": md5(tmp_path / f"src/p/{name}.py")} for name in names]
        return [*found, {"path": "data/x", "md5": "0" * 32}]

    locked = {
        "pool": {"cmd": "c", "deps": deps("a", "b")},
        "train_arm@hard-1": {"cmd": "c", "deps": deps("b")},
        "train_arm@soft-1": {"cmd": "c", "deps": deps("b")},
        "gone": {"cmd": "c", "deps": deps("c")},
    }
    (tmp_path / "dvc.lock").write_text(yaml.safe_dump({"schema": "2.0", "stages": locked}))
    return tmp_path


def test_nothing_to_say_of_results_of_this_code(project):
    assert changed_code(project, STAGES) == {}
    assert note_on({}) == ""
    (project / "dvc.lock").unlink()
    assert changed_code(project, STAGES) == {}


def test_stages_whose_code_has_changed_are_named(project):
    (project / "src/p/b.py").write_text("b = 2\n")
    arms = {"train_arm@hard-1": ["src/p/b.py"], "train_arm@soft-1": ["src/p/b.py"]}
    assert changed_code(project, STAGES) == {"pool": ["src/p/b.py"], **arms}
    lines = note_on({"pool": [f"src/p/{n}.py" for n in "abcd"], **arms}).splitlines()
    assert lines[0].endswith("of 3 stages:")
    assert lines[1:3] == [
        "  pool: a.py, b.py, c.py and 1 more",
        "  train_arm@hard-1, train_arm@soft-1: b.py",
    ]


def test_so_are_those_that_run_other_files(project):
    """A file that they have come to run, one that they no longer run, one that is gone."""
    stages = {"pool": {"deps": ["src/p/a.py", "src/p/c.py"]}, "train_arm": {"deps": ["src/p/b.py"]}}
    (project / "src/p/a.py").unlink()
    assert changed_code(project, stages) == {"pool": ["src/p/a.py", "src/p/b.py", "src/p/c.py"]}


@pytest.mark.parametrize("text", ["a: [", "[]", "stages: 3", ""])
def test_a_lock_that_is_none(project, text):
    (project / "dvc.lock").write_text(text)
    with pytest.raises(DataError, match=r"(?s)dvc\.lock is not what DVC writes: .*git checkout dvc\.lock"):
        changed_code(project, STAGES)
