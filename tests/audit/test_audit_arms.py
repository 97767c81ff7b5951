"""Arms of an ablation against each other, and its table against its runs."""

from __future__ import annotations

import io
import statistics
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hand_made import a_record, place_at, statuses, written

from unime_kedro.audit.arms import check_arms
from unime_kedro.audit.record import RunRecord

GROUP = {
    "keys": ["train.loss.kind"],
    "common": {"train.every": 0},
    "arms": {"in_batch": {"train.loss.kind": "in_batch"}, "soft": {"train.loss.kind": "soft"}},
    "seed_key": "train.seed",
    "tune": {"key": "train.rate"},
    "results": {"columns": {"all": {"keys": ["precision_at_1/all"]}, "a": {"keys": ["precision_at_1/vqa"]}}},
}
#: arm -> seed -> right answers of four queries
RIGHT = {"in_batch": {1: 1, 2: 2}, "soft": {1: 3, 2: 4}}


def arm_run(root: Path, number: int, arm: str, seed: int) -> RunRecord:
    table = pl.DataFrame({"dataset": ["EasyVQA"] * 4, "correct": [i < RIGHT[arm][seed] for i in range(4)]})
    buffer = io.BytesIO()
    table.write_parquet(buffer)
    data = f"data/ablations/g/{arm}/seed-{seed}"
    files = [
        written(root / "data", "items", b"items", "items", "input"),
        written(root / data, "p.parquet", buffer.getvalue(), "trained_predictions"),
    ]
    train = {"seed": seed, "every": 0, "rate": 0.1 if arm == "soft" else 0.2, "loss": {"kind": arm}}
    tags = {"unime.ablation": "g", "unime.ablation.arm": arm, "unime.ablation.seed": str(seed), "data.root": data}
    return a_record(
        run_id=f"{number:032}",
        name=f"{arm} seed {seed}",
        tags=tags | {"mlflow.parentRunId": "f" * 32, "mlflow.source.git.commit": "c", "environment.hash": "e"},
        config={"parameters": {"train": train}, "catalog": {"a": {"type": "T"}}},
        files=files,
        metrics={"trained/precision_at_1/all": RIGHT[arm][seed] / 4},
    )


@pytest.fixture
def runs(tmp_path: Path) -> list[RunRecord]:
    """The parent, then in_batch 1 and 2, soft 1 and 2."""
    arms = [arm_run(tmp_path, n, arm, seed) for n, (arm, seed) in enumerate((a, s) for a in RIGHT for s in RIGHT[a])]
    figures = {arm: [n / 4 for n in by_seed.values()] for arm, by_seed in RIGHT.items()}
    rows = [
        {
            "arm": arm,
            "figures": {"all": {"mean": sum(values) / 2, "deviation": statistics.stdev(values)}},
            "difference": {"value": 0.5, "low": 0.1, "high": 0.9} if arm == "soft" else None,
        }
        for arm, values in figures.items()
    ]
    metrics = {f"g/{row['arm']}/all_mean": row["figures"]["all"]["mean"] for row in rows}
    metrics |= {f"g/{row['arm']}/all_std": row["figures"]["all"]["deviation"] for row in rows}
    metrics |= {"g/soft/difference": 0.5, "g/soft/difference_low": 0.1, "g/soft/difference_high": 0.9}
    parent = a_record(
        run_id="f" * 32,
        name="g",
        tags={"unime.ablation": "g", "unime.ablation.keys": "train.loss.kind"},
        group=GROUP,
        metrics=metrics,
        table={"arms": rows, "reference": "in_batch", "compared": "all"},
        children=[run.run_id for run in arms],
    )
    return [parent, *arms]


def found(runs: list[RunRecord], tmp_path: Path, number: int = 0) -> dict[str, str]:
    return statuses(list(check_arms(runs[number], place_at(tmp_path, *runs))))


def changed(runs: list[RunRecord], number: int, **values: Any) -> list[RunRecord]:
    return [replace(run, **values) if n == number else run for n, run in enumerate(runs)]


def with_train(runs: list[RunRecord], number: int, **values: Any) -> list[RunRecord]:
    config = runs[number].config
    assert config is not None
    train = config["parameters"]["train"] | values
    return changed(runs, number, config={**config, "parameters": {"train": train}})


SUBJECTS = ["commit", "changes", "packages", "inputs", "parameters", "declared", "seeds"]


def test_an_ablation_as_it_was_is_in_order(runs: list[RunRecord], tmp_path: Path) -> None:
    assert found(runs, tmp_path) == dict.fromkeys([*SUBJECTS, "table"], "pass")
    assert found(runs, tmp_path, 3) == dict.fromkeys(SUBJECTS, "pass")
    texts = [one.text for one in check_arms(runs[0], place_at(tmp_path, *runs)) if one.subject == "table"]
    # of the table 2 means, 2 deviations and 3 of the difference; the interval's ends follow from no mean
    assert [text.split()[0] for text in texts] == ["7", "5", "5"]


def test_a_run_that_is_no_arm_is_not_looked_at(tmp_path: Path) -> None:
    assert list(check_arms(a_record(), place_at(tmp_path))) == []


