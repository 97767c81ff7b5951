"""A copy of the project with its own runs and data, and audits of it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import yaml
from click.testing import CliRunner

ROOT = Path(__file__).resolve().parents[2]
NEEDED = ("src", "conf", "models", "pyproject.toml", "constraints.txt", ".gitignore", "NOTICE", "LICENSE")
SMALLER = {
    "train": {
        "steps": 6,
        "checkpoint_every": 3,
        "validation": {"queries": 12, "candidates": 5, "every": 0, "root": None},
    }
}


class Copy:
    """A copy of the project with its own runs and data."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def run(self, *command: str, status: int | None = 0, **variables: str) -> str:
        """Run a command to its end; returns what it printed."""
        dropped = ("DVC_", "MLFLOW_", "UNIME_", "KEDRO_", "GIT_")
        env = {key: value for key, value in os.environ.items() if not key.startswith(dropped)}
        env |= {
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": str(self.root / "src"),
            "OMP_NUM_THREADS": "1",
            **{f"GIT_{who}_NAME": "t" for who in ("AUTHOR", "COMMITTER")},
            **{f"GIT_{who}_EMAIL": "t@example.org" for who in ("AUTHOR", "COMMITTER")},
            **variables,
        }
        done = subprocess.run(
            command, cwd=self.root, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        assert status is None or done.returncode == status, done.stdout[-4000:]
        return done.stdout

    def data(self, path: str) -> Path:
        """Return a file below the data root."""
        return self.root / "data/smoke" / path


def new_copy(root: Path) -> Copy:
    """Copy what git knows of the project, and commit it."""
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", *NEEDED], cwd=ROOT, capture_output=True, text=True, check=True
    )
    for name in listed.stdout.splitlines():
        if (ROOT / name).is_file():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, root / name)
    (root / "conf/local").mkdir(exist_ok=True)
    file = root / "conf/smoke/parameters.yml"
    parameters = yaml.safe_load(file.read_text())
    for section, values in SMALLER.items():
        parameters.setdefault(section, {}).update(values)
    file.write_text(yaml.safe_dump(parameters, sort_keys=False))
    copy = Copy(root)
    copy.run("git", "init", "--quiet")
    copy.run("git", "add", "--all")
    copy.run("git", "commit", "--quiet", "--message", "start")
    return copy


def audit_here(project: Copy, *arguments: str) -> tuple[int, str]:
    """Run ``unime audit`` in this process, which saves seconds of starting; returns its status and what it printed."""
    from unime_kedro.audit.command import audit_command

    before, variable = Path.cwd(), os.environ.pop("MLFLOW_TRACKING_URI", None)
    os.chdir(project.root)
    try:
        done = CliRunner().invoke(audit_command, list(arguments))
    finally:
        os.chdir(before)
        if variable is not None:
            os.environ["MLFLOW_TRACKING_URI"] = variable
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done.exit_code, done.stdout


def findings_of(project: Copy, run: str, *options: str, status: int) -> list[dict[str, str]]:
    """Return what an audit of a run found."""
    code, output = audit_here(project, run, "--json", *options)
    assert code == status, output
    document = json.loads(output)
    assert document["passed"] == (status == 0)
    found: list[dict[str, str]] = document["findings"]
    return found
