"""What is said when a cluster is not there, or has no room; and how workers' figures add up."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from unime_kedro.cluster.attempts import DONE, Attempts
from unime_kedro.cluster.connection import ClusterOptions, connect, room_for_workers
from unime_kedro.cluster.figures import difference, total
from unime_kedro.errors import ConfigurationError

ROOT = Path(__file__).resolve().parents[2]


def test_without_ray_the_error_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ConfigurationError, match=r"pip install -c constraints.txt -e '.\[ray\]'"):
        connect(ClusterOptions())


def test_rays_client_is_refused():
    pytest.importorskip("ray")
    import ray

    if ray.is_initialized():
        pytest.skip("this process is connected already")
    with pytest.raises(ConfigurationError, match=r"ray.address: ray://there:10001 is for Ray's client"):
        connect(ClusterOptions(address="ray://there:10001"))


def test_room_is_counted_per_machine(cluster):
    assert room_for_workers(ClusterOptions(cpus_per_worker=1)) == 2
    assert room_for_workers(ClusterOptions(cpus_per_worker=0.5)) == 4
    # two machines of one core each have no room for a worker of two
    with pytest.raises(ConfigurationError, match="room for 0 workers with 2 CPUs and 0 GPUs each"):
        room_for_workers(ClusterOptions(cpus_per_worker=2))
    with pytest.raises(ConfigurationError, match="room for 0 workers with 1 CPUs and 1 GPUs each"):
        room_for_workers(ClusterOptions(gpus_per_worker=1))
    with pytest.raises(ConfigurationError, match=r"room for 2 workers .*ray.min_workers asks for 3"):
        room_for_workers(ClusterOptions(min_workers=3))


def test_attempts_count_what_was_begun_and_not_finished():
    attempts = Attempts()
    assert [attempts.begin("a"), attempts.begin("a"), attempts.begin("b")] == [0, 1, 0]
    attempts.done("a")
    assert [attempts.begin("a"), attempts.begin("a"), attempts.begin("b")] == [DONE, DONE, 1]


def test_figures_of_workers_add_up():
    before = {"prompt_tokens": 100, "run_tokens": 60, "prefix_reuse_share": 0.4, "checked_difference": 1e-6}
    after = {"prompt_tokens": 300, "run_tokens": 100, "prefix_reuse_share": 2 / 3, "checked_difference": 1e-6}
    one = difference(after, before)
    assert (one["prompt_tokens"], one["run_tokens"]) == (200, 40)
    other = {"prompt_tokens": 100, "run_tokens": 100, "prefix_reuse_share": 0.0, "checked_difference": 5e-6}
    assert total([one, other]) == {
        "prompt_tokens": 300,
        "run_tokens": 140,
        "prefix_reuse_share": pytest.approx(1 - 140 / 300),
        "checked_difference": 5e-6,
    }
    assert total([]) == {}


def kedro(data: Path, *arguments: str) -> tuple[int, str]:
    environment = os.environ | {"UNIME_DATA_ROOT": str(data), "MLFLOW_TRACKING_URI": f"sqlite:///{data}/mlflow.db"}
    command = [sys.executable, "-m", "kedro", "run", "--env=smoke", *arguments]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


@pytest.mark.slow
def test_a_run_with_ray_gives_the_tables_of_one_without(tmp_path):
    """`kedro run` on a cluster of its own, of this machine's processes."""
    pytest.importorskip("ray")
    code, output = kedro(tmp_path, "--pipelines=demo,ingest")
    assert code == 0, output
    ray = "pool.backend=ray,judge.backend=ray,judge.ray.chunk_pairs=300"
    code, output = kedro(tmp_path, "--pipelines=pool,judge", f"--params={ray}")
    assert code == 0, output
    assert " 0 from the store" in output
    assert "actor" not in output.lower()  # nothing of Ray's own in the terminal
    scores, vectors = _tables(tmp_path)
    figures = json.dumps([json.loads(f.read_text()) for f in tmp_path.rglob("run_figures/*judge*.json")])
    assert '"workers": ' in figures
    store = next(tmp_path.rglob("judge.json")).parent
    for shard in store.glob("shard-*"):
        shard.unlink()
    for file in tmp_path.rglob("embeddings.*"):
        file.unlink()
    code, output = kedro(tmp_path, "--pipelines=pool,judge")
    assert code == 0, output
    assert " 0 from the store" in output
    again = _tables(tmp_path)
    assert scores.equals(again[0])
    assert np.array_equal(vectors, again[1])
    # nobody is at home there
    code, output = kedro(tmp_path, "--pipelines=judge", "--params=judge.backend=ray,judge.ray.address=127.0.0.1:1")
    assert code == 1
    assert "no Ray cluster answers at ray.address: 127.0.0.1:1" in output
    assert "Traceback" not in output


def _tables(data: Path) -> tuple[pl.DataFrame, np.ndarray]:
    (file,) = data.rglob("embeddings.npy")
    return pl.read_parquet(data / "03_primary/judge_scores.parquet"), np.load(file)
