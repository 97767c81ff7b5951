"""The main job, for real, on smoke data: `kedro run --env=smoke --pipeline=mine`, checked by slow independent code."""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import sqlite3
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import yaml

from unime_kedro.io.run_figures import merge, read_run_figures

ROOT = Path(__file__).parents[2]
KEDRO = str(Path(sys.executable).with_name("kedro"))

SCHEMAS = {
    "02_intermediate/items": "item_id text image content_key modality",
    "02_intermediate/queries": "query_id dataset meta_task item_id positive_item_id",
    "02_intermediate/rejects": "dataset file row reason",
    "03_primary/pool": "query_id rank item_id similarity",
    "03_primary/judge_scores": "query_id item_id is_positive yes_logit no_logit temperature score",
    "05_model_input/negatives": "query_id slot item_id score origin",
}


def kedro(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [KEDRO, "run", "--env=smoke", *arguments],
        cwd=ROOT,
        env={
            **os.environ,
            "UNIME_DATA_ROOT": str(folder / "data"),
            "MLFLOW_TRACKING_URI": f"sqlite:///{folder}/mlflow.db",
            "OMP_NUM_THREADS": "1",
            "COLUMNS": "160",
            **environment,
        },
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def mined(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mine")
    done = kedro(folder, "--pipeline=mine")
    assert done.returncode == 0, done.stdout + done.stderr
    return folder, done


@pytest.fixture(scope="module")
def tables(mined):
    data = mined[0] / "data"
    return {name.split("/")[1]: pl.read_parquet(data / f"{name}.parquet") for name in SCHEMAS}


def metrics(folder: Path, stage: str) -> dict[str, float]:
    file = folder / "data/08_reporting" / f"{stage}_metrics.json"
    return merge(json.loads(file.read_text()), read_run_figures(file))


def test_every_table_is_where_the_design_says_with_its_columns(tables):
    for name, columns in SCHEMAS.items():
        assert tables[name.split("/")[1]].columns == columns.split(), name


def test_queries_are_the_raw_pairs(mined, tables):
    raw = []
    for file in sorted((mined[0] / "data/01_raw/mini_mmeb/train").glob("*/original-*.parquet")):
        raw += [(file.parent.name, *row) for row in pl.read_parquet(file).iter_rows()]
    items = {i: (text, image) for i, text, image, *_ in tables["items"].iter_rows()}
    image_root = mined[0] / "data/01_raw/mini_mmeb/train"

    def content(text, image):
        return text, hashlib.sha256((image_root / image).read_bytes()).hexdigest() if image else ""

    found = {
        (dataset, content(*items[query]), content(*items[positive]))
        for _, dataset, _, query, positive in tables["queries"].iter_rows()
    }
    assert found == {(d, content(q, qi), content(p, pi)) for d, q, qi, p, pi in raw}
    assert tables["rejects"].is_empty()


def test_pools_are_the_nearest_candidates_by_brute_force(mined, tables):
    vectors = np.load(mined[0] / "data/04_feature/embeddings/embeddings.npy").astype(np.float64)
    candidates = sorted(set(tables["queries"]["positive_item_id"].to_list()))
    pools = {q: rows for (q,), rows in tables["pool"].group_by("query_id", maintain_order=True)}
    for query_id, _, _, item, positive in tables["queries"].iter_rows():
        allowed = [c for c in candidates if c not in (item, positive)]
        similarity = {c: float(vectors[item] @ vectors[c]) for c in allowed}
        wanted = sorted(allowed, key=lambda c: (-similarity[c], c))[:20]
        pool = pools[query_id]
        assert pool["rank"].to_list() == list(range(20))
        np.testing.assert_allclose(pool["similarity"].to_numpy(), [similarity[c] for c in wanted], atol=1e-6)
        assert (
            set(pool["item_id"].to_list()) == set(wanted)
            or similarity[wanted[-1]] - min(similarity[c] for c in pool["item_id"]) < 1e-6
        )


def test_scores_follow_from_the_logits_and_cover_pool_and_positive(tables):
    pairs = {(q, c) for q, _, c, _ in tables["pool"].iter_rows()}
    pairs |= {(q, p) for q, _, _, _, p in tables["queries"].iter_rows()}
    assert {(q, c) for q, c, *_ in tables["judge_scores"].iter_rows()} == pairs
    for _, _, _, yes, no, temperature, score in tables["judge_scores"].iter_rows():
        yes, no = yes / temperature, no / temperature
        assert math.isclose(score, math.exp(yes) / (math.exp(yes) + math.exp(no)), abs_tol=1e-5)


def slow_selection(pool, scores, positive_score):
    """The paper's filter and cyclical sampling, one query at a time; None where nothing is left."""
    threshold = np.float32(positive_score) - np.float32(0.01)
    left = [(item, scores[item]) for item in pool if scores[item] <= threshold]
    order = [left[i] for offset in range(5) for i in range(offset, len(left), 5)]
    return [(*order[i % len(order)], i >= len(order)) for i in range(10)] if order else None


def test_negatives_are_those_of_a_slow_loop_over_the_papers_rules(tables):
    scores = {(q, c): s for q, c, *_, s in tables["judge_scores"].iter_rows()}
    found = {q: rows.rows() for (q,), rows in tables["negatives"].group_by("query_id", maintain_order=True)}
    outcomes = set()
    for query_id, _, _, _, positive in tables["queries"].iter_rows():
        pool = tables["pool"].filter(pl.col("query_id") == query_id)["item_id"].to_list()
        wanted = slow_selection(pool, {c: scores[query_id, c] for c in pool}, scores[query_id, positive])
        rows = found[query_id]
        assert [slot for _, slot, *_ in rows] == list(range(10))
        if wanted is None:
            assert {(score, origin) for *_, score, origin in rows} == {(1.0, "fallback")}
            assert len({item for _, _, item, *_ in rows}) == 10
            assert {item for _, _, item, *_ in rows} <= set(pool)
        else:
            assert [(item, score, origin == "duplicate") for _, _, item, score, origin in rows] == wanted
        outcomes.add("fallback" if wanted is None else "mined")
    assert "mined" in outcomes


def test_mined_json_is_the_same_negatives_in_the_releases_format(mined, tables):
    rows = json.loads((mined[0] / "data/05_model_input/mined.json").read_text())
    items = {i: [text, image] for i, text, image, *_ in tables["items"].iter_rows()}
    scores = {(q, c): s for q, c, *_, s in tables["judge_scores"].iter_rows()}
    assert len(rows) == tables["queries"].height
    for row, (query_id, _, _, item, positive) in zip(rows, tables["queries"].sort("query_id").rows(), strict=True):
        negatives = tables["negatives"].filter(pl.col("query_id") == query_id)
        assert [row["query_text"], row["query_image"]] == items[item]
        assert [row["pos_text"], row["pos_image"]] == items[positive]
        assert row["hard_negatives"] == [items[i] for i in negatives["item_id"]]
        np.testing.assert_allclose(row["hard_negatives_scores"], negatives["score"].to_numpy(), rtol=1e-6)
        np.testing.assert_allclose(row["query_pos_scores"], scores[query_id, positive], rtol=1e-6)


def test_the_terminal_says_what_was_mined_and_where_to_look(mined, tables):
    folder, done = mined
    text = done.stdout + done.stderr
    dropped = int(metrics(folder, "select")["false_negatives_dropped"])
    for figure in (
        f"{tables['queries'].height:,} queries",
        f"{tables['pool'].height:,}",
        f"{dropped:,} false negatives",
    ):
        assert figure in text, text
    assert "gallery.html" in text
    assert "make ui" in text
    assert (folder / "data/08_reporting/gallery.html").stat().st_size > 10_000


def test_the_terminal_says_how_good_the_mining_was(mined):
    folder, done = mined
    text = " ".join((done.stdout + done.stderr).split())
    truth = metrics(folder, "truth")
    assert f"judge AUC {truth['judge_auc']:.3f}" in text
    assert f"true false negatives: {truth['false_negatives_in_pool_share']:.2%} of the pool, " in text
    assert f"{truth['false_negatives_chosen_share']:.2%} of the chosen" in text
    assert f"{truth['hardness_pool']:.3f} in the pool, {truth['hardness_chosen']:.3f} of the chosen" in text
    assert "are tiny, trained on synthetic drawings" in text
    assert "WARNING" not in done.stdout


def test_true_relevance_of_every_judged_pair_is_saved(mined, tables):
    relevance = pl.read_parquet(mined[0] / "data/03_primary/pool_relevance.parquet")
    assert set(relevance.select("query_id", "item_id").rows()) == {(q, c) for q, c, *_ in tables["judge_scores"].rows()}
    assert relevance["relevance"].is_between(0, 1).all()
    positives = tables["queries"].select("query_id", item_id="positive_item_id")
    assert (relevance.join(positives, on=["query_id", "item_id"])["relevance"] == 1).all()
    share = (relevance.join(tables["pool"], on=["query_id", "item_id"])["relevance"] == 1).mean()
    assert share == pytest.approx(metrics(mined[0], "truth")["false_negatives_in_pool_share"])


def test_the_gallery_opens_offline_and_shows_pictures(mined):
    page = (mined[0] / "data/08_reporting/gallery.html").read_text()
    assert "data:image/png;base64," in page
    assert not re.findall(r"""(?:src|href)=["']https?://""", page)
    assert "tiny" in page


def test_mlflow_has_the_run_with_its_parameters_metrics_tags_and_artifacts(mined, tables):
    folder = mined[0]
    with sqlite3.connect(folder / "mlflow.db") as db:
        [(run, status)] = db.execute("select run_uuid, status from runs").fetchall()
        logged = dict(db.execute("select key, value from metrics where run_uuid = ?", (run,)).fetchall())
        parameters = dict(db.execute("select key, value from params where run_uuid = ?", (run,)).fetchall())
        tags = dict(db.execute("select key, value from tags where run_uuid = ?", (run,)).fetchall())
    assert status == "FINISHED"
    assert parameters["select.filter.margin"] == "null"  # the rule's own
    assert parameters["pool.k"] == "20"
    for stage in ("ingest", "pool", "judge", "select"):
        for key in ("seconds",):
            assert logged[f"{stage}/{key}"] == pytest.approx(metrics(folder, stage)[key])
    truth = metrics(folder, "truth")
    assert 0.5 < truth["judge_auc"] <= 1
    assert truth["truth_missing_pairs"] == 0
    assert {"false_negatives_chosen", "hardness_chosen", "filter_recall/retrieval"} <= set(truth)
    for key, value in truth.items():
        assert logged[f"truth/{key}"] == pytest.approx(value)
    assert logged["judge/prefix_reuse_share"] > 0.3
    [temperature] = tables["judge_scores"]["temperature"].unique()
    assert logged["judge/temperature"] == temperature
    digest = hashlib.sha256((folder / "data/05_model_input/negatives.parquet").read_bytes()).hexdigest()
    assert tags["output.negatives.sha256"] == digest
    assert {"config.hash", "mlflow.source.git.commit", "git.dirty"} <= set(tags)


def test_data_docs_are_built(mined):
    index = list((mined[0] / "data/08_reporting").rglob("index.html"))
    assert index
    assert "negatives" in index[0].read_text()


def test_a_second_run_judges_and_embeds_nothing_and_changes_no_table(mined, tables):
    folder = mined[0]
    done = kedro(folder, "--pipelines=pool,judge,select", UNIME_TRACKING="off")
    assert done.returncode == 0, done.stderr
    assert metrics(folder, "judge")["judged_now"] == 0
    assert metrics(folder, "embedding")["reused"] == tables["items"].height
    for name in SCHEMAS:
        again = pl.read_parquet(folder / "data" / f"{name}.parquet")
        assert again.equals(tables[name.split("/")[1]]), name


def test_changing_beta_judges_nothing_and_changes_the_negatives(mined, tables):
    folder = mined[0]
    done = kedro(folder, "--pipeline=select", "--params=select.filter.margin=0.3", UNIME_TRACKING="off")
    assert done.returncode == 0, done.stderr
    selection = pl.read_parquet(folder / "data/05_model_input/selection.parquet")
    positive = {q: s for q, _, is_positive, *_, s in tables["judge_scores"].iter_rows() if is_positive}
    for query_id, threshold in selection.select("query_id", "threshold").iter_rows():
        assert threshold == pytest.approx(positive[query_id] - 0.3, abs=1e-6)
    kedro(folder, "--pipeline=select", UNIME_TRACKING="off")


def test_wrong_parameters_stop_before_anything_runs_and_name_key_and_file(mined):
    done = kedro(mined[0], "--pipeline=select", "--params=judge.batch_sise=3", UNIME_TRACKING="off")
    assert done.returncode == 1
    text = " ".join((done.stdout + done.stderr).split())
    assert "judge.batch_sise" in text
    assert "batch_size" in text
    assert "Traceback" not in text
    assert "Running node" not in text


def test_too_many_bad_rows_stop_the_run_and_write_nothing(mined, tmp_path):
    import shutil

    source = mined[0] / "data/01_raw/mini_mmeb/train"
    shutil.copytree(source, tmp_path / "train")
    for file in list((tmp_path / "train/images/EmojiObjects/Train").glob("*.png"))[:5]:
        file.write_bytes(b"not a picture")
    own = f"--params=ingest.root={tmp_path}/train"
    done = kedro(tmp_path, "--pipelines=demo,ingest", own, UNIME_TRACKING="off")
    text = done.stdout + done.stderr
    assert done.returncode == 1, text
    assert "ingest.max_reject_share" in text
    assert "Traceback" not in text
    assert not (tmp_path / "data/02_intermediate").exists() or not list((tmp_path / "data/02_intermediate").iterdir())
    allowed = kedro(tmp_path, "--pipelines=demo,ingest", f"{own},ingest.max_reject_share=0.2", UNIME_TRACKING="off")
    assert allowed.returncode == 0, allowed.stderr
    rejects = pl.read_parquet(tmp_path / "data/02_intermediate/rejects.parquet")
    assert rejects.height == 5
    assert set(rejects["dataset"]) == {"EmojiObjects"}
    assert not (tmp_path / "data/01_raw/mini_mmeb").exists()


def test_select_loads_neither_torch_nor_transformers(mined):
    code = (
        "import sys; sys.argv = ['kedro', 'run', '--env=smoke', '--pipeline=select']\n"
        "from kedro.framework.cli.cli import main\n"
        "try: main()\n"
        "except SystemExit as done: assert not done.code, done.code\n"
        "print('LOADED', *sorted({m.split('.')[0] for m in sys.modules} & {'torch', 'transformers', 'mlflow', 'faiss'}))"
    )
    environment = {"UNIME_DATA_ROOT": str(mined[0] / "data"), "MLFLOW_TRACKING_URI": f"sqlite:///{mined[0]}/mlflow.db"}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env={**os.environ, **environment}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    [line] = [line for line in done.stdout.splitlines() if line.startswith("LOADED")]
    assert line.split()[1:] == ["mlflow"]


def test_tables_of_another_corpus_are_refused(mined, tmp_path):
    import shutil

    shutil.copytree(mined[0] / "data", tmp_path / "data")
    other = "--params=demo.seed=8"
    done = kedro(tmp_path, "--pipeline=ingest", other, UNIME_TRACKING="off")
    assert done.returncode == 0, done.stderr
    before = (tmp_path / "data/05_model_input/negatives.parquet").read_bytes()
    for stage in ("select", "judge"):
        done = kedro(tmp_path, f"--pipeline={stage}", other, UNIME_TRACKING="off")
        text = " ".join((done.stdout + done.stderr).split())
        assert done.returncode == 1
        assert "was made from another corpus" in text
        assert "kedro run --pipelines=pool,judge,select" in text
    assert (tmp_path / "data/05_model_input/negatives.parquet").read_bytes() == before


def test_of_two_first_runs_at_once_one_writes_the_corpus_and_the_other_says_who_is_there(tmp_path):
    command = [KEDRO, "run", "--env=smoke", "--pipeline=ingest"]
    environment = {**os.environ, "UNIME_DATA_ROOT": str(tmp_path / "data"), "UNIME_TRACKING": "off"}
    runs = [
        subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        for _ in range(2)
    ]
    outputs = [run.communicate()[0] for run in runs]
    ended = [run.returncode for run in runs]
    assert sorted(ended) == [0, 1], outputs
    first = ended.index(0)
    assert f"stop it (kill {runs[first].pid})" in outputs[1 - first]
    smoke = yaml.safe_load((ROOT / "conf/smoke/parameters.yml").read_text())
    total = sum(smoke["demo"]["train_pairs"].values())
    assert f"{total} pairs read" in outputs[first]
    assert pl.read_parquet(tmp_path / "data/02_intermediate/queries.parquet").height == total
