"""Nodes of pipeline ``ingest``."""

from typing import Any

import polars as pl

from unime_kedro.io.mmeb import read_pairs
from unime_kedro.mining.items import build_items, enforce_reject_share
from unime_kedro.parameters import IngestParameters
from unime_kedro.paths import resolve

Tables = tuple[pl.DataFrame, pl.DataFrame, pl.DataFrame, pl.DataFrame, dict[str, float]]


def ingest_pairs(corpus: dict[str, Any], ingest: IngestParameters) -> Tables:
    """Read pairs of MMEB's layout into tables.

    Args:
        corpus: What the corpus is; an input so that it is written before it is read.
        ingest: Where the pairs are, and how many bad ones are too many.

    Returns:
        rejects, items, queries, candidates and metrics.

    Raises:
        DataError: If the layout is wrong, or more than ``max_reject_share`` of the rows are bad.
    """
    from unime_kedro.minimmeb.tasks import META_TASKS

    pairs = read_pairs(
        resolve(ingest.root),
        ingest.split,
        ingest.datasets,
        {**META_TASKS, **ingest.meta_tasks},
        ingest.rows_per_dataset,
    )
    found = build_items(pairs, resolve(ingest.image_root), check_images=ingest.check_images, workers=ingest.workers)
    enforce_reject_share(found, ingest.max_reject_share)
    return found.rejects, found.items, found.queries, found.candidates, found.metrics
