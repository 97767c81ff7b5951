"""Pipeline ``evaluate`` node by node: on data of one's own, with random models, against a slow loop."""

from __future__ import annotations

import logging
import shutil
import zlib
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import yaml
from pydantic import ValidationError

from unime_kedro.errors import ConfigurationError, DataError, ModelError
from unime_kedro.evaluation.scoring import PREDICTIONS_SCHEMA
from unime_kedro.evaluation.statistics import bootstrap_draws, share_interval
from unime_kedro.parameters import EvaluateParameters, IngestParameters
from unime_kedro.pipelines.evaluate import benchmarks, models, nodes, results
from unime_kedro.progress import progress

ROOT = Path(__file__).parents[2]


def parameters(**changes) -> EvaluateParameters:
    values = yaml.safe_load((ROOT / "conf/base/parameters/evaluate.yml").read_text())["evaluate"]
    for key, value in {"resamples": 100, "device": "cpu", **changes}.items():
        values[key] = values[key] | value if key in ("leakage", "reranking") else value
    return EvaluateParameters.model_validate(values)


def write_rows(folder: Path, rows) -> None:
    folder.mkdir(parents=True)
    names = ["qry_text", "qry_img_path", "tgt_text", "tgt_img_path"]
    pl.DataFrame(rows, schema=names, orient="row").write_parquet(folder / "test-00000.parquet")


@pytest.fixture(scope="module")
def own(tmp_path_factory, pictures) -> Path:
    """Two data sets in MMEB's layout: words for words, and words for pictures."""
    root = tmp_path_factory.mktemp("own")
    (root / "images").mkdir()
    for file in pictures:
        shutil.copy(file, root / "images" / file.name)
    names = [file.name for file in pictures]
    write_rows(
        root / "Words",
        [(f"ask {i}", "", [f"say {(i + k) % 9}" for k in range(4 + i % 3)], [""] * (4 + i % 3)) for i in range(8)],
    )
    write_rows(
        root / "Pictures",
        [(f"find {i}", "", ["<|image_1|>"] * 3, [names[(i + k) % 8] for k in range(3)]) for i in range(6)],
    )
    return root


@pytest.fixture(scope="module")
def evaluate(own, qwen2_vl_folder) -> EvaluateParameters:
    return parameters(
        models={"first": {"model": str(qwen2_vl_folder)}, "again": {"model": str(qwen2_vl_folder)}},
        benchmarks={"Own": {"root": str(own)}},
    )


@pytest.fixture(scope="module")
def loaded(evaluate):
    return nodes.load(evaluate, None, None, None)


