"""How much of the exact pool an approximate index finds."""

from __future__ import annotations

from statistics import NormalDist

import numpy as np
import polars as pl
from numpy.typing import NDArray

LEVEL = 0.95


def sample_queries(queries: pl.DataFrame, n: int, seed: int) -> pl.DataFrame:
    """Return ``n`` queries drawn at random, or all; which ones does not depend on the order of the rows."""
    ids = np.sort(queries["query_id"].to_numpy())
    chosen = np.random.default_rng(seed).choice(ids, min(n, len(ids)), replace=False)
    return queries.filter(pl.col("query_id").is_in(chosen.tolist()))


def recall_per_query(pool: pl.DataFrame, exact: pl.DataFrame) -> NDArray[np.float64]:
    """Return for every query of the exact pool which share of it the other pool has.

    Args:
        pool: query_id, item_id; may have more queries.
        exact: The same columns. A query without members is not there and has no recall.

    Returns:
        (n_queries,), in [0, 1], in ascending order of query_id.
    """
    keys = ["query_id", "item_id"]
    found = exact.join(pool.select(keys).with_columns(found=pl.lit(True)), on=keys, how="left")
    shares = found.group_by("query_id").agg(pl.col("found").fill_null(False).mean()).sort("query_id")
    return shares["found"].to_numpy().astype(np.float64)


def recall_with_interval(shares: NDArray[np.float64], level: float = LEVEL) -> dict[str, float]:
    """Return the mean of shares and its interval by the score method.

    Wilson's interval (1927, Journal of the American Statistical Association 22, 209-212) of the number of independent
    answers that would be as uncertain as the mean is, from the variance between queries: members of one pool are found
    or missed together. Where all shares are equal, as when nothing is missed, that of the number of queries.

    Args:
        shares: (n,), in [0, 1], at least one.
        level: Between 0 and 1.

    Returns:
        value, low, high.
    """
    mean, n = float(shares.mean()), len(shares)
    variance = float(shares.var(ddof=1)) / n if n > 1 else 0.0
    size = mean * (1 - mean) / variance if variance > 0 else float(n)
    z = NormalDist().inv_cdf((1 + level) / 2)
    middle = (mean + z**2 / (2 * size)) / (1 + z**2 / size)
    reach = z * (mean * (1 - mean) / size + z**2 / (4 * size**2)) ** 0.5 / (1 + z**2 / size)
    return {"value": mean, "low": max(0.0, min(mean, middle - reach)), "high": min(1.0, max(mean, middle + reach))}
