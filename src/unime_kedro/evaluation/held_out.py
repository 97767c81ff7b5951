"""Validation during training: which training queries to hold out, and sets made of them, for any corpus.

A held-out query is ranked against its positive and positives of other queries of its data set: no candidates beyond the
training data are needed, and none are known to be hard. Such a score tells one training from another; it is no
benchmark's.
"""

from __future__ import annotations

import logging

import numpy as np
import polars as pl
from numpy.typing import ArrayLike, NDArray

from unime_kedro.errors import DataError
from unime_kedro.io.mmeb_eval import EvalSet

log = logging.getLogger(__name__)

VALIDATION = "validation"

_TRAINING = ("query_id", "dataset", "split", "item_id", "positive_item_id")
_ITEMS = ("item_id", "text", "image")

Mask = NDArray[np.bool_]
Ids = NDArray[np.int64]


def choose_validation(datasets: ArrayLike, item_ids: ArrayLike, *, n: int, seed: int) -> Mask:
    """Choose which queries to hold out, each data set in proportion to its size.

    Queries of one content (the same item, in whatever data set) are held out together or not at all: otherwise training
    would see the very query. That a held-out query's positive is also a training query's is let be: one label answers
    many pictures. Not seen here are pairs that are told twice in other words, caption to image and image to caption.

    The choice follows from a hash of seed and item: it does not depend on the order of the rows, and hardly on
    which other rows there are.

    Args:
        datasets: (n_queries,) data set of every query.
        item_ids: (n_queries,) int64, content of every query.
        n: How many to hold out. Data sets get their shares by the largest remainder, ties by name, and at most half of
            their queries, rounded down.
        seed: Seed of the choice.

    Returns:
        (n_queries,) bool. Fewer than ``n`` where half of the queries are fewer, or where queries of one content are
        too many for what is left of a data set's share.

    Raises:
        ValueError: If ``n`` is negative or the lengths differ.
    """
    names, items = np.asarray(datasets), np.asarray(item_ids, dtype=np.int64)
    if n < 0 or names.ndim != 1 or names.shape != items.shape:
        raise ValueError(f"expected n >= 0 and arrays of one length; got n = {n}, shapes {names.shape}, {items.shape}")
    if not n or not items.size:
        return np.zeros(items.shape, dtype=bool)
    _, dataset = np.unique(names, return_inverse=True)  # numbered by name
    left = _shares(np.bincount(dataset), n)
    by_group = np.lexsort([items, _hashed(items, seed)])
    starts = np.flatnonzero(np.append(True, np.diff(items[by_group]) != 0))
    held = np.zeros(items.shape, dtype=bool)
    for rows in np.split(by_group, starts[1:]):
        wanted = np.bincount(dataset[rows], minlength=left.size)
        if (wanted <= left).all():
            held[rows] = True
            left -= wanted
            if not left.any():
                break
    return held


