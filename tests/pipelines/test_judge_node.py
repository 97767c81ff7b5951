"""The judge's node takes its temperature from the model's folder, or from the parameters."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import yaml
from pydantic import ValidationError

from unime_kedro.config import Sources, model_faults
from unime_kedro.errors import ModelError
from unime_kedro.mining.lineage import corpus_digest, table_digest
from unime_kedro.mllm.calibration import write_calibration
from unime_kedro.parameters import JudgeParameters
from unime_kedro.pipelines.judge.nodes import judge

CONF = Path(__file__).parents[2] / "conf"
SHIPPED = yaml.safe_load((CONF / "base/parameters/judge.yml").read_text())["judge"]


def parameters(**changes: Any) -> JudgeParameters:
    return JudgeParameters(**SHIPPED | changes)


def test_the_shipped_temperature_is_the_models() -> None:
    assert parameters().temperature == "model"


@pytest.mark.parametrize("temperature", [1.0, 2, 0.5])
def test_a_number_is_a_temperature(temperature: float) -> None:
    assert parameters(temperature=temperature).temperature == temperature


@pytest.mark.parametrize("temperature", ["none", "1.5", 0, -1.0, float("nan"), float("inf"), True, None, [1.0]])
def test_anything_else_is_refused_in_one_message(temperature: Any) -> None:
    with pytest.raises(ValidationError) as caught:
        parameters(temperature=temperature)
    (error,) = caught.value.errors()
    assert error["loc"] == ("temperature",)
    assert error["msg"] == "expected `model` or a finite number above 0"


def test_a_wrong_temperature_is_reported_with_the_line_that_sets_it() -> None:
    sources = Sources(CONF, None, None, "parameters")
    (fault,) = model_faults(JudgeParameters, SHIPPED | {"temperature": "off"}, sources, ("judge",))
    assert fault.startswith('judge.temperature = "off": expected `model` or a finite number above 0 [')
    assert "base/parameters/judge.yml, line " in fault


@pytest.fixture
def folder(model_folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(model_folder, tmp_path / "model"))


def run(folder: Path, **changes: Any) -> tuple[pl.DataFrame, dict[str, str], dict[str, Any]]:
    texts = ["a query", "a dog", "an axe", "a pen and a dog"]
    keys = [f"{i:032x}" for i in range(4)]
    items = pl.DataFrame({"item_id": range(4), "text": texts, "image": [""] * 4, "content_key": keys})
    queries = pl.DataFrame({"query_id": [0], "item_id": [0], "positive_item_id": [1]})
    pool = pl.DataFrame({"query_id": [0, 0], "rank": [0, 1], "item_id": [2, 3]}, schema_overrides={"rank": pl.Int32})
    origin = {"corpus": corpus_digest(items, queries), "pool": table_digest(pool)}
    options = parameters(model=str(folder), dtype="float32", device="cpu", **changes)
    store = folder.parent / "store"
    errors, coverage, scores, made_from, metrics = judge(
        queries, items, pool, origin, options, str(folder.parent), store
    )
    assert errors.is_empty()
    assert coverage.rows() == [(0, 2, 2, None)]
    return scores, made_from, metrics


def test_the_models_own_temperature_is_used_and_judges_nothing_again(folder: Path) -> None:
    plain, plain_origin, metrics = run(folder)
    assert (metrics["judged_now"], metrics["temperature"]) == (3, 1.0)
    write_calibration(folder, 2.5)
    calibrated, origin, metrics = run(folder)
    assert (metrics["judged_now"], metrics["from_store"], metrics["temperature"]) == (0, 3, 2.5)
    logits = [yes - no for yes, no in calibrated.select("yes_logit", "no_logit").rows()]
    np.testing.assert_allclose(calibrated["score"].to_numpy(), [1 / (1 + np.exp(-x / 2.5)) for x in logits], atol=1e-6)
    assert not np.allclose(calibrated["score"].to_numpy(), plain["score"].to_numpy(), atol=1e-4)
    assert origin["judge_scores"] != plain_origin["judge_scores"]
    assert len(list((folder.parent / "store").iterdir())) == 1
    # switched off, and set by hand
    assert run(folder, temperature=1.0)[0].equals(plain)
    assert run(folder, temperature=4)[0]["temperature"].to_list() == [4.0] * 3


def test_a_damaged_calibration_stops_the_node_unless_it_is_not_asked_for(folder: Path) -> None:
    (folder / "judge_calibration.json").write_text('{"temperature": 0}')
    with pytest.raises(ModelError, match=r"judge_calibration\.json has temperature 0"):
        run(folder)
    assert not (folder.parent / "store").exists()
    assert run(folder, temperature=1.0)[2]["temperature"] == 1.0
