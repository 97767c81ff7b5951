"""`unime ablate` as a user runs it: real processes in a small real project."""

from __future__ import annotations

import json
import math
import os
import re
import select
import shutil
import signal
import subprocess

import pytest
import yaml
from ablation_project import AblationProject


def test_arms_are_compared_kept_and_continued(small: AblationProject) -> None:
    first = small.ablate("components", "--jobs=2")
    assert first.returncode == 0, first.stdout + first.stderr
    # by hand from src/small/nodes.py: in_batch (1/4 + 1/2) / 2 and, seed 2, (1/4 + 1) / 2; hard has 1/4 more of a
    table = small.json("data/08_reporting/ablations/components.json")
    in_batch, hard = table["arms"]
    assert in_batch["figures"]["precision_at_1"]["values"] == {"1": 0.375, "2": 0.625}
    assert hard["figures"]["precision_at_1"]["mean"] == 0.625
    assert math.isclose(hard["figures"]["precision_at_1"]["deviation"], math.sqrt(2 * 0.125**2))
    assert in_batch["difference"] is None
    assert math.isclose(hard["difference"]["value"], 0.125)
    # in both seeds hard is right in one query of a's four where in_batch is not, and alike in b: a resample draws that
    # query 0 to 4 times, so differences are 0, 1/8, 2/8, ... and the binomial (4, 1/4) has its 2.5 % and 97.5 % at 0 and 3
    assert (hard["difference"]["low"], hard["difference"]["high"]) == (0.0, 0.375)
    row = next(line for line in first.stdout.splitlines() if line.startswith("| hard"))
    cells = [cell.strip() for cell in row.split("|")[1:-1]]
    assert cells == ["hard", "2", "62.5 ± 17.7", "+12.5 [+0.0, +37.5]", "61.6", "68.9"]

    record = json.loads((small.run_folder("hard", 2) / "arm.json").read_text())
    assert record["overrides"] == {"train.loss.kind": "hard", "train.seed": 2}
    assert record["metrics"]["loss"] == 9.0  # of two datasets with one key the first counts
    assert (small.run_folder("hard", 2) / "05_model_input/negatives.json").resolve() == (
        small.root / "data/05_model_input/negatives.json"
    )
    assert not (small.root / "data/08_reporting/trained_metrics.json").exists()

    logs = {arm: (small.run_folder(arm, 1) / "run.log").stat().st_mtime_ns for arm in ("in_batch", "hard")}
    again = small.ablate("components")
    assert again.returncode == 0
    assert "4 of them done before" in again.stdout
    assert {arm: (small.run_folder(arm, 1) / "run.log").stat().st_mtime_ns for arm in logs} == logs

    small.write("data/05_model_input/negatives.json", '{"kept": [0.3]}')
    (small.run_folder("hard", 1) / "left_over").touch()
    stale = small.ablate("components", "--arms=hard", "--seeds=1")
    assert stale.returncode == 0, stale.stdout + stale.stderr
    assert "hard seed 1  is run again: negatives changed" in stale.stdout
    assert not (small.run_folder("hard", 1) / "left_over").exists()
    only = small.json("data/08_reporting/ablations/components.json")["arms"]
    assert [(row["arm"], row["seeds"]) for row in only] == [("hard", [1])]  # the others are of other negatives


def test_runs_and_table_can_be_made_apart(small: AblationProject) -> None:
    """As stages of DVC make them: the table of runs that are there, and no run of its own."""
    table = small.root / "data/08_reporting/ablations/components.json"
    early = small.ablate("components", "--seeds=1", "--table=only")
    assert early.returncode == 1
    assert "not all runs are done: in_batch seed 1: new; hard seed 1: new. Run them without --table" in early.stderr
    for arm in ("in_batch", "hard"):
        assert small.ablate("components", f"--arms={arm}", "--seeds=1", "--table=skip").returncode == 0
    assert not table.exists()
    assert small.ablate("components", "--seeds=1", "--table=only").returncode == 0
    assert [row["arm"] for row in small.json("data/08_reporting/ablations/components.json")["arms"]] == [
        "in_batch",
        "hard",
    ]


def test_values_reach_the_nodes_with_their_types(small: AblationProject) -> None:
    small.write(
        "conf/base/ablations.yml",
        """
        types:
          title: Values that --params cannot carry
          seeds: [1]
          keys: [train.arguments, train.lora.targets, train.validation.root, train.learning_rate]
          arms:
            one:
              train.arguments: {note: "a,b=c: d", none: null, numbers: [1, 2.5, true]}
              train.lora.targets: ["q,proj", v_proj]
              train.validation.root: null
              train.learning_rate: 1.0e-5
        """,
    )
    done = small.ablate("types")
    assert done.returncode == 0, done.stdout + done.stderr
    seen = json.loads((small.run_folder("one", 1, "types") / "08_reporting/seen.json").read_text())
    assert seen["arguments"] == {"note": "a,b=c: d", "none": None, "numbers": [1, 2.5, True]}
    assert seen["lora"]["targets"] == ["q,proj", "v_proj"]
    assert seen["validation"]["root"] is None
    assert seen["learning_rate"] == 1e-5
    assert (
        seen["steps"] == yaml.safe_load((small.root / "conf/base/parameters/train.yml").read_text())["train"]["steps"]
    )


def test_a_failing_run_does_not_stop_the_others(small: AblationProject) -> None:
    done = small.ablate("components", SMALL_CRASH="hard-1")
    assert done.returncode == 1
    assert "hard  seed 1  FAILED: status 1" in done.stdout
    assert "  Error: row 7 of hard-1 is bad; remove it" in done.stdout
    assert str(small.run_folder("hard", 1) / "run.log") in done.stdout
    assert not (small.run_folder("hard", 1) / "arm.json").exists()
    arms = small.json("data/08_reporting/ablations/components.json")["arms"]
    assert [(row["arm"], row["seeds"]) for row in arms] == [("in_batch", [1, 2]), ("hard", [2])]
    assert "Not in the table: hard seed 1 failed." in done.stdout
    healed = small.ablate("components")
    assert healed.returncode == 0
    assert "3 of them done before" in healed.stdout


