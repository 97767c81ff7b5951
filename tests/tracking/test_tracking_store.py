"""Stores that work, do not work, and stop working."""

from __future__ import annotations

import logging
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from kedro.pipeline import node, pipeline
from toy_project import Project, run_here

from unime_kedro.config import ConfigurationError
from unime_kedro.tracking import run as run_module
from unime_kedro.tracking import store as store_module
from unime_kedro.tracking.config import TrackingConfig
from unime_kedro.tracking.hook import TrackingHook
from unime_kedro.tracking.run import open_run
from unime_kedro.tracking.store import TrackingError, client_of


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("UNIME_TRACKING", "UNIME_PARENT_RUN_ID", "UNIME_DATA_ROOT", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def store(empty_store: Path, tmp_path: Path) -> Path:
    file = tmp_path / "mlflow.db"
    file.write_bytes(empty_store.read_bytes())
    return file


def refusal(uri: str, root: Path) -> str:
    with pytest.raises(TrackingError) as caught:
        open_run(uri, root, "e", "n", {})
    text = str(caught.value)
    assert "UNIME_TRACKING=off kedro run" in text
    return text


def test_locked_database_is_an_error_at_the_start(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_module, "LOCK_TIMEOUT", 0.05)
    other = sqlite3.connect(store, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    assert f"sqlite:///{store}: database is locked" in refusal(f"sqlite:///{store}", store.parent)
    other.execute("ROLLBACK")
    other.close()
    assert open_run(f"sqlite:///{store}", store.parent, "e", "n", {}).run_id


def test_file_that_is_no_database(tmp_path: Path) -> None:
    (tmp_path / "x.db").write_text("a text, and long enough to be read as the first page of something else " * 20)
    assert "file is not a database" in refusal(f"sqlite:///{tmp_path}/x.db", tmp_path)


@pytest.mark.parametrize("uri", ["./mlruns", "file:///tmp/mlruns"])
def test_folders_are_refused_with_the_reason(uri: str, tmp_path: Path) -> None:
    assert "sqlite:///" in refusal(uri, tmp_path)


def test_deleted_experiment_is_named(store: Path) -> None:
    uri = f"sqlite:///{store}"
    first = open_run(uri, store.parent, "gone", "n", {})
    first.client.delete_experiment(first.experiment_id)
    with pytest.raises(TrackingError, match="'gone' was deleted"):
        open_run(uri, store.parent, "gone", "n", {})


def test_new_store_is_made_with_its_folder(tmp_path: Path) -> None:
    run = open_run(f"sqlite:///{tmp_path}/new/folder/m.db", tmp_path, "e", "n", {"t": "v"})
    run.text("hello", "a/b.txt")
    run.end("FINISHED")
    found = run.client.get_run(run.run_id)
    assert (found.info.status, found.info.run_name, found.data.tags["t"]) == ("FINISHED", "n", "v")
    assert (tmp_path / f"new/folder/mlartifacts/{run.run_id}/artifacts/a/b.txt").read_text() == "hello"


def test_two_first_runs_at_once_share_a_new_store(tmp_path: Path) -> None:
    script = """
import sys
from pathlib import Path
from mlflow import MlflowClient
from unime_kedro.tracking.run import open_run

folder = Path(sys.argv[1])
print("ready", flush=True)
sys.stdin.readline()
run = open_run(f"sqlite:///{folder}/new/m.db", folder, "e", sys.argv[2], {})
run.end("FINISHED")
"""
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", script, str(tmp_path), name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for name in "ab"
    ]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    for process in processes:
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors
    client = client_of(f"sqlite:///{tmp_path}/new/m.db")
    (experiment,) = (e for e in client.search_experiments() if e.name == "e")
    assert {run.info.run_name for run in client.search_runs([experiment.experiment_id])} == {"a", "b"}


def test_more_values_than_mlflow_takes_at_once(store: Path) -> None:
    run = open_run(f"sqlite:///{store}", store.parent, "e", "n", {})
    run.params({f"p{i}": str(i) for i in range(230)})
    run.tags({f"t{i}": str(i) for i in range(120)})
    run.metrics({f"m{i}": i for i in range(1100)})
    run.end("FINISHED")
    data = run.client.get_run(run.run_id).data
    assert data.params == {f"p{i}": str(i) for i in range(230)}
    assert data.metrics == {f"m{i}": i for i in range(1100)}
    assert {f"t{i}" for i in range(120)} <= set(data.tags)


def test_place_of_a_run_on_a_server_is_its_page() -> None:
    run = run_module.TrackedRun(None, "https://ann:s3cret@host/mlflow/", "7", "abc", "mine")
    assert run.place == "https://ann:***@host/mlflow/#/experiments/7/runs/abc"


def test_process_that_leaves_without_ending_its_run_ends_it_as_killed(project: Project) -> None:
    script = """
import sys
from pathlib import Path
from kedro.pipeline import node, pipeline
from toy_project import run_here
from unime_kedro.tracking.hook import TrackingHook

def interrupt(raw):
    raise KeyboardInterrupt

run_here(Path(sys.argv[1]), pipeline([node(interrupt, "raw", "after", name="only")]), TrackingHook())
"""
    command = [sys.executable, "-c", script, str(project.root)]
    environment = project.environment(PYTHONPATH=str(Path(__file__).parent))
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=120)
    assert "KeyboardInterrupt" in done.stderr
    (run,) = project.runs()
    assert run.info.status == "KILLED"
    assert run.data.tags["unime.ended"] == "the process ended before the pipeline did"


