"""Configuration, parameters, seeds, packages and changes of one run against each other."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hand_made import a_record, place_at, statuses

from unime_kedro.audit.commit import options_of, runtime_options
from unime_kedro.audit.configuration import check_configuration
from unime_kedro.audit.record import RunRecord
from unime_kedro.tracking.provenance import config_hash

LONG = "x" * 60
CONFIG = {
    "parameters": {
        "train": {"steps": 4, "seed": 7, "note": LONG, "more": LONG, "kinds": ["a", 1]},
        "demo": {"root": "<data root>/01_raw", "seed": 3},
    },
    "catalog": {"a": {"type": "T"}},
}


@pytest.fixture
def run() -> RunRecord:
    packages, changes = "a==1\nb==2\n", "diff --git a/x b/x\n\udcff\n"
    return a_record(
        config=CONFIG,
        environment=packages.splitlines(),
        changes=changes,
        params={
            "train.steps": "4",
            "train.seed": "7",
            "train.note": "x" * 39 + "…",
            "train.more": "x" * 39 + "…",
            "train.kinds": '["a", 1]',
            "demo.root": "data/01_raw",
            "demo.seed": "3",
        },
        tags={
            "config.hash": config_hash(CONFIG),
            "data.root": "data",
            "environment.hash": hashlib.sha256(packages.encode()).hexdigest(),
            "git.dirty": "true",
            "git.diff.sha256": hashlib.sha256(changes.encode(errors="surrogateescape")).hexdigest(),
            "seed.train": "7",
            "seed.demo": "3",
        },
    )


def found(run: RunRecord) -> dict[str, str]:
    return statuses(list(check_configuration(run, place_at(Path("/nowhere")))))


def test_a_run_as_it_was_is_in_order(run: RunRecord) -> None:
    subjects = ["config.yml", "parameters", "seeds", "environment.txt", "git.diff"]
    assert found(run) == dict.fromkeys(subjects, "pass") | {"code": "note"}
    elsewhere = replace(run, params=run.params | {"demo.root": "/home/a/data/01_raw"})
    assert found(elsewhere)["parameters"] == "pass"


@pytest.mark.parametrize(
    "params",
    [
        {"train.steps": "5"},
        {"train.steps": "4.0"},
        {"train.note": "…"},  # no text is cut that short
        {"train.note": "x" * 38 + "…"},  # and all at the same place
        {"train.note": "y" * 39 + "…"},
        {"demo.root": "/etc/01_raw"},
        {"demo.root": "…"},
        {"more": "1"},
    ],
)
def test_every_other_parameter_is_found(run: RunRecord, params: dict[str, str]) -> None:
    assert found(replace(run, params=run.params | params))["parameters"] == "fail"


def test_a_parameter_that_is_gone_is_found(run: RunRecord) -> None:
    params = {key: value for key, value in run.params.items() if key != "demo.seed"}
    assert found(replace(run, params=params))["parameters"] == "fail"


@pytest.mark.parametrize(
    ("tags", "subject"),
    [
        ({"config.hash": "0" * 64}, "config.yml"),
        ({"environment.hash": "0" * 64}, "environment.txt"),
        ({"git.diff.sha256": "0" * 64}, "git.diff"),
        ({"seed.train": "8"}, "seeds"),
        ({"seed.more": "8"}, "seeds"),
        ({"git.dirty": "false"}, "code"),
    ],
)
def test_every_other_tag_is_found(run: RunRecord, tags: dict[str, str], subject: str) -> None:
    result = found(replace(run, tags=run.tags | tags))
    assert result.pop(subject) == "fail"
    assert set(result.values()) <= {"pass", "note"}


@pytest.mark.parametrize(
    ("values", "subject"),
    [
        ({"config": None}, "config.yml"),
        ({"config": None, "unreadable": {"config.yml": "no YAML"}}, "config.yml"),
        ({"environment": []}, "environment.txt"),
        ({"changes": ""}, "git.diff"),
    ],
)
def test_what_is_gone_is_found(run: RunRecord, values: dict[str, Any], subject: str) -> None:
    assert found(replace(run, **values))[subject] == "fail"


def test_options_of_a_command(tmp_path: Path) -> None:
    file = tmp_path / "run.yml"
    file.write_text("run: {params: {train: {seed: 3}}, pipelines: train}\n")

    def options(command: str) -> dict[str, Any]:
        return runtime_options(a_record(tags={"kedro.command": command}), place_at(tmp_path))

    assert options("kedro run --env=smoke") == {}
    assert options("kedro run --params=train.steps=4") == {"train": {"steps": 4}}
    assert options("kedro run --params train.steps=4,judge.model=a") == {"train": {"steps": 4}, "judge": {"model": "a"}}
    for word in (f"--config={file}", f"--config {file}", f"-c {file}", "--config=run.yml"):
        assert options(f"kedro run {word}") == {"train": {"seed": 3}}


def test_options_of_an_arm_whose_file_is_gone_are_those_of_its_group(tmp_path: Path) -> None:
    group = {"common": {"train.a.b": 0}, "arms": {"hard": {"train.kind": "hard"}}, "seed_key": "train.seed"}
    parent = a_record(run_id="cd" * 16, group=group)
    tags = {"mlflow.parentRunId": parent.run_id, "unime.ablation.arm": "hard", "unime.ablation.seed": "2"}
    run = a_record(tags={**tags, "kedro.pipeline": "select+train"})
    got = options_of("gone.yml", run, place_at(tmp_path, parent))
    assert got == {"pipelines": "select,train", "params": {"train": {"a": {"b": 0}, "kind": "hard", "seed": 2}}}
