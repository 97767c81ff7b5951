"""Trainings of the reranker for real, in processes of their own: resumed, repeated, divided, stopped."""

from __future__ import annotations

import json
import time

import numpy as np
import polars as pl
import pytest
import reranking_jobs as jobs

from unime_kedro.learning.events import history_of, read_events
from unime_kedro.learning.launch import run_training
from unime_kedro.learning.run_folder import read_job

pytest.importorskip("torch")

FIGURES = ("loss", "loss_pairwise", "loss_listwise", "gradient_norm", "learning_rate", "validation_listwise_accuracy")


def weights(folder):
    from safetensors.numpy import load_file

    (file,) = (folder / "out").glob("*model.safetensors")
    return load_file(file)


def history(folder):
    return history_of(read_events(folder / "events.jsonl"))


def equal(a, b):
    return a.keys() == b.keys() and all(np.array_equal(a[name], b[name]) for name in a)


@pytest.fixture(scope="module")
def straight(qwen2_vl_folder, pictures, tmp_path_factory):
    folder = tmp_path_factory.mktemp("straight")
    jobs.write(folder, qwen2_vl_folder, pictures)
    jobs.run(folder)
    return folder


def test_a_training_changes_the_weights_and_says_what_it_did(straight, qwen2_vl_folder):
    from safetensors.numpy import load_file

    assert json.loads((straight / "job.json").read_text())["kind"] == read_job(straight).kind == "reranker"
    before, after = load_file(qwen2_vl_folder / "model.safetensors"), weights(straight)
    assert {name for name in before if not np.array_equal(before[name], after[name])} == set(before)
    rows = history(straight)
    assert [row["step"] for row in rows] == [0, 1, 2, 3, 4, 5, 6]
    assert all(row["loss"] == pytest.approx(row["loss_pairwise"] + 0.5 * row["loss_listwise"]) for row in rows[1:])
    assert rows[-1]["loss"] < rows[1]["loss"]
    np.testing.assert_allclose([r["learning_rate"] for r in rows[1:]], [0, 5e-4, 1e-3, 7.5e-4, 5e-4, 2.5e-4], atol=1e-9)
    assert [row["step"] for row in rows if "validation_listwise_accuracy" in row] == [0, 2, 4, 6]
    assert not list(straight.glob("checkpoint-*"))


def test_the_model_that_is_written_is_the_one_that_was_validated_last(straight, pictures):
    from unime_kedro.learning.reranking.rows import RerankingRows
    from unime_kedro.learning.reranking.validation import measure, summary
    from unime_kedro.mllm.adapters import load_adapter
    from unime_kedro.mllm.content import Content, ModelSpec
    from unime_kedro.mllm.reranker import Reranker

    table, items = jobs.tables(pictures)
    root = pictures[0].parent
    contents = {i: Content(text, root / image if image else None) for i, text, image in items.iter_rows()}
    adapter = load_adapter(ModelSpec(str(straight / "out"), device="cpu"))
    rows = RerankingRows.from_table(table, "validation")
    reranker = Reranker(adapter, max_tokens=4096, batch_tokens=4096)
    found = measure(rows, contents, reranker, listwise=True, seed=read_job(straight).train.seed)
    datasets = table.filter(pl.col("split") == "validation").sort("query_id")["dataset"].to_numpy()
    last = history(straight)[-1]
    assert summary(found, datasets) == {key: last[key] for key in summary(found, datasets)}
    record = json.loads((straight / "out/training.json").read_text())
    assert record["validation"]["listwise_accuracy"] == last["validation_listwise_accuracy"]
    assert (
        record["validation"]["listwise_accuracy_before_training"]
        == history(straight)[0]["validation_listwise_accuracy"]
    )
    card = (straight / "out/README.md").read_text()
    assert "| Weight of the listwise messages | 0.5 |" in card
    assert "not calibrated" in card


def test_nothing_of_the_base_judges_calibration_comes_along(qwen2_vl_folder, pictures, tmp_path):
    import shutil

    from unime_kedro.mllm.calibration import CALIBRATION_FILE, read_temperature, write_calibration

    base = tmp_path / "base"
    shutil.copytree(qwen2_vl_folder, base)
    write_calibration(base, 0.5)
    folder = tmp_path / "run"
    jobs.write(folder, base, pictures, steps=1, validation={"every": 0}, tuning="lora")
    jobs.run(folder)
    assert not (folder / "out" / CALIBRATION_FILE).exists()
    assert read_temperature(folder / "out") == 1.0


