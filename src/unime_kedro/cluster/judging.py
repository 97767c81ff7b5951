"""The judge on a Ray cluster: Ray Data hands out queries, workers write shards of the judge store themselves."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa

from unime_kedro.cluster.attempts import DONE, begin, done, start_attempts
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
from unime_kedro.errors import ConfigurationError, DataError
from unime_kedro.mining.scorer import rows_of
from unime_kedro.mining.store import JudgeStore, judge_key
from unime_kedro.mllm.content import Content
from unime_kedro.mllm.judgements import Judgements

#: makes a worker's judge on its machine: see :class:`.scorer.Judge`; with ``metrics()``
MakeJudge = Callable[[], Any]
#: workers that may die while they have a query alone in hand, before its pairs become errors
LAST_ATTEMPT = 2


class RayJudge:
    """A judge whose workers fill the store; see :class:`unime_kedro.mining.scorer.FillsStore`.

    The judge store and the pictures must lie in the same place on all machines. A worker or machine that dies costs the
    chunk in its hands, which another one judges anew. Scores are those of the judge that ``make`` makes, bit by bit
    where that one's do not depend on what it judges side by side, and so is the store's key.

    Args:
        make: Makes the judge on a worker; can be pickled.
        options: Where workers run.
        chunk_pairs: Pairs that a worker gets at a time, in whole queries.

    Raises:
        ConfigurationError: If Ray is not installed, does not answer, or has no room for a worker.
        ModelError: If the model cannot be read on a worker.
    """

    def __init__(self, make: MakeJudge, options: ClusterOptions, *, chunk_pairs: int = 2048) -> None:
        self._make, self._options, self._chunk_pairs = make, options, chunk_pairs
        self._connected = connect(options)
        self._pool = pool_of_workers(options)
        self._figures: list[dict[str, float]] = []
        self._workers: set[str] = set()
        self._identity: dict[str, Any] = on_a_worker(_identity_of, make, options)

    def identity(self) -> dict[str, Any]:
        """Return what the worker's judge says: dtype and device are a worker's and not those of this machine."""
        return self._identity

    def metrics(self) -> dict[str, float]:
        """Return the worker's counts, summed; and ``workers``, how many took part."""
        return {**total(self._figures), "workers": len(self._workers)}

    def close(self) -> None:
        """Leave the cluster if it was this object that came."""
        if self._connected:
            disconnect()
            self._connected = False

    def fill_store(self, missing: pl.DataFrame, contents: Sequence[Content], store: JudgeStore) -> Iterator[int]:
        """Judge ``missing`` into ``store.folder``; yields how many more pairs are on disk.

        Raises:
            ConfigurationError: If a worker's machine does not have the store's folder, or its judge is another one.
            ModelError: If the model cannot be read on a worker.
        """
        import ray.data

        ray.data.DataContext.get_current().execution_options.preserve_order = False
        chunks = [chunk.to_arrow() for chunk in chunks_of(missing, self._chunk_pairs)]
        todo = ray.data.from_arrow(chunks).map_batches(
            JudgeWorker,
            fn_constructor_args=(
                self._make,
                judge_key(self._identity),
                str(store.folder.parent.resolve()),
                put_contents(contents),
                start_attempts(),
            ),
            batch_size=None,
            batch_format="pyarrow",
            zero_copy_batch=True,
            **self._pool,
        )
        with ray_errors():
            for row in todo.iter_rows():
                if row["error"]:
                    raise unpack(row["error"])
                self._workers.add(row["worker"])
                self._figures.append(json.loads(row["figures"]))
                yield row["pairs"]