@pytest.fixture(scope="module")
def kept(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("evaluations")


@pytest.fixture(scope="module")
def evaluations(loaded, evaluate, kept):
    return nodes.score(loaded, evaluate, kept)


@pytest.fixture
def never_loaded(monkeypatch):
    """Let no model be loaded."""

    def refuse(spec):
        raise AssertionError(f"{spec.model} was loaded")

    monkeypatch.setattr("unime_kedro.mllm.adapters.load_adapter", refuse)


def slow_predictions(root: Path, model: Path) -> dict[tuple[str, int], list[float]]:
    """Embed one content after the other; (data set, row) -> similarities of its candidates."""
    from unime_kedro.mllm.adapters import load_adapter
    from unime_kedro.mllm.content import Content, ModelSpec
    from unime_kedro.mllm.embedding import Embedder

    embedder = Embedder(
        load_adapter(ModelSpec(str(model), device="cpu")), prompt="plain", max_tokens=512, batch_tokens=1
    )
    found = {}
    for file in sorted(root.glob("*/test-*.parquet")):
        for row, (text, image, texts, images) in enumerate(pl.read_parquet(file).iter_rows()):
            sides = [(text, image), *zip(texts, images, strict=True)]
            vectors = [embedder.embed([Content(t, root / "images" / i if i else None)])[0] for t, i in sides]
            found[file.parent.name, row] = [float(vector @ vectors[0]) for vector in vectors[1:]]
    return found


def test_scores_equal_those_of_a_slow_loop(loaded, evaluations, evaluate, own, qwen2_vl_folder):
    queries, predictions, rankings, metrics = nodes.measure(loaded, evaluations, results.no_leaks(), evaluate)
    similarity = slow_predictions(own, qwen2_vl_folder)
    assert predictions.columns == ["model", "benchmark", *PREDICTIONS_SCHEMA]
    assert predictions.height == 2 * len(similarity) == 28
    for row in predictions.to_dicts():
        first, *others = similarity[row["dataset"], row["query_id"]]
        assert row["target_similarity"] == pytest.approx(first, abs=1e-5)
        assert row["best_wrong_similarity"] == pytest.approx(max(others), abs=1e-5)
        assert row["correct"] == (first > max(others))
    right = [all(first > other for other in rest) for (_, _), (first, *rest) in sorted(similarity.items())]
    shares = {"Pictures": np.mean(right[:6]), "Words": np.mean(right[6:])}
    for name, share in shares.items():
        assert metrics["again"]["Own"][name]["precision_at_1"]["value"] == share
    assert metrics["first"]["Own"]["all"]["precision_at_1"]["value"] == pytest.approx(np.mean(list(shares.values())))
    assert metrics["first"]["_"]["missing"] == {}
    shown = rankings.filter(pl.col("model") == "first", pl.col("dataset") == "Words", pl.col("query_id") == 3)
    by_similarity = sorted(enumerate(similarity["Words", 3]), key=lambda pair: -pair[1])
    assert shown["candidate_index"].to_list() == [place for place, _ in by_similarity]
    assert shown["text"].to_list() == [f"say {(3 + place) % 9}" for place, _ in by_similarity]
    assert shown["reranked_position"].null_count() == len(shown)
    asked = queries.filter(pl.col("dataset") == "Pictures", pl.col("query_id") == 5).row(0, named=True)
    assert (asked["text"], asked["image"], asked["target_image"]) == ("find 5", "", "5.png")
    assert Path(asked["image_root"]) == own / "images"


def test_an_embedder_behind_two_names_is_run_once_and_what_was_scored_is_kept(
    loaded, evaluations, evaluate, kept, never_loaded, caplog
):
    assert len([entry for entry in kept.iterdir() if entry.is_dir()]) == 1
    with caplog.at_level(logging.INFO):
        again = nodes.score(loaded, evaluate, kept)
    assert caplog.text.count("nothing is computed") == 2
    for name, evaluated in evaluations.items():
        assert again[name].facts == evaluated.facts
        for kind in ("predictions", "top"):
            assert getattr(again[name].scored["Own"], kind).equals(getattr(evaluated.scored["Own"], kind))


def test_what_results_do_not_depend_on_is_not_computed_again(loaded, evaluations, evaluate, kept, never_loaded):
    changed = evaluate.model_copy(update={"batch_tokens": 64, "seed": 5, "resamples": 200, "threads": 1})
    assert nodes.score(loaded, changed, kept)["first"].facts == evaluations["first"].facts


@pytest.mark.parametrize(
    "change", [{"max_tokens": 77}, {"prompt": "chat"}, {"dtype": "bfloat16"}, {"max_pixels": 9999}]
)
def test_what_results_depend_on_is_computed_again(loaded, evaluations, evaluate, kept, never_loaded, change):
    with pytest.raises(AssertionError, match="was loaded"):
        nodes.score(loaded, evaluate.model_copy(update=change), kept)


def test_another_model_is_scored_itself(loaded, evaluations, evaluate, kept, never_loaded):
    other = parameters(models={"first": {"model": str(ROOT / "models/tiny-embedder")}}).models
    with pytest.raises(AssertionError, match="tiny-embedder was loaded"):
        nodes.score(loaded, evaluate.model_copy(update={"models": other}), kept)


def test_other_data_are_scored_again(evaluations, evaluate, own, kept, tmp_path, never_loaded):
    shutil.copytree(own, tmp_path / "moved")
    moved = evaluate.model_copy(update={"benchmarks": {"Own": benchmarks_source(tmp_path / "moved")}})
    nodes.score(nodes.load(moved, None, None, None), moved, kept)  # the same data elsewhere
    shutil.copy(own / "images/1.png", tmp_path / "moved/images/0.png")
    with pytest.raises(AssertionError, match="was loaded"):
        nodes.score(nodes.load(moved, None, None, None), moved, kept)


def benchmarks_source(root: Path):
    return parameters(benchmarks={"x": {"root": str(root)}}).benchmarks["x"]


def leak(query, *, role="target", kind="exact", modality="image_text", dataset="Pictures"):
    return ("Own", dataset, query, 0, role, kind, modality, 7, 0)


LEAKS = [
    leak(0),
    leak(0, role="query"),
    leak(1, kind="near"),
    leak(2, kind="same_image"),
    leak(3, role="candidate"),
    leak(None),
    leak(0, modality="text", dataset="Words"),
]


@pytest.mark.parametrize(("exclude", "left_out"), [("none", []), ("exact", [0, 2]), ("near", [0, 1, 2])])
def test_queries_that_were_trained_on_are_left_out_everywhere(loaded, evaluations, evaluate, exclude, left_out):
    leaks = pl.DataFrame(LEAKS, schema=results.LEAKS_SCHEMA, orient="row")
    changed = evaluate.model_copy(update={"leakage": evaluate.leakage.model_copy(update={"exclude": exclude})})
    queries, predictions, rankings, metrics = nodes.measure(loaded, evaluations, leaks, changed)
    rest = [query for query in range(6) if query not in left_out]
    for table in (queries, predictions, rankings):
        shown = table.filter(pl.col("dataset") == "Pictures")["query_id"].unique().sort().to_list()
        assert shown == rest
        assert table.filter(pl.col("dataset") == "Words")["query_id"].n_unique() == 8
    figure = metrics["first"]["Own"]["Pictures"]["precision_at_1"]
    kept = predictions.filter(pl.col("model") == "first", pl.col("dataset") == "Pictures")
    assert (figure["value"], figure["n"]) == (kept["correct"].mean(), len(rest))
    assert metrics["first"]["_"]["excluded"] == ({"Own": {"Pictures": len(left_out)}} if left_out else {})


def test_a_data_set_that_is_left_out_whole_leaves_no_mean(loaded, evaluations, evaluate):
    leaks = pl.DataFrame([leak(query) for query in range(6)], schema=results.LEAKS_SCHEMA, orient="row")
    changed = evaluate.model_copy(update={"leakage": evaluate.leakage.model_copy(update={"exclude": "exact"})})
    metrics = nodes.measure(loaded, evaluations, leaks, changed)[-1]
    assert metrics["first"]["Own"]["all"]["precision_at_1"]["value"] is None
    assert metrics["first"]["Own"]["all"]["precision_at_1"]["missing"] == ["Pictures"]
    every = pl.concat(
        [
            leaks,
            leaks.with_columns(dataset=pl.lit("Words")),
            leaks.with_columns(dataset=pl.lit("Words"), query_id=pl.col("query_id") + 2),
        ]
    )
    with pytest.raises(DataError, match="leaves no query of any benchmark"):
        nodes.measure(loaded, evaluations, every, changed)


def test_without_training_data_nothing_leaks_and_the_figures_say_so(loaded, evaluate, caplog):
    leaks, counts = nodes.find_leaks(loaded, None, None, evaluate)  # type: ignore[arg-type]
    assert leaks.schema == results.LEAKS_SCHEMA
    assert len(leaks) == 0
    assert counts == {"training_data": "absent"}
    assert "there is no items.parquet" in caplog.text


def test_a_picture_that_was_trained_on_is_found(loaded, evaluate, own, tmp_path):
    shutil.copy(own / "images/3.png", tmp_path / "seen.png")
    items = pl.DataFrame({"item_id": [0, 1], "text": ["words", "say 3"], "image": ["seen.png", ""]})
    values = yaml.safe_load((ROOT / "conf/base/parameters/ingest.yml").read_text())["ingest"]
    ingest = IngestParameters.model_validate({**values, "image_root": str(tmp_path)})
    leaks, counts = nodes.find_leaks(loaded, items, ingest, evaluate)
    assert leaks.schema == results.LEAKS_SCHEMA
    exact = leaks.filter(pl.col("distance") == 0)
    # picture 3 with other words is the target of query 3; the words "say 3" that of query 3 of the other data set
    targets = exact.filter(pl.col("role") == "target").select(
        "benchmark", "dataset", "query_id", "kind", "modality", "item_id"
    )
    assert targets.rows() == [
        ("Own", "Pictures", 3, "same_image", "image", 0),
        ("Own", "Words", 3, "exact", "text", 1),
    ]
    assert counts["training_data"] == "2 items"
    assert counts["Own"]["Pictures"]["target"]["same_image"] == 1
    assert results.excluded_queries(leaks, "exact").rows() == [("Own", "Pictures", 3)]


def test_models_of_ours_that_are_not_made_yet_are_left_out(evaluate, qwen2_vl_folder, tmp_path, caplog):
    trained, reranker = tmp_path / "06_models/trained", tmp_path / "06_models/reranker"
    trained.mkdir(parents=True)  # as a training that was killed leaves it
    waiting = parameters(
        models={
            "there": {"model": str(qwen2_vl_folder)},
            "off": None,
            "trained": {"model": str(trained)},
            "reranked": {"model": str(qwen2_vl_folder), "reranker": str(reranker)},
        }
    )
    assert list(models.check_models(waiting)) == ["there"]
    models._warn_of_waiting(waiting)
    messages = [record.getMessage() for record in caplog.records]
    assert messages == [
        f"trained is left out: no model in {trained}; kedro run --pipeline=train makes it",
        f"reranked is left out: no model in {reranker}; kedro run --pipeline=rerank makes it",
    ]
    with pytest.raises(ConfigurationError, match=r"evaluate\.models: there is no model"):
        models.check_models(parameters(models={"off": None, "trained": {"model": str(trained)}}))


@pytest.mark.parametrize("key", ["model", "reranker"])
def test_any_other_model_that_is_not_there_is_an_error(qwen2_vl_folder, tmp_path, key):
    model = {"model": str(qwen2_vl_folder), key: str(tmp_path / "nothing")}
    with pytest.raises(ModelError, match=rf"evaluate\.models\.mine\.{key}: there is no model folder"):
        nodes.load(parameters(models={"mine": model}), None, None, None)


def test_benchmarks_that_the_project_draws_may_be_missing(own, tmp_path, caplog):
    named = {"mini-MMEB": {"root": str(tmp_path / "eval")}, "off": None, "Own": {"root": str(own)}}
    assert list(benchmarks.load_benchmarks(parameters(benchmarks=named), progress)) == ["Own"]
    assert "mini-MMEB is left out" in caplog.text
    assert "kedro run --pipeline=demo" in caplog.text
    with pytest.raises(ConfigurationError, match=r"evaluate\.benchmarks: there is no benchmark"):
        benchmarks.load_benchmarks(parameters(benchmarks={"off": None, "mini-MMEB": named["mini-MMEB"]}), progress)
    with pytest.raises(DataError, match="MMEB does not exist"):
        benchmarks.load_benchmarks(parameters(benchmarks={"MMEB": {"root": str(tmp_path / "eval")}}), progress)


def test_an_unknown_benchmark_is_an_error_that_names_the_nearest(tmp_path):
    with pytest.raises(DataError, match="Did you mean 'SugarCrepe'"):
        benchmarks.load_benchmarks(parameters(benchmarks={"SugarCrape": {"root": str(tmp_path)}}), progress)


def test_missing_data_sets_are_said_and_leave_no_mean(own, qwen2_vl_folder, tmp_path, caplog):
    shutil.copytree(own / "images", tmp_path / "images")
    shutil.copytree(own / "Words", tmp_path / "VOC2007")
    evaluate = parameters(
        models={"first": {"model": str(qwen2_vl_folder)}}, benchmarks={"MMEB": {"root": str(tmp_path)}}
    )
    loaded = nodes.load(evaluate, None, None, None)
    assert "MMEB: 35 of 36 data sets are missing" in caplog.text
    metrics = nodes.measure(loaded, nodes.score(loaded, evaluate, tmp_path / "kept"), results.no_leaks(), evaluate)[-1]
    found = metrics["first"]["MMEB"]
    assert found["VOC2007"]["precision_at_1"]["n"] == 8
    assert found["classification"]["precision_at_1"]["value"] is None
    assert len(found["classification"]["precision_at_1"]["missing"]) == 9
    assert len(metrics["first"]["_"]["missing"]["MMEB"]) == 35


def test_intervals_follow_the_parameters(loaded, evaluations, evaluate):
    changed = evaluate.model_copy(update={"level": 0.5, "seed": 11, "resamples": 333})
    _, predictions, _, metrics = nodes.measure(loaded, evaluations, results.no_leaks(), changed)
    words = predictions.filter(pl.col("model") == "first", pl.col("dataset") == "Words")
    right, units = words["correct"].to_numpy(), words["unit"].to_numpy()
    draws = bootstrap_draws("mean", right, groups=units, resamples=333, seed=[11, zlib.crc32(b"Words")])
    expected = share_interval(right.mean(), draws, 0.5, len(words))
    figure = metrics["first"]["Own"]["Words"]["precision_at_1"]
    assert (figure["low"], figure["high"]) == (expected.low, expected.high)


@pytest.mark.parametrize("name", ["_", "", "a/b", " x"])
def test_names_that_cannot_be_keys(name):
    with pytest.raises(ValidationError):
        parameters(models={name: {"model": "x/y"}})
