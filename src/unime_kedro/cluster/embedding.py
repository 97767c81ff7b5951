"""The pool's embedder on a Ray cluster: Ray Data hands out chunks of items, their vectors come back in order."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any, cast

import numpy as np
import pyarrow as pa

from unime_kedro.cluster.attempts import begin, start_attempts
from unime_kedro.cluster.connection import (
    ClusterOptions,
    connect,
    disconnect,
    on_a_worker,
    pool_of_workers,
    worker_name,
)
from unime_kedro.cluster.contents import Contents, put_contents
from unime_kedro.cluster.figures import difference, total
from unime_kedro.cluster.worker_errors import ray_errors, tried, unpack
from unime_kedro.errors import ConfigurationError, ModelError
from unime_kedro.mllm.content import Content

#: makes a worker's embedder on its machine: see :class:`unime_kedro.mining.embedding.Embedder`
MakeEmbedder = Callable[[], Any]
#: workers that may die with a chunk in hand before the run ends
LAST_ATTEMPT = 3


class RayEmbedder:
    """Embeds chunks of contents on workers; see :class:`unime_kedro.mining.embedding.EmbedsChunks`.

    Pictures must lie in the same place on all machines. A worker embeds a chunk as the embedder of a run without Ray
    would, so vectors are the same bit by bit on machines of one kind.

    Args:
        make: Makes the embedder on a worker; can be pickled.
        options: Where workers run.

    Raises:
        ConfigurationError: If Ray is not installed, does not answer, or has no room for a worker.
        ModelError: If the model cannot be read on a worker.
    """

    def __init__(self, make: MakeEmbedder, options: ClusterOptions) -> None:
        self._make = make
        self._connected = connect(options)
        self._pool = pool_of_workers(options)
        self._figures: list[dict[str, float]] = []
        self._workers: set[str] = set()
        self._identity, self._dimension = on_a_worker(_described, make, options)

    @property
    def truncated(self) -> int:
        """How many contents lost words."""
        return int(total(self._figures).get("truncated", 0))

    @property
    def dimension(self) -> int:
        """Length of a vector."""
        return self._dimension

    def identity(self) -> dict[str, Any]:
        """Return what the worker's embedder says: dtype and device are a worker's and not those of this machine."""
        return self._identity

    def metrics(self) -> dict[str, float]:
        """Return the workers' counts, summed; and ``workers``, how many took part."""
        return {**total(self._figures), "workers": len(self._workers)}

    def close(self) -> None:
        """Leave the cluster if it was this object that came."""
        if self._connected:
            disconnect()
            self._connected = False

    def embed_chunks(self, contents: Sequence[Content], start: int, size: int) -> Iterator[np.ndarray]:
        """Yield unit vectors of ``contents[start:]``, in order, ``size`` at a time, (n, dimension) float32.

        Raises:
            ConfigurationError: If a worker's embedder is another one.
            DataError: If a picture cannot be read.
            ModelError: If the model cannot be read on a worker, or workers die again and again with the same chunk.
        """
        import ray.data

        firsts = range(start, len(contents), size)
        chunks = [pa.table({"first": [first], "stop": [min(first + size, len(contents))]}) for first in firsts]
        context = ray.data.DataContext.get_current()
        context.execution_options.preserve_order = True
        todo = ray.data.from_arrow(chunks).map_batches(
            EmbeddingWorker,
            fn_constructor_args=(self._make, self._identity, put_contents(contents), start_attempts()),
            batch_size=None,
            batch_format="numpy",
            **self._pool,
        )
        with ray_errors():
            batches = todo.iter_batches(batch_size=None, batch_format="numpy", prefetch_batches=0)
            for found in cast("Iterator[dict[str, np.ndarray]]", batches):
                if error := str(found["error"][0]):
                    raise unpack(error)
                self._workers.add(str(found["worker"][0]))
                self._figures.append(json.loads(str(found["figures"][0])))
                yield found["vectors"]


class EmbeddingWorker:
    """One worker: embeds chunks of contents."""

    def __init__(self, make: MakeEmbedder, identity: dict[str, Any], contents: Any, attempts: Any) -> None:
        self._attempts = attempts
        _, self._error = tried(self._begin, make, identity, contents)

    def _begin(self, make: MakeEmbedder, identity: dict[str, Any], contents: Any) -> None:
        self._embedder = make()
        if self._embedder.identity() != identity:
            raise ConfigurationError(
                f"the embedder of worker {worker_name()} gives other vectors than that of the first one asked: "
                f"{self._embedder.identity()} instead of {identity}. Machines of one run must have the same model, and "
                "the same kind of device or an explicit dtype."
            )
        self._contents = Contents(contents)

    def __call__(self, chunk: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Embed a chunk."""
        first, stop = int(chunk["first"][0]), int(chunk["stop"][0])
        found, error = (None, self._error) if self._error else tried(self._embedded, first, stop)
        vectors, figures = found or (np.zeros((1, 1), dtype=np.float32), {})
        said = {"worker": worker_name(), "figures": json.dumps(figures), "error": error}
        return {"vectors": vectors} | {name: np.array([text] * len(vectors)) for name, text in said.items()}

    def _embedded(self, first: int, stop: int) -> tuple[np.ndarray, dict[str, float]]:
        if begin(self._attempts, str(first)) >= LAST_ATTEMPT:
            raise ModelError(
                f"{LAST_ATTEMPT} workers died while they embedded items {first} to {stop - 1}: one of them may need "
                "more memory than a worker has. Lower pool.batch_tokens or pool.max_pixels, or give workers more."
            )
        before = self._counts()
        contents = [self._contents[item] for item in range(first, stop)]
        self._embedder.expect(contents)
        vectors = self._embedder.embed(contents)
        return vectors, difference(self._counts(), before)

    def _counts(self) -> dict[str, float]:
        metrics = self._embedder.metrics() if hasattr(self._embedder, "metrics") else {}
        return {**metrics, "truncated": self._embedder.truncated}


def _described(make: MakeEmbedder) -> tuple[dict[str, Any], int]:
    embedder = make()
    return embedder.identity(), embedder.dimension
