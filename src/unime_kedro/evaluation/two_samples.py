"""Do two sets of negatives have the same distribution? Kolmogorov and Smirnov's distance, permuted by query.

A query's negatives hang together (they are ten places of one ranking), so negatives are no independent draws and the
textbook test of the distance does not hold. Permuting whole queries keeps what hangs together together. Two questions
can be asked:

``paired``    were labels exchangeable within each query, how often would the distance be so large? Sees the smallest
              systematic difference, since most of a query's negatives are often the same on both sides.
``unpaired``  might both be sets of different queries of one kind? What somebody sees who has only the two tables.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

#: distances are looked for at so many places at most, quantiles of both sets together
GRID = 1024


@dataclass(frozen=True)
class TwoSamples:
    """Outcome of a two-sample test.

    Attributes:
        distance: Largest difference of the two cumulative shares, in [0, 1].
        chance: p-value: share of permutations with a distance at least as large, the observed one counted in.
        critical: The 95 % quantile of the permutations' distances: what would have been noticed.
    """

    distance: float
    chance: float
    critical: float


def two_sample_test(
    first: tuple[NDArray, NDArray],
    second: tuple[NDArray, NDArray],
    *,
    design: Literal["paired", "unpaired"],
    permutations: int = 1999,
    seed: int = 0,
) -> TwoSamples:
    """Compare two sets of values by permuting clusters.

    Args:
        first: Values (n,) and their clusters (n,), such as ranks and query ids.
        second: The other set; for ``paired`` of the same clusters.
        design: What is permuted, see above.
        permutations: How many.
        seed: Of the permutations.

    Returns:
        Distance, p-value, critical distance.

    Raises:
        ValueError: A set is empty, or the clusters of a paired design differ.
    """
    if not len(first[0]) or not len(second[0]):
        raise ValueError("two samples are compared, one is empty")
    if design == "paired" and not np.array_equal(np.unique(first[1]), np.unique(second[1])):
        raise ValueError("a paired design needs the same clusters on both sides")
    grid = _grid(np.concatenate([first[0], second[0]]))
    one, other = _cumulative(*first, grid), _cumulative(*second, grid)
    observed = _distance(one.sum(0), other.sum(0))
    random = np.random.default_rng(seed)
    draw = _paired if design == "paired" else _unpaired
    found = np.array([draw(one, other, random) for _ in range(permutations)])
    # a permutation that gives the observed distance again must not miss it by rounding
    chance = (1 + np.count_nonzero(found >= observed * (1 - 1e-9))) / (1 + permutations)
    return TwoSamples(observed, float(chance), float(np.quantile(found, 0.95)))


def _grid(values: NDArray) -> NDArray:
    distinct = np.unique(values)
    if len(distinct) <= GRID:
        return distinct
    return np.unique(np.quantile(distinct, np.linspace(0, 1, GRID)))


def _cumulative(values: NDArray, clusters: NDArray, grid: NDArray) -> NDArray[np.float64]:
    """Return how many of each cluster's values are at most each place of the grid, (clusters, grid)."""
    names, rows = np.unique(clusters, return_inverse=True)
    columns = np.searchsorted(grid, values, side="left")
    counts = np.bincount(rows * len(grid) + columns, minlength=len(names) * len(grid))
    return np.cumsum(counts.reshape(len(names), len(grid)), axis=1).astype(np.float64)


def _distance(one: NDArray, other: NDArray) -> float:
    """Return the largest difference of two cumulative counts, each as shares of its own total."""
    return float(np.abs(one / one[-1] - other / other[-1]).max())


def _paired(one: NDArray, other: NDArray, random: np.random.Generator) -> float:
    both, apart = (one + other).sum(0) / 2, random.choice([-0.5, 0.5], size=len(one)) @ (one - other)
    return _distance(both + apart, both - apart)


def _unpaired(one: NDArray, other: NDArray, random: np.random.Generator) -> float:
    clusters = np.concatenate([one, other])
    drawn = np.zeros(len(clusters))
    drawn[random.permutation(len(clusters))[: len(one)]] = 1
    found = drawn @ clusters
    return _distance(found, clusters.sum(0) - found)
