"""A training of seconds: drawings and words, a random tiny model, everything else as in a real one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import yaml

from unime_kedro.evaluation.held_out import held_out_sets
from unime_kedro.learning.run_folder import Job, write_job
from unime_kedro.mining.training import SCHEMA
from unime_kedro.parameters import TrainParameters

ROOT = Path(__file__).parents[2]
WORDS = [
    "red",
    "blue",
    "green",
    "star",
    "house",
    "boat",
    "apple",
    "dog",
    "cat",
    "tree",
    "sun",
    "moon",
    "fish",
    "bird",
    "car",
    "cup",
]


def parameters(model: Path, **changes) -> TrainParameters:
    values = yaml.safe_load((ROOT / "conf/base/parameters/train.yml").read_text())["train"]
    values |= {
        "model": str(model),
        "negatives": 2,
        "steps": 6,
        "batch": 4,
        "chunk": 5,
        "learning_rate": 1e-3,
        "checkpoint_every": 2,
        "log_every": 1,
        "device": "cpu",
        "tuning": "full",
        "warmup_steps": 2,
    }
    values["lora"] |= {"rank": 4, "dropout": 0.1}
    values["validation"] |= {"every": 2, "queries": 6, "candidates": 4}
    for key, value in changes.items():
        if isinstance(values[key], dict) and key != "arguments":
            values[key] |= value
        else:
            values[key] = value
    return TrainParameters.model_validate(values)


def tables(pictures: list[Path], n: int = 24) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Queries of words, of pictures, and of both; equal items come twice in a batch."""
    rng = np.random.default_rng(5)
    texts = [" ".join(rng.choice(WORDS, size=rng.integers(1, 6))) for _ in range(30)]
    items = [(text, "") for text in texts] + [("", file.name) for file in pictures]
    items += [(f"<|image_1|> what is this? {word}", file.name) for word, file in zip(WORDS, pictures, strict=False)]
    frame = pl.DataFrame({"item_id": range(len(items)), "text": [t for t, _ in items], "image": [i for _, i in items]})
    rows = []
    for query in range(n):
        item, positive, *negatives = (int(i) for i in rng.choice(len(items), size=4, replace=False))
        scores = [float(s) for s in rng.uniform(0, 1, size=2)]
        split = "validation" if query % 4 == 3 else "train"
        rows.append((query, "ab"[query % 2], split, item, positive, 0.9, negatives, scores))
    return pl.DataFrame(rows, schema=SCHEMA, orient="row"), frame


def write(folder: Path, model: Path, pictures: list[Path], **changes) -> Job:
    """Write the folder of a training; returns its job."""
    train = parameters(model, **changes)
    training, items = tables(pictures)
    root = pictures[0].parent
    job = Job(train, "identity", folder / "out", root, root, {"data": {"corpus": "drawings", "negatives": 2}})
    write_job(folder, job, training, items, held_out_sets(training, items, candidates=4, seed=0))
    return job


def start(folder: Path, **environment: str) -> subprocess.Popen[bytes]:
    """Start the worker alone, as the launcher does for one process."""
    command = [sys.executable, "-m", "unime_kedro.learning.worker", str(folder)]
    with (folder / "worker.log").open("ab") as log:
        return subprocess.Popen(
            command, stdout=log, stderr=log, env={**os.environ, "OMP_NUM_THREADS": "1", **environment}
        )


def run(folder: Path) -> None:
    """Run a training to its end."""
    process = start(folder)
    assert process.wait(timeout=300) == 0, (folder / "worker.log").read_text()


def error_of(folder: Path, rank: int = 0) -> dict:
    return json.loads((folder / "errors" / f"rank-{rank}.json").read_text())
