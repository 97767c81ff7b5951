"""Which tables were made from which: ids mean nothing in a table that belongs to another corpus.

Every stage leaves a small record of what it was made from beside its table. The next stage compares it with what it is
given, so that a pool of yesterday's corpus is an error today and not a set of plausible wrong numbers.
"""

from __future__ import annotations

import hashlib

import polars as pl

from unime_kedro.errors import DataError


def table_digest(*frames: pl.DataFrame) -> str:
    """Return a hash over the values of tables, rows and columns in their order; 32 hex digits."""
    digest = hashlib.blake2b(digest_size=16)
    for frame in frames:
        for name in frame.columns:
            column = frame[name]
            digest.update(f"{name}:{column.dtype}:{len(column)}".encode())
            if column.dtype == pl.String:
                lengths = column.str.len_bytes().fill_null(-1).cast(pl.Int64)
                digest.update(lengths.to_numpy().tobytes())
                digest.update(column.str.join("").item().encode() if len(column) else b"")
            else:
                digest.update(
                    column.cast(pl.UInt8 if column.dtype == pl.Boolean else column.dtype).to_numpy().tobytes()
                )
    return digest.hexdigest()


def corpus_digest(items: pl.DataFrame, queries: pl.DataFrame) -> str:
    """Return a hash of what ids mean: contents of the items, items of the queries."""
    return table_digest(
        items.sort("item_id").select("item_id", "content_key"),
        queries.sort("query_id").select("query_id", "item_id", "positive_item_id"),
    )


def check_lineage(made_from: dict[str, str], current: dict[str, str], table: str, remedy: str) -> None:
    """Make sure that a table was made from the tables it is about to be joined with.

    Args:
        made_from: What the table's stage recorded: name -> digest.
        current: The same of the tables at hand.
        table: Name of the table, for the message.
        remedy: The command that makes everything agree again.

    Raises:
        DataError: If they differ.
    """
    stale = [name for name, digest in current.items() if made_from.get(name) != digest]
    if stale:
        raise DataError(
            f"{table} was made from another {' and another '.join(stale)} than the one on disk now, so that its ids "
            f"mean other things. Run `{remedy}` to make them agree."
        )