def _sql(store: Path, statement: str) -> None:
    with sqlite3.connect(store) as connection:
        connection.execute(statement)
    connection.close()


def test_store_that_fails_in_the_middle_is_written_later(store: Path, caplog: pytest.LogCaptureFixture) -> None:
    run = open_run(f"sqlite:///{store}", store.parent, "e", "n", {})
    _sql(store, "ALTER TABLE metrics RENAME TO away")
    run.metrics({"early": 1.0})
    run.flush()
    assert "written later" in caplog.text
    _sql(store, "ALTER TABLE away RENAME TO metrics")
    run.metrics({"late": 2.0})
    run.end("FINISHED")
    assert run.client.get_run(run.run_id).data.metrics == {"early": 1.0, "late": 2.0}
    assert not [
        record for record in caplog.records if record.name.startswith("unime") and record.levelno >= logging.ERROR
    ]


def test_what_could_never_be_written_is_named_at_the_end(store: Path, caplog: pytest.LogCaptureFixture) -> None:
    run = open_run(f"sqlite:///{store}", store.parent, "e", "n", {})
    _sql(store, "ALTER TABLE metrics RENAME TO away")
    run.metrics({"a": 1.0, "b": 2.0})
    run.file(store.parent / "gallery.html")  # does not exist
    run.end("FINISHED")
    assert f"MLflow run {run.run_id} lacks 2 metrics, artifact gallery.html" in caplog.text


def test_where_runs_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def uri(value: str | None) -> str:
        config = TrackingConfig.checked({"server": {"mlflow_tracking_uri": value}}, tmp_path, None)
        return config.tracking_uri(Path("/project"))

    assert uri(None) == "sqlite:////project/mlflow.db"
    assert uri("sqlite:///runs/m.db") == "sqlite:////project/runs/m.db"
    assert uri("sqlite:////abs/m.db") == "sqlite:////abs/m.db"
    assert uri("https://host") == "https://host"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://other")
    assert uri(None) == uri("https://host") == "http://other"


@pytest.mark.parametrize("value", ["off", "OFF", "0", "false", "no"])
def test_words_that_switch_tracking_off(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert TrackingConfig().enabled
    monkeypatch.setenv("UNIME_TRACKING", value)
    assert not TrackingConfig().enabled
    monkeypatch.setenv("UNIME_TRACKING", "on")
    assert not TrackingConfig.model_validate({"tracking": {"enabled": False}}).enabled


# ---------------------------------------------------------------- the hook, in this process


def same(raw: dict) -> dict:
    return raw


def tracked(project: Project, function: Any, hook: TrackingHook | None = None, env: str | None = None) -> TrackingHook:
    hook = hook or TrackingHook()
    run_here(project.root, pipeline([node(function, "raw", "after", name="only")]), hook, env=env)
    return hook


def test_typing_error_in_mlflow_yml_names_file_and_nearest_key_even_when_off(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    project.write("conf/base/mlflow.yml", "tracking:\n  enabled: true\n  experiment:\n    nane: x\n")
    monkeypatch.setenv("UNIME_TRACKING", "off")
    with pytest.raises(ConfigurationError) as caught:
        tracked(project, same)
    assert "tracking.experiment.nane" in str(caught.value)
    assert "did you mean tracking.experiment.name?" in str(caught.value)
    assert "conf/base/mlflow.yml, line 4" in str(caught.value)


def test_names_of_experiment_and_run_come_from_the_environments_file(project: Project) -> None:
    project.write("conf/base/mlflow.yml", "tracking:\n  experiment:\n    name: base\n  run:\n    name: mine\n")
    project.write("conf/smoke/mlflow.yml", "tracking:\n  experiment:\n    name: smoke\n")
    project.write("data/smoke/raw.json", "{}")
    tracked(project, same, env="smoke")
    (run,) = project.runs("smoke")
    assert (run.info.run_name, run.data.tags["kedro.env"]) == ("mine", "smoke")
    assert run.data.tags["kedro.pipeline"] == "here"


def test_interrupted_run_is_ended_by_the_next_one_of_the_same_process(project: Project) -> None:
    def interrupt(raw: dict) -> dict:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tracked(project, interrupt, hook := TrackingHook())
    assert [run.info.status for run in project.runs()] == ["RUNNING"]  # Kedro tells no hook
    tracked(project, same, hook)
    assert [run.info.status for run in project.runs()] == ["KILLED", "FINISHED"]


def test_forked_process_leaves_the_run_alone(project: Project) -> None:
    def forking(raw: dict) -> dict:
        import os

        child = os.fork()
        if child == 0:
            hook.failed(ValueError("in the child"))
            hook.interrupted()
            os._exit(0)
        os.waitpid(child, 0)
        return raw

    hook = TrackingHook()
    tracked(project, forking, hook)
    (run,) = project.runs()
    assert run.info.status == "FINISHED"
    assert not {"error", "unime.ended"} & set(run.data.tags)


def test_plot_that_fails_does_not_fail_the_run(project: Project, caplog: pytest.LogCaptureFixture) -> None:
    project.write(
        "conf/base/catalog.yml",
        "raw: {type: unime_kedro.io.JsonFile, filepath: data/raw.json}\n"
        "pool: {type: unime_kedro.io.JsonFile, filepath: data/pool.json}\n",
    )
    hook = TrackingHook()
    run_here(project.root, pipeline([node(same, "raw", "pool", name="only")]), hook)
    assert "no plot of pool" in caplog.text
    assert project.runs()[0].info.status == "FINISHED"
