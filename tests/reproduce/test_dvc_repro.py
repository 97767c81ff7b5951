"""Real DVC on the smoke environment: what runs again and what does not, after changes, kills, and in a fresh clone."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import yaml
from dvc_project import DvcProject

pytestmark = pytest.mark.slow
#: what is looked at of the graph here, with all that these need
TARGETS = ("train", "train_arm@hard-1")
MINED = {"demo", "ingest", "pool", "judge", "select"}


def ran(output: str) -> set[str]:
    return {line.split("'")[1] for line in output.splitlines() if line.startswith("Running stage '")}


def changed(project: DvcProject) -> set[str]:
    """Stages that DVC would run again, of those that have been run."""
    return set(json.loads(project.dvc("status", "--json"))) & {*MINED, *TARGETS}


@pytest.fixture(scope="module")
def project(finished: DvcProject, tmp_path_factory: pytest.TempPathFactory) -> DvcProject:
    return finished.copy(tmp_path_factory.mktemp("dvc") / "project")


@pytest.fixture(scope="module")
def pulled(project: DvcProject, tmp_path_factory: pytest.TempPathFactory) -> DvcProject:
    """A fresh clone with the results of the first."""
    folder = tmp_path_factory.mktemp("elsewhere")
    for one in (project, clone := project.clone(folder / "clone")):
        one.dvc("remote", "add", "--quiet", "--default", "--local", "store", str(folder / "store"))
    project.dvc("push", "--quiet", "--with-deps", *TARGETS)
    clone.dvc("pull", "--quiet", "--with-deps", *TARGETS)
    return clone


def test_a_second_time_nothing_is_run(project):
    assert ran(project.dvc("repro", *TARGETS)) == set()
    assert project.run("git", "status", "--porcelain") == ""


def test_a_comment_reruns_who_runs_it_and_nobody_else(project):
    def with_comment(file: str) -> set[str]:
        path = project.root / "src/unime_kedro" / file
        text = path.read_text()
        path.write_text(text + "# a remark\n")
        try:
            return changed(project)
        finally:
            path.write_text(text)

    assert with_comment("tracking/plots.py") == set()
    assert with_comment("mining/lineage.py") == {"pool", "judge", "select", *TARGETS}
    assert with_comment("learning/losses.py") == set(TARGETS)
    assert changed(project) == set()


def test_a_parameter_put_back_is_restored_from_the_cache(project):
    before = project.lock()["select"]
    file = project.root / "conf/base/parameters/select.yml"
    text = file.read_text()
    file.write_text(text.replace("step: 5 ", "step: 4 "))
    assert ran(project.dvc("repro", "select")) == {"select"}
    negatives = project.data("05_model_input/negatives.parquet").read_bytes()
    assert project.lock()["select"]["outs"] != before["outs"]
    file.write_text(text)
    output = project.dvc("repro", "select")
    assert "Stage 'select' is cached - skipping run" in output
    assert ran(output) == set()
    assert project.lock()["select"] == before
    assert project.data("05_model_input/negatives.parquet").read_bytes() != negatives


def test_a_fresh_clone_that_has_pulled_has_nothing_to_do(project, pulled):
    assert ran(pulled.dvc("repro", *TARGETS)) == set()
    assert pulled.run("git", "status", "--porcelain") == ""
    picture = next(project.data("01_raw/mini_mmeb").rglob("*.png")).relative_to(project.root)
    assert (pulled.root / picture).is_file()  # so that the next change finds what it reads


def test_killed_while_judging_it_goes_on_and_ends_the_same(project, pulled):
    store = pulled.data("03_primary/judge_store")
    pulled.kill(
        lambda: len(list(store.glob("code-*/*/shard-*.parquet"))) > 1, "repro", "--force", "--single-item", "judge"
    )
    kept = {file.name for file in store.rglob("shard-*.parquet")}
    assert not pulled.data("03_primary/judge_scores.parquet").exists()
    assert ran(pulled.dvc("repro", "--force", "--single-item", "judge")) == {"judge"}
    figures = json.loads(pulled.data("08_reporting/run_figures/judge_metrics.json").read_text())["figures"]
    assert figures["from_store"] > 0
    assert figures["judged_now"] > 0
    assert kept < {file.name for file in store.rglob("shard-*.parquet")}
    assert pulled.lock() == project.lock()


def test_killed_while_training_it_goes_on_and_ends_the_same(project, pulled):
    folder = pulled.data("06_models/training")
    pulled.kill(
        lambda: any(folder.glob("code-*/*/checkpoint-*/complete.json")), "repro", "--force", "--single-item", "train"
    )
    (events,) = folder.glob("code-*/*/events.jsonl")
    seconds = json.loads(events.read_text().splitlines()[1])["seconds"]
    assert not pulled.data("06_models/trained/training.json").exists()
    assert ran(pulled.dvc("repro", "--force", "--single-item", "train")) == {"train"}
    assert json.loads(events.read_text().splitlines()[1])["seconds"] == seconds  # these steps were not made again
    assert pulled.lock() == project.lock()


def test_work_of_other_code_is_not_gone_on_from(pulled):
    """Code that judges has changed: scores that the old code left in its store are not those of the new one."""
    store = pulled.data("03_primary/judge_store")
    before = {folder.name for folder in store.iterdir()}
    path = pulled.root / "src/unime_kedro/mllm/judgements.py"
    text = path.read_text()
    path.write_text(text + "# a remark\n")
    try:
        pulled.dvc("repro", "--single-item", "judge")
    finally:
        path.write_text(text)
    figures = json.loads(pulled.data("08_reporting/run_figures/judge_metrics.json").read_text())["figures"]
    assert figures["from_store"] == 0
    (after,) = (folder.name for folder in store.iterdir())
    assert {after} != before
    pulled.run("git", "checkout", "--quiet", ".")
    pulled.dvc("checkout", "--quiet", "--force", "judge")
    assert ran(pulled.dvc("repro", *TARGETS)) == set()


def test_an_experiment_in_a_copy_lands_in_the_projects_mlflow_under_its_name(project):
    store = f"sqlite:///{project.root}/mlflow.db"
    project.dvc(
        "exp", "run", "--quiet", "--temp", "--name=seldom",
        "-S", "conf/base/parameters/select.yml:select.step=3", "select", UNIME_TRACKING="on",
    )  # fmt: skip
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=store)
    (experiment,) = [e for e in client.search_experiments() if e.name == "unime-kedro-smoke"]
    (run,) = client.search_runs([experiment.experiment_id], "tags.`dvc.exp` = 'seldom'")
    assert run.info.run_name == "select (seldom)"
    assert run.data.tags["dvc.stage"] == "select"
    assert run.data.params["select.step"] == "3"
    assert Path(run.info.artifact_uri.removeprefix("file://")).is_relative_to(project.root)
    assert '"seldom"' in project.dvc("exp", "show", "--json")
    assert project.lock()["select"]["params"]["conf/base/parameters/select.yml"]["select"]["step"] == 5


def test_lists_of_metrics_and_plots_can_be_shown(project):
    shown = json.loads(project.dvc("metrics", "show", "--json").splitlines()[-1])  # after what is not there yet
    assert shown[""]["data"]["data/smoke/08_reporting/judge_metrics.json"]["data"]["pairs"] > 0
    plots = project.root / "plots"
    project.dvc("plots", "show", "data/smoke/08_reporting/train_history.json", f"--out={plots}")
    assert "train_history" in (plots / "index.html").read_text()
    shutil.rmtree(plots)


def test_lock_and_file_name_the_same_stages(project):
    stages = yaml.safe_load((project.root / "dvc.yaml").read_text())["stages"]
    assert {name.split("@")[0] for name in project.lock()} <= set(stages)
