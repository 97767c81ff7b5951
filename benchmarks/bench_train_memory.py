"""Training the embedder: what a step of 1,024 queries needs of memory, against one of 32, at the same chunk.

    python benchmarks/bench_train_memory.py          (a fresh process per batch size: about three minutes)

It needs mini-MMEB's mined tables: run `kedro run --pipeline=mine` first. One thread, CPU.

Every process sees the same number of queries, in batches of one size. With the gradient cache only one chunk's
activations are held, whatever the batch. What else is held: the batch's prepared contents, and those that are kept for
the next time they come (``cache_gb``), which is measured off and on. ``ratio`` is of the processes' peaks,
``ratio_of_increments`` of what they grew by since the model was loaded.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")


def memory(key: str) -> float:
    """Return this process's memory in GiB: ``VmRSS`` now, ``VmHWM`` at its peak."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    (line,) = (line for line in status.splitlines() if line.startswith(f"{key}:"))
    return int(line.split()[1]) / 2**20


def train(options: argparse.Namespace) -> dict[str, float]:
    """Be the fresh process: train on so many queries."""
    import torch
    from bench_train import Ours, load_rows, one_step

    from unime_kedro.learning.objective import Objective
    from unime_kedro.learning.rows import batch_order

    rows, contents = load_rows(Path(options.data), options.negatives)
    side = Ours(options.model, rows, contents, Objective(), options.chunk, options.cache_gb)
    optimizer = torch.optim.AdamW(side.model.parameters(), lr=1e-3)
    before, steps = memory("VmRSS"), options.queries // options.batch
    for at in batch_order(len(rows), batch=options.batch, steps=steps, seed=42):
        one_step(side, optimizer, at)
    return {"before_gib": round(before, 3), "peak_gib": round(memory("VmHWM"), 3), "steps": steps}


def measure(options: argparse.Namespace, cache_gb: float) -> dict[str, object]:
    """Start a fresh process per batch size."""
    found = {}
    for batch in (options.small, options.large):
        given = json.dumps(vars(options) | {"batch": batch, "cache_gb": cache_gb})
        command = [sys.executable, __file__, "--process", given]
        found[batch] = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
    small, large = (one["peak_gib"] for one in found.values())
    grown = [one["peak_gib"] - one["before_gib"] for one in found.values()]
    ratios = {"ratio": round(large / small, 3), "ratio_of_increments": round(grown[1] / grown[0], 2)}
    return {f"batch {batch}": one for batch, one in found.items()} | ratios


def main() -> None:
    if sys.argv[1:2] == ["--process"]:
        print(json.dumps(train(argparse.Namespace(**json.loads(sys.argv[2])))))
        return
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default=os.environ.get("UNIME_DATA_ROOT", "data"))
    parser.add_argument("--model", default="models/tiny-embedder")
    parser.add_argument("--chunk", type=int, default=64, help="contents per forward pass")
    parser.add_argument("--negatives", type=int, default=2, help="k")
    parser.add_argument("--queries", type=int, default=2048, help="that each process sees")
    parser.add_argument("--small", type=int, default=32, help="queries per step")
    parser.add_argument("--large", type=int, default=1024, help="queries per step")
    options = parser.parse_args()
    report: dict[str, object] = {"negatives": options.negatives, "chunk": options.chunk}
    report |= {f"cache_gb {cache_gb:g}": measure(options, cache_gb) for cache_gb in (0.0, 1.0)}
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
