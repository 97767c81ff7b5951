"""Training the embedder: pairs per second, ours against the authors' way.

    python benchmarks/bench_train.py                 (the tiny embedder on mini-MMEB: about ten minutes)
    python benchmarks/bench_train.py --steps 8       (fewer steps: two minutes, and less certain)

It needs mini-MMEB's mined tables: run `kedro run --pipeline=mine` first. One thread, CPU.

Both sides train copies of one model on the same batches with the same loss and optimizer, in one process and in turns.
The authors' way follows their release: each row becomes 1 + k/2 pairs, whose left sides go through transformers' model
in one pass and whose right sides in another; rows are cut into chunks as they come, each padded to its longest; every
row is encoded, with its picture opened, resized and normalised, however often it occurs. Its gradient cache is ours.
What their release does besides (logits of the whole vocabulary, blank pictures for rows without one) is left out.
Ours is :class:`Collator` and :class:`EmbeddingModel`. ``cold`` is the start of the first epoch, ``warm`` the start of
one before which ours has prepared every content. Losses and gradients are compared before anything is timed.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

os.environ.setdefault("OMP_NUM_THREADS", "1")

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    import torch

    from unime_kedro.learning.batches import Batch
    from unime_kedro.learning.objective import Objective
    from unime_kedro.learning.rows import TrainingRows
    from unime_kedro.mllm.adapters.base import Piece, ProcessedImage
    from unime_kedro.mllm.content import Content
    from unime_kedro.mllm.embedding import Embedder

#: differences of loss and gradient between the two sides, relative
TOLERANCE = 1e-4
#: what is measured: name, queries per step, whether with the gradient cache
CASES = (("gradient cache", 32, True), ("no gradient cache", 32, False), ("gradient cache, batch 256", 256, True))


def load_rows(data: Path, negatives: int) -> tuple[TrainingRows, dict[int, Content]]:
    """Read the mined tables; return training rows, and the content of every item."""
    import polars as pl

    from unime_kedro.learning.rows import TrainingRows
    from unime_kedro.mining.training import training_table
    from unime_kedro.mllm.content import Content

    def read(table: str) -> pl.DataFrame:
        return pl.read_parquet(data / f"{table}.parquet")

    table, _ = training_table(
        read("05_model_input/negatives"),
        read("02_intermediate/queries"),
        read("03_primary/judge_scores"),
        n_negatives=negatives,
    )
    root = data / "01_raw/mini_mmeb/train"
    columns = read("02_intermediate/items").select("item_id", "text", "image").iter_rows()
    contents = {item: Content(text, root / image if image else None) for item, text, image in columns}
    return TrainingRows.from_table(table, negatives), contents


def load_embedder(model: str) -> Embedder:
    """Load a copy of the model that can be trained."""
    from transformers.utils import logging

    from unime_kedro.mllm.adapters import load_adapter
    from unime_kedro.mllm.content import ModelSpec
    from unime_kedro.mllm.embedding import Embedder

    logging.disable_progress_bar()
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
        import torch

        self.embedder = load_embedder(model)
        kind = type(self.embedder.adapter.model)
        # transformers' own, whatever the adapter has made of its copy
        self.model = kind.from_pretrained(model, dtype=torch.float32, attn_implementation="sdpa").train()
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
        shown = [self.contents[item] for item in items]
        images = [None if content.image is None else self._read(content.image) for content in shown]
        pieces = [self.embedder.encode(content, image) for content, image in zip(shown, images, strict=True)]
        return PlainChunk(pieces, [image for image in images if image is not None])

    def _read(self, file: Path) -> ProcessedImage:
        from PIL import Image

        from unime_kedro.mllm.adapters.base import ProcessedImage

        adapter = self.embedder.adapter
        with Image.open(file) as image:
            out = adapter.image_processor(images=[image.convert("RGB")], return_tensors="np")
        grid = out["image_grid_thw"][0]
        return ProcessedImage(out["pixel_values"], grid, int(grid.prod()) // adapter.merge**2)

    def encode(self, chunk: PlainChunk) -> torch.Tensor:
        """Embed the rows of a chunk, padded to its longest."""
        import numpy as np
        import torch

        from unime_kedro.mllm.embedding import right_padded

        ids, _, mask = right_padded(chunk.pieces, axes=chunk.pieces[0].positions.shape[0])
        pictures = {}
        if chunk.images:
            pictures["pixel_values"] = torch.from_numpy(np.concatenate([image.pixels for image in chunk.images]))
            pictures["image_grid_thw"] = torch.from_numpy(np.stack([image.grid for image in chunk.images]))
            pictures["mm_token_type_ids"] = (ids == self.model.config.image_token_id).long()
        self.model.model.rope_deltas = None
        out = self.model.model(input_ids=ids, attention_mask=mask, use_cache=False, **pictures)
        return out.last_hidden_state[torch.arange(len(ids)), mask.sum(1) - 1]

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

    def backward(self, at: np.ndarray, batch: Batch) -> float:
        """Add the batch's gradients; return its loss."""
        import torch

        from unime_kedro.learning.gradient_cache import cached_backward

        scores, item_ids = torch.from_numpy(batch.scores), torch.from_numpy(batch.item_ids)
        places = torch.from_numpy(batch.places)
        return float(cached_backward(self.module, batch.chunks, lambda v: self.objective(v[places], scores, item_ids)))


