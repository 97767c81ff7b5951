"""Two ``kedro run`` at once in one project."""

from __future__ import annotations

import signal

import pytest
from toy_project import Project

SETTINGS = """
    from unime_kedro.hooks import SummaryHook
    from unime_kedro.run_locks import RunLocksHook
    from unime_kedro.settings import CONFIG_LOADER_ARGS, DATA_CATALOG_CLASS, DISABLE_HOOKS_FOR_PLUGINS
    from unime_kedro.tracking.hook import TrackingHook

    tracking = TrackingHook()
    HOOKS = (RunLocksHook(), tracking, SummaryHook(tracking))
"""


@pytest.mark.slow
def test_second_run_of_the_same_files_is_refused_and_touches_nothing(project: Project) -> None:
    project.write("src/toy/settings.py", SETTINGS)
    with project.start("run", "--pipeline=hang") as other:
        before = {file: file.stat().st_mtime_ns for file in (project.root / "data").rglob("*.json")}
        refused = project.kedro("run", "--pipeline=mine")
        assert refused.returncode == 1
        assert refused.stderr.count("Error: doubled is in use by") == 1
        assert f"process {other.pid}" in refused.stderr
        assert "run --pipeline=hang`" in refused.stderr
        assert "Traceback" not in refused.stderr
        after = {file: file.stat().st_mtime_ns for file in before}
        assert after == before
        assert [run.info.status for run in project.runs()] == ["RUNNING"]  # the second is no run
        elsewhere = project.root / "elsewhere"
        elsewhere.mkdir()
        (elsewhere / "raw.json").write_text('{"n": 1}')
        beside = project.kedro("run", "--pipeline=first", UNIME_DATA_ROOT=str(elsewhere))
        assert beside.returncode == 0, beside.stderr
        other.send_signal(signal.SIGKILL)
        other.communicate(timeout=60)
    again = project.kedro("run", "--pipeline=mine", "--runner=ParallelRunner")
    assert again.returncode == 0, again.stderr
    assert project.kedro("run", "--pipeline=mine").returncode == 0