class JudgeWorker:
    """One worker: judges chunks of queries, and writes what it finds."""

    def __init__(self, make: MakeJudge, key: str, root: str, contents: Any, attempts: Any) -> None:
        self._attempts = attempts
        _, self._error = tried(self._begin, make, key, Path(root), contents)

    def _begin(self, make: MakeJudge, key: str, root: Path, contents: Any) -> None:
        self._judge = make()
        self._store = open_store(root, key, self._judge.identity())
        self._contents = Contents(contents)

    def __call__(self, chunk: pa.Table) -> pa.Table:
        """Judge a chunk; what is returned says only how it went."""
        found, error = (None, self._error) if self._error else tried(self._judged, chunk)
        pairs, figures = found or (0, {})
        said = {"pairs": pairs, "worker": worker_name(), "figures": json.dumps(figures), "error": error}
        return pa.Table.from_pylist([said])

    def _judged(self, chunk: pa.Table) -> tuple[int, dict[str, float]]:
        groups = pl.from_arrow(chunk)
        assert isinstance(groups, pl.DataFrame)
        before = self._judge.metrics()
        key = "\n".join(groups["query_key"])
        if begin(self._attempts, key):
            self._one_by_one(groups)
        else:
            self._together(groups)
        return int(groups["item_id"].list.len().sum()), difference(self._judge.metrics(), before)

    def _together(self, groups: pl.DataFrame) -> None:
        wanted = [
            (self._contents[query], [self._contents[item] for item in found])
            for query, found in zip(groups["query_item_id"].to_list(), groups["item_id"].to_list(), strict=True)
        ]
        keys = zip(groups["query_key"].to_list(), groups["candidate_key"].to_list(), strict=True)
        with self._store:
            for (query_key, candidate_keys), found in zip(keys, self._judgements(wanted), strict=True):
                self._store.add(rows_of(query_key, candidate_keys, found))

    def _judgements(self, wanted: list[tuple[Content, list[Content]]]) -> Iterator[Judgements]:
        from unime_kedro.mllm.vllm_process import EngineLostError

        try:
            yield from self._judge.judge_all(wanted)
        except EngineLostError:
            # A worker is its engine: let Ray start another. What was judged goes to the disk first.
            self._store.flush()
            os._exit(1)

    def _one_by_one(self, groups: pl.DataFrame) -> None:
        """Judge a chunk that an earlier worker died with, so that a query that kills workers is found and left out."""
        for row in range(len(groups)):
            group = groups[row]
            query_key = group["query_key"][0]
            deaths = begin(self._attempts, query_key)
            if deaths == DONE:
                continue
            if deaths < LAST_ATTEMPT:
                self._together(group)
            else:
                self._give_up(group)
            done(self._attempts, query_key)

    def _give_up(self, group: pl.DataFrame) -> None:
        keys = group["candidate_key"][0].to_list()
        nothing = np.full(len(keys), np.nan, dtype=np.float32)
        reason = f"{LAST_ATTEMPT + 1} workers died while they judged this query"
        with self._store:
            self._store.add(rows_of(group["query_key"][0], keys, Judgements(nothing, nothing, [reason] * len(keys))))


def chunks_of(missing: pl.DataFrame, pairs: int) -> Iterator[pl.DataFrame]:
    """Cut a table of queries into pieces of about so many pairs.

    Args:
        missing: A row per query, ``item_id`` a list.
        pairs: A piece ends with the query that reaches this many.
    """
    ends = missing["item_id"].list.len().cast(pl.Int64).cum_sum().to_numpy()
    start = 0
    while start < len(missing):
        before = ends[start - 1] if start else 0
        stop = min(int(np.searchsorted(ends, before + pairs)) + 1, len(missing))
        yield missing[start:stop]
        start = stop


def open_store(root: Path, key: str, identity: dict[str, Any]) -> JudgeStore:
    """Open the store that the run reads, on a worker.

    Args:
        root: Folder of all judges' stores.
        key: The store's folder in it.
        identity: Of the worker's judge.

    Raises:
        ConfigurationError: If the worker's judge is another one.
        DataError: If the folder is not there.
    """
    if judge_key(identity) != key:
        raise ConfigurationError(
            f"the judge of worker {platform.node()} gives other scores than that of the first one asked: {identity}. "
            "Machines of one run must have the same model, and the same kind of device or an explicit dtype."
        )
    if not (root / key / "judge.json").is_file():
        raise DataError(
            f"worker {platform.node()} does not see the judge store {root / key}: workers write scores there "
            "themselves, so the data root must be a folder that all machines share, under the same path."
        )
    return JudgeStore(root, identity)


def _identity_of(make: MakeJudge) -> dict[str, Any]:
    return make().identity()
