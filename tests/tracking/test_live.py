"""What a node reports while it runs, read back from a real store."""

from __future__ import annotations

import logging
import math
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from kedro.pipeline import node, pipeline
from toy_project import Project, run_here

from unime_kedro.tracking import live
from unime_kedro.tracking.hook import TrackingHook
from unime_kedro.tracking.live import LiveHistory, live_metrics, live_tags, live_text

CATALOG = """
    raw: {type: unime_kedro.io.JsonFile, filepath: data/raw.json}
    train_history: {type: unime_kedro.io.JsonFile, filepath: data/train_history.json}
"""
Curve = list[tuple[int, float]]


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in ("UNIME_TRACKING", "UNIME_PARENT_RUN_ID", "UNIME_DATA_ROOT", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)
    live.detach()
    yield
    live.detach()


def curve(project: Project, name: str) -> Curve:
    """Return the points of a metric of the only run, as the store has them now."""
    (run,) = project.runs()
    return sorted((point.step, point.value) for point in project.client().get_metric_history(run.info.run_id, name))


def tracked(project: Project, function: Callable[[Any], Any], hook: TrackingHook | None = None) -> Any:
    """Run one node, whose output is ``train_history``, in this process and return its MLflow run."""
    project.write("conf/base/catalog.yml", CATALOG)
    run_here(project.root, pipeline([node(function, "raw", "train_history", name="train")]), hook or TrackingHook())
    (run,) = project.runs()
    return run


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        threading.Event().wait(0.02)


def test_curves_grow_while_the_node_runs_and_no_point_is_sent_twice(project: Project) -> None:
    rows: list[dict[str, Any]] = [{"step": 1, "loss": 0.5, "note": "text"}, {"step": 2, "loss": 0.25, "precision": 0.9}]
    seen: list[Curve] = []

    def train(raw: Any) -> list[dict[str, Any]]:
        with LiveHistory("train", every_seconds=0.01) as history:
            for row in rows:
                history.event(row)
                wait_until(lambda step=row["step"]: len(curve(project, "train/loss")) == step)
                seen.append(curve(project, "train/loss"))
        return rows

    run = tracked(project, train)
    assert seen == [[(1, 0.5)], [(1, 0.5), (2, 0.25)]]
    assert curve(project, "train/loss") == [(1, 0.5), (2, 0.25)]
    assert curve(project, "train/precision") == [(2, 0.9)]
    assert run.info.status == "FINISHED"
    assert [name for name in run.data.metrics if name.startswith("train/")] == ["train/loss", "train/precision"]


def test_the_saved_history_adds_what_is_new_or_different(project: Project) -> None:
    def train(raw: Any) -> list[dict[str, Any]]:
        with LiveHistory("train") as history:
            history.event({"step": 1, "loss": 0.5, "gradient_norm": math.nan})
            history.event({"step": 2, "loss": 9.0})
        with LiveHistory("train") as history:
            history.event({"step": 1, "loss": 0.5, "gradient_norm": math.nan})
        return [{"step": 1, "loss": 0.5}, {"step": 2, "loss": 0.25}, {"step": 3, "loss": 0.1}]

    tracked(project, train)
    assert curve(project, "train/loss") == [(1, 0.5), (2, 0.25), (2, 9.0), (3, 0.1)]
    assert len(curve(project, "train/gradient_norm")) == 1  # although not-a-number is not equal to itself


