"""Training curves and measures against the truth, read back from a real store."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from kedro.pipeline import node, pipeline
from toy_project import Project, run_here

from unime_kedro.evaluation.truth import measure_mining
from unime_kedro.tracking.hook import TrackingHook

CATALOG = """
    raw: {type: unime_kedro.io.JsonFile, filepath: data/raw.json}
    pretrain_judge_history: {type: unime_kedro.io.JsonFile, filepath: data/pretrain_judge_history.json}
    truth_metrics: {type: unime_kedro.io.JsonFile, filepath: data/truth_metrics.json}
"""


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("UNIME_TRACKING", "UNIME_PARENT_RUN_ID", "UNIME_DATA_ROOT", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)


def history() -> list[dict[str, Any]]:
    """The loss at every tenth step, the accuracy at every hundredth: more points than MLflow takes at once."""
    rows: list[dict[str, Any]] = [{"step": step, "loss": 1000 / (step + 1)} for step in range(0, 15_000, 10)]
    for row in rows[::10]:
        row["accuracy (dev)"] = row["step"] / 15_000
    return rows


def tracked(project: Project, function: Any, output: str) -> Any:
    """Run one node in this process and return its MLflow run."""
    project.write("conf/base/catalog.yml", CATALOG)
    run_here(project.root, pipeline([node(function, "raw", output, name="only")]), TrackingHook())
    (run,) = project.runs()
    return run


def test_a_history_becomes_curves_sent_in_batches(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    sizes, send = [], SqlAlchemyStore.log_batch

    def log_batch(self: Any, run_id: str, metrics: Any, params: Any, tags: Any) -> Any:
        sizes.append(len(metrics))
        return send(self, run_id, metrics, params, tags)

    monkeypatch.setattr(SqlAlchemyStore, "log_batch", log_batch)
    rows = history()
    run = tracked(project, lambda raw: rows, "pretrain_judge_history")
    client = project.client()
    found = {
        name: [(point.step, point.value) for point in client.get_metric_history(run.info.run_id, name)]
        for name in ("pretrain_judge/loss", "pretrain_judge/accuracy _dev_")
    }
    assert sorted(found["pretrain_judge/loss"]) == [(row["step"], row["loss"]) for row in rows]
    wanted = [(row["step"], row["accuracy (dev)"]) for row in rows if "accuracy (dev)" in row]
    assert sorted(found["pretrain_judge/accuracy _dev_"]) == wanted
    assert run.data.metrics["pretrain_judge/loss"] == rows[-1]["loss"]  # the list of runs shows the last one
    assert [size for size in sizes if size > 10] == [1000, 1 + 650]  # with the seconds of the node
    assert json.loads((project.root / "data/pretrain_judge_history.json").read_text()) == rows
    artifacts = Path(run.info.artifact_uri.removeprefix("file://"))
    assert (artifacts / "plots/pretrain_judge_history.png").read_bytes().startswith(b"\x89PNG")


def test_a_history_that_is_none_is_no_reason_to_fail(project: Project) -> None:
    run = tracked(project, lambda raw: {"loss": 1}, "pretrain_judge_history")
    assert run.info.status == "FINISHED"
    assert not [name for name in run.data.metrics if name.startswith("pretrain_judge")]


def test_a_history_that_another_process_wrote_is_taken_over(project: Project) -> None:
    """Under Kedro's ParallelRunner the hooks of this process do not see what is saved."""
    from unime_kedro.tracking import hook as module

    class Elsewhere(TrackingHook):
        @module.hook_impl
        def after_dataset_saved(self) -> None:
            """See nothing."""

    project.write("conf/base/catalog.yml", CATALOG)
    parts = pipeline([node(lambda raw: [{"step": 3, "loss": 0.5}], "raw", "pretrain_judge_history", name="only")])
    run_here(project.root, parts, Elsewhere())
    (run,) = project.runs()
    (point,) = project.client().get_metric_history(run.info.run_id, "pretrain_judge/loss")
    assert (point.step, point.value) == (3, 0.5)


def test_every_measure_against_the_truth_is_a_metric(project: Project) -> None:
    ids = {"query_id": [0, 0, 1, 1], "item_id": [5, 6, 5, 6]}
    queries = pl.DataFrame({"query_id": [0, 1], "meta_task": ["retrieval", "visual_grounding"]})
    scores = pl.DataFrame({**ids, "is_positive": [False] * 4, "score": [0.9, 0.1, 0.2, 0.8]})
    measured = measure_mining(
        pl.DataFrame({**ids, "relevance": pl.Series([1, 0.5, 0.25, 1], dtype=pl.Float32)}),
        scores,
        pl.DataFrame(ids),
        pl.DataFrame({"query_id": [0, 1], "item_id": [6, 5], "origin": ["sampled"] * 2}),
        pl.DataFrame({"query_id": [0, 1], "threshold": [0.5, 0.5], "kept": [1, 1]}),
        queries,
    )
    run = tracked(project, lambda raw: measured, "truth_metrics")
    names = ("false_negatives_in_pool_share", "filter_precision", "filter_recall", "false_negatives_kept_share",
             "false_negatives_chosen_share")  # fmt: skip
    wanted = {"judge_auc", "false_negatives_chosen", "hardness_pool", "hardness_chosen", *names}
    wanted |= {f"{name}/{task}" for name in names for task in queries["meta_task"]}
    assert wanted <= set(measured)
    found = {name: value for name, value in run.data.metrics.items() if name.startswith("truth/")}
    assert found == {f"truth/{name}": pytest.approx(value) for name, value in measured.items()}
