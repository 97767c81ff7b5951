"""Scoring a benchmark: 1,000 queries with 1,000 candidates each, ours against one query at a time.

    python benchmarks/bench_evaluate.py                 (about three minutes)
    python benchmarks/bench_evaluate.py --queries 100   (seconds)

It draws its own pictures and needs no data; the model is models/tiny-embedder, one thread, CPU. Data sets of MMEB look
like this: all queries choose among the contents of one pool, so that most contents are candidates of many queries.

Three ways, which must give the same answers:

- ``ours``: ``score_tasks``: distinct contents encoded once, similarities by blocks.
- ``per query``: as public evaluation scripts do it for rows with candidates of their own: the query and each of its
  candidates are encoded, in batches, then compared. Only ``--slow-queries`` of the queries are run; the figure for all
  of them is that time times their number (``extrapolated`` in the report says so), as every query costs the same.
- ``encode once, then loop``: a fairer peer: distinct contents encoded once into a dict, then a Python loop over the
  queries that looks every candidate up. It is timed over all queries.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

os.environ.setdefault("OMP_NUM_THREADS", "1")

if TYPE_CHECKING:
    import numpy as np

    from unime_kedro.evaluation.tasks import OwnCandidates
    from unime_kedro.mllm.content import Content
    from unime_kedro.mllm.embedding import Embedder

#: contents per call of the model in the slow way, as in the scripts
BATCH = 64
#: queries whose two best candidates are nearer to each other than this may be answered either way: rounding
ROUNDING = 1e-5


def draw(folder: Path, pictures: int) -> list[str]:
    """Write drawings of coloured rectangles, 56 pixels wide; return their names."""
    import numpy as np
    from PIL import Image

    rng, names = np.random.default_rng(0), []
    for i in range(pictures):
        pixels = np.full((56, 56, 3), rng.integers(0, 255, 3), dtype=np.uint8)
        x, y = rng.integers(0, 40, 2)
        pixels[y : y + 16, x : x + 16] = rng.integers(0, 255, 3)
        names.append(f"{i}.png")
        Image.fromarray(pixels).save(folder / names[-1])
    return names


def make_task(names: list[str], queries: int, candidates: int) -> OwnCandidates:
    """Ask for a picture by words, each query among ``candidates`` of all pictures, its target first."""
    import numpy as np
    import polars as pl

    from unime_kedro.evaluation.tasks import OwnCandidates

    rng, n = np.random.default_rng(1), len(names)
    words = [f"Find the picture number {i} of {rng.integers(1000)}." for i in range(queries)]
    contents = pl.DataFrame(
        {
            "content_id": range(queries + n),
            "text": [*words, *["<|image_1|>\nRepresent the given image."] * n],
            "image": [*[""] * queries, *names],
        }
    )
    lists = [queries + rng.choice(n, size=candidates, replace=False) for _ in range(queries)]
    table = pl.DataFrame(
        {"query_id": range(queries), "content_id": range(queries), "candidates": lists, "unit": range(queries)},
        schema_overrides={"candidates": pl.List(pl.Int64)},
    )
    return OwnCandidates("bench", contents, table)


def per_query(task: OwnCandidates, embedder: Embedder, root: Path, queries: int) -> np.ndarray:
    """Encode and compare one query after the other; the index of its best candidate."""
    import numpy as np

    contents = shown(task, root)
    best = []
    for content, candidates in task.queries.head(queries).select("content_id", "candidates").iter_rows():
        sides = [contents[content], *(contents[i] for i in candidates)]
        parts = [embedder.embed(sides[start : start + BATCH]) for start in range(0, len(sides), BATCH)]
        vectors = np.concatenate(parts)
        best.append(int(np.argmax(vectors[1:] @ vectors[0])))
    return np.array(best)


def encode_then_loop(task: OwnCandidates, embedder: Embedder, root: Path) -> np.ndarray:
    """Encode every content once into a dict, then look up the candidates of one query after the other."""
    import numpy as np

    contents = shown(task, root)
    vectors: dict[int, np.ndarray] = {}
    for start in range(0, len(contents), 256):
        part = contents[start : start + 256]
        vectors.update(zip(range(start, start + len(part)), embedder.embed(part), strict=True))
    best = []
    for content, candidates in task.queries.select("content_id", "candidates").iter_rows():
        found = np.stack([vectors[i] for i in candidates])
        best.append(int(np.argmax(found @ vectors[content])))
    return np.array(best)


def shown(task: OwnCandidates, root: Path) -> list[Content]:
    """Return the contents of a task, by content_id."""
    from unime_kedro.mllm.content import Content

    rows = task.contents.select("text", "image").iter_rows()
    return [Content(text, root / image if image else None) for text, image in rows]


def check(ours: np.ndarray, other: np.ndarray, gaps: np.ndarray, name: str) -> None:
    """Stop unless answers are the same wherever the two best candidates are further apart than rounding."""
    different = (ours[: len(other)] != other) & (gaps[: len(other)] > ROUNDING)
    if different.any():
        raise SystemExit(f"{name} answers {int(different.sum())} of {len(other)} queries in another way")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="models/tiny-embedder")
    parser.add_argument("--queries", type=int, default=1000)
    parser.add_argument("--candidates", type=int, default=1000, help="of each query, out of the pictures")
    parser.add_argument("--pictures", type=int, default=1000, help="how many there are to choose from")
    parser.add_argument("--slow-queries", type=int, default=20, help="how many the slow way answers")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(measure(options, Path(folder)), indent=1))


def measure(options: argparse.Namespace, folder: Path) -> dict[str, object]:
    """Time the three ways on one task, after a first call of the model that nobody pays for."""
    import polars as pl

    from unime_kedro.evaluation.scoring import score_tasks
    from unime_kedro.mllm.adapters import load_adapter
    from unime_kedro.mllm.content import ModelSpec
    from unime_kedro.mllm.embedding import Embedder

    task = make_task(draw(folder, options.pictures), options.queries, options.candidates)
    adapter = load_adapter(ModelSpec(options.model, None, "cpu", "float32", None, None, threads=1))
    embedder = Embedder(adapter, prompt="plain", max_tokens=512, batch_tokens=16384)
    embedder.embed(shown(task, folder)[:BATCH])
    load, seconds = round(os.getloadavg()[0], 1), {}
    start = time.perf_counter()
    scored = score_tasks([task], embedder.embed, folder)
    seconds["ours"] = time.perf_counter() - start
    start = time.perf_counter()
    looped = encode_then_loop(task, embedder, folder)
    seconds["encode once, then loop"] = time.perf_counter() - start
    n = min(options.slow_queries, options.queries)
    start = time.perf_counter()
    slow = per_query(task, embedder, folder, n)
    seconds["per query"] = (time.perf_counter() - start) * options.queries / n
    best = scored.top.filter(pl.col("position") < 2).group_by("query_id", maintain_order=True)
    found = best.agg(first=pl.col("candidate_index").first(), gap=-pl.col("similarity").diff().last())
    answers, gaps = found["first"].to_numpy(), found["gap"].to_numpy()
    check(answers, looped, gaps, "encode once, then loop")
    check(answers, slow, gaps, "per query")
    return {
        "queries": options.queries,
        "candidates": options.candidates,
        "distinct_contents": task.contents.select("text", "image").n_unique(),
        "load_before": load,
        "seconds": {name: round(value, 2) for name, value in seconds.items()},
        "extrapolated": f"per query, from {n} of {options.queries} queries",
        "ratio": {name: round(value / seconds["ours"], 1) for name, value in seconds.items() if name != "ours"},
        "same_answers": {"encode once, then loop": len(looped), "per query": len(slow)},
        "nearer_than_rounding": int((gaps <= ROUNDING).sum()),
    }


if __name__ == "__main__":
    main()
