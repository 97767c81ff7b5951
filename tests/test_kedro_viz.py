"""Kedro-Viz shows the project: all pipelines, no run, no data."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("kedro_viz") is None, reason="Kedro-Viz is not installed; pip install -e '.[viz]'"
)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the project without data, runs and models."""
    folder = tmp_path_factory.mktemp("viz") / "project"
    for name in ("src", "conf"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    shutil.copy(ROOT / "pyproject.toml", folder)
    return folder


def kedro(project: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a command of Kedro in a project, without a way to the network."""
    nowhere = "http://127.0.0.1:9"
    variables = {"PYTHONPATH": str(project / "src"), "HTTP_PROXY": nowhere, "HTTPS_PROXY": nowhere}
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("UNIME_", "MLFLOW_", "KEDRO_ENV"))}
    command = [sys.executable, "-m", "kedro", *arguments]
    return subprocess.run(command, cwd=project, env=inherited | variables, capture_output=True, text=True)


def node_names(answer: Path) -> set[str]:
    return {node["name"] for node in json.loads(answer.read_text())["nodes"]}


def test_a_built_page_holds_every_pipeline_with_its_nodes_and_datasets(project: Path) -> None:
    from unime_kedro.pipeline_registry import register_pipelines

    before = {path.relative_to(project) for path in project.rglob("*")}
    done = kedro(project, "viz", "build")
    assert done.returncode == 0, done.stderr
    build = project / "build"
    assert "<div id=" in (build / "index.html").read_text()
    shown = json.loads((build / "api/main").read_text())
    pipelines = register_pipelines()
    assert {entry["id"] for entry in shown["pipelines"]} == set(pipelines)
    assert {"judge", "retrieve", "select", "pool", "judge_scores", "negatives"} <= node_names(build / "api/main")
    for name, pipeline in pipelines.items():
        answer = json.loads((build / "api/pipelines" / name).read_text())
        tasks = [node["name"] for node in answer["nodes"] if node["type"] == "task"]
        assert len(tasks) == len(pipeline.nodes), name
        named = {node._name for node in pipeline.nodes if node._name}
        datasets = {dataset for dataset in pipeline.datasets() if not dataset.startswith("param")}
        assert named | datasets <= {node["name"] for node in answer["nodes"]}, name
    # neither runs nor data, nor anything else beside the page
    made = {path.relative_to(project) for path in project.rglob("*") if "__pycache__" not in path.parts} - before
    assert {path.parts[0] for path in made} == {"build"}


def test_running_a_pipeline_leaves_nothing_of_kedro_viz(tmp_path: Path) -> None:
    """Its hooks would write .viz/ into the project."""
    from kedro.framework.project import configure_project
    from kedro.framework.session import KedroSession

    configure_project("unime_kedro")
    with KedroSession.create(project_path=ROOT, save_on_close=False) as session:
        modules = {type(plugin).__module__ for plugin in session._hook_manager.get_plugins()}
    assert any(name.startswith("unime_kedro.tracking") for name in modules)
    assert not any(name.startswith("kedro_viz") for name in modules)
