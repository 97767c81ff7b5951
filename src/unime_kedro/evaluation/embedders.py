"""Put an embedder to data sets in which every query brings its own candidates, as MMEB's do."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import polars as pl

from unime_kedro.evaluation.encoding import (
    CHUNK,
    Embed,
    Ids,
    Vectors,
    contents_to_embed,
    embed_distinct,
    pair_similarities,
)
from unime_kedro.evaluation.scoring import BLOCK_PAIRS, score_tasks
from unime_kedro.evaluation.scoring import PREDICTIONS_SCHEMA as _ALL
from unime_kedro.evaluation.tasks import OwnCandidates
from unime_kedro.mining.images import ProgressFactory

__all__ = [
    "CHUNK",
    "PREDICTIONS_SCHEMA",
    "Embed",
    "EvalTables",
    "Ids",
    "Vectors",
    "contents_to_embed",
    "embed_distinct",
    "evaluate_embedder",
    "own_candidates",
    "pair_similarities",
]

#: of :data:`.scoring.PREDICTIONS_SCHEMA`, without what is the same for all queries that bring their own candidates
PREDICTIONS_SCHEMA = {name: kind for name, kind in _ALL.items() if name not in ("unit", "n_right")}


class EvalTables(Protocol):
    """One data set: :class:`unime_kedro.io.mmeb_eval.EvalSet`, or anything of its form."""

    @property
    def dataset(self) -> str:
        """Its name."""

    @property
    def contents(self) -> pl.DataFrame:
        """content_id Int64 (distinct), text, image (path under the image root, "" for none)."""

    @property
    def queries(self) -> pl.DataFrame:
        """query_id Int64 (distinct), content_id, candidates List[Int64] (content ids, the target first)."""


def own_candidates(one: EvalTables) -> OwnCandidates:
    """Return a data set as :func:`.scoring.score_tasks` takes it, every query a unit of its own."""
    return OwnCandidates(one.dataset, one.contents, one.queries.with_columns(unit="query_id"))


def evaluate_embedder(
    sets: Sequence[EvalTables],
    embed: Embed,
    image_root: str | Path,
    *,
    chunk: int = CHUNK,
    block_pairs: int = BLOCK_PAIRS,
    progress: ProgressFactory | None = None,
) -> pl.DataFrame:
    """Rank every query's own candidates by cosine similarity; see :func:`.scoring.score_tasks`.

    Args:
        sets: Data sets with distinct names.
        embed: The embedder; distinct contents over all sets are embedded once, in a fixed order.
        image_root: Folder that image paths are relative to.
        chunk: Contents per call of ``embed``.
        block_pairs: Pairs compared at a time. Changes memory alone.
        progress: ``unime_kedro.progress.progress`` or alike.

    Returns:
        :data:`PREDICTIONS_SCHEMA`, sorted by dataset and query_id; ``predicted_index`` is 0 where the query is right.

    Raises:
        DataError: As :func:`.scoring.score_tasks`.
        ModelError: Likewise.
    """
    tasks = [own_candidates(one) for one in sets]
    scored = score_tasks(tasks, embed, image_root, top=1, chunk=chunk, block_pairs=block_pairs, progress=progress)
    return scored.predictions.select(list(PREDICTIONS_SCHEMA))
