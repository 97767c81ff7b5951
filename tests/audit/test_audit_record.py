"""What is read of a run, and how runs are named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from hand_made import a_record
from hypothesis import given
from hypothesis import strategies as st

from unime_kedro.audit.record import RunRecord, UnknownRun, find_run, located, read_record
from unime_kedro.errors import DataError
from unime_kedro.tracking.files import FileRecord

FILES = [{"side": "input", "dataset": "items", "path": "<data root>/a", "sha256": "1", "md5": None, "bytes": 3}]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, dict[str, str]]:
    """A store with a run, its child, and two runs of one name; returns client and ids."""
    from mlflow import MlflowClient

    folder = tmp_path_factory.mktemp("store")
    client = MlflowClient(f"sqlite:///{folder}/mlflow.db")
    experiment = client.create_experiment("e", artifact_location=(folder / "artifacts").as_uri())
    ids: dict[str, str] = {}
    for name in ("whole", "twice", "twice "):
        ids[name] = client.create_run(experiment, run_name=name.strip()).info.run_id
    run = ids["whole"]
    ids["child"] = client.create_run(experiment, tags={"mlflow.parentRunId": run}, run_name="child").info.run_id
    for step, value in ((0, 0.5), (2, 0.25), (1, 0.75)):
        client.log_metric(run, "train/loss", value, step=step)
    client.log_metric(run, "broken", float("nan"))
    client.log_param(run, "train.steps", "4")
    client.log_text(run, yaml.safe_dump({"parameters": {"train": {"steps": 4}}}), "config.yml")
    client.log_text(run, json.dumps(FILES), "files.json")
    client.log_text(run, "a==1\nb==2\n", "environment.txt")
    client.log_text(run, json.dumps({"loss": 0.5}), "metrics/train_metrics.json")
    client.log_text(run, "<html></html>", "report.html")
    client.set_tag(ids["child"], "unime.ablation", "g")
    client.log_text(ids["child"], '{"columns": {"second": {}, "first": {}}, "low": 1e-05}', "g.json")
    client.log_text(ids["twice"], "a: [", "config.yml")
    client.log_text(ids["twice"], '[{"side": "input"}]', "files.json")
    client.log_text(ids["twice"], "{", "metrics/train_metrics.json")
    client.set_terminated(run)
    return client, ids


def test_a_run_is_read_with_its_artifacts(store: tuple[Any, dict[str, str]]) -> None:
    client, ids = store
    found = read_record(client, ids["whole"])
    assert (found.name, found.status, found.experiment) == ("whole", "FINISHED", "e")
    assert found.config == {"parameters": {"train": {"steps": 4}}}
    assert found.files == [FileRecord("input", "items", "<data root>/a", "1", None, 3)]
    assert found.environment == ["a==1", "b==2"]
    assert found.metrics_files == {"train_metrics": {"loss": 0.5}}
    assert found.curves["train/loss"] == [(0, 0.5), (1, 0.75), (2, 0.25)]
    assert found.metrics["train/loss"] == 0.25
    assert found.children == [ids["child"]]
    assert (found.changes, found.group, found.unreadable) == ("", None, {})
    # echo -n '<html></html>' | sha256sum
    assert found.pages == {"report.html": "b633a587c652d02386c4f16f8c6f6aab7352d97f16367c3c40576214372dd628"}
    assert read_record(client, ids["whole"], curves=False).curves == {}


def test_of_an_ablation_the_table_is_read_with_the_column_that_it_compares(store: tuple[Any, dict[str, str]]) -> None:
    client, ids = store
    table = read_record(client, ids["child"]).table
    assert table == {"columns": {"second": {}, "first": {}}, "low": 1e-5, "compared": "second"}


def test_what_cannot_be_read_is_named_and_nothing_else_is_lost(store: tuple[Any, dict[str, str]]) -> None:
    client, ids = store
    found = read_record(client, ids["twice"])
    assert set(found.unreadable) == {"config.yml", "files.json", "metrics/train_metrics.json"}
    assert (found.config, found.files, found.metrics_files) == (None, None, {})
    assert "missing" in found.unreadable["files.json"]


def test_runs_are_found_by_id_by_its_beginning_and_by_a_name_of_their_own(store: tuple[Any, dict[str, str]]) -> None:
    client, ids = store
    assert find_run(client, ids["whole"]) == find_run(client, "whole") == ids["whole"]
    assert find_run(client, ids["child"][:12]) == ids["child"]
    with pytest.raises(UnknownRun, match="2 runs are called 'twice'") as caught:
        find_run(client, "twice")
    assert ids["twice"] in str(caught.value)
    assert ids["whole"] not in str(caught.value)
    with pytest.raises(UnknownRun, match="there is no run 'nothing'") as caught:
        find_run(client, "nothing")
    assert ids["whole"] in str(caught.value)
    with pytest.raises(UnknownRun):  # too short to be meant
        find_run(client, ids["whole"][:3])


numbers = st.floats(allow_nan=False)
texts = st.text(max_size=8)


@given(
    metrics=st.dictionaries(texts, numbers, max_size=3),
    curves=st.dictionaries(texts, st.lists(st.tuples(st.integers(0, 9), numbers), max_size=3), max_size=3),
    changes=st.binary(max_size=20).map(lambda data: data.decode("utf-8", errors="surrogateescape")),
    files=st.none() | st.just([FileRecord("output", "d", "p", None, None, 1)]),
)
def test_a_record_survives_json(metrics: Any, curves: Any, changes: str, files: Any) -> None:
    record = a_record(metrics=metrics, curves=curves, changes=changes, files=files, tags={"a": "b"})
    text = json.dumps(record.to_json(), allow_nan=False)
    assert RunRecord.from_json(json.loads(text)) == record


def test_numbers_that_json_does_not_know_survive_it() -> None:
    nan = float("nan")
    record = a_record(metrics={"a": nan, "b": float("-inf")}, curves={"a": [(0, nan)]})
    found = RunRecord.from_json(json.loads(json.dumps(record.to_json(), allow_nan=False)))
    assert found.metrics["a"] != found.metrics["a"]
    assert found.metrics["b"] == float("-inf")
    assert found.curves["a"][0][1] != found.curves["a"][0][1]


@pytest.mark.parametrize("content", [{}, [], {"run_id": "a"}, {**a_record().to_json(), "files": [{"side": 1}]}])
def test_what_is_no_record_is_refused(content: Any) -> None:
    with pytest.raises(DataError, match="no record of a run"):
        RunRecord.from_json(content)


def test_places_of_files() -> None:
    root, data = Path("/p"), Path("/elsewhere")
    assert located("<data root>/01_raw/a", root, data) == Path("/elsewhere/01_raw/a")
    assert located("models/tiny", root, data) == Path("/p/models/tiny")
    assert located("/abs/m", root, data) == Path("/abs/m")
    assert located("<data root>", root, data) == data
