"""How a run ends in MLflow: failed, interrupted, terminated, killed."""

from __future__ import annotations

import signal

from toy_project import Project


def test_error_of_ours_is_short_on_screen_whole_in_the_log_and_failed_in_mlflow(project: Project) -> None:
    done = project.kedro("run", "--pipeline=refuse")
    assert done.returncode == 1
    message = "items.parquet, row 3: no text and no image; remove the row"
    assert done.stderr.endswith(f"Error: {message}\n")  # no hint at a traceback, none at resuming
    assert "Traceback" not in done.stderr
    assert "resume" not in done.stderr
    assert "WARNING" not in done.stderr
    assert done.stderr.count(message) == 1  # Kedro's own log line of it is left out
    log = (project.root / "data/08_reporting/last_error.log").read_text()
    assert "kedro run --pipeline=refuse" in log
    assert 'raise DataError("items.parquet' in log
    assert "You can resume the pipeline run" in log
    assert '--from-nodes "refuse"' in log
    (run,) = project.runs()
    assert run.info.status == "FAILED"
    assert run.data.tags["error"] == f"DataError: {message}"
    assert run.data.metrics["first/queries"] == 3  # what was finished before stays
    assert "output.doubled.sha256" in run.data.tags


def test_error_that_is_no_message_is_shown_whole_with_kedros_hint(project: Project) -> None:
    done = project.kedro("run", "--pipeline=crash", UNIME_TRACKING="off")
    assert done.returncode == 1
    assert "Traceback" in done.stderr
    assert "ZeroDivisionError" in done.stderr
    assert '--from-nodes "crash"' in done.stderr
    assert not (project.root / "data/08_reporting/last_error.log").exists()


def test_died_living_and_terminated_runs(project: Project) -> None:
    # SIGKILL: nothing can be written at that moment
    dead = project.kedro("run", "--pipeline=die")
    assert dead.returncode == -signal.SIGKILL
    (run,) = project.runs()
    assert run.info.status == "RUNNING"
    assert run.data.metrics["first/queries"] == 3  # written before it died

    with project.start("run", "--pipeline=hang") as alive:
        # the next run marks it
        died, hanging = project.runs()
        assert died.info.status == "KILLED"
        assert died.data.tags["unime.ended"] == f"found dead by run {hanging.info.run_id}"
        # a run that is alive is left alone by the one after
        assert project.kedro("run", "--pipeline=first").returncode == 0
        assert [run.info.status for run in project.runs()] == ["KILLED", "RUNNING", "FINISHED"]

        # SIGTERM ends a run as Ctrl-C does, and it is marked by itself
        alive.send_signal(signal.SIGTERM)
        _, errors = alive.communicate(timeout=60)
    assert alive.returncode == 143
    assert "Interrupted." in errors
    assert "Traceback" not in errors
    terminated = project.runs()[1]
    assert (terminated.info.status, terminated.data.tags["unime.ended"]) == ("KILLED", "SIGTERM")