def test_another_parameter_is_found(runs: list[RunRecord], tmp_path: Path) -> None:
    result = found(with_train(runs, 2, warm=3), tmp_path, 1)
    assert result.pop("parameters") == "fail"
    assert set(result.values()) == {"pass"}


def test_another_catalog_is_found(runs: list[RunRecord], tmp_path: Path) -> None:
    config = runs[1].config
    assert config is not None
    assert found(changed(runs, 1, config={**config, "catalog": {"a": {"type": "X"}}}), tmp_path)["parameters"] == "fail"


@pytest.mark.parametrize("values", [{"loss": {"kind": "soft"}}, {"seed": 9}, {"every": 1}])
def test_an_arm_that_is_not_what_the_group_says_is_found(
    runs: list[RunRecord], tmp_path: Path, values: dict[str, Any]
) -> None:
    assert found(with_train(runs, 1, **values), tmp_path)["declared"] == "fail"


@pytest.mark.parametrize(
    ("tag", "subject"),
    [("mlflow.source.git.commit", "commit"), ("git.diff.sha256", "changes"), ("environment.hash", "packages")],
)
def test_other_code_or_packages_are_found(runs: list[RunRecord], tmp_path: Path, tag: str, subject: str) -> None:
    result = found(changed(runs, 4, tags=runs[4].tags | {tag: "other"}), tmp_path)
    assert result.pop(subject) == "fail"
    assert set(result.values()) == {"pass"}


def test_commits_that_shape_no_run_are_the_same_code(runs: list[RunRecord], tmp_path: Path) -> None:
    def git(*words: str) -> str:
        command = ["git", "-c", "user.name=t", "-c", "user.email=t@example.org", *words]
        return subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, text=True).stdout.strip()

    git("init", "-q")
    commits = []
    for file in ("conf/a.yml", "dvc.lock", "src/a.py"):
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).write_text("x")
        git("add", file)
        git("commit", "-qm", "x")
        commits.append(git("rev-parse", "HEAD"))
    tags = [run.tags | {"mlflow.source.git.commit": commits[0]} for run in runs]
    runs = [replace(run, tags=tag) for run, tag in zip(runs, tags, strict=True)]
    lock = changed(runs, 2, tags=tags[2] | {"mlflow.source.git.commit": commits[1]})
    assert found(lock, tmp_path)["commit"] == "note"
    code = changed(runs, 2, tags=tags[2] | {"mlflow.source.git.commit": commits[2]})
    assert found(code, tmp_path)["commit"] == "fail"


def test_other_data_are_found(runs: list[RunRecord], tmp_path: Path) -> None:
    files = [one._replace(sha256="0") if one.side == "input" else one for one in runs[3].files or ()]
    assert found(changed(runs, 3, files=files), tmp_path)["inputs"] == "fail"


def test_a_missing_seed_is_a_note(runs: list[RunRecord], tmp_path: Path) -> None:
    assert found(changed(runs, 4, status="KILLED"), tmp_path)["seeds"] == "note"


def test_a_run_that_was_made_again_counts_by_its_latest(runs: list[RunRecord], tmp_path: Path) -> None:
    old = replace(runs[1], run_id="0a" * 16, tags=runs[1].tags | {"environment.hash": "old"}, metrics={})
    parent = replace(runs[0], children=[old.run_id, *runs[0].children])
    both = [parent, old, *runs[1:]]
    assert found(both, tmp_path)["packages"] == "pass"
    assert found(both, tmp_path, 1)["packages"] == "fail"  # the old one is audited itself


@pytest.mark.parametrize("name", ["soft/all_mean", "in_batch/all_std", "soft/difference", "soft/difference_low"])
def test_a_figure_of_the_table_is_found(runs: list[RunRecord], tmp_path: Path, name: str) -> None:
    metrics = runs[0].metrics | {f"g/{name}": 0.6251}
    assert found(changed(runs, 0, metrics=metrics), tmp_path)["table"] == "fail"


def test_figures_of_a_run_and_the_whole_table_are_found_by_predictions(runs: list[RunRecord], tmp_path: Path) -> None:
    """Everything was made to fit but the predictions."""
    runs = changed(runs, 3, metrics={"trained/precision_at_1/all": 1.0})
    metrics = runs[0].metrics | {"g/soft/all_mean": 1.0, "g/soft/all_std": 0.0, "g/soft/difference": 0.625}
    table = runs[0].table
    assert table is not None
    table["arms"][1]["figures"]["all"] = {"mean": 1.0, "deviation": 0.0}
    table["arms"][1]["difference"]["value"] = 0.625
    findings = check_arms(changed(runs, 0, metrics=metrics)[0], place_at(tmp_path, *runs))
    wrong = [one.text for one in findings if one.status == "fail"]
    assert len(wrong) == 1
    assert "first soft/all_mean: 1.0 in the database, 0.875 by its runs' predictions" in wrong[0]


def test_predictions_that_are_gone_are_said(runs: list[RunRecord], tmp_path: Path) -> None:
    (tmp_path / "data/ablations/g/soft/seed-1/p.parquet").unlink()
    findings = list(check_arms(runs[0], place_at(tmp_path, *runs)))
    assert [one.text for one in findings if one.status == "skip"] == [
        "not recomputed: predictions of soft seed 1 are not there as they were written"
    ]
    assert statuses(findings)["table"] == "pass"
