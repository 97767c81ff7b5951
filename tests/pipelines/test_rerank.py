"""`kedro run --env=smoke --pipeline=rerank` for real, on freshly mined smoke data."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from unime_kedro.io.run_figures import merge, read_run_figures

ROOT = Path(__file__).parents[2]
KEDRO = str(Path(sys.executable).with_name("kedro"))


def kedro(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {
        **os.environ,
        "UNIME_DATA_ROOT": str(folder / "data"),
        "MLFLOW_TRACKING_URI": f"sqlite:///{folder}/mlflow.db",
        "OMP_NUM_THREADS": "1",
        "COLUMNS": "160",
    }
    words = [KEDRO, "run", "--env=smoke", *arguments]
    return subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)


def read(folder: Path, name: str):
    file = folder / "data" / f"{name}.json"
    return merge(json.loads(file.read_text()), read_run_figures(file))


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("rerank")
    for pipeline in ("mine", "rerank"):
        done = kedro(folder, f"--pipeline={pipeline}")
        assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_rows_are_the_hardest_mined_negatives(trained):
    data = trained / "data"
    negatives = pl.read_parquet(data / "05_model_input/negatives.parquet")
    table = pl.read_parquet(data / "05_model_input/reranking.parquet")
    mined = negatives.filter(pl.col("origin") == "sampled")
    assert table["query_id"].to_list() == sorted(set(mined["query_id"].to_list()))
    for query, positive, ids, scores in table.select(
        "query_id", "positive_item_id", "negative_item_ids", "negative_scores"
    ).iter_rows():
        own = mined.filter(pl.col("query_id") == query).select("score", "slot", "item_id").rows()
        hardest = sorted(own, key=lambda row: (-row[0], row[1]))[:5]
        assert (ids, scores) == ([item for *_, item in hardest], [score for score, *_ in hardest])
        assert positive not in ids
    metrics = read(trained, "08_reporting/reranking_metrics")
    held = table["split"].to_list().count("validation")
    assert (metrics["validation_queries"], metrics["queries"]) == (held, len(table) - held)
    assert 0 < held <= 12


def test_the_reranker_is_written_and_loads_and_answers(trained):
    from unime_kedro.mllm.adapters import fingerprint_of, load_adapter
    from unime_kedro.mllm.content import Content, ModelSpec
    from unime_kedro.mllm.reranker import Reranker

    folder = trained / "data/06_models/reranker"
    reference = read(trained, "06_models/reranker")
    assert Path(reference["folder"]) == folder
    assert reference["fingerprint"] == fingerprint_of(str(folder))
    assert reference["base_model"] == "models/tiny-judge"
    card = (folder / "README.md").read_text()
    assert "**A toy.**" in card
    assert "not calibrated" in card
    assert not (folder / "judge_calibration.json").exists()
    reranker = Reranker(load_adapter(ModelSpec(str(folder), device="cpu")), max_tokens=4096, batch_tokens=4096)
    (choice,) = reranker.choose([(Content("a dog"), [Content("a cat"), Content("a house"), Content("a dog")])])
    assert choice.number in (1, 2, 3)
    assert reranker.scores(Content("a dog"), [Content("a cat")]).shape == (1,)


def test_history_metrics_and_mlflow_say_the_same(trained):
    from mlflow import MlflowClient

    history, metrics = (read(trained, f"08_reporting/rerank_{name}") for name in ("history", "metrics"))
    assert [row["step"] for row in history] == [0, 1, 2, 3, 4]
    measured = [row for row in history if "validation_listwise_accuracy" in row]
    assert [row["step"] for row in measured] == [0, 2, 4]
    for key in ("validation_listwise_accuracy", "validation_pairwise_accuracy"):
        assert metrics[key] == measured[-1][key]
        assert metrics[f"{key}_before"] == measured[0][key]
    assert metrics["validation_listwise_chance"] == pytest.approx(1 / 6)
    assert (metrics["steps"], metrics["reused"], metrics["loss"]) == (4, 0, history[-1]["loss"])
    client = MlflowClient(f"sqlite:///{trained}/mlflow.db")
    runs = client.search_runs([e.experiment_id for e in client.search_experiments()])
    (run,) = [run for run in runs if run.info.run_name == "rerank"]
    for key in ("loss", "loss_pairwise", "loss_listwise", "queries_per_second", "gradient_norm"):
        points = [(p.step, p.value) for p in client.get_metric_history(run.info.run_id, f"rerank/{key}")]
        assert points[:4] == [(row["step"], row[key]) for row in history[1:]], key


def test_a_finished_training_is_reused_until_something_changes(trained):
    before = read(trained, "06_models/reranker")
    weights = (trained / "data/06_models/reranker/model.safetensors").stat().st_mtime_ns
    done = kedro(trained, "--pipeline=rerank")
    assert done.returncode == 0, done.stderr
    assert read(trained, "06_models/reranker") == before
    assert read(trained, "08_reporting/rerank_metrics")["reused"] == 1
    assert (trained / "data/06_models/reranker/model.safetensors").stat().st_mtime_ns == weights
    done = kedro(trained, "--pipeline=rerank", "--params=rerank.seed=1,rerank.tuning=lora,rerank.listwise_weight=0.0")
    assert done.returncode == 0, done.stderr
    after = read(trained, "06_models/reranker")
    assert after["identity"] != before["identity"]
    assert (trained / "data/06_models/reranker/adapter_config.json").is_file()
    history = read(trained, "08_reporting/rerank_history")
    assert not any("listwise" in key for row in history for key in row)  # pairwise messages alone
    assert all(np.isfinite(row["loss_pairwise"]) for row in history[1:])


def test_a_batch_that_stops_the_run_is_an_artifact_of_it(trained):
    from mlflow import MlflowClient

    done = kedro(trained, "--pipeline=rerank", "--params=rerank.stop_gradient_norm=0.000001,rerank.seed=2")
    assert done.returncode == 1
    assert "rerank.stop_gradient_norm is 1e-06" in done.stderr
    client = MlflowClient(f"sqlite:///{trained}/mlflow.db")
    runs = client.search_runs([e.experiment_id for e in client.search_experiments()])
    (run,) = [run for run in runs if run.info.status == "FAILED"]
    assert "failed_batch.json" in [f.path for f in client.list_artifacts(run.info.run_id)]
