"""How certain a number is: bootstrap intervals, of rows or of whole groups of rows.

Rows that share a query, a picture or a person are not independent. Given their ``groups``, whole groups are drawn with
replacement instead of rows (the cluster bootstrap), and the interval is as wide as it ought to be. (scipy's
``bootstrap`` draws single rows only; for those the two agree.)

Shares of right answers, and other means of values between 0 and 1, have an interval of their own form
(:func:`share_interval`): between percentiles of resamples, the true value lies too seldom where nearly all answers are
right, and never where all are.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

log = logging.getLogger(__name__)

#: A function of as many (m,) arrays as are given to the bootstrap, or "mean", which is fast and takes one array.
Statistic = Callable[..., float] | Literal["mean"]

#: numbers drawn at a time for means; bounds the memory (8 bytes each, and as much for what they pick)
_DRAWN = 1 << 21
#: how far outside its bounds rounding may leave a mean
_ROUNDING = 1e-9
#: variance that rounding leaves of equal resamples
_NO_VARIANCE = 1e-20
#: a larger share of undefined resamples than this is worth a warning
_UNDEFINED = 0.05


class Interval(NamedTuple):
    """A value and its confidence interval.

    Attributes:
        value: The statistic of all rows.
        low: Lower end; NaN where the statistic is undefined in every resample.
        high: Upper end, likewise.
        n: How many units were drawn in each resample: groups where there are groups, else rows.
    """

    value: float
    low: float
    high: float
    n: int


def bootstrap_interval(
    statistic: Statistic,
    *arrays: ArrayLike,
    groups: ArrayLike | None = None,
    level: float = 0.95,
    resamples: int = 1000,
    seed: int | Sequence[int] = 0,
) -> Interval:
    """Return a statistic with its percentile bootstrap interval (Efron and Tibshirani 1993, chapter 13).

    The result depends on the seed and on which rows there are, not on their order. Where all rows are equal, as when
    every query is right, the interval has no width: resampling cannot show what was never seen. For means of values
    between 0 and 1 take :func:`share_interval`.

    Args:
        statistic: Function of the arrays, or ``"mean"`` (``np.mean`` is taken for it), much faster than any function.
        *arrays: (n,) each; rows stay together. For rows that are vectors, pass their indices.
        groups: (n,) labels; rows of one label are drawn together.
        level: Share of the resamples' values between the two ends.
        resamples: How many resamples are drawn.
        seed: Seed of the drawing, as for ``numpy.random.default_rng``.

    Returns:
        The value and its interval. Resamples in which a statistic is undefined (NaN, as a ROC AUC of one class) are
        left out; more than 5 % of them are worth a logged warning.

    Raises:
        ValueError: If there are no rows, the lengths differ, an argument is out of range, or the array of a mean has
            NaN.
    """
    if not 0 < level < 1:
        raise ValueError(f"level must lie between 0 and 1, is {level}")
    sample = _Sample(statistic, arrays, groups)
    return percentile_interval(sample.value, sample.draw(resamples, seed), level, len(sample.starts))


def bootstrap_draws(
    statistic: Statistic,
    *arrays: ArrayLike,
    groups: ArrayLike | None = None,
    resamples: int = 1000,
    seed: int | Sequence[int] = 0,
) -> NDArray[np.float64]:
    """Return the statistic of every resample, (resamples,) float64; see :func:`bootstrap_interval`.

    For intervals of what is computed from several independent samples, such as a mean over data sets.
    """
    return _Sample(statistic, arrays, groups).draw(resamples, seed)


def percentile_interval(value: float, draws: ArrayLike, level: float, n: int) -> Interval:
    """Return the interval that holds the middle ``level`` of the resamples' values.

    Args:
        value: The statistic of all rows.
        draws: (resamples,) from :func:`bootstrap_draws`; NaN is left out.
        level: Between 0 and 1.
        n: How many units were resampled.
    """
    array = np.asarray(draws, dtype=np.float64)
    defined = array[~np.isnan(array)]
    if not defined.size:
        return Interval(value, float("nan"), float("nan"), n)
    if defined.size < (1 - _UNDEFINED) * array.size:
        log.warning(
            "The statistic is undefined in %d of %d resamples, which are left out of its interval: too few rows of a "
            "kind to say how certain it is.",
            *(array.size - defined.size, array.size),
        )
    low, high = np.quantile(defined, [(1 - level) / 2, (1 + level) / 2])
    return Interval(value, float(low), float(high), n)


def share_interval(value: float, draws: ArrayLike, level: float, n: int) -> Interval:
    """Return the interval of a mean of values between 0 and 1 by the score method, its spread from a bootstrap.

    Wilson's interval (1927, Journal of the American Statistical Association 22, 209-212) of ``m`` independent answers,
    where ``m`` is the number that would be as uncertain as the resamples: value (1 - value) / variance of the draws.
    Dependent rows and values between 0 and 1 come in through that variance (Kott and Carr 1997, Journal of Official
    Statistics 13, 337-348); Student's t takes the place of the normal distribution for few units. Where no resample
    differs, as when every answer is right, it is Wilson's interval of ``n`` independent answers.

    In simulations (``benchmarks/check_statistics.py``) an interval of 95 % held the true share in .94 to .97 of cases:
    .5, .8, .95 and .98 of 100 and of 1,000 queries, and queries in 20 to 200 groups. That between the percentiles of
    the resamples did so in .96 and .87 of cases for .95 and .98 of 100 queries.

    Args:
        value: The mean, between 0 and 1.
        draws: (resamples,) the mean in every resample, from :func:`bootstrap_draws`.
        level: Between 0 and 1.
        n: How many units were resampled.

    Raises:
        ValueError: If the value is not between 0 and 1.
    """
    from scipy.stats import norm, t

    if not -_ROUNDING <= value <= 1 + _ROUNDING:
        raise ValueError(f"a mean of values between 0 and 1 was expected, got {value}")
    mean, variance = float(np.clip(value, 0, 1)), float(np.var(np.asarray(draws, dtype=np.float64)))
    size, z = float(n), float(norm.ppf((1 + level) / 2))
    if variance > _NO_VARIANCE:
        # a resample of n units varies by (n - 1) / n of what a new sample of n would
        size = mean * (1 - mean) / variance * (1 - 1 / n)
        z = float(t.ppf((1 + level) / 2, n - 1))
    middle = (mean + z**2 / (2 * size)) / (1 + z**2 / size)
    reach = z * np.sqrt(mean * (1 - mean) / size + z**2 / (4 * size**2)) / (1 + z**2 / size)
    low, high = max(0.0, float(middle - reach)), min(1.0, float(middle + reach))
    # rounding could leave the value just outside
    return Interval(value, min(low, value), max(high, value), n)


def mean_share_interval(
    values: Sequence[float], draws: Sequence[ArrayLike], units: Sequence[int], level: float
) -> Interval:
    """Return the unweighted mean over data sets of :func:`share_interval`'s values, with its interval.

    The same form, its spread from the resamples' means over data sets. What a data set whose resamples are all equal
    could still hold is added (method of variance estimates recovery: Zou and Donner 2008, Statistics in Medicine 27,
    1693-1702), which makes the interval cautious where data sets are small and nearly all right: 95 % were .93 to .97
    in simulations of 2 to 36 data sets of 50 to 1,000 queries, .99 with one of ten queries. Of one data set it is that
    one's own.

    Args:
        values: Value of each data set, at least one.
        draws: (resamples,) of each, as many for all; each was resampled within itself.
        units: How many units of each were resampled.
        level: Between 0 and 1.
    """
    each = [share_interval(*one, level, n) for one, n in zip(zip(values, draws, strict=True), units, strict=True)]
    if len(each) == 1:
        return each[0]
    value, n = float(np.mean(values)), sum(units)
    drawn = [np.asarray(part, dtype=np.float64) for part in draws]
    fixed = [one for one, part in zip(each, drawn, strict=True) if part.var() <= _NO_VARIANCE]
    whole = Interval(value, value, value, n)
    if len(fixed) < len(each):
        whole = share_interval(value, np.mean(drawn, axis=0), level, n)
    below = [(one.value - one.low) / len(each) for one in fixed]
    above = [(one.high - one.value) / len(each) for one in fixed]
    low = max(0.0, float(value - np.hypot.reduce([value - whole.low, *below])))
    high = min(1.0, float(value + np.hypot.reduce([whole.high - value, *above])))
    return Interval(value, min(low, value), max(high, value), n)


class _Sample:
    """Rows in an order of their own, so that the order in which they came does not matter, cut into groups."""

    def __init__(self, statistic: Statistic, arrays: Sequence[ArrayLike], groups: ArrayLike | None) -> None:
        columns = _columns(arrays, groups)
        # numbered, because labels of any type can be told apart, and not every type can be sorted together with others
        labels = np.unique(columns.pop(), return_inverse=True)[1] if groups is not None else None
        order = np.lexsort([*columns[::-1], *([] if labels is None else [labels])])
        self.columns = [column[order] for column in columns]
        self.starts = np.arange(len(order)) if labels is None else _starts(labels[order])
        self.sizes = np.diff(np.append(self.starts, len(order)))
        self.statistic = None if statistic == "mean" or statistic is np.mean else statistic
        if self.statistic is None:
            self._check_mean()

    @property
    def value(self) -> float:
        """The statistic of all rows."""
        return float(self.columns[0].mean() if self.statistic is None else self._call(self.columns))

    def draw(self, resamples: int, seed: int | Sequence[int]) -> NDArray[np.float64]:
        """Return the statistic of every resample."""
        if resamples < 1:
            raise ValueError(f"resamples must be at least 1, is {resamples}")
        rng = np.random.default_rng(seed)
        if self.statistic is None:
            return self._draw_means(resamples, rng)
        n, draws = len(self.starts), np.empty(resamples)
        for i in range(resamples):
            rows = self._rows(rng.integers(0, n, size=n))
            draws[i] = self._call([column[rows] for column in self.columns])
        return draws

    def _draw_means(self, resamples: int, rng: np.random.Generator) -> NDArray[np.float64]:
        """Draw sums and sizes of groups: what a mean needs of them."""
        sums, n, draws = np.add.reduceat(self.columns[0], self.starts), len(self.starts), np.empty(resamples)
        single = bool((self.sizes == 1).all())
        step = max(1, _DRAWN // n)
        for start in range(0, resamples, step):
            part = slice(start, min(start + step, resamples))
            picked = rng.integers(0, n, size=(part.stop - part.start, n))
            rows = n if single else self.sizes[picked].sum(axis=1)
            draws[part] = sums[picked].sum(axis=1) / rows
        return draws

    def _rows(self, picked: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the rows of the picked groups, group after group."""
        sizes = self.sizes[picked]
        before = np.cumsum(sizes) - sizes
        return np.arange(sizes.sum()) + np.repeat(self.starts[picked] - before, sizes)

    def _call(self, columns: Sequence[NDArray]) -> float:
        assert callable(self.statistic)
        return float(self.statistic(*columns))

    def _check_mean(self) -> None:
        if len(self.columns) != 1:
            raise ValueError(f"a mean takes one array, got {len(self.columns)}")
        self.columns = [self.columns[0].astype(np.float64)]
        if missing := int(np.isnan(self.columns[0]).sum()):
            raise ValueError(f"the array holds {missing} NaN; drop or replace them first")


def _columns(arrays: Sequence[ArrayLike], groups: ArrayLike | None) -> list[NDArray]:
    """Return arrays and groups as (n,) arrays of one length n > 0."""
    if not arrays:
        raise ValueError("expected at least one array to resample")
    columns = [np.asarray(array) for array in (*arrays, *([] if groups is None else [groups]))]
    shapes = [column.shape for column in columns]
    if any(len(shape) != 1 for shape in shapes) or len(set(shapes)) > 1:
        names = "arrays have" if groups is None else "arrays and, last, groups have"
        raise ValueError(f"expected arrays of one dimension and one length; {names} the shapes {shapes}")
    if shapes[0] == (0,):
        raise ValueError("there are no rows to resample")
    return columns


def _starts(labels: NDArray) -> NDArray[np.int64]:
    """Return where each group of equal, adjacent labels begins."""
    return np.flatnonzero(np.append(True, labels[1:] != labels[:-1]))
