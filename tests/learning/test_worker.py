"""Trainings for real, in processes of their own: resumed, repeated, divided, stopped."""

from __future__ import annotations

import json
import time

import numpy as np
import pytest
import training_jobs as jobs

from unime_kedro.learning.events import history_of, read_events
from unime_kedro.learning.launch import run_training
from unime_kedro.learning.worker_errors import read_errors

pytest.importorskip("torch")


@pytest.fixture(scope="module")
def model(qwen2_vl_folder):
    return qwen2_vl_folder


def weights(folder):
    from safetensors.numpy import load_file

    (file,) = (folder / "out").glob("*model.safetensors")
    return load_file(file)


def equal(a, b):
    return a.keys() == b.keys() and all(np.array_equal(a[name], b[name]) for name in a)


@pytest.fixture(scope="module")
def straight(model, pictures, tmp_path_factory):
    folder = tmp_path_factory.mktemp("straight")
    jobs.write(folder, model, pictures)
    jobs.run(folder)
    return folder


def test_a_training_changes_the_weights_and_says_what_it_did(straight, model):
    from safetensors.numpy import load_file

    before, after = load_file(model / "model.safetensors"), weights(straight)
    assert before.keys() == after.keys()
    moved = {name for name in before if not np.array_equal(before[name], after[name])}
    assert moved == set(before)  # words, pictures and all layers
    history = history_of(read_events(straight / "events.jsonl"))
    assert [row["step"] for row in history] == [0, 1, 2, 3, 4, 5, 6]
    assert all(np.isfinite(row["loss"]) and row["gradient_norm"] > 0 for row in history[1:])
    assert [row["step"] for row in history if "validation_precision_at_1" in row] == [0, 2, 4, 6]
    # linear schedule: 2 steps of warm-up to 1e-3, then down to zero at step 6; what is told was used in that step
    rates = [row["learning_rate"] for row in history[1:]]
    np.testing.assert_allclose(rates, [0.0, 5e-4, 1e-3, 7.5e-4, 5e-4, 2.5e-4], atol=1e-9)
    assert not list(straight.glob("checkpoint-*"))


def test_the_model_that_is_written_is_the_one_that_was_validated_last(straight, pictures):
    from unime_kedro.learning.run_folder import read_tables
    from unime_kedro.learning.validation import precision_by_set
    from unime_kedro.mllm.adapters import load_adapter
    from unime_kedro.mllm.content import ModelSpec
    from unime_kedro.mllm.embedding import Embedder

    adapter = load_adapter(ModelSpec(str(straight / "out"), device="cpu"))
    embedder = Embedder(adapter, prompt="plain", max_tokens=512, batch_tokens=4096)
    found = precision_by_set(read_tables(straight)[2], embedder, pictures[0].parent)
    last = history_of(read_events(straight / "events.jsonl"))[-1]
    assert found == {name: last[f"validation_precision_at_1/{name}"] for name in found}
    record = json.loads((straight / "out" / "training.json").read_text())
    assert record["identity"] == "identity"
    assert record["validation"]["precision_at_1"] == last["validation_precision_at_1"]
    assert record["data"]["negatives"] == 2
    assert "| Hard negatives per query | 2 |" in (straight / "out" / "README.md").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("tuning", ["full", "lora"])
@pytest.mark.parametrize("killed_at", [1, 3])
def test_killed_and_started_again_it_ends_with_the_same_weights(model, pictures, tmp_path, straight, tuning, killed_at):
    changes = {"tuning": tuning}  # adapters drop a tenth of their inputs: random numbers go on where they were
    if tuning == "full":
        expected = straight
    else:
        expected = tmp_path / "straight"
        jobs.write(expected, model, pictures, **changes)
        jobs.run(expected)
    folder = tmp_path / "killed"
    jobs.write(folder, model, pictures, **changes)
    process = jobs.start(folder)
    deadline = time.monotonic() + 120
    while max((e["step"] for e in read_events(folder / "events.jsonl") if "loss" in e), default=0) < killed_at:
        assert process.poll() is None, (folder / "worker.log").read_text()
        assert time.monotonic() < deadline
        time.sleep(0.005)
    process.kill()
    process.wait()
    assert not (folder / "out").exists()
    jobs.run(folder)
    assert equal(weights(folder), weights(expected))
    ours, theirs = (history_of(read_events(f / "events.jsonl")) for f in (folder, expected))
    for key in ("loss", "gradient_norm", "learning_rate", "validation_precision_at_1"):
        assert [row.get(key) for row in ours] == [row.get(key) for row in theirs], key


