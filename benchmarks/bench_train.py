"""Training the embedder: pairs per second against the authors' way, and what the gradient cache does for memory.

    python benchmarks/bench_train.py speed                     (the tiny embedder on mini-MMEB: 10 to 20 minutes)
    python benchmarks/bench_train.py speed --steps 10          (the first steps of each epoch only: a minute or two)
    python benchmarks/bench_train.py memory                    (a fresh process per batch size: some minutes)

Both need mini-MMEB's mined tables: run `kedro run --pipeline=mine` first. One thread, CPU.

``speed``: both sides train copies of one model on the same batches with the same loss and optimizer, in one process and
in turns. The authors' way follows their release: each row becomes 1 + k/2 pairs, whose left sides go through the model
in one pass and whose right sides in another; rows are cut into chunks as they come, each padded to its longest; every
row is encoded, with its picture opened, resized and normalised, however often it occurs. Its gradient cache is ours.
What their release does besides (logits of the whole vocabulary, blank pictures for rows without one) is left out.
Ours: :class:`Collator` and :class:`EmbeddingModel`. ``cold`` is the first epoch, in which ours prepares every content
once, ``warm`` the second. Before anything is timed, losses and gradients are compared.

``memory``: peak of a fresh process that sees the same queries in batches of 32 and of 1,024, chunks being equal.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

os.environ.setdefault("OMP_NUM_THREADS", "1")

if TYPE_CHECKING:
    import numpy as np
    import torch

    from unime_kedro.learning.objective import Objective
    from unime_kedro.learning.rows import TrainingRows
    from unime_kedro.mllm.adapters.base import Piece, ProcessedImage
    from unime_kedro.mllm.content import Content
    from unime_kedro.mllm.embedding import Embedder

#: differences of loss and gradient between the two sides, relative
TOLERANCE = 1e-4
GIB = 2**30


def load_rows(options: argparse.Namespace) -> tuple[TrainingRows, dict[int, Content]]:
    """Read the mined tables; return training rows, and the content of every item."""
    import polars as pl

    from unime_kedro.learning.rows import TrainingRows
    from unime_kedro.mining.training import training_table
    from unime_kedro.mllm.content import Content

    data = Path(options.data)

    def read(table: str) -> pl.DataFrame:
        return pl.read_parquet(data / f"{table}.parquet")

    table, _ = training_table(
        read("05_model_input/negatives"),
        read("02_intermediate/queries"),
        read("03_primary/judge_scores"),
        n_negatives=options.negatives,
    )
    root = data / "01_raw/mini_mmeb/train"
    columns = read("02_intermediate/items").select("item_id", "text", "image").iter_rows()
    contents = {item: Content(text, root / image if image else None) for item, text, image in columns}
    return TrainingRows.from_table(table, options.negatives), contents


def load_embedder(model: str) -> Embedder:
    """Load a copy of the model that can be trained."""
    from unime_kedro.mllm.adapters import load_adapter
    from unime_kedro.mllm.content import ModelSpec
    from unime_kedro.mllm.embedding import Embedder

    adapter = load_adapter(ModelSpec(model, None, "cpu", "float32", None, None, threads=1))
    adapter.model.train().requires_grad_(True)
    return Embedder(adapter, prompt="plain", max_tokens=512, batch_tokens=16384)


class PlainChunk(NamedTuple):
    """Rows as they came; ``images`` has a picture for every row that shows one, equal ones as often as they occur."""

    pieces: list[Piece]
    images: list[ProcessedImage]


class AuthorsWay:
    """One training step as the release does it; ``chunk`` 0 for no gradient cache: two passes, one of each side."""

    def __init__(
        self, model: str, rows: TrainingRows, contents: dict[int, Content], objective: Objective, chunk: int
    ) -> None:
        self.embedder = load_embedder(model)
        self.model = self.embedder.adapter.model
        self.rows, self.contents, self.objective, self.chunk = rows, contents, objective, chunk

    def prepare(self, at: np.ndarray) -> list[PlainChunk]:
        """Read and tokenize every row of both passes."""
        pairs = self.rows.item_ids[at].reshape(-1, 2)
        size = self.chunk or len(pairs)
        return [
            self._prepare(side[start : start + size].tolist())
            for side in (pairs[:, 0], pairs[:, 1])
            for start in range(0, len(side), size)
        ]

    def _prepare(self, items: list[int]) -> PlainChunk:
        from unime_kedro.mllm.images import read_image

        shown = [self.contents[item] for item in items]
        images = [None if c.image is None else read_image(self.embedder.adapter, c.image) for c in shown]
        pieces = [self.embedder.encode(content, image) for content, image in zip(shown, images, strict=True)]
        return PlainChunk(pieces, [image for image in images if image is not None])

    def encode(self, chunk: PlainChunk) -> torch.Tensor:
        """Embed the rows of a chunk, padded to its longest."""
        import torch

        from unime_kedro.mllm.embedding import right_padded

        adapter = self.embedder.adapter
        ids, positions, mask = right_padded(chunk.pieces, axes=chunk.pieces[0].positions.shape[0])
        features = torch.cat(adapter.image_features(chunk.images)) if chunk.images else None
        hidden = adapter.decode(adapter.embed_tokens(ids, features), positions, mask, None)
        return hidden[torch.arange(len(ids)), mask.sum(1) - 1]

    def backward(self, at: np.ndarray, prepared: list[PlainChunk]) -> float:
        """Add the batch's gradients; return its loss."""
        import torch

        from unime_kedro.learning.gradient_cache import cached_backward

        scores, item_ids = torch.from_numpy(self.rows.scores[at]), torch.from_numpy(self.rows.item_ids[at])

        def loss(vectors: torch.Tensor) -> torch.Tensor:
            sides = torch.stack(vectors.chunk(2), dim=1)  # a row's pairs, left and right: the order of item_ids
            return self.objective(sides.reshape(*item_ids.shape, -1), scores, item_ids)

        if self.chunk:
            return float(cached_backward(self.encode, prepared, loss))
        value = loss(torch.cat([self.encode(chunk) for chunk in prepared]))
        value.backward()
        return float(value.detach())


