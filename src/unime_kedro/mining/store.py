"""Append-only store of judge scores.

A folder per judge, named by a hash of everything the scores depend on (model, revision, prompt, precision). In it,
immutable parquet shards of (query content, candidate content) -> logits or error. A shard appears whole or not at all,
so a writer may be killed at any moment and several writers may work side by side. Nothing is ever overwritten.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
import uuid
from pathlib import Path
from typing import Any

import polars as pl

from unime_kedro.atomic import atomic_write, save_parquet
from unime_kedro.errors import DataError

SCHEMA = {
    "query_key": pl.String,
    "candidate_key": pl.String,
    "yes_logit": pl.Float32,
    "no_logit": pl.Float32,
    "error": pl.String,
}


def judge_key(identity: dict[str, Any]) -> str:
    """Return the store's folder name for a judge: 16 hex digits of a hash of its identity."""
    text = json.dumps(identity, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


class JudgeStore:
    """Scores of one judge.

    Args:
        root: Folder of all judges' stores.
        identity: Everything the scores depend on besides the contents.
        flush_seconds: Rows added reach the disk at least this often.
    """

    def __init__(self, root: Path, identity: dict[str, Any], flush_seconds: float = 10.0) -> None:
        self.folder = Path(root) / judge_key(identity)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.flush_seconds = flush_seconds
        self._rows: list[pl.DataFrame] = []
        self._last = time.monotonic()
        card = self.folder / "judge.json"
        if not card.exists():
            with atomic_write(card) as path:
                path.write_text(json.dumps(identity, indent=1, default=str) + "\n", encoding="utf-8")

    def read(self) -> pl.DataFrame:
        """Return all rows on disk, one per pair: a score if there is one, otherwise the newest error.

        Of several scores of one pair (two writers at once) the first by shard name counts.

        Raises:
            DataError: If a shard cannot be read (it was damaged after it was written).
        """
        frames = []
        for shard in sorted(self.folder.glob("shard-*.parquet")):
            try:
                frames.append(pl.read_parquet(shard).select(list(SCHEMA)))
            except (OSError, pl.exceptions.PolarsError) as error:
                raise DataError(
                    f"shard {shard} of the judge store is damaged ({error}). Delete this file: its pairs will be "
                    "judged again, everything else is kept."
                ) from error
        if not frames:
            return pl.DataFrame(schema=SCHEMA)
        rows = pl.concat(frames).with_row_index("age")
        # scores before errors; the oldest score, but the newest error
        rows = rows.with_columns(failed=pl.col("error") != "").with_columns(
            order=pl.when("failed").then(-pl.col("age").cast(pl.Int64)).otherwise(pl.col("age").cast(pl.Int64))
        )
        return (
            rows.sort("failed", "order")
            .unique(["query_key", "candidate_key"], keep="first", maintain_order=True)
            .select(list(SCHEMA))
        )

    def add(self, rows: pl.DataFrame) -> None:
        """Add judged pairs (columns of ``SCHEMA``); written to disk from time to time."""
        self._rows.append(rows.select([pl.col(name).cast(kind) for name, kind in SCHEMA.items()]))
        if time.monotonic() - self._last >= self.flush_seconds:
            self.flush()

    def flush(self) -> None:
        """Write what was added since the last flush as one new shard."""
        self._last = time.monotonic()
        if not self._rows:
            return
        rows, self._rows = pl.concat(self._rows), []
        name = f"shard-{time.time_ns():020d}-{os.getpid()}-{uuid.uuid4().hex[:8]}.parquet"
        save_parquet(rows, self.folder / name)

    def __enter__(self) -> JudgeStore:
        return self

    def __exit__(self, *error: object) -> None:
        # Also after an error or Ctrl-C: what was judged is paid for and kept.
        self.flush()
