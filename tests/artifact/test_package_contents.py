"""What is written into packages, and what it says."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from small_package import NEGATIVES, PARAMETERS, contents, gathered, make

from unime_kedro.artifact import gathering
from unime_kedro.artifact.gathering import folder_list, left_out
from unime_kedro.artifact.writing import write_package
from unime_kedro.tracking.contents import contents_of
from unime_kedro.tracking.files import FileRecord

OWN = {**PARAMETERS, "ingest": {"root": "corpus/mine"}, "judge": {"model": "Qwen/Qwen2.5-VL-7B-Instruct"}}


def test_bytes_depend_on_neither_clock_nor_place_nor_order(tmp_path: Path) -> None:
    first = make(tmp_path / "one/project", tmp_path / "a.zip")
    found = gathered(tmp_path / "two/elsewhere/project")
    for path in found.files.values():
        os.utime(path, (1, 1))
        path.chmod(0o600)
    found.files = dict(sorted(found.files.items(), reverse=True))
    second = write_package(found, tmp_path / "two/elsewhere/project", tmp_path / "b.zip")
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()
    assert first.sha256 == second.sha256 == hashlib.sha256((tmp_path / "a.zip").read_bytes()).hexdigest()
    with zipfile.ZipFile(tmp_path / "a.zip") as archive:
        entries = archive.infolist()
    assert [one.filename for one in entries] == sorted(one.filename for one in entries)
    # 2023-11-14 22:15:50 UTC is when the run ended; zip files count in twos
    assert {one.date_time for one in entries} == {(2023, 11, 14, 22, 15, 50)}


def test_the_manifest_is_what_sha256sum_reads(tmp_path: Path) -> None:
    make(tmp_path / "project", tmp_path / "a.zip")
    with zipfile.ZipFile(tmp_path / "a.zip") as archive:
        archive.extractall(tmp_path / "out")
    done = subprocess.run(
        ["sha256sum", "-c", "manifest-sha256.txt"], cwd=tmp_path / "out", capture_output=True, text=True
    )
    there = {p.relative_to(tmp_path / "out").as_posix() for p in (tmp_path / "out").rglob("*") if p.is_file()}
    assert done.returncode == 0
    checked = {line.removesuffix(": OK") for line in done.stdout.splitlines()}
    assert checked == there - {"manifest-sha256.txt"}


def test_a_list_of_a_folder_has_the_folders_hash(tmp_path: Path) -> None:
    for name in ("b", "a/z", "a.txt", "a/b/c"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    listed = folder_list(tmp_path)
    found = contents_of(tmp_path)
    assert found is not None
    assert hashlib.sha256(listed).hexdigest() == found.sha256
    printed = subprocess.run(["sha256sum", "a.txt", "a/b/c", "a/z", "b"], cwd=tmp_path, capture_output=True).stdout
    assert listed == printed


def test_who_ran_it_is_left_out_and_places_are_told(tmp_path: Path) -> None:
    root = tmp_path / "project"
    found = gathered(root)
    assert make(root, tmp_path / "a.zip").telling == []
    page = found.files["files/data/08_reporting/report.html"]
    page.write_text(f"made in {root}/data")
    done = write_package(found, root, tmp_path / "b.zip")
    assert done.telling == ["files/data/08_reporting/report.html"]
    for content in contents(tmp_path / "a.zip").values():
        assert b"somebody" not in content


def test_constraints_of_another_day_are_not_those_of_the_run(tmp_path: Path) -> None:
    found = gathered(tmp_path / "project")
    (tmp_path / "project/constraints.txt").write_text("other\n")
    write_package(found, tmp_path / "project", tmp_path / "a.zip")
    names = set(contents(tmp_path / "a.zip"))
    assert "project/constraints.txt" not in names
    assert {"project/NOTICE", "project/dvc.lock"} <= names


@pytest.mark.parametrize(
    ("entry", "with_models", "with_data", "reason"),
    [
        (("trained_folder", "<data root>/06_models/trained", "5.dir", 200), True, True, ""),
        (("trained_folder", "<data root>/06_models/trained", "5.dir", 200), False, True, "--with-models"),
        (("trained_folder", "<data root>/06_models/trained", "5.dir", 50), False, True, "its card is here"),
        (("embedding_folder", "<data root>/04_feature/embeddings", "5.dir", 50), True, True, "a model or an array"),
        (("report_figures", "<data root>/08_reporting/figures", "5.dir", 50), False, False, ""),
        (("items", "<data root>/02_intermediate/items.parquet", "5", 200), True, True, "MiB"),
        (("items", "<data root>/02_intermediate/items.parquet", "5", 100), False, True, ""),
        (("items", "<data root>/02_intermediate/items.parquet", "5", 100), False, False, "packed without data"),
        (("predictions", "<data root>/07_model_output/predictions.parquet", "5", 100), False, False, ""),
        (("report", "<data root>/08_reporting/report.html", "5", 100), False, False, ""),
        (("embeddings", "<data root>/04_feature/embeddings.npy", "5", 100), False, True, "array of embeddings"),
    ],
)
def test_what_is_left_out(
    monkeypatch: pytest.MonkeyPatch, entry: tuple[str, str, str, int], with_models: bool, with_data: bool, reason: str
) -> None:
    monkeypatch.setattr(gathering, "MAX_FILE", 100)
    dataset, path, md5, size = entry
    found = left_out(FileRecord("output", dataset, path, "0" * 64, md5, size), with_models, with_data)
    assert reason in found
    assert bool(reason) == bool(found)
    assert "too large" in left_out(FileRecord("output", dataset, path, None, None, size), True, True)


def _described(package: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    files = contents(package)
    graph = {one["@id"]: one for one in json.loads(files["ro-crate-metadata.json"])["@graph"]}
    return json.loads(files["croissant.json"]), graph


def test_no_licence_is_given_to_somebodys_own_data(tmp_path: Path) -> None:
    make(tmp_path / "project", tmp_path / "a.zip")
    make(tmp_path / "project", tmp_path / "b.zip", OWN)
    croissant, graph = _described(tmp_path / "a.zip")
    assert croissant["license"] == graph["./"]["license"]["@id"] == "https://creativecommons.org/licenses/by-sa/4.0/"
    assert "OpenMoji" in croissant["rai:dataLimitations"]
    assert "two million" in croissant["rai:dataLimitations"]
    croissant, graph = _described(tmp_path / "b.zip")
    assert croissant["license"].startswith("not stated")
    assert graph[graph["./"]["license"]["@id"]]["name"] == "not stated"
    assert croissant["rai:dataLimitations"] == "Scores of a model, not of people."


def test_actions_name_inputs_outputs_times_and_program(tmp_path: Path) -> None:
    make(tmp_path / "project", tmp_path / "a.zip")
    _, graph = _described(tmp_path / "a.zip")
    train, mine = (graph[one["@id"]] for one in graph["./"]["mentions"])
    assert (mine["startTime"], mine["endTime"]) == ("2023-11-14T22:13:20+00:00", "2023-11-14T22:14:10+00:00")
    assert f"files/data/{NEGATIVES}" in {one["@id"] for one in train["object"]} & {one["@id"] for one in mine["result"]}
    assert graph[train["instrument"]["@id"]]["softwareVersion"].endswith("commit cccccccccccc with changes")
    for action in (train, mine):
        for one in [*action["object"], *action["result"]]:
            assert one["@id"] in graph
    weights = next(one["@id"] for one in train["result"] if one["@id"].startswith("#sha256-"))
    assert graph[weights]["description"].endswith("not in this package")


def test_a_failed_run_is_called_so(tmp_path: Path) -> None:
    found = gathered(tmp_path / "project")
    found.records[0] = replace(found.records[0], status="FAILED")
    write_package(found, tmp_path / "project", tmp_path / "a.zip")
    _, graph = _described(tmp_path / "a.zip")
    assert graph[f"#run-{found.records[0].run_id}"]["actionStatus"] == "http://schema.org/FailedActionStatus"


@pytest.mark.slow
def test_every_row_and_column_is_read_through_croissant(tmp_path: Path) -> None:
    import mlcroissant

    make(tmp_path / "project", tmp_path / "a.zip")
    with zipfile.ZipFile(tmp_path / "a.zip") as archive:
        archive.extractall(tmp_path / "out")
    described = mlcroissant.Dataset(jsonld=str(tmp_path / "out/croissant.json"))
    assert described.metadata.issues.report() == ""
    for name, path in (("items", "02_intermediate/items"), ("queries", "02_intermediate/queries"),
                       ("negatives", NEGATIVES.removesuffix(".parquet"))):  # fmt: skip
        wanted = pl.read_parquet(tmp_path / f"out/files/data/{path}.parquet").rows(named=True)
        assert [_plain(row) for row in described.records(name)] == wanted
    (row,) = [_plain(row) for row in described.records("mined")]
    assert row == {"query_text": "red cat", "query_image": "", "pos_text": "ein Café", "pos_image": "",
                   "query_pos_scores": 0.5}  # fmt: skip


def _plain(row: dict[str, Any]) -> dict[str, Any]:
    return {
        key.rpartition("/")[2]: value.decode()
        if isinstance(value, bytes)
        else getattr(value, "item", lambda v=value: v)()
        for key, value in row.items()
    }
