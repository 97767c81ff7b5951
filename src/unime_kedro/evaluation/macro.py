"""The mean of a measure over the queries of a data set, and its unweighted mean over data sets, with intervals."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from unime_kedro.evaluation.statistics import Interval, bootstrap_draws, mean_share_interval


class Measured(NamedTuple):
    """One measure of one data set.

    Attributes:
        value: Its mean over the queries.
        queries: How many there are.
        units: How many units, which are resampled as a whole, they form.
        draws: (resamples,) float64, the mean in every resample.
    """

    value: float
    queries: int
    units: int
    draws: NDArray[np.float64]


def measure(values: ArrayLike, units: ArrayLike, dataset: str, *, resamples: int, seed: int) -> Measured:
    """Average a measure over the queries of a data set, and over resamples of them.

    Args:
        values: (n,) numbers between 0 and 1 or truth values, one per query; the result does not depend on their order.
        units: (n,) labels; queries of one label are drawn together.
        dataset: Its name, which gives it a random stream of its own, whatever others are there. Measures of one data
            set share it: each resample draws the same units for all of them.
        resamples: How many resamples are drawn.
        seed: Seed of the resampling.

    Raises:
        ValueError: If there are no values.
    """
    array, labels = np.asarray(values, dtype=np.float64), np.asarray(units)
    stream = [seed, zlib.crc32(dataset.encode())]
    draws = bootstrap_draws("mean", array, groups=labels, resamples=resamples, seed=stream)
    # sorted, so that the floating-point sum does not depend on the order of the rows
    return Measured(float(np.sort(array).mean()), len(array), len(np.unique(labels)), draws)


def macro_mean(members: Sequence[Measured], level: float) -> Interval:
    """Return the unweighted mean of data sets with its interval (see :func:`.statistics.mean_share_interval`).

    Args:
        members: At least one; each was resampled within itself, as often as the others.
        level: Level of the interval.
    """
    values, draws, units = zip(*((member.value, member.draws, member.units) for member in members), strict=True)
    return mean_share_interval(values, draws, units, level)
