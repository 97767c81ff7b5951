"""A project in which all stages of the smoke environment have been run, made once."""

from __future__ import annotations

from pathlib import Path

import pytest
from dvc_project import DvcProject

from unime_kedro.atomic import locked


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> DvcProject:
    """A project with all results, committed. Not to be changed: tests work in copies and clones of it."""
    base = tmp_path_factory.getbasetemp()
    folder = (base if worker_id == "master" else base.parent) / "finished"
    folder.mkdir(exist_ok=True)
    done = folder / "done"
    with locked(folder / ".lock"):  # processes that test side by side share it
        if done.exists():
            return DvcProject(folder / "project", folder / "state")
        project = DvcProject.new(folder / "project", folder / "state")
        project.dvc("repro")
        project.commit("results")
        done.touch()
    return project


@pytest.fixture(scope="module")
def copied(finished: DvcProject, tmp_path_factory: pytest.TempPathFactory) -> DvcProject:
    """A copy of it, with data and cache, to be damaged; tests leave it whole."""
    return finished.copy(tmp_path_factory.mktemp("copied") / "project")


@pytest.fixture
def here(copied: DvcProject, tmp_path: Path) -> DvcProject:
    """The copy; what a test leaves of changes is put right after it."""
    before = copied.lock()
    yield copied
    assert copied.lock() == before
    assert copied.run("git", "status", "--porcelain") == ""
