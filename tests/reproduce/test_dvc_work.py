"""Folders of work in a stage of DVC, and what tracking knows of DVC."""

from __future__ import annotations

from pathlib import Path

import pytest
from kedro.io import DataCatalog
from kedro.pipeline import Pipeline, node

from unime_kedro.io.datasets import Folder
from unime_kedro.mining.store import judge_key
from unime_kedro.reproduce import work
from unime_kedro.reproduce.work import WorkHook, code_digest
from unime_kedro.tracking.config import TrackingConfig
from unime_kedro.tracking.provenance import dvc_tags, named_by_dvc

# a function of the package, so that there is code behind the node
PIPELINE = Pipeline([node(judge_key, "store", "key", name="key"), node(judge_key, "plain", "other", name="other")])


def catalog(folder: Path) -> DataCatalog:
    store = Folder(filepath=str(folder / "store"), metadata={"dvc": "work"})
    return DataCatalog({"store": store, "plain": Folder(filepath=str(folder / "plain"))})


def parts(folder: Path) -> tuple[str, str]:
    made = catalog(folder)
    WorkHook().before_pipeline_run(PIPELINE, made)
    return tuple(made.load(name).relative_to(folder).as_posix() for name in ("store", "plain"))


def test_without_dvc_the_folder_is_used_as_it_is(tmp_path, monkeypatch):
    monkeypatch.delenv("DVC_STAGE", raising=False)
    assert parts(tmp_path) == ("store", "plain")


def test_in_a_stage_of_dvc_each_version_of_the_code_has_its_own(tmp_path, monkeypatch):
    monkeypatch.setenv("DVC_STAGE", "judge")
    own = f"store/code-{code_digest(['unime_kedro.mining.store'])}"
    assert parts(tmp_path) == (own, "plain")
    (tmp_path / own / "half-done").touch()
    (tmp_path / "store/made-without-dvc").touch()
    assert parts(tmp_path) == (own, "plain")
    assert (tmp_path / own / "half-done").exists()  # a killed stage goes on
    monkeypatch.setattr(work, "code_digest", lambda modules: "0" * 16)
    assert parts(tmp_path) == ("store/code-" + "0" * 16, "plain")
    assert not (tmp_path / own).exists()  # other code does not
    assert (tmp_path / "store/made-without-dvc").exists()


def test_the_hash_is_that_of_all_files_behind_the_code():
    one = code_digest(["unime_kedro.mining.store"])
    assert one == code_digest(["unime_kedro.mining.store", "unime_kedro.mining.store", "unime_kedro.atomic"])
    assert one != code_digest(["unime_kedro.mining.store", "unime_kedro.mining.lineage"])


@pytest.mark.parametrize("uri", [None, "sqlite:///runs/my.db"])
def test_runs_of_a_temporary_copy_go_to_the_project(uri, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.delenv("DVC_ROOT", raising=False)
    config = TrackingConfig.model_validate({"server": {"mlflow_tracking_uri": uri}})
    name = "runs/my.db" if uri else "mlflow.db"
    assert config.tracking_uri(Path("/copy")) == f"sqlite:////copy/{name}"
    monkeypatch.setenv("DVC_ROOT", "/project")
    assert config.tracking_uri(Path("/copy")) == f"sqlite:////project/{name}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://server")
    assert config.tracking_uri(Path("/copy")) == "http://server"


def test_stage_and_experiment_are_tags_and_the_experiment_part_of_the_name(monkeypatch):
    for name in ("DVC_STAGE", "DVC_EXP_NAME"):
        monkeypatch.delenv(name, raising=False)
    assert (dvc_tags(), named_by_dvc("train")) == ({}, "train")
    monkeypatch.setenv("DVC_STAGE", "train_arm@hard-1")
    assert (dvc_tags(), named_by_dvc("train")) == ({"dvc.stage": "train_arm@hard-1"}, "train")
    monkeypatch.setenv("DVC_EXP_NAME", "warm-soil")
    assert dvc_tags() == {"dvc.stage": "train_arm@hard-1", "dvc.exp": "warm-soil"}
    assert named_by_dvc("train") == "train (warm-soil)"
