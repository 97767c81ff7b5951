"""The report's pipeline: with nothing, with everything, and in the order that its inputs are made."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import yaml
from kedro.io import DatasetError
from kedro.pipeline import Pipeline, node
from kedro.runner import SequentialRunner
from PIL import Image

from unime_kedro.catalog import Catalog
from unime_kedro.optional_inputs import OptionalInputsHook
from unime_kedro.parameters import EvaluateParameters, JudgeParameters, ReportParameters
from unime_kedro.pipelines.report import create_pipeline

ROOT = Path(__file__).parents[2]
TABLES = {
    "predictions": "07_model_output/predictions.parquet",
    "rankings": "07_model_output/rankings.parquet",
    "evaluated_queries": "07_model_output/queries.parquet",
    "judge_scores": "03_primary/judge_scores.parquet",
}
DOCUMENTS = (
    "evaluate_metrics", "train_history", "rerank_history", "leakage_metrics", "judge_card_metrics", "judge_origin",
    "trained_model", "reranker",
)  # fmt: skip


def parameters(model: str) -> dict[str, Any]:
    def section(name: str) -> dict[str, Any]:
        text = (ROOT / f"conf/base/parameters/{name}.yml").read_text(encoding="utf-8")
        return yaml.safe_load(text.replace("${globals:data_root}", "data"))[name]

    evaluate = section("evaluate")
    evaluate["models"] = {name: {"model": model} for name in ("start", "trained")}
    evaluate["device"], evaluate["resamples"] = "cpu", 100
    report = section("report") | {"projection_contents": 8, "cases": 2}
    judge = section("judge")
    return {
        "params:evaluate": EvaluateParameters.model_validate(evaluate),
        "params:report": ReportParameters.model_validate(report),
        "params:judge": JudgeParameters.model_validate(judge | {"model": model}),
    }


def catalog(folder: Path, model: str = "elsewhere/some-model") -> Catalog:
    text = (ROOT / "conf/base/catalog/report.yml").read_text(encoding="utf-8")
    entries = yaml.safe_load(text.replace("${globals:data_root}", str(folder)))
    for name, file in TABLES.items():
        entries[name] = {"type": "unime_kedro.io.ParquetTable", "filepath": str(folder / file)}
    for name in DOCUMENTS:
        stem = "metrics" if name == "evaluate_metrics" else name
        entries[name] = {"type": "unime_kedro.io.JsonFile", "filepath": str(folder / f"08_reporting/{stem}.json")}
    made = Catalog.from_config(entries)
    for name, value in parameters(model).items():
        made[name] = value
    return made


def run(made: Catalog, *first: Any) -> str:
    pipeline = create_pipeline() + Pipeline(list(first))
    OptionalInputsHook().before_pipeline_run(pipeline, made)
    SequentialRunner().run(pipeline, made)
    return str(made.load("report"))


def test_with_nothing_there_is_a_page_that_says_so(tmp_path: Path) -> None:
    page = run(catalog(tmp_path))
    assert page.count('class="absent">') == 9
    assert "<svg" not in page
    assert list((tmp_path / "08_reporting").glob("figures/*")) == []
    assert json.loads((tmp_path / "08_reporting/report_metrics.json").read_text()) == {}
    assert "tiny" not in page  # none of the embedded models is in use


def fill(made: Catalog, folder: Path, n: int = 6) -> None:
    """Save what an evaluation of two models saves: D has pictures, E has texts. ``trained`` has all of D right."""
    pictures = folder / "pictures"
    pictures.mkdir()
    for k in range(n):
        Image.new("RGB", (56, 56), (40 * k, 90, 200)).save(pictures / f"{k}.png")
    rows = [(m, d, q) for m in ("start", "trained") for d in ("D", "E") for q in range(n)]
    base = pl.DataFrame(rows, ["model", "dataset", "query_id"], orient="row").with_columns(benchmark=pl.lit("B"))
    right = (pl.col("model") == "trained") & (pl.col("dataset") == "D")
    made.save("predictions", base.with_columns(unit=pl.col("query_id"), correct=right))
    places = pl.DataFrame({"position": [0, 1]}, schema={"position": pl.Int32})
    answers = base.with_columns(is_right=right).join(places, how="cross")
    other = (pl.col("query_id") + pl.col("position")) % n
    is_picture = pl.col("dataset") == "D"
    made.save(
        "rankings",
        answers.with_columns(
            candidate_index=pl.col("position").cast(pl.Int64),
            content_id=other,
            similarity=(0.9 - pl.col("position") / 10).cast(pl.Float32),
            right=pl.col("is_right") == (pl.col("position") == 0),
            reranked_position=pl.lit(None, dtype=pl.Int32),
            text=pl.when(is_picture).then(pl.lit("")).otherwise(pl.format("answer {}", other)),
            image=pl.when(is_picture).then(pl.format("{}.png", other)).otherwise(pl.lit("")),
        ).drop("is_right"),
    )
    asked = base.select("benchmark", "dataset", "query_id").unique().sort("dataset", "query_id")
    made.save(
        "evaluated_queries",
        asked.with_columns(
            text=pl.format("question {}", "query_id"), image=pl.lit(""), target_text=pl.lit("t"),
            target_image=pl.lit(""), image_root=pl.lit(str(pictures)),
        ),
    )  # fmt: skip
    share = {"value": 0.5, "low": 0.4, "high": 0.6, "n": n}
    made.save("evaluate_metrics", {m: {"B": {"D": {"precision_at_1": share}}, "_": {}} for m in ("start", "trained")})
    made.save("trained_model", {"folder": "06_models/trained", "base_model": "some-base"})
    made.save("train_history", [{"step": 1, "loss": 2.0}, {"step": 2, "loss": 1.0}])


def test_with_an_evaluation_there_are_results_figures_and_cases(tmp_path: Path, qwen2_vl_folder: Path) -> None:
    made = catalog(tmp_path, str(qwen2_vl_folder))
    fill(made, tmp_path)
    page = run(made)
    for missing in ("ablations", "judge", "leakage", "judge-card"):
        assert f'href="#{missing}" class="absent"' in page
    assert page.count('class="absent">') == 4
    assert "trained right, start wrong <span>2 of 6 such queries; 12 queries in all" in page
    assert "the trained embedder: folder 06_models/trained, base model some-base" in page
    figures = {file.stem for file in (tmp_path / "08_reporting/figures").iterdir()}
    assert figures == {"differences_1", "train_curves", "projection"}
    compared = made.load("comparisons")
    shares = {row["dataset"]: (row["n"], row["first"], row["second"], row["difference"]) for row in compared.to_dicts()}
    assert shares["D"] == (6, 1, 0, 1)
    assert shares["E"] == (6, 0, 0, 0)
    assert compared.filter("overall")["difference"].to_list() == [pytest.approx(0.5)]
    gap = made.load("projection_metrics")
    assert gap["start"] == gap["trained"]  # the same model twice
    assert (gap["start"]["texts"], gap["start"]["pictures"]) == (4, 4)
    assert run(made) == page
    stored = json.loads((tmp_path / "08_reporting/report_metrics.json").read_text())
    assert stored["trained_against_start"]["B"]["difference"] == pytest.approx(0.5)


def test_the_report_comes_after_what_is_made_in_the_same_run(tmp_path: Path) -> None:
    late = node(lambda: {"D": {"queries": 3}}, None, "leakage_metrics", name="zzz_leaks")
    page = run(catalog(tmp_path), late)
    assert 'href="#leakage" class="absent"' not in page


def test_a_broken_input_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "07_model_output").mkdir()
    (tmp_path / TABLES["predictions"]).write_bytes(b"no table")
    with pytest.raises(DatasetError, match=r"predictions\.parquet cannot be read"):
        run(catalog(tmp_path))


def test_a_model_that_was_trained_anew_since_is_not_projected(
    tmp_path: Path, qwen2_vl_folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    made = catalog(tmp_path, str(qwen2_vl_folder))
    fill(made, tmp_path)
    metrics = made.load("evaluate_metrics")
    metrics["trained"]["_"] = {"fingerprint": "of an older one"}
    made.save("evaluate_metrics", metrics)
    run(made)
    assert list(made.load("projection_metrics")) == ["start"]
    assert "trained is not projected" in caplog.text
