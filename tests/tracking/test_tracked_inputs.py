"""Which data went in: hashes of what a pipeline reads and does not make itself."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from kedro.pipeline import Pipeline, node, pipeline
from toy_project import ROOT, Project, run_here

from unime_kedro.tracking.files import Places, input_records, input_tags
from unime_kedro.tracking.hook import TrackingHook

FILES = {
    "corpus": "01_raw/corpus.json",
    "corpus_truth": "01_raw/mini_mmeb/truth/train/wants.parquet",
    "items": "02_intermediate/items.parquet",
    "queries": "02_intermediate/queries.parquet",
    "judge_scores": "03_primary/judge_scores.parquet",
    "pool": "03_primary/pool.parquet",
}


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("UNIME_TRACKING", "UNIME_PARENT_RUN_ID", "UNIME_DATA_ROOT", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def catalog(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The project's own catalog over a folder in which every file that matters lies."""
    from kedro.config import OmegaConfigLoader

    from unime_kedro.settings import CONFIG_LOADER_ARGS, DATA_CATALOG_CLASS

    monkeypatch.setenv("UNIME_DATA_ROOT", str(tmp_path))
    for name, path in FILES.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(json.dumps({"name": name, "digest": "d1"}))
    return DATA_CATALOG_CLASS.from_config(OmegaConfigLoader(str(ROOT / "conf"), **CONFIG_LOADER_ARGS)["catalog"])


def named(name: str) -> Pipeline:
    from unime_kedro.pipeline_registry import register_pipelines

    return register_pipelines()[name]


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def input_hashes(pipeline: Pipeline, catalog: Any) -> dict[str, str]:
    tags = input_tags(input_records(pipeline, catalog, Places(Path("/project"), Path("/project/data"))), catalog)
    return {tag: value for tag, value in tags.items() if tag.endswith(".sha256")}


def test_select_records_the_tables_it_reads(catalog: Any, tmp_path: Path) -> None:
    tables = ("pool", "judge_scores", "queries", "items")
    wanted = {f"input.{name}.sha256": sha256((tmp_path / FILES[name]).read_bytes()) for name in tables}
    truth = sha256((tmp_path / FILES["corpus_truth"]).read_bytes())
    wanted["input.corpus_truth.sha256"] = sha256(f"{truth}  wants.parquet\n".encode())
    assert input_hashes(named("select"), catalog) == wanted


def test_judge_and_pool_record_the_tables_they_read(catalog: Any) -> None:
    tables = {"input.queries.sha256", "input.items.sha256"}
    assert set(input_hashes(named("pool"), catalog)) == tables
    assert set(input_hashes(named("judge"), catalog)) == tables | {"input.pool.sha256"}


def test_corpus_is_recorded_by_the_hash_of_its_raw_files(catalog: Any, tmp_path: Path) -> None:
    ingest = named("ingest").filter(from_inputs=["corpus"])  # without the node that prepares the corpus
    assert input_hashes(ingest, catalog) == {"input.corpus.sha256": "d1"}
    (tmp_path / FILES["corpus"]).write_text('{"name": "own data"}')  # of an older version, without a digest
    assert input_hashes(ingest, catalog) == {"input.corpus.sha256": sha256(b'{"name": "own data"}')}
    (tmp_path / FILES["corpus"]).unlink()
    assert input_hashes(ingest, catalog) == {}


def test_what_an_earlier_run_left_is_no_input_of_one_that_makes_the_corpus(catalog: Any) -> None:
    assert not {tag for tag in input_hashes(named("mine"), catalog) if "corpus" in tag}


def prepare(raw: dict) -> tuple[dict, dict]:
    return {"name": "own data", "digest": "c0ffee"}, {"model_fingerprint": "f1", "pairs": 3, "none": None, "l": ["x"]}


@pytest.mark.parametrize("elsewhere", [False, True])
def test_corpus_and_models_of_a_run_that_makes_the_corpus(
    project: Project, elsewhere: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also when nodes run in other processes, whose hooks are silent: then files are read at the end."""
    project.write(
        "conf/base/catalog.yml",
        "raw: {type: unime_kedro.io.JsonFile, filepath: data/raw.json}\n"
        "corpus: {type: unime_kedro.io.JsonFile, filepath: data/corpus.json}\n"
        "judge_metrics: {type: unime_kedro.io.JsonFile, filepath: data/judge_metrics.json}\n",
    )
    hook = TrackingHook()
    if elsewhere:
        monkeypatch.setattr(hook, "after_dataset_saved", lambda dataset_name, data: None)
    run_here(project.root, pipeline([node(prepare, "raw", ["corpus", "judge_metrics"], name="only")]), hook)
    (run,) = project.runs()
    assert run.data.tags["input.corpus.sha256"] == "c0ffee"
    assert run.data.tags["output.corpus.sha256"] == sha256((project.root / "data/corpus.json").read_bytes())
    assert run.data.tags["judge.model_fingerprint"] == "f1"
    assert run.data.metrics["judge/pairs"] == 3
    assert run.info.status == "FINISHED"
