"""A copy of the project in which smoke-sized runs were made, once; tests tamper with copies of it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from audited_project import Copy, new_copy

from unime_kedro.atomic import locked


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Copy:
    """A copy in which mine, train and an ablation of two arms were run; once for all processes that run tests."""
    base = tmp_path_factory.getbasetemp()
    root = (base if worker_id == "master" else base.parent) / "audited"
    root.parent.mkdir(parents=True, exist_ok=True)
    with locked(root.with_suffix(".lock")):
        if not root.with_suffix(".done").exists():
            copy = new_copy(root)
            copy.run("kedro", "run", "--env=smoke", "--pipeline=mine")
            copy.run("kedro", "run", "--env=smoke", "--pipeline=train", "--params=train.steps=4")
            copy.run("unime", "ablate", "components", "--env=smoke", "--arms=hard,soft", "--seeds=1")
            root.with_suffix(".done").touch()
    return Copy(root)


@pytest.fixture
def project(made: Copy, tmp_path: Path) -> Copy:
    """A copy of the copy, to tamper with; where its runs lie is in the database."""
    import sqlite3

    shutil.copytree(made.root, tmp_path / "project", symlinks=True)
    with sqlite3.connect(tmp_path / "project/mlflow.db") as database:
        for table, column in (("runs", "artifact_uri"), ("experiments", "artifact_location")):
            database.execute(
                f"UPDATE {table} SET {column} = replace({column}, ?, ?)", (str(made.root), str(tmp_path / "project"))
            )
    return Copy(tmp_path / "project")
