"""The judge card of a random model over a handful of texts, from catalog to page."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import yaml
from kedro.runner import SequentialRunner
from pydantic import ValidationError

from unime_kedro.catalog import Catalog
from unime_kedro.errors import DataError
from unime_kedro.mining.lineage import corpus_digest, table_digest
from unime_kedro.mllm.calibration import write_calibration
from unime_kedro.parameters import JudgeCardParameters, JudgeParameters, SelectParameters
from unime_kedro.pipelines.judge.nodes import judge as judge_node
from unime_kedro.pipelines.judge_card import create_pipeline
from unime_kedro.pipelines.judge_card.scorings import other_precision

ROOT = Path(__file__).parents[2]
ANIMALS = ["dog", "cat", "cow", "hen", "pig", "bee"]
TABLES = {
    "queries": "02_intermediate/queries", "items": "02_intermediate/items", "pool": "03_primary/pool",
    "judge_scores": "03_primary/judge_scores", "pool_relevance": "03_primary/pool_relevance",
}  # fmt: skip


def section(name: str) -> dict[str, Any]:
    text = (ROOT / f"conf/base/parameters/{name}.yml").read_text(encoding="utf-8")
    found: dict[str, Any] = yaml.safe_load(text.replace("negatives: 10 ", "negatives: 2 "))[name]
    return found


def card(**changes: Any) -> JudgeCardParameters:
    return JudgeCardParameters.model_validate(section("judge_card") | {"queries": 4, "resamples": 20} | changes)


def mined() -> dict[str, pl.DataFrame]:
    """Return six queries after animals, each with four of the six animals in its pool."""
    n = len(ANIMALS)
    texts = [f"find the {a}" for a in ANIMALS] + [f"a {a}" for a in ANIMALS]
    items = pl.DataFrame(
        {
            "item_id": range(2 * n), "text": texts, "image": [""] * 2 * n,
            "content_key": [f"{i:032x}" for i in range(2 * n)], "modality": ["text"] * 2 * n,
        }
    )  # fmt: skip
    queries = pl.DataFrame(
        {
            "query_id": range(n), "dataset": ["A", "B"] * (n // 2), "meta_task": ["vqa"] * n, "item_id": range(n),
            "positive_item_id": range(n, 2 * n),
        }
    )  # fmt: skip
    members = [(q, rank, n + (q + 1 + rank) % n) for q in range(n) for rank in range(4)]
    pool = pl.DataFrame(members, schema={"query_id": pl.Int64, "rank": pl.Int32, "item_id": pl.Int64}, orient="row")
    return {"items": items, "queries": queries, "pool": pool}


@pytest.fixture(scope="module")
def folder(qwen2_vl_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The judge of these tests, and beside it another one: the same with disturbed weights."""
    from safetensors.numpy import load_file, save_file

    made = tmp_path_factory.mktemp("judges")
    one = Path(shutil.copytree(qwen2_vl_folder, made / "one"))
    write_calibration(one, 2.0)
    other = Path(shutil.copytree(qwen2_vl_folder, made / "other"))
    rng = np.random.default_rng(0)
    weights = load_file(other / "model.safetensors")
    noisy = {k: (v + 0.02 * rng.standard_normal(v.shape)).astype(v.dtype) for k, v in weights.items()}
    save_file(noisy, other / "model.safetensors", metadata={"format": "pt"})
    return one


def catalog(tmp_path: Path, folder: Path, parameters: JudgeCardParameters, truth: bool = True) -> Catalog:
    """Return what mining saves, with the scores of the judge in use."""
    entries = yaml.safe_load(
        (ROOT / "conf/base/catalog/judge_card.yml").read_text().replace("${globals:data_root}", str(tmp_path))
    )
    for name, file in TABLES.items():
        entries[name] = {"type": "unime_kedro.io.ParquetTable", "filepath": str(tmp_path / f"{file}.parquet")}
    made = Catalog.from_config(entries)
    judge = JudgeParameters(**section("judge") | {"model": str(folder), "dtype": "float32", "device": "cpu"})
    tables = mined()
    origin = {"corpus": corpus_digest(tables["items"], tables["queries"]), "pool": table_digest(tables["pool"])}
    _, _, scores, made_from, _ = judge_node(
        tables["queries"], tables["items"], tables["pool"], origin, judge, str(tmp_path), tmp_path / "store"
    )
    pairs = scores.select("query_id", "item_id", relevance=pl.col("is_positive").cast(pl.Float32))
    for name, table in (tables | {"judge_scores": scores, "pool_relevance": pairs if truth else pairs[:0]}).items():
        made.save(name, table)
    values = {
        "params:judge": judge, "params:judge_card": parameters, "params:ingest.image_root": str(tmp_path),
        "params:select": SelectParameters.model_validate(section("select")), "judge_origin": made_from,
    }  # fmt: skip
    for name, value in values.items():
        made[name] = value
    return made


def run(made: Catalog) -> tuple[dict[str, Any], str]:
    SequentialRunner().run(create_pipeline(), made)
    return made.load("judge_card_metrics"), made.load("judge_card")


