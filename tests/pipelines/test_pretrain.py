"""Making and measuring the tiny models by the real commands, in seconds: figures on disk, in MLflow, and in the cards."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient

ROOT = Path(__file__).parents[2]
KEDRO = str(Path(sys.executable).with_name("kedro"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("pretrain")
    for pipeline in ("pretrain", "measure"):
        done = subprocess.run(
            [KEDRO, "run", "--env=smoke", f"--pipeline={pipeline}"],
            cwd=ROOT,
            env={
                **os.environ,
                "UNIME_DATA_ROOT": str(folder / "data"),
                "MLFLOW_TRACKING_URI": f"sqlite:///{folder}/mlflow.db",
                "OMP_NUM_THREADS": "1",
            },
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
    return folder


def report(folder: Path, name: str):
    return json.loads((folder / "data/08_reporting" / f"{name}.json").read_text())


@pytest.mark.slow
def test_measuring_again_gives_the_same_figures(folder):
    for model in ("judge", "embedder"):
        made, again = (report(folder, f"{stage}_{model}_metrics") for stage in ("pretrain", "measure"))
        assert again == {name: value for name, value in made.items() if name in again}
        assert set(made) - set(again) == {"parameters"}


@pytest.mark.slow
def test_cards_hold_the_measured_figures(folder):
    judge = report(folder, "pretrain_judge_metrics")
    card = (folder / "data/06_models/judge/README.md").read_text()
    for name in ("all", "vqa", "EmojiTwins"):
        value, low, high = (judge[f"auc{end}/{name}"] for end in ("", "_low", "_high"))
        assert low <= value <= high
        assert f"| {name} | {value:.3f} ({low:.3f} to {high:.3f}) |" in card
    calibration = json.loads((folder / "data/06_models/judge/judge_calibration.json").read_text())
    assert calibration["temperature"] == judge["temperature"]
    assert f"{judge['temperature']:.3f} that was fitted" in card
    embedder = report(folder, "pretrain_embedder_metrics")
    card = (folder / "data/06_models/embedder/README.md").read_text()
    for metric, name in (
        ("precision_at_1", "TwemojiCrops"),
        ("precision_at_1", "out_of_distribution"),
        ("recall_at_1", "EmojiCaptions_i2t"),
        ("compositional", "swap_obj"),
    ):
        assert f"| {name} | {embedder[f'{metric}/{name}']:.3f} (" in card


@pytest.mark.slow
def test_the_run_is_in_mlflow_with_its_curves(folder):
    client = MlflowClient(f"sqlite:///{folder}/mlflow.db")
    runs = client.search_runs([e.experiment_id for e in client.search_experiments()], order_by=["start_time"])
    by_pipeline = {run.data.tags.get("pipeline", run.info.run_name): run for run in runs}
    run = next(run for name, run in by_pipeline.items() if "pretrain" in name)
    metrics = report(folder, "pretrain_judge_metrics")
    assert run.data.metrics["pretrain_judge/auc/all"] == metrics["auc/all"]
    assert run.data.params["pretrain.judge.steps"] == "2"
    history = report(folder, "pretrain_judge_history")
    assert [row["step"] for row in history] == [2]
    found = client.get_metric_history(run.info.run_id, "pretrain_judge/loss")
    assert [(point.step, point.value) for point in found] == [(2, history[0]["loss"])]
