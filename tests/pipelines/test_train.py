"""`kedro run --env=smoke --pipeline=train` for real, on freshly mined smoke data."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from unime_kedro.io.run_figures import merge, read_run_figures

ROOT = Path(__file__).parents[2]
KEDRO = str(Path(sys.executable).with_name("kedro"))
LIVE = ["loss", "learning_rate", "gradient_norm", "pairs_per_second", "encodes_saved", "peak_memory_gb"]


def command(folder: Path, *arguments: str) -> tuple[list[str], dict[str, str]]:
    environment = {
        **os.environ,
        "UNIME_DATA_ROOT": str(folder / "data"),
        "MLFLOW_TRACKING_URI": f"sqlite:///{folder}/mlflow.db",
        "OMP_NUM_THREADS": "1",
        "COLUMNS": "160",
    }
    return [KEDRO, "run", "--env=smoke", *arguments], environment


def kedro(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    words, environment = command(folder, *arguments)
    return subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)


def read(folder: Path, name: str):
    file = folder / "data/08_reporting" / f"{name}.json"
    return merge(json.loads(file.read_text()), read_run_figures(file))


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("train")
    for pipeline in ("mine", "train"):
        done = kedro(folder, f"--pipeline={pipeline}")
        assert done.returncode == 0, done.stdout + done.stderr
    return folder, done


def copied(trained, tmp_path: Path) -> Path:
    """A copy of the mined data, without what was trained on them."""
    shutil.copytree(trained[0] / "data", tmp_path / "data", ignore=shutil.ignore_patterns("06_models", "07_*"))
    return tmp_path


def test_rows_are_the_mined_negatives_with_the_judges_scores(trained):
    data = trained[0] / "data"
    negatives = pl.read_parquet(data / "05_model_input/negatives.parquet")
    scores = pl.read_parquet(data / "03_primary/judge_scores.parquet")
    queries = {row[0]: row for row in pl.read_parquet(data / "02_intermediate/queries.parquet").iter_rows()}
    training = pl.read_parquet(data / "05_model_input/training.parquet")
    judged = {(q, i): s for q, i, s in scores.select("query_id", "item_id", "score").iter_rows()}
    assert training["query_id"].to_list() == sorted(set(negatives["query_id"].to_list()))
    for query, dataset, split, item, positive, score, ids, values in training.iter_rows():
        own = sorted(negatives.filter(pl.col("query_id") == query).select("slot", "item_id", "score").rows())[:4]
        assert (ids, values) == ([i for _, i, _ in own], [s for _, _, s in own])
        assert score == judged[query, positive]
        assert (dataset, item, positive) == (queries[query][1], queries[query][3], queries[query][4])
        assert split == "train"  # mini-MMEB has validation sets of its own


def test_its_figures_follow_from_the_model_that_was_written(trained):
    from unime_kedro.mllm.adapters import load_adapter
    from unime_kedro.mllm.content import Content, ModelSpec
    from unime_kedro.mllm.embedding import Embedder

    data = trained[0] / "data"
    adapter = load_adapter(ModelSpec(str(data / "06_models/trained"), device="cpu"))
    embedder = Embedder(adapter, prompt="plain", max_tokens=512, batch_tokens=4096)
    root = data / "01_raw/mini_mmeb/eval"
    predictions = pl.read_parquet(data / "07_model_output/trained_predictions.parquet")
    shares = {}
    for file in sorted(root.glob("*/test-*.parquet")):
        right = []
        for text, image, texts, images in pl.read_parquet(file).iter_rows():
            sides = [(text, image), *zip(texts, images, strict=True)]
            vectors = embedder.embed([Content(t, root / "images" / i if i else None) for t, i in sides])
            similarity = vectors[1:].astype(np.float64) @ vectors[0]
            right.append(similarity[0] > similarity[1:].max() + 1e-6)
        shares[file.parent.name] = np.mean(right)
        found = predictions.filter(pl.col("dataset") == file.parent.name)["correct"].to_list()
        assert found == right, file.parent.name
    metrics = read(trained[0], "trained_metrics")
    for name, share in shares.items():
        assert metrics[f"precision_at_1/{name}"] == pytest.approx(share)
    assert metrics["precision_at_1/all"] == pytest.approx(np.mean(list(shares.values())))
    assert set(predictions["benchmark"]) == {"mini-MMEB"}


def test_every_step_is_in_mlflow_while_it_runs_and_as_a_picture(trained):
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{trained[0]}/mlflow.db")
    runs = client.search_runs([e.experiment_id for e in client.search_experiments()])
    (run,) = [run for run in runs if run.info.run_name == "train"]
    history = read(trained[0], "train_history")
    assert [row["step"] for row in history] == [0, 1, 2, 3, 4]
    for key in LIVE:
        points = [(p.step, p.value) for p in client.get_metric_history(run.info.run_id, f"train/{key}")]
        assert points[:4] == [(row["step"], row[key]) for row in history[1:]], key
    validated = client.get_metric_history(run.info.run_id, "train/validation_precision_at_1")
    assert [p.step for p in validated][:3] == [0, 2, 4]
    assert "plots/train_history.png" in [f.path for f in client.list_artifacts(run.info.run_id, "plots")]
    assert run.data.params["train.loss.kind"] == "soft"


def test_the_end_says_what_was_trained_and_how_well(trained):
    printed = trained[1].stdout
    assert "train      110 queries, 4 steps," in printed
    assert "validation Precision@1 " in printed
    assert "models/tiny-embedder is tiny" in printed


def test_the_same_training_is_not_done_twice(trained):
    before = (trained[0] / "data/06_models/trained/training.json").read_text()
    done = kedro(trained[0], "--pipeline=train")
    assert done.returncode == 0, done.stderr
    assert "nothing was trained" in done.stdout
    assert read(trained[0], "train_metrics")["reused"] == 1
    assert (trained[0] / "data/06_models/trained/training.json").read_text() == before


@pytest.mark.parametrize(
    ("params", "told"),
    [
        ("train.negatives=11", "has 10 negatives, train.negatives is 11"),
        ("train.model=models/nowhere", "train.model, nothing was run: there is no model folder"),
        ("train.loss.kind=sooft", "expected one of"),
        ("train.batch=1000", "there are 110 training queries, one batch is 1,000"),
        ("train.distributed.processes=2,train.device=cuda", "this machine has 0 GPUs"),
        ("train.tuning=lora,train.lora.targets=q_prj", "train.lora.targets"),
    ],
)
def test_bad_input_is_a_line_that_says_what_to_do(trained, tmp_path, params, told):
    folder = copied(trained, tmp_path)
    done = kedro(folder, "--pipeline=train", f"--params={params}")
    assert done.returncode == 1
    assert told in done.stderr, done.stderr
    assert "Traceback" not in done.stderr
    assert not list((folder / "data/06_models/trained").glob("*"))


def test_a_missing_picture_is_named_before_anything_is_trained(trained, tmp_path):
    folder = copied(trained, tmp_path)
    picture = min((folder / "data/01_raw/mini_mmeb/train/images/EmojiTwins/Train").glob("*.png"))
    picture.unlink()
    words, environment = command(
        folder, "--pipeline=train", f"--params=ingest.root={folder}/data/01_raw/mini_mmeb/train"
    )
    done = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert f"there is no picture {picture}; 1 of" in done.stderr, done.stderr


def test_an_imported_file_is_trained_on_with_held_out_queries(tmp_path):
    """Somebody else's scores, texts only, no mini-MMEB anywhere."""
    from unime_kedro.io.release import import_release, write_imported

    words = ["red", "house", "boat", "apple", "dog", "cat", "tree", "sun"]
    rows = [
        {
            "query_text": f"find {words[i % 8]} {i}",
            "query_image": "",
            "pos_text": f"{words[i % 8]} number {i}",
            "pos_image": "",
            "query_pos_scores": 0.9,
            "hard_negatives": [[f"{words[(i + j) % 8]} number {i + j}", ""] for j in range(1, 5)],
            "hard_negatives_scores": [0.1, 0.2, 0.3, 0.4],
        }
        for i in range(40)
    ]
    (tmp_path / "theirs.json").write_text(json.dumps(rows))
    write_imported(import_release(tmp_path / "theirs.json"), tmp_path / "data")
    done = kedro(tmp_path, "--pipeline=train")
    assert done.returncode == 0, done.stderr
    training = pl.read_parquet(tmp_path / "data/05_model_input/training.parquet")
    assert training["split"].to_list().count("validation") == 12  # train.validation.queries of conf/smoke
    history = read(tmp_path, "train_history")
    assert [row["step"] for row in history if "validation_precision_at_1/unknown" in row] == [0, 2, 4]
    assert "there is no mini-MMEB" in done.stdout + done.stderr
    assert len(pl.read_parquet(tmp_path / "data/07_model_output/trained_predictions.parquet")) == 0
    card = (tmp_path / "data/06_models/trained/README.md").read_text()
    assert "unknown (imported scores)" in card