def test_the_whole_card(tmp_path: Path, folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    other = str(folder.parent / "other")
    made = catalog(tmp_path, folder, card(second_judge={"model": other}))
    with caplog.at_level(logging.INFO):
        metrics, page = run(made)
    assert "4 queries, 20 pairs, each judged 8 times" in caplog.text
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert (metrics["pairs"], metrics["sample_queries"], metrics["sample_pairs"]) == (30, 4, 20)
    # the same judge gives the same scores, another number format nearly so, another judge others
    assert metrics["saved_largest_difference"] == metrics["saved"]["largest_difference"] < 1e-5
    noise = metrics["noise"]
    assert list(noise) == ["other batches", "no shared prefix", "bfloat16"]
    assert noise["other batches"]["largest_difference"] < 1e-5
    assert noise["no shared prefix"]["largest_difference"] < 1e-4
    assert 1e-4 < noise["bfloat16"]["largest_difference"] < 0.2
    assert list(metrics["wordings"]) == ["answers_swapped", "question", "short"]
    shifts = [found["mean_difference"] for found in metrics["wordings"].values()]
    assert len(set(shifts)) == 3
    assert min(shifts) > noise["no shared prefix"]["largest_difference"]
    (second,) = metrics["second_judge"].values()
    assert second["mean_difference"] > 0.01
    assert metrics["truth"]["all"]["auc"]["value"] == metrics["auc"]
    assert metrics["sample"]["auc"] == metrics["saved"]["auc"] == noise["other batches"]["auc"]
    assert list(metrics["rules"]) == ["absolute", "relative", "percentage", "none"]
    known = made.load("judge_card_origin")["scorings"]
    prompts = {name: one["prompt"] for name, one in known.items()}
    assert len(set(prompts.values())) == 4
    assert known["reference/as in use"]["temperature"] == 2.0
    assert known[f"second/{other}"]["temperature"] == 1.0
    assert known[f"second/{other}"]["model"] != known["reference/as in use"]["model"]
    for words in (metrics["model_fingerprint"], other, "seed 0", "bfloat16", "Does the candidate match"):
        assert words in page
    assert "trained from nothing" not in page  # not one of the embedded models
    assert run(made) == (metrics, page)


def test_scores_of_the_sample_are_the_saved_ones(tmp_path: Path, folder: Path) -> None:
    made = catalog(tmp_path, folder, card(wordings={}, precision=None))
    metrics, _ = run(made)
    again = made.load("judge_card_scores").filter(pl.col("kind") == "reference")
    saved = made.load("judge_scores").join(again, on=["query_id", "item_id"], suffix="_again")
    assert saved.height == 20
    np.testing.assert_allclose(saved["score"], saved["score_again"], atol=1e-6)
    np.testing.assert_allclose(saved["yes_logit"], saved["yes_logit_again"], atol=1e-4)
    assert list(metrics["noise"]) == ["other batches", "no shared prefix"]
    assert metrics["wordings"] == metrics["second_judge"] == {}


def test_saved_scores_of_another_temperature_are_told(
    tmp_path: Path, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    made = catalog(tmp_path, folder, card(wordings={}, precision=None))
    made["params:judge"] = made.load("params:judge").model_copy(update={"temperature": 1.0})
    _, page = run(made)
    assert "Judged again, a saved score differs by 0." in caplog.text
    assert "the saved scores are not of this judge with these settings" in page


def test_saved_scores_of_another_judge_are_told(tmp_path: Path, folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    made = catalog(tmp_path, folder, card(wordings={}, precision=None))
    made["judge_origin"] = made.load("judge_origin") | {"model_fingerprint": "another"}
    _, page = run(made)
    assert "The saved scores are of judge another, the judge in use is " in caplog.text
    assert "The saved scores are of judge another" in page


def test_without_truth_the_card_says_what_it_can(tmp_path: Path, folder: Path) -> None:
    metrics, page = run(catalog(tmp_path, folder, card(wordings={}, precision=None), truth=False))
    assert metrics["truth"] == metrics["curve"] == {}
    assert "auc" not in metrics
    assert 0 <= metrics["sample"]["auc_positives"]["value"] <= 1
    assert "no known truth" in page


def test_scores_of_another_pool_are_refused(tmp_path: Path, folder: Path) -> None:
    made = catalog(tmp_path, folder, card())
    made.save("pool", made.load("pool").with_columns(pl.col("item_id").reverse()))
    with pytest.raises(DataError, match="made from another pool"):
        run(made)


@pytest.mark.parametrize(
    ("wanted", "in_use", "other"),
    [("auto", "torch.float32", "bfloat16"), ("auto", "torch.bfloat16", "float32"), ("auto", "torch.float16", "bfloat16"),
     (None, "torch.float32", None), ("float16", "torch.float32", "float16")],
)  # fmt: skip
def test_the_other_number_format(wanted: str | None, in_use: str, other: str | None) -> None:
    assert other_precision(wanted, in_use) == other


@pytest.mark.parametrize(
    "change",
    [{"queries": 0}, {"level": 1.0}, {"wordings": {"with blank": "x"}}, {"wordings": {"empty": ""}},
     {"second_judge": {"model": ""}}, {"second_judge": {"model": "x", "typo": 1}}],
)  # fmt: skip
def test_parameters_that_make_no_sense_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        card(**change)


def test_numbers_go_to_the_tracking_store_under_their_names(tmp_path: Path, folder: Path) -> None:
    from unime_kedro.tracking.metrics import metric_values

    metrics, _ = run(catalog(tmp_path, folder, card(wordings={"short": "Yes or No."}, precision=None)))
    values = metric_values("judge_card_metrics", json.loads(json.dumps(metrics)))
    assert values["judge_card/wordings/short/auc"] == metrics["wordings"]["short"]["auc"]["value"]
    assert {"judge_card/auc", "judge_card/truth/all/auc_low", "judge_card/rules/absolute/dropped"} <= set(values)
