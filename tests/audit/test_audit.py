"""Audits of real runs: in order as they are, and not after tampering with any one thing."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest
from audited_project import Copy, findings_of

pytestmark = pytest.mark.slow


def failed(findings: list[dict[str, str]]) -> set[tuple[str, str]]:
    return {(one["check"], one["subject"]) for one in findings if one["status"] == "fail"}


def texts(findings: list[dict[str, str]], status: str) -> str:
    return "\n".join(one["text"] for one in findings if one["status"] == status)


def artifact(project: Copy, run: str, name: str) -> Path:
    with sqlite3.connect(project.root / "mlflow.db") as database:
        ((uri,),) = database.execute("SELECT artifact_uri FROM runs WHERE name = ?", (run,)).fetchall()
    return Path(uri.removeprefix("file://")) / name


def update(project: Copy, run: str, statement: str, *values: object) -> None:
    with sqlite3.connect(project.root / "mlflow.db") as database:
        ((run_id,),) = database.execute("SELECT run_uuid FROM runs WHERE name = ?", (run,)).fetchall()
        done = database.execute(f"UPDATE {statement} AND run_uuid = ?", (*values, run_id))
        assert done.rowcount > 0


@pytest.mark.parametrize("run", ["mine", "train", "components", "soft seed 1"])
def test_runs_as_they_are_are_in_order(made: Copy, run: str) -> None:
    findings = findings_of(made, run, status=0)
    assert {"run", "files", "configuration", "metrics", "environment"} <= {one["check"] for one in findings} | (
        {"files", "configuration", "metrics"} if run == "components" else set()
    )
    assert {one["status"] for one in findings} <= {"pass", "note", "skip"}
    if run == "train":
        assert "recomputed from trained_predictions" in texts(findings, "pass")
        assert "written by run mine" in texts(findings, "pass")
    if "seed" in run or run == "components":
        assert "train.loss.kind" in next(
            o["text"] for o in findings if (o["check"], o["subject"]) == ("arms", "parameters")
        )
    if run == "components":
        assert "figures are the means of their runs'" in texts(findings, "pass")


def flip_byte(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def change_score(project: Copy) -> None:
    file = project.data("03_primary/judge_scores.parquet")
    table = pl.read_parquet(file)
    table.with_columns(
        score=pl.when(pl.int_range(pl.len()) == 3).then(0.5).otherwise("score").cast(pl.Float32)
    ).write_parquet(file)


def change_prediction(project: Copy) -> None:
    file = project.data("07_model_output/trained_predictions.parquet")
    table = pl.read_parquet(file)
    table.with_columns(
        correct=pl.when(pl.int_range(pl.len()) == 0).then(~pl.col("correct")).otherwise("correct")
    ).write_parquet(file)


def change_config(project: Copy) -> None:
    file = artifact(project, "train", "config.yml")
    text = file.read_text()
    assert "steps: 4\n" in text
    file.write_text(text.replace("steps: 4\n", "steps: 5\n"))


def change_metrics_file(project: Copy) -> None:
    file = artifact(project, "train", "metrics/trained_metrics.json")
    content = json.loads(file.read_text())
    content["precision_at_1/all"] += 0.25
    file.write_text(json.dumps(content))


TAMPERED: dict[str, tuple[str, Callable[[Copy], None], set[tuple[str, str]]]] = {
    "a byte of a table": (
        "mine",
        lambda p: flip_byte(p.data("05_model_input/negatives.parquet")),
        {("files", "output negatives")},
    ),
    "a score in a table": ("mine", change_score, {("files", "output judge_scores")}),
    "a table cut short": (
        "mine",
        lambda p: p.data("03_primary/pool.parquet").write_bytes(p.data("03_primary/pool.parquet").read_bytes()[:500]),
        {("files", "output pool")},
    ),
    "a file that is gone": (
        "mine",
        lambda p: p.data("05_model_input/selection.parquet").unlink(),
        {("files", "output selection")},
    ),
    "an input": ("train", lambda p: flip_byte(p.data("02_intermediate/items.parquet")), {("files", "input items")}),
    "a model": (
        "mine",
        lambda p: flip_byte(p.root / "models/tiny-judge/model.safetensors"),
        {("files", "input params:judge.model")},
    ),
    "a prediction": ("train", change_prediction, {("files", "output trained_predictions")}),
    "a metric's last value": (
        "train",
        lambda p: update(p, "train", "latest_metrics SET value = .99 WHERE key = ?", "trained/precision_at_1/all"),
        {("metrics", "trained_metrics")},
    ),
    "a metric": (
        "mine",
        lambda p: [
            update(p, "mine", f"{t} SET value = 1 WHERE key = ?", "select/false_negatives_dropped")
            for t in ("metrics", "latest_metrics")
        ],  # type: ignore[return-value]
        {("metrics", "select_metrics")},
    ),
    "a parameter": (
        "train",
        lambda p: update(p, "train", "params SET value = '9' WHERE key = ?", "train.steps"),
        {("configuration", "parameters")},
    ),
    "a hash in the database": (
        "mine",
        lambda p: update(p, "mine", "tags SET value = 'f00' WHERE key = ?", "output.negatives.sha256"),
        {("files", "output negatives")},
    ),
    "the configuration": ("train", change_config, {("configuration", "config.yml"), ("configuration", "parameters")}),
    "saved metrics": ("train", change_metrics_file, {("metrics", "trained_metrics")}),
    "the list of packages": (
        "mine",
        lambda p: artifact(p, "mine", "environment.txt").write_text("torch==1.0\n"),
        {("configuration", "environment.txt")},
    ),
    "a figure of the ablation's table": (
        "components",
        lambda p: update(
            p, "components", "latest_metrics SET value = .9 WHERE key = ?", "components/soft/precision_at_1_mean"
        ),
        {("arms", "table")},
    ),
    "an arm's configuration": (
        "components",
        lambda p: artifact(p, "soft seed 1", "config.yml").write_text(
            artifact(p, "soft seed 1", "config.yml").read_text().replace("warmup_steps: 0", "warmup_steps: 3")
            if "warmup_steps: 0" in artifact(p, "soft seed 1", "config.yml").read_text()
            else artifact(p, "soft seed 1", "config.yml").read_text().replace("weight_decay: 0.0", "weight_decay: 0.5")
        ),
        {("arms", "parameters")},
    ),
    "an arm's data": (
        "components",
        lambda p: artifact(p, "soft seed 1", "files.json").write_text(
            artifact(p, "soft seed 1", "files.json").read_text().replace('"sha256": "', '"sha256": "0', 1)
        ),
        {("arms", "inputs")},
    ),
}


@pytest.mark.parametrize("what", TAMPERED)
def test_tampering_with_any_one_thing_is_found(project: Copy, what: str) -> None:
    run, tamper, wanted = TAMPERED[what]
    tamper(project)
    findings = findings_of(project, run, status=1)
    assert wanted <= failed(findings), failed(findings)
    others = {check for check, _ in failed(findings) - wanted}
    assert others <= {check for check, _ in wanted} | {"metrics", "configuration"}, failed(findings)


def test_damage_and_what_wrote_the_present_bytes_are_named(project: Copy) -> None:
    file = project.data("03_primary/pool.parquet")
    content = file.read_bytes()
    file.write_bytes(content[:500])
    findings = findings_of(project, "mine", status=1)
    assert "is no readable parquet file" in texts(findings, "fail")
    assert any("not recomputed: pool" in one["text"] for one in findings)
    file.write_bytes(content)
    project.run("kedro", "run", "--env=smoke", "--pipeline=select", "--params=select.step=3")
    findings = findings_of(project, "mine", status=1)
    (negatives,) = [one for one in findings if one["subject"] == "output negatives" and one["check"] == "files"]
    assert "has other bytes, written by run select (" in negatives["text"]


def test_a_commit_with_other_files_is_found(project: Copy) -> None:
    """The run says that it was made at a commit whose configuration is another one."""
    file = project.root / "conf/base/parameters/train.yml"
    text = file.read_text()
    assert "learning_rate:" in text
    file.write_text(text.replace("learning_rate:", "learning_rate: 0.5 #"))
    project.run("git", "commit", "--quiet", "--all", "--message", "other")
    commit = project.run("git", "rev-parse", "HEAD").strip()
    update(project, "train", "tags SET value = ? WHERE key = ?", commit, "mlflow.source.git.commit")
    findings = findings_of(project, "train", status=1)
    (found,) = failed(findings)
    assert found == ("configuration", f"commit {commit[:12]}")
    assert "parameters.train.learning_rate" in texts(findings, "fail")
    update(project, "train", "tags SET value = ? WHERE key = ?", "0" * 40, "mlflow.source.git.commit")
    assert "is not in this clone" in texts(findings_of(project, "train", status=0), "skip")


def test_a_run_in_changed_code_is_audited_by_its_changes(project: Copy) -> None:
    file = project.root / "conf/base/parameters/select.yml"
    file.write_text(file.read_text().replace("step: 5", "step: 4"))
    project.run("kedro", "run", "--env=smoke", "--pipeline=select")
    project.run("git", "checkout", "--quiet", ".")
    findings = findings_of(project, "select", status=0)
    assert "recorded in git.diff" in texts(findings, "note")
    assert "its files give the" in texts(findings, "pass")
    patch = artifact(project, "select", "git.diff")
    patch.write_text(patch.read_text().replace("+  step: 4", "+  step: 3"))
    assert ("configuration", "git.diff") in failed(findings_of(project, "select", status=1))


def test_run_again_it_gives_the_same_bytes(project: Copy) -> None:
    before = sorted(str(path) for path in project.root.rglob("*") if ".git" not in path.parts)
    findings = findings_of(project, "train", "--rerun", status=0)
    again = {one["subject"]: one for one in findings if one["check"] == "rerun"}
    for dataset in ("trained_predictions", "trained_metrics", "trained_folder", "train_history"):
        assert again[f"output {dataset}"]["text"] == "the same bytes", again
    assert sorted(str(path) for path in project.root.rglob("*") if ".git" not in path.parts) == before
    assert project.run("git", "worktree", "list").count("\n") == 1
    arm = findings_of(project, "soft seed 1", "--rerun", status=0)
    assert {
        one["text"] for one in arm if one["subject"] == "output trained_predictions" and one["check"] == "rerun"
    } == {"the same bytes"}


def test_a_rerun_that_gives_other_figures_fails(project: Copy) -> None:
    """The recorded changes are not those that the figures were made with."""
    file = project.root / "src/unime_kedro/mining/sampling.py"
    assert file.is_file()
    update(project, "train", "params SET value = value WHERE key = ?", "train.steps")
    update(
        project,
        "train",
        "tags SET value = ? WHERE key = ?",
        "kedro run --env=smoke --pipeline=train --params=train.steps=5",
        "kedro.command",
    )
    findings = findings_of(project, "train", "--rerun", status=1)
    assert ("rerun", "output trained_metrics") in failed(findings) or ("rerun", "output train_metrics") in failed(
        findings
    )


def test_names_of_runs(made: Copy) -> None:
    run_id = json.loads(made.run("unime", "audit", "mine", "--json"))["run_id"]
    assert json.loads(made.run("unime", "audit", run_id[:8], "--json"))["run_id"] == run_id
    output = made.run("unime", "audit", "min", status=1)
    assert "there is no run 'min'" in output
    assert run_id in output
    assert "Name a run" in made.run("unime", "audit", status=2)
    assert "other.db does not exist: no run" in made.run(
        "unime", "audit", "mine", status=1, MLFLOW_TRACKING_URI="sqlite:///other.db"
    )


def test_the_table_names_what_to_do(project: Copy) -> None:
    project.data("05_model_input/selection.parquet").unlink()
    output = project.run("unime", "audit", "mine", status=1, COLUMNS="80")
    assert all(len(line) <= 90 for line in output.splitlines() if "recorded bytes" in line)
    assert "FAIL  output selection" in output
    assert "  - files, output selection: give the run's command again" in output
    assert output.splitlines()[-1].startswith("NOT in order: ")