def test_learning_rates_are_tuned_with_the_same_budget_and_then_used(small: AblationProject) -> None:
    tuned = small.ablate("components", "--tune")
    assert tuned.returncode == 0, tuned.stdout + tuned.stderr
    file = yaml.safe_load((small.root / "conf/base/ablations_tuned.yml").read_text())["components"]
    assert {arm: entry["value"] for arm, entry in file["arms"].items()} == {"in_batch": 1e-3, "hard": 3e-4}
    assert file["arms"]["hard"]["scores"] == {"0.001": {5: 0.4993, 6: 0.4993}, "0.0003": {5: 0.5, 6: 0.5}}
    folders = sorted((small.root / "data/ablations/components/tune").glob("*/*/*"))
    assert len(folders) == 8
    assert not list((small.root / "data/ablations/components/tune").rglob("trained_metrics.json"))  # no test data read
    done = small.ablate("components", "--seeds=1")
    assert done.returncode == 0, done.stdout + done.stderr
    for arm, rate in {"in_batch": 1e-3, "hard": 3e-4}.items():
        seen = json.loads((small.run_folder(arm, 1) / "08_reporting/seen.json").read_text())
        assert seen["learning_rate"] == rate
    assert re.search(r"train.learning_rate \(tuned\)", done.stdout)


def hanging(small: AblationProject, **variables: str) -> tuple[subprocess.Popen[str], list[int]]:
    """Start a command whose first run hangs; return it with handles on the run's process and on one it has started."""
    pipe = small.root / "pipe"
    os.mkfifo(pipe)
    command = subprocess.Popen(
        small.command("components", "--jobs=1"),
        cwd=small.root,
        env=small.environment(SMALL_HANG=str(pipe), **variables),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    pids = [int(text) for text in pipe.read_text().split()]  # waits for the run to open the other end
    return command, [os.pidfd_open(pid) for pid in pids]


def gone(handles: list[int]) -> bool:
    return all(select.select([handle], [], [], 30)[0] for handle in handles)


def test_kill_9_leaves_no_process_behind(small: AblationProject) -> None:
    command, handles = hanging(small)
    command.kill()
    command.communicate()
    assert gone(handles)


@pytest.mark.slow
def test_a_stopped_group_goes_on_under_the_same_parent_run(small: AblationProject) -> None:
    from mlflow import MlflowClient

    command, handles = hanging(small, UNIME_TRACKING="on")
    command.send_signal(signal.SIGTERM)
    _, errors = command.communicate(timeout=60)
    assert command.returncode == 143, errors
    assert gone(handles)
    client = MlflowClient(f"sqlite:///{small.root / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("unime-kedro").experiment_id
    assert sorted(run.info.status for run in client.search_runs([experiment])) == ["KILLED", "KILLED"]

    done = small.ablate("components", "--seeds=1", UNIME_TRACKING="on")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 begun" in done.stdout
    runs = client.search_runs([experiment])
    parents = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    assert [run.info.status for run in parents] == ["FINISHED"]
    assert parents[0].data.metrics["components/hard/precision_at_1_mean"] == 0.5
    assert {f.path for f in client.list_artifacts(parents[0].info.run_id)} >= {"components.md", "components.json"}
    finished = [run for run in runs if run.info.status == "FINISHED" and run not in parents]
    assert {run.data.tags["mlflow.parentRunId"] for run in finished} == {parents[0].info.run_id}
    assert sorted(run.info.run_name for run in finished) == ["hard seed 1", "in_batch seed 1"]
    record = json.loads((small.run_folder("hard", 1) / "run_figures/arm.json").read_text())["figures"]
    assert client.get_run(record["mlflow_run_id"]).info.run_name == "hard seed 1"


def test_equal_results_are_equal_files_and_what_is_of_a_run_lies_beside(small):
    tables = small.root / "data/08_reporting/ablations"
    folders = [small.run_folder(arm, 1) for arm in ("hard", "in_batch")]

    def made(*options: str) -> tuple[list[bytes], str]:
        done = small.ablate("components", "--seeds=1", *options)
        assert done.returncode == 0, done.stdout + done.stderr
        results = [*(folder / "arm.json" for folder in folders), tables / "components.md", tables / "components.json"]
        return [file.read_bytes() for file in results], done.stdout

    def of_runs() -> dict[str, dict]:
        return json.loads((tables / "run_figures/components.json").read_text())["figures"]["runs"]

    first, output = made()
    facts = of_runs()
    # in the order of the arms, in whichever they ended
    assert list(json.loads(first[-1])["runs"]) == ["in_batch seed 1", "hard seed 1"]
    assert set(facts) == {"hard seed 1", "in_batch seed 1"}
    assert set(facts["hard seed 1"]) == {"code", "mlflow_run_id", "seconds", "finished"}
    assert "Seconds per run, mean: in_batch" in output
    assert not any(b"econds per run" in content or b"finished" in content for content in first)
    for folder in folders:
        shutil.rmtree(folder)
    again, _ = made()
    assert again == first
    assert of_runs() != facts
    for folder in folders:  # as after `dvc pull`: results, and nothing is known of their runs
        shutil.rmtree(folder / "run_figures")
    pulled, output = made("--table=only")
    assert pulled == first
    assert "Seconds per run" not in output
    assert not (tables / "run_figures/components.json").exists()