@pytest.mark.slow
@pytest.mark.parametrize("tuning", ["full", "lora"])
def test_killed_and_started_again_it_ends_with_the_same_weights(qwen2_vl_folder, pictures, tmp_path, straight, tuning):
    changes = {"tuning": tuning}  # adapters drop a tenth of their inputs: random numbers go on where they were
    expected = straight
    if tuning == "lora":
        expected = tmp_path / "straight"
        jobs.write(expected, qwen2_vl_folder, pictures, **changes)
        jobs.run(expected)
    folder = tmp_path / "killed"
    jobs.write(folder, qwen2_vl_folder, pictures, **changes)
    process = jobs.start(folder)
    deadline = time.monotonic() + 120
    while max((e["step"] for e in read_events(folder / "events.jsonl") if "loss" in e), default=0) < 3:
        assert process.poll() is None, (folder / "worker.log").read_text()
        assert time.monotonic() < deadline
        time.sleep(0.005)
    process.kill()
    process.wait()
    assert not (folder / "out").exists()
    jobs.run(folder)
    assert equal(weights(folder), weights(expected))
    for key in FIGURES:
        assert [row.get(key) for row in history(folder)] == [row.get(key) for row in history(expected)], key


@pytest.mark.slow
def test_two_processes_train_as_one_does(qwen2_vl_folder, pictures, tmp_path, straight):
    jobs.write(tmp_path, qwen2_vl_folder, pictures)
    run_training(tmp_path, processes=2, section="rerank", on_event=lambda event: None)
    for mine, other in zip(history(tmp_path)[1:], history(straight)[1:], strict=True):
        for key in ("loss", "loss_pairwise", "loss_listwise"):
            assert mine[key] == pytest.approx(other[key], rel=2e-4), key
        assert mine["gradient_norm"] == pytest.approx(other["gradient_norm"], rel=2e-3)


@pytest.mark.slow
def test_two_processes_take_the_step_that_one_takes(qwen2_vl_folder, pictures, tmp_path):
    """One step of plain gradient descent: what the weights moved by is the gradient."""
    from safetensors.numpy import load_file

    plain = {"steps": 1, "warmup_steps": 0, "schedule": "constant", "learning_rate": 100.0, "max_gradient_norm": 0.0}
    moved = []
    for processes in (1, 2):
        folder = tmp_path / str(processes)
        changes = {**plain, "arguments": {"optim": "sgd"}, "batch": 6, "validation": {"every": 0}, "chunk": 3}
        jobs.write(folder, qwen2_vl_folder, pictures, **changes)
        run_training(folder, processes=processes, section="rerank", on_event=lambda event: None)
        before, after = (load_file(f / "model.safetensors") for f in (qwen2_vl_folder, folder / "out"))
        moved.append({name: after[name].astype(np.float64) - before[name] for name in before})
    one, two = moved
    scale = max(np.abs(step).max() for step in one.values())
    assert scale > 10  # nothing is lost in rounding
    assert max(np.abs(one[name] - two[name]).max() for name in one) / scale < 1e-5


@pytest.mark.slow
def test_chunks_of_any_size_train_alike(qwen2_vl_folder, pictures, tmp_path, straight):
    jobs.write(tmp_path, qwen2_vl_folder, pictures, chunk=512)
    jobs.run(tmp_path)
    for mine, other in zip(history(tmp_path)[1:], history(straight)[1:], strict=True):
        assert mine["loss"] == pytest.approx(other["loss"], rel=2e-4)


def test_a_training_that_is_lost_stops_with_the_batchs_queries(qwen2_vl_folder, pictures, tmp_path):
    from unime_kedro.learning.reranking.rows import RerankingRows
    from unime_kedro.learning.rows import batch_order

    job = jobs.write(tmp_path, qwen2_vl_folder, pictures, stop_gradient_norm=1e-9, validation={"every": 0})
    assert jobs.start(tmp_path).wait(timeout=300) == 1
    error = jobs.error_of(tmp_path)
    assert error["type"] == "ModelError"
    assert "rerank.stop_gradient_norm is 1e-09" in error["message"]
    failed = json.loads((tmp_path / "failed_batch.json").read_text())
    rows = RerankingRows.from_table(jobs.tables(pictures)[0], "train")
    order = batch_order(len(rows), batch=4, steps=6, seed=job.train.seed)
    assert failed["query_ids"] == rows.query_ids[order[0]].tolist()
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("changes", "kind", "told"),
    [
        ({"batch": 100}, "DataError", "there are 18 training queries, one batch is 100; lower rerank.batch"),
        ({"tuning": "lora", "lora": {"targets": ["nothing"]}}, "ConfigurationError", "rerank.lora.targets: 'nothing'"),
        ({"dtype": "float16"}, "ConfigurationError", "rerank.dtype = float16 is not supported"),
    ],
)
def test_bad_input_ends_it_before_the_first_step(qwen2_vl_folder, pictures, tmp_path, changes, kind, told):
    jobs.write(tmp_path, qwen2_vl_folder, pictures, **changes)
    assert jobs.start(tmp_path).wait(timeout=300) == 1
    error = jobs.error_of(tmp_path)
    assert (error["type"], told in error["message"]) == (kind, True), error["message"]
