"""A training of a reranker that takes seconds: drawings and words, a random tiny model, all else as in a real one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import yaml

from unime_kedro.learning.run_folder import Job, write_job
from unime_kedro.mining.training import SCHEMA
from unime_kedro.parameters import RerankParameters

ROOT = Path(__file__).parents[3]
WORDS = ["red", "blue", "green", "star", "house", "boat", "apple", "dog", "cat", "tree", "sun", "moon", "fish", "bird"]


def parameters(model: Path, **changes) -> RerankParameters:
    values = yaml.safe_load((ROOT / "conf/base/parameters/rerank.yml").read_text())["rerank"]
    values |= {
        "model": str(model),
        "negatives": 3,
        "fewest_negatives": 3,
        "listwise_weight": 0.5,
        "steps": 6,
        "batch": 4,
        "chunk": 5,
        "learning_rate": 1e-3,
        "schedule": "linear",
        "checkpoint_every": 2,
        "log_every": 1,
        "device": "cpu",
        "tuning": "full",
        "freeze_vision": False,
        "warmup_steps": 2,
        "arguments": {},
    }
    values["lora"] |= {"rank": 4, "dropout": 0.1}
    values["validation"] |= {"every": 2, "queries": 6}
    for key, value in changes.items():
        if isinstance(values[key], dict) and key != "arguments":
            values[key] |= value
        else:
            values[key] = value
    return RerankParameters.model_validate(values)


def tables(pictures: list[Path], n: int = 24) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Queries of words, of pictures, and of both, with two or three negatives."""
    rng = np.random.default_rng(5)
    texts = [" ".join(rng.choice(WORDS, size=rng.integers(1, 6))) for _ in range(20)]
    items = [(text, "") for text in texts] + [("", file.name) for file in pictures]
    items += [(f"<|image_1|> what is this? {word}", file.name) for word, file in zip(WORDS, pictures, strict=False)]
    frame = pl.DataFrame({"item_id": range(len(items)), "text": [t for t, _ in items], "image": [i for _, i in items]})
    rows = []
    for query in range(n):
        chosen = [int(i) for i in rng.choice(len(items), size=5, replace=False)]
        negatives = chosen[2 : 5 - (query % 5 == 0)]
        scores = sorted((float(s) for s in rng.uniform(0, 0.8, size=len(negatives))), reverse=True)
        split = "validation" if query % 4 == 3 else "train"
        rows.append((query, "ab"[query % 2], split, *chosen[:2], 0.9, negatives, scores))
    return pl.DataFrame(rows, schema=SCHEMA, orient="row"), frame


def write(folder: Path, model: Path, pictures: list[Path], **changes) -> Job:
    """Write the folder of a training; returns its job."""
    table, items = tables(pictures)
    root = pictures[0].parent
    record = {"data": {"corpus": "drawings", "negatives": 3}}
    job = Job(parameters(model, **changes), "identity", folder / "out", root, root, record)
    write_job(folder, job, table, items)
    return job


def start(folder: Path) -> subprocess.Popen[bytes]:
    """Start the worker alone, as the launcher does for one process."""
    command = [sys.executable, "-m", "unime_kedro.learning.worker", str(folder)]
    with (folder / "worker.log").open("ab") as log:
        return subprocess.Popen(command, stdout=log, stderr=log, env={**os.environ, "OMP_NUM_THREADS": "1"})


def run(folder: Path) -> None:
    """Run a training to its end."""
    assert start(folder).wait(timeout=300) == 0, (folder / "worker.log").read_text()


def error_of(folder: Path) -> dict:
    return json.loads((folder / "errors/rank-0.json").read_text())
