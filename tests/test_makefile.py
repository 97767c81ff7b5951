"""The Makefile: what it says it can do, and what looking at runs starts."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def make(*arguments: str, **variables: str) -> str:
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("MLFLOW_", "MAKE"))} | variables
    done = subprocess.run(["make", *arguments], cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    return done.stdout


def test_help_lists_every_target_with_a_line_each() -> None:
    listed = [re.fullmatch(r"make ([\w-]+) {2,}\S.*", line) for line in make("help").splitlines()]
    assert all(listed)
    phony = re.search(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert phony is not None
    assert {match[1] for match in listed if match} == set(phony[1].split()) - {"help"}
    assert make() == make("help")  # what a bare `make` says


@pytest.mark.parametrize(
    ("uri", "shown"),
    [("http://mlflow.example.org", "http://mlflow.example.org"), ("https://ann:s3cret@h/m", "https://***@h/m")],
)
def test_runs_on_a_server_need_no_server_here(uri: str, shown: str, tmp_path: Path) -> None:
    (tmp_path / ".installed").touch()
    output = make("ui", f"VENV={tmp_path}", MLFLOW_TRACKING_URI=uri)
    assert output == f"The runs are on the server {shown}\n"


def test_looking_at_runs_says_where_in_one_line_and_starts_a_quiet_server(tmp_path: Path) -> None:
    """With a program in MLflow's place that prints how it was called."""
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin/mlflow"
    program.write_text('#!/bin/sh\necho "$MLFLOW_LOGGING_LEVEL" "$@"\n')
    program.chmod(0o755)
    (tmp_path / ".installed").touch()
    store = f"sqlite:///{ROOT}/mlflow.db"
    told, called = make("ui", f"VENV={tmp_path}", "PORT=5011").splitlines()
    assert told.startswith("MLflow: http://127.0.0.1:5011 ")
    assert f"({store})" in told
    quiet = "--workers 1 --port 5011 --uvicorn-opts --log-level warning"
    assert called == f"ERROR ui {quiet} --backend-store-uri {store} --registry-store-uri {store}"
