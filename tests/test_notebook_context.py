"""The project as a notebook gets it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
CODE = """
import os
from unime_kedro.notebook import project_context

context = project_context()
print(context.catalog["items"]._describe()["filepath"])
print(context.catalog.load("params:pool").k)
print("KEDRO_LOGGING_CONFIG" in os.environ)
"""


def in_a_notebook(code: str, folder: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run code where a notebook's kernel would."""
    inherited = {
        k: v for k, v in os.environ.items() if not k.startswith(("UNIME_", "MLFLOW_", "KEDRO_ENV", "KEDRO_LOG"))
    }
    command = [sys.executable, "-c", code]
    return subprocess.run(command, cwd=folder, env=inherited | variables, capture_output=True, text=True)


def test_it_follows_the_users_variables_is_silent_and_opens_no_run(tmp_path: Path) -> None:
    store = f"sqlite:///{tmp_path / 'mlflow.db'}"
    data = tmp_path / "elsewhere"
    done = in_a_notebook(CODE, ROOT / "docs", KEDRO_ENV="smoke", UNIME_DATA_ROOT=str(data), MLFLOW_TRACKING_URI=store)
    assert done.stdout.splitlines() == [str(data / "02_intermediate/items.parquet"), "20", "False"]
    assert done.stderr == ""
    assert list(tmp_path.iterdir()) == []


def test_without_variables_it_is_the_project_as_it_stands() -> None:
    done = in_a_notebook(CODE, ROOT)
    assert done.stdout.splitlines()[:2] == [str(ROOT / "data/02_intermediate/items.parquet"), "50"]


def test_a_wrong_parameter_is_named(tmp_path: Path) -> None:
    """As for `kedro run`: nothing is read with settings that cannot be."""
    code = "from unime_kedro.notebook import project_context; project_context()"
    shutil.copytree(ROOT / "src", tmp_path / "src", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "pyproject.toml").write_text((ROOT / "pyproject.toml").read_text())
    shutil.copytree(ROOT / "conf/base", tmp_path / "conf/base")
    (tmp_path / "conf/local").mkdir()
    (tmp_path / "conf/local/parameters.yml").write_text("pool: {kk: 3}\n")
    done = in_a_notebook(code, tmp_path)
    assert done.returncode == 1
    assert "ConfigurationError" in done.stderr
    assert "pool.kk" in done.stderr