class Ours:
    """One training step as the trainer does it; ``chunk`` 0 for no gradient cache: all contents in one chunk."""

    def __init__(
        self,
        model: str,
        rows: TrainingRows,
        contents: dict[int, Content],
        objective: Objective,
        chunk: int,
        cache_gb: float = 1.0,
    ) -> None:
        from unime_kedro.learning.batches import Collator
        from unime_kedro.learning.model import EmbeddingModel

        self.embedder = load_embedder(model)
        self.module, self.model = EmbeddingModel(self.embedder.adapter), self.embedder.adapter.model
        self.objective = objective
        self.prepare = Collator(self.embedder, rows, contents, chunk=chunk or 1 << 30, cache_gb=cache_gb)

    def backward(self, at: np.ndarray, batch) -> float:
        """Add the batch's gradients; return its loss."""
        import torch

        from unime_kedro.learning.gradient_cache import cached_backward

        scores, item_ids = torch.from_numpy(batch.scores), torch.from_numpy(batch.item_ids)
        places = torch.from_numpy(batch.places)
        return float(
            cached_backward(self.module, batch.chunks, lambda v: self.objective(v[places], scores, item_ids))
        )


def compare(sides: dict[str, AuthorsWay | Ours], at: np.ndarray) -> dict[str, float]:
    """Return how far loss and gradients of the two sides are apart on one batch, relative; stop if that is far."""
    import torch

    losses, gradients = [], []
    for side in sides.values():
        losses.append(side.backward(at, side.prepare(at)))
        grads = (torch.zeros_like(p) if p.grad is None else p.grad for p in side.model.parameters())
        gradients.append(torch.cat([g.flatten() for g in grads]))
        side.model.zero_grad()
    found = {
        "loss": abs(losses[0] - losses[1]) / abs(losses[0]),
        "gradient": float((gradients[0] - gradients[1]).norm() / gradients[0].norm()),
    }
    if not max(found.values()) <= TOLERANCE:
        raise SystemExit(f"the two sides do not compute the same: {found}")
    return found


def one_step(side: AuthorsWay | Ours, optimizer: torch.optim.Optimizer, at: np.ndarray) -> list[float]:
    """Train on one batch; seconds of preparing it, of everything else, and CPU seconds of both."""
    cpu, start = time.process_time(), time.perf_counter()
    prepared = side.prepare(at)
    ready = time.perf_counter()
    side.backward(at, prepared)
    optimizer.step()
    optimizer.zero_grad()
    return [ready - start, time.perf_counter() - ready, time.process_time() - cpu]


def summary(seconds: dict[str, np.ndarray], pairs: int) -> dict[str, object]:
    """Turn (steps, 3) seconds of both sides into pairs per second and ratios."""
    import numpy as np

    walls = {name: s[:, 0] + s[:, 1] for name, s in seconds.items()}
    return {
        "pairs_per_second": {name: round(pairs * len(w) / w.sum(), 1) for name, w in walls.items()},
        "ratio": round(walls["authors"].sum() / walls["ours"].sum(), 2),
        "median_ratio_of_steps": round(float(np.median(walls["authors"] / walls["ours"])), 2),
        "cpu_ratio": round(seconds["authors"][:, 2].sum() / seconds["ours"][:, 2].sum(), 2),
        "seconds_per_step_preparing": {name: round(float(s[:, 0].mean()), 3) for name, s in seconds.items()},
        "seconds_per_step_model": {name: round(float(s[:, 1].mean()), 3) for name, s in seconds.items()},
    }


