"""A copy of the project under git and DVC, with the stages of the smoke environment."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
#: what the pipelines need of the project
NEEDED = ("src", "conf", "models", "pyproject.toml", ".gitignore", ".dvcignore", ".dvc/config", ".dvc/.gitignore")
#: small steps, so that a kill finds something half done
SMALLER = {
    "judge": {"flush_seconds": 0.05, "batch_size": 16},
    "train": {
        "steps": 8,
        "checkpoint_every": 2,
        "validation": {"queries": 12, "candidates": 5, "every": 0, "root": None},
    },
}

#: of the ablation
ARMS = ("in_batch", "hard")


class DvcProject:
    """Runs ``dvc``, ``git`` and ``unime`` in a copy of the project."""

    def __init__(self, root: Path, state: Path) -> None:
        self.root = root
        self.env = {
            **{
                k: v for k, v in os.environ.items() if not k.startswith(("DVC_", "MLFLOW_", "UNIME_", "GIT_", "KEDRO_"))
            },
            "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": str(root / "src"),
            "OMP_NUM_THREADS": "1",
            "DVC_NO_ANALYTICS": "1",
            "DVC_SITE_CACHE_DIR": str(state),
            "UNIME_TRACKING": "off",
            **{
                f"GIT_{who}_{what}": f"{who.lower()}@example.org"
                for who in ("AUTHOR", "COMMITTER")
                for what in ("NAME", "EMAIL")
            },
        }

    @classmethod
    def new(cls, root: Path, state: Path) -> DvcProject:
        """Copy what git knows of the project, with dvc.yaml of the smoke environment, and commit it."""
        listed = subprocess.run(
            ["git", "ls-files", "-co", "--exclude-standard", *NEEDED],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        )
        for name in listed.stdout.splitlines():
            if (ROOT / name).is_file():
                (root / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / name, root / name)
        (root / "conf/local").mkdir(exist_ok=True)
        project = cls(root, state)
        file = root / "conf/smoke/parameters.yml"
        parameters = yaml.safe_load(file.read_text())
        for section, values in SMALLER.items():
            parameters.setdefault(section, {}).update(values)
        file.write_text(yaml.safe_dump(parameters, sort_keys=False))
        file = root / "conf/smoke/ablations.yml"
        groups = yaml.safe_load(file.read_text())
        for arms in (groups["components"]["arms"], groups["components"]["paper"]["figures"]):
            for name in set(arms) - set(ARMS):
                del arms[name]
        file.write_text(yaml.safe_dump(groups, sort_keys=False))
        project.run("unime", "dvc-yaml", "--env=smoke")
        project.run("git", "init", "--quiet")
        project.commit("start")
        return project

    def clone(self, root: Path) -> DvcProject:
        """Return a fresh clone of what is committed."""
        subprocess.run(["git", "clone", "--quiet", str(self.root), str(root)], check=True)
        return DvcProject(root, Path(self.env["DVC_SITE_CACHE_DIR"]))

    def copy(self, root: Path) -> DvcProject:
        """Return a copy with data and cache."""
        shutil.copytree(self.root, root, symlinks=True)
        return DvcProject(root, Path(self.env["DVC_SITE_CACHE_DIR"]))

    def run(self, *command: str, status: int = 0, **variables: str) -> str:
        """Run a command to its end; returns what it printed."""
        done = subprocess.run(
            command,
            cwd=self.root,
            env={**self.env, **variables},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert done.returncode == status, done.stdout[-4000:]
        return done.stdout

    def dvc(self, *arguments: str, **variables: str) -> str:
        """Run a command of DVC."""
        return self.run("dvc", *arguments, **variables)

    def commit(self, message: str) -> None:
        """Commit all that is not ignored."""
        self.run("git", "add", "--all")
        self.run("git", "commit", "--quiet", "--allow-empty", "--message", message)

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Start a command of DVC; what it prints goes to :attr:`printed`."""
        with self.printed.open("w") as output:
            return subprocess.Popen(
                ["dvc", *arguments],
                cwd=self.root,
                env=self.env,
                stdout=output,
                stderr=subprocess.STDOUT,
                text=True,
                start_new_session=True,
            )

    @property
    def printed(self) -> Path:
        """What a command prints that was started."""
        return self.root.with_name(f"{self.root.name}.log")

    def kill(self, when: Callable[[], bool], *arguments: str) -> None:
        """Start a command of DVC, and kill it with all it has started as soon as something is so."""
        process = self.start(*arguments)
        end = time.monotonic() + 300
        while not when():
            assert process.poll() is None, f"it ended before it could be killed: {self.printed.read_text()[-2000:]}"
            assert time.monotonic() < end
            time.sleep(0.005)
        os.killpg(process.pid, signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL

    def lock(self) -> dict[str, Any]:
        """Return dvc.lock."""
        found: dict[str, Any] = yaml.safe_load((self.root / "dvc.lock").read_text())["stages"]
        return found

    def data(self, path: str) -> Path:
        """Return a file below the data root."""
        return self.root / "data/smoke" / path
