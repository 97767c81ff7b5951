"""Audits of real runs: in order as they are, and not after tampering with any one thing."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest
from audited_project import Copy, audit_here, findings_of

from unime_kedro.audit import audit
from unime_kedro.tracking.contents import contents_of

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
        for source in ("the table", "its runs' metrics", "its runs' predictions"):
            assert f"figures in the database are those of {source}" in texts(findings, "pass")


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


def change_prediction_with_hashes(project: Copy) -> None:
    file = project.data("07_model_output/trained_predictions.parquet")
    before = contents_of(file)
    change_prediction(project)
    after = contents_of(file)
    files = artifact(project, "train", "files.json")
    text = files.read_text()
    for one, other in ((before.sha256, after.sha256), (before.md5, after.md5)):
        assert one in text
        text = text.replace(one, other)
        update(project, "train", "tags SET value = ? WHERE value = ?", other, one)
    files.write_text(text)


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
        {("metrics", "database")},
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
    "a seed": (
        "train",
        lambda p: update(p, "train", "tags SET value = '1' WHERE key = ?", "seed.train"),
        {("configuration", "seeds")},
    ),
    "one step of a curve": (
        "train",
        lambda p: update(p, "train", "metrics SET value = 9 WHERE step = 2 AND key = ?", "train/loss"),
        {("metrics", "train_history")},
    ),
    "a metric among all values alone": (
        "train",
        lambda p: update(p, "train", "metrics SET value = .99 WHERE key = ?", "trained/precision_at_1/all"),
        {("metrics", "database"), ("metrics", "trained_metrics")},
    ),
    "a prediction, with its hashes": (
        "train",
        change_prediction_with_hashes,
        {("metrics", "trained_metrics")},
    ),
    "the name of a file": (
        "train",
        lambda p: artifact(p, "train", "files.json").write_text(
            artifact(p, "train", "files.json").read_text().replace('"trained_predictions"', '"other"')
        ),
        {("files", "output other"), ("files", "output trained_predictions")},
    ),
    "a picture": (
        "mine",
        lambda p: flip_byte(next(p.data("01_raw/mini_mmeb").rglob("*.png"))),
        {("files", "raw files")},
    ),
    "a page among the artifacts": (
        "mine",
        lambda p: artifact(p, "mine", "gallery.html").write_text("<html>"),
        {("files", "artifact gallery.html")},
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
        {("arms", "table"), ("metrics", "database")},
    ),
    "an arm's configuration": (
        "components",
        lambda p: artifact(p, "soft seed 1", "config.yml").write_text(
            artifact(p, "soft seed 1", "config.yml").read_text().replace("warmup_steps: 0", "warmup_steps: 3")
        ),
        {("arms", "parameters"), ("arms", "declared")},
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
def test_tampering_with_any_one_thing_is_found(project: Copy, what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # the comparison to the commit takes as long as all others together, and has tests of its own
    monkeypatch.setattr(audit, "CHECKS", [check for check in audit.CHECKS if check is not audit.check_commit])
    run, tamper, wanted = TAMPERED[what]
    tamper(project)
    assert failed(findings_of(project, run, status=1)) == wanted


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


def test_names_of_runs(made: Copy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit, "CHECKS", [audit.check_run])
    _, output = audit_here(made, "mine", "--json")
    run_id = json.loads(output)["run_id"]
    _, output = audit_here(made, run_id[:8], "--json")
    assert json.loads(output)["run_id"] == run_id
    output = made.run("unime", "audit", "min", status=1)
    assert "there is no run 'min'" in output
    assert run_id in output
    assert audit_here(made)[0] == audit_here(made, "mine", "--artifact=a.zip")[0] == 2
    output = made.run("unime", "audit", "mine", status=1, MLFLOW_TRACKING_URI="sqlite:///other.db")
    assert "other.db does not exist: no run" in output


def test_the_table_names_what_to_do(project: Copy) -> None:
    project.data("05_model_input/selection.parquet").unlink()
    output = project.run("unime", "audit", "mine", status=1, COLUMNS="80")
    assert max(map(len, output.splitlines())) <= 80
    assert "FAIL  output selection" in output
    assert "  FAIL  files, output selection: give the run's command again" in output
    assert output.splitlines()[-1].startswith("NOT in order: ")
