"""What one tracked `kedro run` leaves behind, read back from MLflow."""

from __future__ import annotations

import hashlib
import json
import platform
import subprocess
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml
from toy_project import Project


class Mined(NamedTuple):
    project: Project
    run: Any
    output: str
    modules: set[str]
    commit: str


def git(root: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false"]
    return subprocess.run(
        ["git", *identity, *arguments], cwd=root, capture_output=True, text=True, check=True
    ).stdout.strip()


@pytest.fixture(scope="module")
def mined(tmp_path_factory: pytest.TempPathFactory, empty_store: Path) -> Mined:
    """`kedro run --pipeline=mine` in a git repository with one uncommitted file."""
    project = Project(tmp_path_factory.mktemp("mined"))
    (project.root / "mlflow.db").write_bytes(empty_store.read_bytes())
    git(project.root, "init", "-q")
    git(project.root, "add", "pyproject.toml", "conf", "src")
    git(project.root, "commit", "-q", "-m", "one")
    output, modules = project.kedro_modules(
        "run", "--pipeline=mine", "--params=options.k=3", UNIME_PARENT_RUN_ID="f00d"
    )
    (run,) = project.runs()
    return Mined(project, run, output, modules, git(project.root, "rev-parse", "HEAD"))


def artifact(mined: Mined, path: str) -> bytes:
    return (Path(mined.run.info.artifact_uri.removeprefix("file://")) / path).read_bytes()


def sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def test_run_is_finished_named_and_a_child_of_its_parent(mined: Mined) -> None:
    assert mined.run.info.status == "FINISHED"
    assert mined.run.info.run_name == "mine"
    assert mined.run.data.tags["mlflow.parentRunId"] == "f00d"


def test_no_model_library_was_imported(mined: Mined) -> None:
    assert "mlflow" in mined.modules
    assert not mined.modules & {"torch", "transformers", "great_expectations", "faiss"}


def test_artifacts_lie_beside_the_database(mined: Mined) -> None:
    assert mined.run.info.artifact_uri.startswith(f"file://{mined.project.root}/mlartifacts/")


def test_all_parameters_are_there_flat_with_runtime_values_and_typed_ones(mined: Mined) -> None:
    assert mined.run.data.params == {
        "options.k": "3",
        "options.rate": "0.0001",
        "options.names": '["a", "b"]',
        "options.delta": "null",  # only the typed model has it: its default was filled in
        "options.seed": "11",
        "long": "x" * 499 + "…",
        "empty": "{}",
        "flag": "true",
    }


def test_metrics_carry_their_stage(mined: Mined) -> None:
    metrics = dict(mined.run.data.metrics)
    seconds = {name: metrics.pop(name) for name in ("seconds", "seconds/double", "seconds/finish")}
    assert all(0 <= value < 60 for value in seconds.values())
    assert metrics == {
        "first/queries": 3,
        "first/share": 0.25,
        "first/by/a b": 1.5,
        "first/by/c_d_": 2,
        "select/queries": 1200,
        "select/false_negatives_dropped": 7,
        "select/false_negative_share": 0.05,
    }


def test_hashes_of_inputs_and_outputs_are_those_of_the_files(mined: Mined) -> None:
    data, tags = mined.project.root / "data", mined.run.data.tags
    files = {
        "input.raw.sha256": data / "raw.json",
        "output.doubled.sha256": data / "doubled.json",
        "output.first_metrics.sha256": data / "08_reporting/first_metrics.json",
        "output.select_metrics.sha256": data / "08_reporting/select_metrics.json",
        "output.gallery.sha256": data / "08_reporting/gallery.html",
        "output.negatives.sha256": data / "negatives.parquet",
    }
    sides = ("input.", "output.")
    assert {tag: value for tag, value in tags.items() if tag.startswith(sides) and tag.endswith(".sha256")} == {
        tag: sha256(file) for tag, file in files.items()
    }


def test_texts_among_the_metrics_are_tags(mined: Mined) -> None:
    assert mined.run.data.tags["first.note"] == "text"


def test_provenance_tags(mined: Mined) -> None:
    tags = mined.run.data.tags
    assert tags["mlflow.source.git.commit"] == mined.commit
    assert tags["git.dirty"] == "true"
    assert tags["kedro.command"] == "kedro run --pipeline=mine --params=options.k=3"
    assert (tags["kedro.env"], tags["kedro.pipeline"], tags["seed.options"]) == ("local", "mine", "11")
    assert tags["version.python"] == platform.python_version()
    assert {"version.torch", "version.transformers", "version.polars", "hardware.cpu", "hardware.cores"} <= set(tags)


def test_resolved_configuration_is_an_artifact_and_its_hash_a_tag(mined: Mined) -> None:
    config = yaml.safe_load(artifact(mined, "config.yml"))
    assert config["parameters"]["options"] == {"k": 3, "rate": 1e-4, "names": ["a", "b"], "delta": None, "seed": 11}
    assert config["parameters"]["long"] == "x" * 700
    assert config["catalog"]["gallery"]["filepath"] == "<data root>/08_reporting/gallery.html"
    canonical = json.dumps(config, sort_keys=True, separators=(",", ":"))
    assert mined.run.data.tags["config.hash"] == hashlib.sha256(canonical.encode()).hexdigest()


def test_metrics_gallery_and_plot_are_artifacts(mined: Mined) -> None:
    saved = json.loads((mined.project.root / "data/08_reporting/first_metrics.json").read_text())
    assert json.loads(artifact(mined, "metrics/first_metrics.json")) == saved
    assert artifact(mined, "gallery.html") == b"<html></html>"
    assert artifact(mined, "plots/negatives.png").startswith(b"\x89PNG")


def test_summary_says_what_was_mined_and_where_to_look(mined: Mined) -> None:
    lines = mined.output.splitlines()
    assert lines[0].startswith("mine: done in ")
    assert lines[1:] == [
        "  select     1,200 queries, 7 false negatives dropped (5.0%)",
        "  gallery    data/08_reporting/gallery.html",
        f"  MLflow     make ui, then run mine ({mined.run.info.run_id})",
    ]
