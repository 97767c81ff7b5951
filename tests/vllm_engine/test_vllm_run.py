"""`kedro run` with vLLM for pool and judge, against the same with transformers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest

ROOT = Path(__file__).resolve().parents[2]


def kedro(data: Path, *arguments: str) -> str:
    environment = os.environ | {"UNIME_DATA_ROOT": str(data), "MLFLOW_TRACKING_URI": f"sqlite:///{data}/mlflow.db"}
    command = [sys.executable, "-m", "kedro", "run", "--env=smoke", *arguments]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout + done.stderr


@pytest.mark.slow
def test_pool_and_judge_give_the_tables_of_transformers(tmp_path):
    kedro(tmp_path, "--pipelines=demo,ingest,pool,judge")
    vectors, scores = _embeddings(tmp_path), _scores(tmp_path)
    eager = "judge.vllm.enforce_eager=true,judge.vllm.kv_cache_gb=1,pool.vllm.enforce_eager=true"
    output = kedro(tmp_path, "--pipelines=pool,judge", f"--params=judge.backend=vllm,pool.backend=vllm,{eager}")
    assert " judged now, 0 from the store" in output
    found = _scores(tmp_path)
    keys = ["query_id", "item_id", "is_positive"]
    both = found.join(scores, on=keys, suffix="_wanted")
    assert len(both) == len(found) == len(scores)
    assert not both["yes_logit"].equals(both["yes_logit_wanted"])  # it was another engine
    np.testing.assert_allclose(both["score"], both["score_wanted"], atol=1e-4)
    np.testing.assert_allclose(_embeddings(tmp_path), vectors, atol=1e-4)
    figures = json.dumps([json.loads(f.read_text()) for f in tmp_path.rglob("run_figures/*judge*.json")])
    assert '"prefix_hit_rate": 0.' in figures
    # and nothing is judged again
    again = kedro(tmp_path, "--pipelines=judge", f"--params=judge.backend=vllm,{eager}")
    assert " 0 judged now, " in again
    # the same engine in a worker of a Ray cluster, into the same store
    (store,) = {card.parent for card in tmp_path.rglob("judge.json") if "vllm" in card.read_text()}
    for shard in store.glob("shard-*"):
        shard.unlink()
    ray = "judge.backend=ray,judge.ray.worker=vllm,judge.ray.max_workers=1,judge.ray.chunk_pairs=500"
    output = kedro(tmp_path, "--pipelines=judge", f"--params={ray},{eager}")
    assert " judged now, 0 from the store" in output
    both = _scores(tmp_path).join(found, on=keys, suffix="_wanted")
    assert len(both) == len(found)
    np.testing.assert_allclose(both["score"], both["score_wanted"], atol=1e-4)


def _scores(data: Path) -> pl.DataFrame:
    return pl.read_parquet(data / "03_primary/judge_scores.parquet")


def _embeddings(data: Path) -> np.ndarray:
    (file,) = data.rglob("embeddings.npy")
    return np.load(file)
