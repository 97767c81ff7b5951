"""`unime plan` for real: conf/paper with tiny stand-ins for its models, on a small tree of MMEB's layout."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from click.testing import CliRunner, Result
from mmeb_tree import PARAMS, ROWS, SETS, dotted, write_tree

from unime_kedro.cli import main
from unime_kedro.planning.settings import Settings, read_settings

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    data_root = tmp_path_factory.mktemp("paper")
    write_tree(data_root)
    return data_root


@pytest.fixture
def data(tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the tree as data root."""
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("UNIME_DATA_ROOT", str(tmp_path / "data"))
    return shutil.copytree(tree, tmp_path / "data")


@pytest.fixture
def nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("UNIME_DATA_ROOT", str(tmp_path))
    return tmp_path


def run(*options: str, params: dict[str, Any] = PARAMS) -> Result:
    arguments = ["plan", "--env=paper", *options, f"--params={','.join(dotted(params))}"]
    return CliRunner().invoke(main, arguments, catch_exceptions=False)


def plan(*options: str, params: dict[str, Any] = PARAMS) -> dict[str, Any]:
    done = run("--json", *options, params=params)
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


def test_a_dry_run_from_raw_pairs(data: Path) -> None:
    found = plan("--pipeline=mine", "--gpu=a100", "--price=2")
    assert found["corpus"]["queries"] == ROWS * len(SETS)
    # by hand: all queries differ; positives: 4 labels, 12 captions of which 4 are words of labels, 12 pictures
    assert found["corpus"]["items"]["middle"] == 36 + 4 + 8 + 12
    assert found["corpus"]["pictures"]["middle"] == 36 + 12
    assert (found["corpus"]["checked_rows"], found["corpus"]["bad_rows"]) == (36, 0)
    assert found["models"]["judge"] == {"model": "models/tiny-judge", "parameters": 1_997_952, "read": True}
    assert list(found["stages"]) == ["embed", "judge"]
    judge = found["stages"]["judge"]
    assert judge["pairs"] == {"low": 36 * 7, "middle": 36 * 7, "high": 36 * 7}
    assert 0.5 < judge["prefix_share"]["middle"] < 1
    hours = judge["hours"]
    assert 0 < hours["low"] < hours["middle"] < hours["high"]
    assert hours["middle"] == pytest.approx(judge["operations"]["middle"] / (312e12 * 0.2) / 3600)
    assert judge["money"]["high"] == pytest.approx(2 * hours["high"])
    assert found["hours"]["middle"] == pytest.approx(sum(one["hours"]["middle"] for one in found["stages"].values()))
    assert not (data / "03_primary").exists(), "nothing was run or written"


def test_all_stages_as_people_read_them(data: Path) -> None:
    done = run("--gpu=a800", "--price=1.5")
    assert done.exit_code == 0, done.output
    for words in (
        "Plan of mine, train, rerank, evaluate with --env=paper. Nothing was run.",
        "36 raw rows drawn at random, pictures opened: all can be used",
        "judge: models/tiny-judge, 2 M parameters (configuration read, no weights)",
        "judging: 252 pairs",
        "share of prompt tokens that candidates share:",
        "training the embedder: 20,850,333 contents",
        "10,344 steps of 64 queries",
        "there is no pool yet",
        "NVIDIA A800 80 GB (the paper's)",
        "costs ",
    ):
        assert words in done.output, words
    # a path is not broken
    assert max(len(line) for line in done.output.splitlines() if str(data) not in line) <= 100


def test_evaluation_counts_the_rows_on_disk(data: Path) -> None:
    found = plan("--pipeline=evaluate")["stages"]["evaluate"]
    # three sets of five queries; 4 + 5 + 5 labels and captions, 5 pictures: each target is its own row's or the one's
    # before, and the first row's neighbour is the last one
    contents = 15 + 4 + 6 + 6
    lists = 15 * 11
    assert found["contents"]["middle"] == 2 * contents + lists, "start and trained; one model has a reranker"
    assert not any("published" in note for note in found["notes"])


def test_bad_rows_are_counted_before_money_is_spent(data: Path) -> None:
    images = data / "01_raw/MMEB-train/images/NIGHTS"
    (images / "q3.png").unlink()
    (images / "p5.png").write_bytes((images / "p5.png").read_bytes()[:200])
    found = plan("--pipeline=mine")
    assert (found["corpus"]["checked_rows"], found["corpus"]["bad_rows"]) == (36, 2)
    shown = run("--pipeline=mine").output
    assert "2 cannot be used (1 image_missing, 1 image_undecodable), 5.6%, more than" in " ".join(shown.split()) or (
        "2 cannot be used (1 image_undecodable, 1 image_missing), 5.6%, more than" in " ".join(shown.split())
    )