def test_a_batch_that_stops_the_run_is_an_artifact_of_it(trained, tmp_path):
    from mlflow import MlflowClient

    folder = copied(trained, tmp_path)
    done = kedro(folder, "--pipeline=train", "--params=train.stop_gradient_norm=0.000001")
    assert done.returncode == 1
    assert "step 1: the gradient norm is" in done.stderr
    client = MlflowClient(f"sqlite:///{folder}/mlflow.db")
    (run,) = client.search_runs([e.experiment_id for e in client.search_experiments()])
    assert run.info.status == "FAILED"
    file = client.download_artifacts(run.info.run_id, "failed_batch.json", str(tmp_path))
    assert len(json.loads(Path(file).read_text())["query_ids"]) == 8


@pytest.mark.slow
def test_killed_with_all_its_processes_it_goes_on_and_ends_as_it_would_have(trained, tmp_path):
    folder = copied(trained, tmp_path)
    words, environment = command(folder, "--pipeline=train")
    process = subprocess.Popen(words, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not list((folder / "data/06_models/training").glob("*/checkpoint-2/complete.json")):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    done = kedro(folder, "--pipeline=train")
    assert done.returncode == 0, done.stderr
    ours, theirs = (json.loads((f / "data/06_models/trained.json").read_text()) for f in (folder, trained[0]))
    assert ours["identity"] == theirs["identity"]
    files = [f / "data/06_models/trained" for f in (folder, trained[0])]
    (name,) = [f.name for f in files[0].glob("*model.safetensors")]
    assert (files[0] / name).read_bytes() == (files[1] / name).read_bytes()
