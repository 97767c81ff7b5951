"""Queries with their right target and other candidates as rows of cards, for notebooks."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from unime_kedro.errors import DataError
from unime_kedro.io.page_parts import environment, face
from unime_kedro.io.pictures import PAGE_BYTES, Pictures


def cards(
    shown: pl.DataFrame,
    candidates: pl.DataFrame,
    items: pl.DataFrame,
    image_root: str | Path,
    *,
    most: int = 6,
    page_bytes: int = PAGE_BYTES // 4,
) -> str:
    """Show queries in rows: the query, its right target, and candidates beside it, with pictures, words and a note.

    Args:
        shown: query_id, item_id, positive_item_id, note (below the right target); one row each, in their order.
        candidates: query_id, item_id, note, marked (bool: the card is red); in the order in which they are shown.
            Queries that are not in ``shown`` are ignored.
        items: Table ``items``.
        image_root: Folder that the items' pictures are relative to.
        most: How many candidates of a query are shown.
        page_bytes: What the pictures may take together; more of them are shown smaller.

    Returns:
        HTML that needs no other file: to be given to ``IPython.display.HTML``.

    Raises:
        DataError: An item that is to be shown is not in ``items``.
    """
    place = pl.int_range(pl.len()).over("query_id")
    near = candidates.join(shown, on="query_id", how="semi", maintain_order="left").filter(place < most)
    by_query = {key[0]: part.to_dicts() for key, part in near.partition_by("query_id", as_dict=True).items()}
    queries = shown.to_dicts()
    wanted = {row[key] for row in queries for key in ("item_id", "positive_item_id")}
    wanted |= {row["item_id"] for rows in by_query.values() for row in rows}
    pictures = Pictures(image_root, page_bytes)
    faces = {
        row["item_id"]: face(row["text"], row["image"], pictures)
        for row in items.filter(pl.col("item_id").is_in(sorted(wanted))).sort("item_id").to_dicts()
    }
    if missing := sorted(wanted - faces.keys()):
        raise DataError(f"item_id {missing[0]} is to be shown and is not in table 'items'; are both of one corpus?")
    rows = [
        {
            "query_id": query["query_id"],
            "query": faces[query["item_id"]],
            "positive": faces[query["positive_item_id"]],
            "note": query["note"],
            "cards": [{"face": faces[row["item_id"]], **row} for row in by_query.get(query["query_id"], [])],
        }
        for query in queries
    ]
    return environment().get_template("cards.html.j2").render(rows=rows, pictures=dict(pictures.encoded()))