def settings_with_tables(data: Path) -> Settings:
    """Ingest for real, and a pool at random."""
    from unime_kedro.pipelines.ingest.nodes import ingest_pairs

    settings = read_settings("paper", ("judge",), PARAMS)
    _, items, queries, candidates, metrics = ingest_pairs({}, settings.section("ingest"))
    random = np.random.default_rng(1)
    own = dict(zip(queries["query_id"], queries["positive_item_id"], strict=True))
    rows = [
        (query, rank, item, 0.5)
        for query in queries["query_id"]
        for rank, item in enumerate(random.permutation([i for i in candidates["item_id"] if i != own[query]])[:6])
    ]
    schema = {"query_id": pl.Int64, "rank": pl.Int32, "item_id": pl.Int64, "similarity": pl.Float32}
    tables = {"items": items, "queries": queries, "candidates": candidates}
    tables["pool"] = pl.DataFrame(rows, schema=schema, orient="row")
    for name, table in tables.items():
        settings.place(name).parent.mkdir(parents=True, exist_ok=True)
        table.write_parquet(settings.place(name))
    settings.place("ingest_metrics").parent.mkdir(parents=True, exist_ok=True)
    settings.place("ingest_metrics").write_text(json.dumps(metrics))
    return settings


def judge_all(settings: Settings) -> dict[str, Any]:
    from unime_kedro.mining.lineage import corpus_digest, table_digest
    from unime_kedro.pipelines.judge.nodes import judge

    items, queries, pool = (pl.read_parquet(settings.place(name)) for name in ("items", "queries", "pool"))
    origin = {"corpus": corpus_digest(items, queries), "pool": table_digest(pool)}
    image_root = settings.section("ingest").image_root
    return judge(queries, items, pool, origin, settings.section("judge"), image_root, settings.place("judge_store"))[-1]


def test_the_counts_are_those_of_the_run_itself(data: Path) -> None:
    settings = settings_with_tables(data)
    before = plan("--pipeline=judge")["stages"]["judge"]
    metrics = judge_all(settings)
    assert before["pairs"]["middle"] == metrics["judged_now"]
    assert before["prompt_tokens"]["middle"] == pytest.approx(metrics["prompt_tokens"])
    assert before["run_tokens"]["middle"] == pytest.approx(metrics["run_tokens"])
    assert before["prefix_share"]["middle"] == pytest.approx(metrics["prefix_reuse_share"], abs=0.2)
    assert before["pictures"]["middle"] == metrics["pictures_encoded"]
    # what the store has is not paid for again, and it is found without the weights
    after = plan("--pipeline=judge")["stages"]["judge"]
    assert after["pairs"]["middle"] == after["operations"]["middle"] == 0
    assert f"the store has {metrics['judged_now']} scores" in after["notes"][0]
    # workers of a cluster share it, another engine and another judge have none of them
    for backend, pairs in (("ray", 0), ("vllm", before["pairs"]["middle"])):
        engine = plan("--pipeline=judge", params={**PARAMS, "judge": {**PARAMS["judge"], "backend": backend}})
        assert engine["stages"]["judge"]["pairs"]["middle"] == pairs
    other = plan("--pipeline=judge", params={**PARAMS, "judge": {**PARAMS["judge"], "max_tokens": 999}})
    assert other["stages"]["judge"]["pairs"] == before["pairs"]
    (folder,) = settings.place("judge_store").iterdir()
    (shard,) = folder.glob("shard-*.parquet")
    pl.read_parquet(shard)[:100].write_parquet(shard)
    assert plan("--pipeline=judge")["stages"]["judge"]["pairs"]["middle"] == metrics["judged_now"] - 100


def test_tables_of_other_pairs_are_not_used(data: Path) -> None:
    settings_with_tables(data)
    assert plan("--pipeline=judge")["corpus"]["source"].startswith("tables of ingest")
    shutil.rmtree(data / "01_raw/MMEB-train/NIGHTS")
    found = plan("--pipeline=judge")["corpus"]
    assert found["source"].startswith("raw pairs")
    assert found["queries"] == 24