@pytest.mark.slow
def test_two_processes_train_as_one_does(model, pictures, tmp_path, straight):
    # two machines' worth of rounding, and Adam divides small gradients by their own size: compare what it is fed
    jobs.write(tmp_path, model, pictures)
    run_training(tmp_path, processes=2, on_event=lambda event: None)
    ours, theirs = (history_of(read_events(f / "events.jsonl")) for f in (tmp_path, straight))
    assert [row["step"] for row in ours] == [row["step"] for row in theirs]
    for mine, other in zip(ours[1:], theirs[1:], strict=True):
        assert mine["loss"] == pytest.approx(other["loss"], rel=2e-4)
        assert mine["gradient_norm"] == pytest.approx(other["gradient_norm"], rel=2e-3)
    a, b = weights(tmp_path), weights(straight)
    assert max(np.abs(a[name] - b[name]).max() for name in a) < 1e-3  # six steps of at most 1e-3 each


@pytest.mark.slow
def test_chunks_of_any_size_train_alike(model, pictures, tmp_path, straight):
    jobs.write(tmp_path, model, pictures, chunk=512)
    jobs.run(tmp_path)
    ours, theirs = (history_of(read_events(f / "events.jsonl")) for f in (tmp_path, straight))
    for mine, other in zip(ours[1:], theirs[1:], strict=True):
        assert mine["loss"] == pytest.approx(other["loss"], rel=2e-4)
    assert ours[1]["encodes_saved"] == theirs[1]["encodes_saved"]


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"stop_gradient_norm": 1e-9}, "step 1: the gradient norm is"),
        ({"learning_rate": 1e30, "max_gradient_norm": 0.0, "warmup_steps": 0, "schedule": "constant"}, "step 2: the"),
    ],
)
def test_a_training_that_is_lost_stops_with_the_batchs_queries(model, pictures, tmp_path, changes, told):
    from unime_kedro.learning.rows import TrainingRows, batch_order

    job = jobs.write(tmp_path, model, pictures, **changes)
    assert jobs.start(tmp_path).wait(timeout=300) == 1
    error = jobs.error_of(tmp_path)
    assert error["type"] == "ModelError"
    assert error["message"].startswith(told), error["message"]
    failed = json.loads((tmp_path / "failed_batch.json").read_text())
    rows = TrainingRows.from_table(jobs.tables(pictures)[0], 2)
    order = batch_order(len(rows), batch=4, steps=6, seed=job.train.seed)
    assert failed["query_ids"] == rows.query_ids[order[failed["step"] - 1]].tolist()
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("changes", "kind", "told"),
    [
        ({"tuning": "lora", "lora": {"targets": ["q_proj", "nothing"]}}, "ConfigurationError", "'nothing' matches no"),
        ({"dtype": "float16"}, "ConfigurationError", "float16 is not supported"),
        ({"arguments": {"optim": "sgdd"}}, "ConfigurationError", "train.arguments"),
        ({"batch": 100}, "DataError", "there are 18 training queries, one batch is 100"),
        ({"negatives": 3}, "DataError", "has 2 negatives, 3 are to be used"),
    ],
)
def test_bad_input_ends_it_before_the_first_step(model, pictures, tmp_path, changes, kind, told):
    jobs.write(tmp_path, model, pictures, **changes)
    assert jobs.start(tmp_path).wait(timeout=300) == 1
    error = jobs.error_of(tmp_path)
    assert (error["type"], told in error["message"]) == (kind, True), error["message"]
    assert read_events(tmp_path / "events.jsonl") == []


@pytest.mark.slow
def test_a_checkpoint_of_another_architecture_is_refused(model, pictures, tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    jobs.write(first, model, pictures, tuning="lora", steps=40, checkpoint_every=1)
    process = jobs.start(first)
    while not list(first.glob("checkpoint-*/complete.json")) and process.poll() is None:
        time.sleep(0.01)
    process.kill()
    process.wait()
    given = next(first.glob("checkpoint-*/complete.json")).parent
    jobs.write(second, model, pictures, resume_from=str(given))
    assert jobs.start(second).wait(timeout=300) == 1
    assert "is of another model" in jobs.error_of(second)["message"]


@pytest.mark.slow
def test_a_batch_that_processes_cannot_share_is_told_by_its_own_error(model, pictures, tmp_path):
    from unime_kedro.errors import ConfigurationError

    jobs.write(tmp_path, model, pictures, batch=5)
    with pytest.raises(ConfigurationError, match=r"train.batch = 5 cannot be divided among 2"):
        run_training(tmp_path, processes=2, on_event=lambda event: None)
    assert {error.type for error in read_errors(tmp_path, 2)} == {"ConfigurationError"}
