"""Nodes of pipeline ``pool``."""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from unime_kedro.mllm.content import ModelSpec
from unime_kedro.parameters import ModelParameters, PoolParameters
from unime_kedro.paths import resolve
from unime_kedro.progress import progress

if TYPE_CHECKING:
    from unime_kedro.cluster.embedding import RayEmbedder
    from unime_kedro.mllm.embedding import Embedder
    from unime_kedro.mllm.vllm_embedder import VllmEmbedder


def model_spec(parameters: ModelParameters) -> ModelSpec:
    """Return the part of a stage's parameters that says which model."""
    return ModelSpec(**{name: getattr(parameters, name) for name in ModelSpec.__dataclass_fields__})


def load_embedder(pool: PoolParameters) -> "Embedder | VllmEmbedder | RayEmbedder":
    """Load the embedder that the parameters name; vLLM's engine starts when it has something to do."""
    if pool.backend == "vllm":
        return _vllm_embedder(pool)
    if pool.backend == "ray":
        return _ray_embedder(pool)
    from unime_kedro.mllm.adapters import load_adapter
    from unime_kedro.mllm.embedding import Embedder

    return Embedder(
        load_adapter(model_spec(pool)),
        prompt=pool.prompt,
        max_tokens=pool.max_tokens,
        batch_tokens=pool.batch_tokens,
        workers=pool.image_workers,
    )


def _vllm_embedder(pool: PoolParameters) -> "VllmEmbedder":
    from unime_kedro.mllm.vllm_embedder import VllmEmbedder
    from unime_kedro.mllm.vllm_engine import EngineOptions

    return VllmEmbedder(
        model_spec(pool),
        EngineOptions(**pool.vllm.model_dump(exclude={"check_items"})),
        prompt=pool.prompt,
        max_tokens=pool.max_tokens,
        check_items=pool.vllm.check_items,
        workers=pool.image_workers,
    )


def _ray_embedder(pool: PoolParameters) -> "RayEmbedder":
    from unime_kedro.cluster.connection import ClusterOptions
    from unime_kedro.cluster.embedding import RayEmbedder

    worker = pool.model_copy(update={"backend": pool.ray.worker, **placed_on_worker(pool, pool.ray.cpus_per_worker)})
    return RayEmbedder(partial(load_embedder, worker), ClusterOptions(**pool.ray.model_dump(exclude={"worker"})))


def placed_on_worker(parameters: ModelParameters, cpus: float) -> dict[str, Any]:
    """Return what changes of a model's parameters on another machine: where it is, and how many cores it may take."""
    model = resolve(parameters.model)
    threads = parameters.threads or max(1, int(cpus))
    return {"model": str(model) if model.is_dir() else parameters.model, "threads": threads}


def embed(
    items: pl.DataFrame, pool: PoolParameters, image_root: str, embedding_folder: Path
) -> tuple[Path, dict[str, float | str]]:
    """Embed every distinct item once.

    Args:
        items: The items table.
        pool: Which model, and how.
        image_root: Folder that image paths are relative to.
        embedding_folder: Receives the array, bit by bit: an interrupted run goes on where it was.

    Returns:
        The array's file and metrics.
    """
    from unime_kedro.mining.embedding import embed_items
    from unime_kedro.mllm.embedding import Embedder

    embedder = load_embedder(pool)
    file, metrics = embed_items(items, resolve(image_root), embedder, embedding_folder, progress)
    if not isinstance(embedder, Embedder):
        metrics |= embedder.metrics()
        embedder.close()  # the judge's engine needs the memory
    return file, {**metrics, "model_fingerprint": str(embedder.identity()["model"])}


def retrieve(
    embeddings: np.ndarray,
    items: pl.DataFrame,
    queries: pl.DataFrame,
    candidates: pl.DataFrame,
    pool: PoolParameters,
    index_folder: Path,
) -> tuple[pl.DataFrame, dict[str, str], dict[str, Any]]:
    """Find the nearest candidates of every query over the whole corpus (method 2.1).

    Args:
        embeddings: (n_items, d) float32, row = item_id.
        items: The items table, for the record of what the pool was made from.
        queries: The queries table.
        candidates: item_id of everything that may be found.
        pool: How many, how near, what to leave out, by which index.
        index_folder: Keeps an index that takes long to build.

    Returns:
        The pool table, what it was made from, and metrics.
    """
    from unime_kedro.mining.indexes.options import IndexOptions
    from unime_kedro.mining.indexes.pool import retrieve_indexed
    from unime_kedro.mining.lineage import corpus_digest, table_digest

    found = retrieve_indexed(
        embeddings,
        queries,
        candidates["item_id"],
        options=IndexOptions(**pool.index.model_dump()),
        folder=index_folder,
        k=pool.k,
        max_similarity=pool.max_similarity,
        exclude=pool.exclude,
        memory_gb=pool.memory_gb,
        progress=progress,
    )
    frame = found.result.frame
    origin = {"corpus": corpus_digest(items, queries), "pool": table_digest(frame)}
    return frame, origin, found.result.metrics | found.figures
