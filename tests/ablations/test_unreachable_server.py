"""An ablation whose tracking server is away: its runs are kept here, parent and children."""

from __future__ import annotations

import json
import socket

import pytest
from ablation_project import AblationProject

from unime_kedro.tracking.sending import send_runs
from unime_kedro.tracking.store import client_of
from unime_kedro.tracking.unsent import open_unsent, unsent_runs


@pytest.mark.slow
def test_parent_and_children_are_kept_here_and_stay_a_family_when_they_are_sent(
    small: AblationProject,
) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        uri = f"http://127.0.0.1:{free.getsockname()[1]}"
    done = small.ablate("components", "--seeds=1", "--jobs=2", UNIME_TRACKING="on", MLFLOW_TRACKING_URI=uri)
    assert done.returncode == 0, done.stdout + done.stderr
    waiting = {run.info.run_name: run for run in unsent_runs(open_unsent(small.root))}
    assert {run.info.status for run in waiting.values()} == {"FINISHED"}
    parent = next(run for run in waiting.values() if "mlflow.parentRunId" not in run.data.tags)
    children = [run for run in waiting.values() if run is not parent]
    assert {run.data.tags["mlflow.parentRunId"] for run in children} == {parent.info.run_id}
    assert {run.data.tags["unime.ablation.arm"] for run in children} == {"in_batch", "hard"}
    assert "train.loss.kind" in parent.data.tags["unime.ablation.keys"].split(",")
    record = json.loads((small.run_folder("hard", 1) / "run_figures/arm.json").read_text())["figures"]
    assert record["mlflow_run_id"] in {run.info.run_id for run in children}

    store = f"sqlite:///{small.root}/elsewhere.db"  # any other store
    assert send_runs(small.root, store, lambda text: None) == 0
    target = client_of(store)
    sent = target.search_runs([one.experiment_id for one in target.search_experiments()])
    (new,) = [run for run in sent if "mlflow.parentRunId" not in run.data.tags]
    assert len(sent) == 3
    assert {run.data.tags.get("mlflow.parentRunId") for run in sent} == {None, new.info.run_id}
