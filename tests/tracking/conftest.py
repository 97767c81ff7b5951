"""Fixtures of the tests that run Kedro commands."""

from __future__ import annotations

from pathlib import Path

import pytest
from toy_project import Project


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An MLflow database without runs, made once: its many migrations take seconds."""
    from mlflow import MlflowClient

    file = tmp_path_factory.mktemp("store") / "mlflow.db"
    MlflowClient(f"sqlite:///{file}")
    return file


@pytest.fixture
def project(tmp_path: Path, empty_store: Path) -> Project:
    """A project whose store exists and is empty."""
    made = Project(tmp_path / "project")
    (made.root / "mlflow.db").write_bytes(empty_store.read_bytes())
    return made


@pytest.fixture
def bare_project(tmp_path: Path) -> Project:
    """A project that has never tracked a run."""
    return Project(tmp_path / "bare")