def measure_speed(options: argparse.Namespace, chunk: int) -> dict[str, object]:
    """Train both sides in turns."""
    import numpy as np
    import torch

    from unime_kedro.learning.objective import Objective
    from unime_kedro.learning.rows import batch_order

    rows, contents = load_rows(options)
    per_epoch = len(rows) // options.batch
    order = batch_order(len(rows), batch=options.batch, steps=2 * per_epoch, seed=42)
    makers: dict[str, Callable[..., AuthorsWay | Ours]] = {"authors": AuthorsWay, "ours": Ours}
    check = {name: make(options.model, rows, contents, Objective(), chunk) for name, make in makers.items()}
    report: dict[str, object] = {"difference": compare(check, order[0])}
    # others, whose caches are empty
    sides = {name: make(options.model, rows, contents, Objective(), chunk) for name, make in makers.items()}
    optimizers = {name: torch.optim.AdamW(side.model.parameters(), lr=1e-3) for name, side in sides.items()}
    distinct = [len(np.unique(rows.item_ids[at])) for at in order]
    report["contents_per_step"] = {"authors": rows.item_ids[order[0]].size, "ours": round(float(np.mean(distinct)), 1)}
    for epoch, state in enumerate(("cold", "warm")):
        seconds: dict[str, list[list[float]]] = {name: [] for name in sides}
        for turn, at in enumerate(order[epoch * per_epoch : (epoch + 1) * per_epoch][: options.steps]):
            for name in list(sides) if turn % 2 else list(reversed(sides)):
                seconds[name].append(one_step(sides[name], optimizers[name], at))
        pairs = options.batch * (options.negatives + 1)
        report[state] = summary({name: np.array(s) for name, s in seconds.items()}, pairs)
    return report


def memory_of_process() -> tuple[float, float]:
    """Return this process's memory now and at its peak, in GiB."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return tuple(int(status[key].split()[0]) / 2**20 for key in ("VmRSS", "VmHWM"))  # type: ignore[return-value]


def train_some(options: argparse.Namespace) -> None:
    """Be the fresh process of ``memory``: train on so many queries, and print what it took."""
    import torch

    from unime_kedro.learning.objective import Objective
    from unime_kedro.learning.rows import batch_order

    rows, contents = load_rows(options)
    side = Ours(options.model, rows, contents, Objective(), options.chunk, options.cache_gb)
    optimizer = torch.optim.AdamW(side.model.parameters(), lr=1e-3)
    steps = options.queries // options.batch
    before = memory_of_process()[0]
    for at in batch_order(len(rows), batch=options.batch, steps=steps, seed=42):
        one_step(side, optimizer, at)
    report = {"before_gib": before, "peak_gib": memory_of_process()[1], "steps": steps}
    print(json.dumps({key: round(value, 3) for key, value in report.items()}))


def measure_memory(options: argparse.Namespace) -> dict[str, object]:
    """Start a fresh process per batch size and size of the cache of prepared contents."""
    report: dict[str, object] = {}
    for cache_gb in (0.0, 1.0):
        found = {}
        for batch in (32, options.large_batch):
            given = vars(options) | {"what": "train_some", "batch": batch, "cache_gb": cache_gb}
            command = [sys.executable, __file__, "train_some", json.dumps(given, default=str)]
            found[batch] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        small, large = found.values()
        report[f"cache_gb={cache_gb:g}"] = {
            **{f"batch {batch}": value for batch, value in found.items()},
            "ratio": round(large["peak_gib"] / small["peak_gib"], 3),
            "ratio_of_increments": round(
                (large["peak_gib"] - large["before_gib"]) / (small["peak_gib"] - small["before_gib"]), 2
            ),
        }
    return report


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["speed", "memory"])
    parser.add_argument("--data", default=os.environ.get("UNIME_DATA_ROOT", "data"))
    parser.add_argument("--model", default="models/tiny-embedder")
    parser.add_argument("--batch", type=int, default=32, help="queries per step of speed")
    parser.add_argument("--chunk", type=int, default=64, help="contents per forward pass with the gradient cache")
    parser.add_argument("--negatives", type=int, help="k, an even number; 8 for speed, 2 for memory")
    parser.add_argument("--steps", type=int, help="of each epoch, for speed; all of them without")
    parser.add_argument("--queries", type=int, default=2048, help="for memory: how many each process sees")
    parser.add_argument("--large-batch", type=int, default=1024, help="for memory")
    options = parser.parse_args()
    if options.negatives is None:
        options.negatives = 8 if options.what == "speed" else 2
    return options


def main() -> None:
    if sys.argv[1:2] == ["train_some"]:
        return train_some(argparse.Namespace(**json.loads(sys.argv[2])))
    options = parse()
    report: dict[str, object] = {"batch": options.batch, "negatives": options.negatives, "chunk": options.chunk}
    report["load_before"] = [round(one, 1) for one in os.getloadavg()]
    if options.what == "speed":
        report["gradient cache"] = measure_speed(options, options.chunk)
        report["no gradient cache"] = measure_speed(options, 0)
    else:
        report |= measure_memory(options)
    report["load_after"] = [round(one, 1) for one in os.getloadavg()]
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