def test_a_sample_of_the_real_stages_is_measured(data: Path) -> None:
    settings_with_tables(data)
    found = plan("--pipeline=mine", "--measure=20")
    judge, embed = found["stages"]["judge"], found["stages"]["embed"]
    assert judge["basis"] == "measured here with 20 queries, 140 pairs"
    assert embed["basis"] == "measured here with 60 contents"
    for stage in (judge, embed):
        assert 0 < stage["hours"]["low"] <= stage["hours"]["middle"] <= stage["hours"]["high"] < 0.1
    assert not (data / "03_primary/judge_store").exists(), "a measurement leaves nothing behind"


def test_a_stated_speed(data: Path) -> None:
    found = plan("--pipeline=judge", "--pairs-per-second=10")["stages"]["judge"]
    assert found["hours"]["middle"] == pytest.approx(252 / 10 / 3600)
    assert found["hours"]["high"] == pytest.approx(252 / 9 / 3600), "known to ten percent"
    tokens = plan("--pipeline=judge", "--tokens-per-second=1000")["stages"]["judge"]
    assert tokens["hours"]["middle"] == pytest.approx(tokens["run_tokens"]["middle"] / 1000 / 3600)


def test_without_any_data(nothing: Path) -> None:
    found = plan("--pipeline=mine")
    assert found["corpus"]["source"] == "published size of MMEB-train"
    assert found["stages"]["judge"]["pairs"]["middle"] == 662_000 * 7
    assert any("there is no such folder; expected the folder that holds" in note for note in found["corpus"]["notes"])
    hours = found["stages"]["judge"]["hours"]
    assert hours["high"] > 5 * hours["low"], "nothing is known of lengths, and the interval says so"


def test_the_papers_models_without_network(nothing: Path) -> None:
    """The hub is off in tests (HF_HUB_OFFLINE): sizes are the declared ones, and that is said."""
    done = run("--pipeline=mine", "--price=2", params={})
    assert done.exit_code == 0, done.output
    text = " ".join(done.output.split())
    assert "judging: 33,762,000 pairs" in text
    assert "judge: Qwen/Qwen2.5-VL-7B-Instruct, 8.29 G parameters (declared, not read)" in text
    assert "its declared size is used" in text
    unknown = run("--pipeline=judge", params={"judge": {"model": "someone/else-7b"}})
    assert unknown.exit_code == 0
    text = " ".join(unknown.output.split())
    assert "no size is declared for it: no hours are given" in text
    assert "hours not known" in text
    assert "without judge" in text


def test_the_embedded_corpus_before_it_is_drawn(nothing: Path) -> None:
    done = CliRunner().invoke(main, ["plan", "-p", "mine", "--json"], catch_exceptions=False)
    found = json.loads(done.stdout)
    assert found["environment"] is None
    assert found["corpus"]["source"] == "declared size of mini-MMEB, not drawn yet"
    assert found["corpus"]["queries"] == 3050


@pytest.mark.parametrize(
    ("options", "params", "message"),
    [
        (["--gpu=abacus"], {}, "--gpu=abacus: no speed is known for it; known are a800, a100"),
        (["--pipeline=dine"], {}, "--pipeline=dine: nothing to plan; expected mine, pool"),
        (["--pipeline=judge"], {"judge": {"batchsize": 3}}, "judge.batchsize = 3: unknown key; did you mean"),
        (["--pipeline=judge", "--measure=30"], {}, "--measure=30: there are no data to measure with"),
    ],
)
def test_what_is_wrong_is_said_in_a_line(
    nothing: Path, options: list[str], params: dict[str, Any], message: str
) -> None:
    done = run(*options, params={**PARAMS, **params})
    assert done.exit_code == 1
    assert message in done.output


def test_a_file_of_options_is_the_one_of_kedro_run(nothing: Path) -> None:
    file = ROOT / "conf/paper/variants/llava-onevision-7b.yml"
    done = CliRunner().invoke(
        main, ["plan", f"--config={file}", "--params=train.steps=10", "--json"], catch_exceptions=False
    )
    found = json.loads(done.stdout)
    assert (found["environment"], found["pipelines"]) == ("paper", ["train"])
    assert found["models"]["train"]["model"] == "llava-hf/llava-onevision-qwen2-7b-ov-hf"
    # 10 steps of 1,024 queries, positives and 8 negatives; two validations of 1,000 queries with 100 candidates each,
    # of one pass where training has three
    assert found["stages"]["train"]["contents"]["middle"] == pytest.approx(10 * 1024 * 10 + 1 * 1000 * 101 / 3)