def _shares(sizes: Ids, n: int) -> Ids:
    """Divide ``n`` over data sets of these sizes, (n_datasets,): largest remainder, at most half of each."""
    most = sizes // 2
    n = min(n, int(most.sum()))
    shares = np.minimum(n * sizes // sizes.sum(), most)
    order = np.argsort(-(n * sizes % sizes.sum()), kind="stable")
    while missing := n - int(shares.sum()):
        room = order[shares[order] < most[order]]
        shares[room[:missing]] += 1
    return shares


def _hashed(ids: Ids, seed: int) -> NDArray[np.uint64]:
    """Scramble ids, different ones to different numbers: the function of splitmix64 (Steele, Lea and Flood 2014)."""
    start = np.random.default_rng(seed).integers(0, 1 << 64, dtype=np.uint64, size=1)
    x = start + ids.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def held_out_sets(training: pl.DataFrame, items: pl.DataFrame, *, candidates: int, seed: int) -> list[EvalSet]:
    """Make evaluation sets of held-out training queries.

    A query's candidates are its positive and others of its data set's positives, held out or not, drawn at random:
    never the query itself, nor another positive of the same query item.

    Args:
        training: All queries: query_id, dataset, split (``validation`` for held-out ones), item_id, positive_item_id.
        items: item_id, text, image (path under the image root, "" for none).
        candidates: Candidates per query, the positive included, at least 2; fewer where a data set has fewer.
        seed: Seed of the drawing. Each query has a stream of its own, so that the order of the rows does not matter.

    Returns:
        One set per data set with held-out queries, by name; ``content_id`` is the item's id. Queries without any wrong
        candidate, which every embedder would get right, are left out with a warning, and data sets that have no other.

    Raises:
        DataError: If a column is missing, a query_id occurs twice, or an item that is needed is not in ``items``.
        ValueError: If ``candidates`` is below 2.
    """
    if candidates < 2:
        raise ValueError(f"candidates must be at least 2, is {candidates}")
    _check(training, items)
    held = training.filter(pl.col("split") == VALIDATION).sort("dataset", "query_id")
    same_query = training.join(held.select("item_id").unique(), on="item_id", how="semi")
    known = dict(same_query.group_by("item_id").agg(pl.col("positive_item_id").unique()).iter_rows())
    found: list[EvalSet] = []
    for (name,), queries in held.partition_by("dataset", as_dict=True, maintain_order=True).items():
        pool = training.filter(pl.col("dataset") == name)["positive_item_id"].unique().sort().to_numpy()
        drawn = [
            [positive, *_draw(pool, [item, *known[item]], candidates - 1, [seed, query])]
            for query, item, positive in queries.select("query_id", "item_id", "positive_item_id").iter_rows()
        ]
        rows = queries.select("query_id", content_id="item_id").with_columns(
            candidates=pl.Series(drawn, dtype=pl.List(pl.Int64))
        )
        usable = rows.filter(pl.col("candidates").list.len() > 1)
        if len(usable) < len(rows):
            log.warning(
                "%s: %d of %d held-out queries are not used for validation: the data set has no wrong candidate for "
                "them.",
                *(name, len(rows) - len(usable), len(rows)),
            )
        if len(usable):
            found.append(EvalSet(str(name), _contents(usable, items, str(name)), usable))
    return found


def _draw(pool: Ids, excluded: list[int], n: int, seed: list[int]) -> list[int]:
    """Draw ``n`` different members of a pool that are not excluded; all of them where there are fewer."""
    rng = np.random.default_rng(seed)
    # as many more as could be excluded: what is left of a random order without them is a random order of the others
    places = rng.choice(pool.size, size=min(pool.size, n + len(excluded)), replace=False)
    drawn = pool[places]
    return [int(i) for i in drawn[~np.isin(drawn, excluded)][:n]]


def _contents(queries: pl.DataFrame, items: pl.DataFrame, name: str) -> pl.DataFrame:
    """Return content_id, text, image of everything that queries mention, by content_id."""
    used = pl.concat([queries["content_id"], queries["candidates"].explode()]).unique().sort().rename("content_id")
    contents = used.to_frame().join(items.select("text", "image", content_id="item_id"), on="content_id", how="left")
    missing = contents.filter(pl.col("text").is_null() | pl.col("image").is_null())["content_id"]
    if len(missing):
        raise DataError(
            f"items: {len(missing)} of {len(contents)} items that held-out queries of {name} need have no row, no text "
            f"or no image path, for example item_id {missing[0]}. Expected the items that training was made from."
        )
    return contents.sort("content_id")


def _check(training: pl.DataFrame, items: pl.DataFrame) -> None:
    """Refuse tables with missing columns or queries twice."""
    for what, table, columns in (("training", training, _TRAINING), ("items", items, _ITEMS)):
        if missing := [column for column in columns if column not in table.columns]:
            raise DataError(f"{what} has no column {', '.join(missing)}; expected {', '.join(columns)}.")
        key = columns[0]
        if twice := table.filter(pl.col(key).is_duplicated())[key].to_list():
            raise DataError(f"{what}: {key} {min(twice)} occurs more than once; expected one row each.")