def compare(sides: dict[str, AuthorsWay | Ours], at: np.ndarray) -> dict[str, float]:
    """Return how far loss and gradients of the two sides are apart on one batch, relative; stop if that is far."""
    import torch

    losses, gradients = [], []
    for side in sides.values():
        losses.append(side.backward(at, side.prepare(at)))
        found = {name: torch.zeros_like(p) if p.grad is None else p.grad for name, p in side.model.named_parameters()}
        gradients.append(torch.cat([found[name].flatten() for name in sorted(found)]))
    difference = {
        "loss": abs(losses[0] - losses[1]) / abs(losses[0]),
        "gradient": float((gradients[0] - gradients[1]).norm() / gradients[0].norm()),
    }
    if not max(difference.values()) <= TOLERANCE:
        raise SystemExit(f"the two sides do not compute the same: {difference}")
    return difference


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


def measure(options: argparse.Namespace, batch: int, chunk: int) -> dict[str, object]:
    """Train both sides in turns, first with nothing prepared, then with everything."""
    import numpy as np
    import torch

    from unime_kedro.learning.objective import Objective
    from unime_kedro.learning.rows import batch_order

    rows, contents = load_rows(Path(options.data), options.negatives)
    steps = min(len(rows), options.steps * 32) // batch  # as many queries for any batch
    makers: dict[str, Callable[..., AuthorsWay | Ours]] = {"authors": AuthorsWay, "ours": Ours}

    def both() -> dict[str, AuthorsWay | Ours]:
        return {name: make(options.model, rows, contents, Objective(), chunk) for name, make in makers.items()}

    order = batch_order(len(rows), batch=batch, steps=2 * (len(rows) // batch), seed=42).reshape(2, -1, batch)
    report: dict[str, object] = {"difference": compare(both(), order[0, 0])}
    sides = both()  # others, that have prepared nothing
    optimizers = {name: torch.optim.AdamW(side.model.parameters(), lr=1e-3) for name, side in sides.items()}
    distinct = np.mean([len(np.unique(rows.item_ids[at])) for at in order[0]])
    report["contents_per_step"] = {"authors": batch * (options.negatives + 2), "ours": round(float(distinct), 1)}
    for batches, state in zip(order, ("cold", "warm"), strict=True):
        if state == "warm":
            for start in range(0, len(rows), 256):
                sides["ours"].prepare(np.arange(start, min(start + 256, len(rows))))
        seconds: dict[str, list[list[float]]] = {name: [] for name in sides}
        for turn, at in enumerate(batches[:steps]):
            for name in list(sides) if turn % 2 else reversed(sides):
                seconds[name].append(one_step(sides[name], optimizers[name], at))
        report[state] = summary({n: np.array(s) for n, s in seconds.items()}, batch * (options.negatives + 1))
    return report


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default=os.environ.get("UNIME_DATA_ROOT", "data"))
    parser.add_argument("--model", default="models/tiny-embedder")
    parser.add_argument("--chunk", type=int, default=64, help="contents per forward pass with the gradient cache")
    parser.add_argument("--negatives", type=int, default=8, help="k, an even number")
    parser.add_argument("--steps", type=int, default=32, help="of 32 queries, of each epoch and case")
    options = parser.parse_args()
    report: dict[str, object] = {"negatives": options.negatives, "chunk": options.chunk}
    for name, batch, cached in CASES:
        load = round(os.getloadavg()[0], 1)
        report[name] = {"batch": batch, "load_before": load} | measure(options, batch, options.chunk if cached else 0)
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
