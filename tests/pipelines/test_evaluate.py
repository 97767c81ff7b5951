"""`kedro run --env=smoke --pipelines=demo,evaluate` for real: an embedder alone, and behind a reranker."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import polars as pl
import pytest

ROOT = Path(__file__).parents[2]
KEDRO = str(Path(sys.executable).with_name("kedro"))
MODELS = (
    "evaluate.models.trained=null,evaluate.models.reranked.model=models/tiny-embedder,"
    "evaluate.models.reranked.reranker=models/tiny-judge"
)
pytestmark = pytest.mark.slow


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


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory):
    folder = tmp_path_factory.mktemp("evaluate")
    done = kedro(folder, "--pipelines=demo,evaluate", f"--params={MODELS}")
    assert done.returncode == 0, done.stdout + done.stderr
    return folder, done


def table(folder: Path, name: str) -> pl.DataFrame:
    return pl.read_parquet(folder / "data/07_model_output" / f"{name}.parquet")


def metrics(folder: Path):
    return json.loads((folder / "data/08_reporting/metrics.json").read_text())


def test_figures_are_those_of_the_tables(evaluated):
    predictions, found = table(evaluated[0], "predictions"), metrics(evaluated[0])
    assert list(found) == ["start", "reranked"]
    for model, by_benchmark in found.items():
        assert set(by_benchmark) == {"mini-MMEB", "EmojiCaptions", "EmojiCrepe", "_"}
        mine = predictions.filter(pl.col("model") == model, pl.col("benchmark") == "mini-MMEB")
        shares = dict(mine.group_by("dataset").agg(pl.col("correct").mean()).rows())
        assert len(shares) == 13
        for name, share in shares.items():
            assert by_benchmark["mini-MMEB"][name]["precision_at_1"]["value"] == pytest.approx(share)
        mean = by_benchmark["mini-MMEB"]["all"]["precision_at_1"]
        assert mean["value"] == pytest.approx(sum(shares.values()) / 13)
        assert mean["low"] <= mean["value"] <= mean["high"]
    assert next(iter(found["start"]["EmojiCaptions"]["EmojiCaptions_i2t"])) == "recall_at_1"
    assert next(iter(found["start"]["EmojiCrepe"]["swap"])) == "accuracy"


def test_what_a_reranker_put_first_is_what_counts(evaluated):
    predictions, rankings = table(evaluated[0], "predictions"), table(evaluated[0], "rankings")
    assert rankings.filter(pl.col("model") == "start")["reranked_position"].null_count() == rankings.height / 2
    first = rankings.filter(pl.col("model") == "reranked", pl.col("reranked_position") == 0)
    key = ["benchmark", "dataset", "query_id"]
    both = predictions.filter(pl.col("model") == "reranked").join(first, on=key)
    assert both.height == predictions.height / 2
    assert (both["correct"] == both["right"]).all()
    assert (both["predicted_index"] == both["candidate_index"]).all()
    facts = metrics(evaluated[0])["reranked"]["_"]
    assert facts["reranker"] == "models/tiny-judge"
    assert facts["reranking"]["mini-MMEB"]["queries"] == 33


def test_what_was_asked_is_what_the_corpus_says(evaluated):
    queries = table(evaluated[0], "queries").filter(pl.col("dataset") == "EmojiObjects")
    raw = pl.read_parquet(evaluated[0] / "data/01_raw/mini_mmeb/eval/EmojiObjects/test-*.parquet")
    assert queries["text"].to_list() == raw["qry_text"].to_list()
    assert queries["target_text"].to_list() == [texts[0] for texts in raw["tgt_text"].to_list()]
    assert (Path(queries["image_root"][0]) / queries["image"][0]).is_file()


def test_mlflow_has_readable_names(evaluated):
    with sqlite3.connect(evaluated[0] / "mlflow.db") as database:
        found = dict(database.execute("select key, value from latest_metrics"))
    mean = metrics(evaluated[0])["reranked"]["mini-MMEB"]["all"]["precision_at_1"]
    name = "evaluate/reranked/mini-MMEB/all/precision_at_1"
    assert (found[name], found[f"{name}_low"], found[f"{name}_high"]) == (mean["value"], mean["low"], mean["high"])
    assert "evaluate/start/EmojiCaptions/EmojiCaptions_t2i/recall_at_1" in found


def test_the_end_says_how_good_the_models_are_and_that_they_are_toys(evaluated):
    said = evaluated[1].stdout
    mean = metrics(evaluated[0])["start"]["mini-MMEB"]["all"]["precision_at_1"]
    assert f"start: mini-MMEB {mean['value']:.3f} ({mean['low']:.3f} to {mean['high']:.3f})" in said
    assert "tiny and trained on synthetic data" in said


def test_evaluating_again_computes_nothing_and_gives_the_same_bytes(evaluated):
    folder = evaluated[0]
    files = [f"07_model_output/{name}.parquet" for name in ("predictions", "rankings", "queries")]
    files.append("08_reporting/metrics.json")
    before = {name: (folder / "data" / name).read_bytes() for name in files}
    done = kedro(folder, "--pipeline=evaluate", f"--params={MODELS}")
    assert done.returncode == 0, done.stdout + done.stderr
    # start and reranked on three benchmarks, and the reranker on three
    assert (done.stdout + done.stderr).count("nothing is computed") == 9
    assert {name: (folder / "data" / name).read_bytes() for name in files} == before


def test_a_killed_evaluation_leaves_no_half_results_and_goes_on(evaluated, tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data/01_raw").symlink_to(evaluated[0] / "data/01_raw")
    words, environment = command(tmp_path, "--pipeline=evaluate", f"--params={MODELS}")
    process = subprocess.Popen(words, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    kept = tmp_path / "data/07_model_output/evaluations"
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and not list(kept.glob("[0-9a-f]*/record.json")):
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "data/07_model_output/predictions.parquet").exists()
    done = kedro(tmp_path, "--pipeline=evaluate", f"--params={MODELS}")
    assert done.returncode == 0, done.stdout + done.stderr
    assert (done.stdout + done.stderr).count("nothing is computed") > 3  # those of a run that was not killed
    columns = ["model", "dataset", "query_id", "predicted_index", "correct", "rank"]
    assert table(tmp_path, "predictions").select(columns).equals(table(evaluated[0], "predictions").select(columns))
