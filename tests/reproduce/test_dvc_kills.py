"""`dvc repro` killed in any stage: started again, it goes on, and ends with the same dvc.lock."""

from __future__ import annotations

import time

import pytest
from dvc_project import DvcProject

pytestmark = pytest.mark.slow
_NODE = "Running node"
#: stage -> what it has printed when it is killed, and how many seconds later
MOMENTS = {
    "demo": (_NODE, 0.3),
    "ingest": (_NODE, 0.1),
    "pool": ("pool: done", 0.0),  # all is written; DVC takes it over
    "judge": (_NODE, 1.0),
    "select": ("Running node: export", 0.0),
    "train": (_NODE, 2.0),
    "train_arm@hard-1": ("hard  seed 1", 3.0),
    "ablation": ("Running stage", 1.5),
    "rerank": (_NODE, 2.0),
    "evaluate": (_NODE, 2.0),
    "judge_card": (_NODE, 1.0),
    "report": (_NODE, 0.5),
}


def test_all_stages_are_killed_once(finished):
    arms = {name for name in finished.lock() if "@" in name}
    assert set(MOMENTS) == {*finished.lock()} - arms | {"train_arm@hard-1"}


@pytest.mark.parametrize("stage", MOMENTS)
def test_killed_it_goes_on_and_ends_the_same(stage: str, here: DvcProject):
    text, seconds = MOMENTS[stage]

    def now() -> bool:
        if text not in here.printed.read_text():
            return False
        time.sleep(seconds)
        return True

    before = here.lock()
    here.kill(now, "repro", "--force", "--single-item", stage)
    # forced, because DVC has the results of the first time in its cache, as it would not have had
    assert f"Running stage '{stage}'" in here.dvc("repro", "--force", "--single-item", stage)
    assert here.lock() == before
    assert here.run("unime", "reproduce", "--single-item", stage)  # and the bytes are those of the lock
