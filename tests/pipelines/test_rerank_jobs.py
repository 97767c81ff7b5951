"""What a reranker's training is named by, what is refused before it starts, and what its metrics are."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest
import yaml
from pydantic import ValidationError

from unime_kedro.errors import ConfigurationError
from unime_kedro.mining.training import SCHEMA
from unime_kedro.parameters import RerankParameters
from unime_kedro.pipelines.rerank.nodes import summary
from unime_kedro.pipelines.train import jobs

ROOT = Path(__file__).parents[2]
TABLE = pl.DataFrame(
    [(q, "a", "validation" if q > 3 else "train", q, 10 + q, 0.9, [20, 21 + q], [0.2, 0.1]) for q in range(6)],
    schema=SCHEMA,
    orient="row",
)
ITEMS = pl.DataFrame({"item_id": range(40), "content_key": [f"k{i}" for i in range(40)]})


def parameters(**changes) -> RerankParameters:
    values = yaml.safe_load((ROOT / "conf/base/parameters/rerank.yml").read_text())["rerank"]
    for key, value in changes.items():
        values[key] = values[key] | value if isinstance(values[key], dict) and key != "arguments" else value
    return RerankParameters.model_validate(values)


def identity(table=TABLE, items=ITEMS, fingerprint="f", **changes) -> str:
    return jobs.training_identity(table, items, [], parameters(**changes), fingerprint)


def test_a_training_is_named_by_what_its_result_depends_on():
    found = [identity()]
    for changes in (
        {"seed": 43},
        {"listwise_weight": 0.0},
        {"fewest_negatives": 1},
        {"steps": 7},
        {"tuning": "lora"},
        {"fingerprint": "g"},
        {"distributed": {"processes": 2}},
        {"items": ITEMS.with_columns(content_key=pl.col("content_key").replace("k20", "other"))},
        {"table": TABLE.with_columns(split=pl.lit("train"))},  # other queries are held out
    ):
        found.append(identity(**changes))
    assert len(set(found)) == len(found)
    for changes in ({"chunk": 7}, {"model": "x/y"}, {"log_every": 1}, {"cache_gb": 0.0}):
        assert identity(**changes) == found[0], changes


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"fewest_negatives": 6}, "fewest_negatives is 6; expected at most negatives, which is 5"),
        ({"arguments": {"learning_rate": 1.0}}, "learning_rate: set rerank.learning_rate instead"),
        ({"arguments": {"auto_find_batch_size": True}}, "auto_find_batch_size is not supported: .*lower rerank.chunk"),
    ],
)
def test_wrong_parameters_are_named(changes, told):
    with pytest.raises(ValidationError, match=told):
        parameters(**changes)


def test_more_processes_than_gpus_are_refused_by_the_right_key():
    with pytest.raises(ConfigurationError, match=r"rerank.distributed.processes = 64, .*set rerank.device to cpu"):
        jobs.check_hardware(parameters(device="cuda", distributed={"processes": 64}))


def test_metrics_are_the_last_figures_those_before_training_and_means_over_time():
    rates = {"messages_per_second": 30.0, "tokens_per_second": 100.0}
    step = {"loss": 3.0, "loss_pairwise": 1.0, "seconds": 1.0, "queries_per_second": 10.0, "peak_memory_gb": 2.0}
    history = [
        {"step": 0, "validation_pairwise_accuracy": 0.5, "validation_seconds": 9.0},
        {"step": 1, **step, **rates},
        {"step": 2, **step, **rates, "loss": 2.0, "seconds": 3.0, "queries_per_second": 2.0, "peak_memory_gb": 1.0}
        | {"validation_pairwise_accuracy": 0.75, "validation_pairwise_accuracy/a": 1.0, "validation_seconds": 8.0},
    ]
    found = summary(history)
    assert (found["steps"], found["loss"], found["loss_pairwise"], found["seconds"]) == (2, 2.0, 1.0, 4.0)
    assert found["queries_per_second"] == pytest.approx((10 + 3 * 2) / 4)
    assert (found["messages_per_second"], found["peak_memory_gb"]) == (30.0, 2.0)
    assert found["validation_pairwise_accuracy_before"] == 0.5
    assert (found["validation_pairwise_accuracy"], found["validation_pairwise_accuracy/a"]) == (0.75, 1.0)
    assert "loss_listwise" not in found
    assert summary([]) == {"steps": 0}
