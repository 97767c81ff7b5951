"""What a training is named by, when it counts as done, and what is refused before it starts."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import polars as pl
import pytest
import yaml
from pydantic import ValidationError

from unime_kedro.errors import ConfigurationError, DataError
from unime_kedro.evaluation.held_out import held_out_sets
from unime_kedro.learning.run_folder import write_finished
from unime_kedro.mining.training import SCHEMA
from unime_kedro.mllm.adapters import fingerprint_of
from unime_kedro.mllm.fingerprint import folder_fingerprint
from unime_kedro.parameters import DemoParameters, IngestParameters, TrainParameters
from unime_kedro.pipelines.train import jobs

ROOT = Path(__file__).parents[2]


def parameters(**changes) -> TrainParameters:
    values = yaml.safe_load((ROOT / "conf/base/parameters/train.yml").read_text())["train"]
    values["model"] = str(ROOT / "models/tiny-embedder")
    for key, value in changes.items():
        values[key] = values[key] | value if isinstance(values[key], dict) and key != "arguments" else value
    return TrainParameters.model_validate(values)


TRAINING = pl.DataFrame(
    [(q, "a", "validation" if q > 3 else "train", q, 10 + q, 0.9, [20, 21 + q], [0.1, 0.2]) for q in range(6)],
    schema=SCHEMA,
    orient="row",
)
ITEMS = pl.DataFrame(
    {
        "item_id": range(40),
        "text": [f"w{i}" for i in range(40)],
        "image": "",
        "content_key": [f"k{i}" for i in range(40)],
    }
)


def identity(training=TRAINING, items=ITEMS, candidates=3, **changes) -> str:
    sets = held_out_sets(training, items, candidates=candidates, seed=0)
    train = parameters(**changes)
    return jobs.training_identity(training, items, sets, train, fingerprint_of(train.model, train.revision))


def test_a_training_is_named_by_what_its_result_depends_on():
    same = identity()
    for changes in (
        {"seed": 43},
        {"learning_rate": 2e-3},
        {"loss": {"kind": "hard"}},
        {"warmup_steps": 7},
        {"distributed": {"processes": 2}},
        {"arguments": {"optim": "sgd"}},
        {"candidates": 4},  # figures on other validation sets are other figures
        {"training": TRAINING.with_columns(pl.col("positive_score") / 2)},
        {
            "items": ITEMS.with_columns(
                pl.when(pl.col("item_id") == 21).then(pl.lit("x")).otherwise("content_key").alias("content_key")
            )
        },
    ):
        assert identity(**changes) != same, changes
    for changes in (
        {"log_every": 3},
        {"chunk": 7},  # who runs out of memory goes on with a smaller one
        {"stop_gradient_norm": 7.0},
        {"checkpoint_every": 7},
        {"image_workers": 2},
        {"cache_gb": 0.5},
        {
            "items": ITEMS.with_columns(
                pl.when(pl.col("item_id") == 39).then(pl.lit("x")).otherwise("content_key").alias("content_key")
            )
        },
        {"items": ITEMS.reverse()},
    ):
        assert identity(**changes) == same, changes


def test_the_base_of_a_lora_model_counts(tmp_path):
    base, adapter = tmp_path / "base", tmp_path / "adapter"
    shutil.copytree(ROOT / "models/tiny-embedder", base)
    adapter.mkdir()
    config = {"peft_type": "LORA", "base_model_name_or_path": str(base), "r": 2}
    (adapter / "adapter_config.json").write_text(json.dumps(config))
    (adapter / "adapter_model.safetensors").write_bytes(b"x")
    before = identity(model=str(adapter))
    (base / "generation_config.json").write_text("{}")
    assert identity(model=str(adapter)) != before


def test_a_training_is_done_when_its_model_lies_there_as_it_was_written(tmp_path):
    ingest = IngestParameters.model_construct(root="elsewhere", image_root="elsewhere")
    demo = DemoParameters.model_construct(root="demo")
    arguments = (TRAINING, ITEMS, {"corpus": "c"}, ingest, demo, parameters(), tmp_path / "runs", tmp_path / "out")
    job, folder, done = jobs.make_job(*arguments)
    assert not done
    (tmp_path / "out").mkdir()
    (tmp_path / "out/training.json").write_text(json.dumps({"identity": job.identity}))
    (tmp_path / "out/model.safetensors").write_bytes(b"weights")
    assert not jobs.finished(job, folder)  # killed before it said so
    write_finished(folder, folder_fingerprint(tmp_path / "out"))
    assert jobs.finished(job, folder)
    (tmp_path / "out/model.safetensors").write_bytes(b"damaged")
    assert not jobs.finished(job, folder)


def test_no_gpu_where_one_is_asked_for_is_told_first():
    for changes in ({"device": "cuda"}, {"device": "cuda", "distributed": {"processes": 2}}):
        with pytest.raises(ConfigurationError, match="this machine has 0 GPUs"):
            jobs.check_hardware(parameters(**changes))
    jobs.check_hardware(parameters(distributed={"processes": 2}))  # two processes on a CPU are fine


def test_a_missing_picture_names_query_item_and_file(tmp_path):
    items = ITEMS.with_columns(
        image=pl.when(pl.col("item_id").is_in([11, 21])).then(pl.format("{}.png", "item_id")).otherwise(pl.lit(""))
    )
    (tmp_path / "21.png").touch()
    with pytest.raises(
        DataError, match=rf"query_id 1, item 11: there is no picture {tmp_path}/11.png; 1 of 2 pictures"
    ):
        jobs.check_pictures(TRAINING, items, tmp_path)
    (tmp_path / "11.png").touch()
    jobs.check_pictures(TRAINING, items, tmp_path)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"fsdp": "full_shard"}, "fsdp is not supported: it waits for equal numbers of passes"),
        ({"deepspeed": "x.json"}, "deepspeed is not supported"),
        ({"learning_rate": 1.0}, "learning_rate: set train.learning_rate instead"),
        ({"output_dir": "x"}, "output_dir: it cannot be set"),
    ],
)
def test_arguments_with_a_key_of_their_own_or_without_a_chance_are_refused(arguments, told):
    with pytest.raises(ValidationError) as caught:
        parameters(arguments=arguments)
    assert caught.value.errors()[0]["msg"].startswith(told)


def test_several_machines_need_an_address():
    with pytest.raises(ValidationError, match="several machines need `address`"):
        parameters(distributed={"machines": 2})