def test_steps_are_gathered(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    sizes, send = [], SqlAlchemyStore.log_batch

    def log_batch(self: Any, run_id: str, metrics: Any, params: Any, tags: Any) -> Any:
        sizes.append(len(metrics))
        return send(self, run_id, metrics, params, tags)

    monkeypatch.setattr(SqlAlchemyStore, "log_batch", log_batch)
    rows = [{"step": step, "loss": 1 / step} for step in range(1, 101)]

    def train(raw: Any) -> list[dict[str, Any]]:
        with LiveHistory("train", every_seconds=600) as history:
            for row in rows:
                history.event(row)
                history.event(row)  # what a reader that begins again tells again
        return rows

    tracked(project, train)
    assert [size for size in sizes if size > 5] == [100]


def test_an_interrupted_node_has_sent_what_it_reported(project: Project) -> None:
    def train(raw: Any) -> list[dict[str, Any]]:
        with LiveHistory("train", every_seconds=600) as history:
            history.event({"step": 1, "loss": 0.5})
            raise KeyboardInterrupt

    hook = TrackingHook()
    with pytest.raises(KeyboardInterrupt):
        tracked(project, train, hook)
    hook.interrupted()
    assert curve(project, "train/loss") == [(1, 0.5)]
    (run,) = project.runs()
    assert run.info.status == "KILLED"
    live_tags({"late": "x"})  # nobody is there to take it
    assert "late" not in project.client().get_run(run.info.run_id).data.tags


def test_tags_metrics_and_texts(project: Project) -> None:
    found: dict[str, Any] = {}

    def train(raw: Any) -> list[dict[str, Any]]:
        live_tags({"train.stopped_at": "3"})
        live_metrics({"train/best (dev)": 0.75})
        live_text("query_id 7\n", "train/failed_batch.txt")
        (run,) = project.runs()
        found.update(tags=run.data.tags, metrics=run.data.metrics)
        artifact = Path(run.info.artifact_uri.removeprefix("file://")) / "train/failed_batch.txt"
        found["text"] = artifact.read_text()
        return []

    tracked(project, train)
    assert found["tags"]["train.stopped_at"] == "3"
    assert found["metrics"]["train/best _dev_"] == 0.75
    assert found["text"] == "query_id 7\n"


def test_a_store_that_fails_stops_nothing_and_gets_all_points_later(
    project: Project, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from mlflow import MlflowClient

    works = MlflowClient.log_batch
    broken = threading.Event()

    def log_batch(self: Any, *arguments: Any, **options: Any) -> Any:
        if broken.is_set():
            raise OSError("disk full")
        return works(self, *arguments, **options)

    monkeypatch.setattr(MlflowClient, "log_batch", log_batch)

    def train(raw: Any) -> list[dict[str, Any]]:
        broken.set()
        with LiveHistory("train", every_seconds=0.01) as history:
            history.event({"step": 1, "loss": 0.5})
            wait_until(lambda: "disk full" in caplog.text)
        broken.clear()
        return [{"step": 1, "loss": 0.5}]

    with caplog.at_level(logging.WARNING):
        run = tracked(project, train)
    assert run.info.status == "FINISHED"
    assert curve(project, "train/loss") == [(1, 0.5)]


def test_without_tracking_nothing_happens_and_mlflow_is_not_imported(tmp_path: Path) -> None:
    script = """
import sys, threading
from unime_kedro.tracking.live import LiveHistory, live_metrics, live_tags, live_text
with LiveHistory("train", every_seconds=0.001) as history:
    history.event({"step": 1, "loss": 0.5})
    assert threading.active_count() == 1
live_metrics({"a": 1}); live_tags({"a": "b"}); live_text("t", "p.txt")
print("mlflow" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=tmp_path, timeout=60)
    assert (done.stdout, done.stderr) == ("False\n", "")
    assert list(tmp_path.iterdir()) == []


def test_a_copy_of_the_process_reports_nothing(project: Project) -> None:
    """Under Kedro's ParallelRunner the store would be written by several processes through one connection."""

    def train(raw: Any) -> list[dict[str, Any]]:
        child = os.fork()
        if child == 0:
            try:
                live_metrics({"train/child": 1.0})
                os._exit(0 if LiveHistory("train")._run is None else 1)
            finally:
                os._exit(2)
        assert os.waitpid(child, 0)[1] == 0
        return []

    run = tracked(project, train)
    assert "train/child" not in run.data.metrics
