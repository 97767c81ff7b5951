"""Numbers that are not known exactly."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Interval:
    """A number between two others; all of them at least 0.

    Attributes:
        low: Lower end.
        middle: Best guess.
        high: Upper end.
    """

    low: float
    middle: float
    high: float

    def __post_init__(self) -> None:
        if not 0 <= self.low <= self.middle <= self.high:
            raise ValueError(f"expected 0 <= low <= middle <= high, got {self.low}, {self.middle}, {self.high}")

    @classmethod
    def exactly(cls, value: float) -> Interval:
        """Return a number that is known."""
        return cls(value, value, value)

    @classmethod
    def of_draws(cls, value: float, draws: NDArray[np.float64], level: float = 0.95) -> Interval:
        """Return the percentile interval of a resampled figure.

        Args:
            value: The figure of the sample itself.
            draws: (resamples,) the figure of each resample.
            level: Share of the draws inside.
        """
        low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2])
        return cls(max(0.0, min(float(low), value)), value, max(float(high), value))

    @property
    def is_exact(self) -> bool:
        """Whether both ends are the same."""
        return self.low == self.high

    def __add__(self, other: Interval) -> Interval:
        """Add end by end: the sum's interval if both are wrong in the same direction, the widest."""
        return Interval(self.low + other.low, self.middle + other.middle, self.high + other.high)

    def __mul__(self, other: Interval | float) -> Interval:
        """Multiply end by end; a plain number is exact."""
        if not isinstance(other, Interval):
            other = Interval.exactly(other)
        return Interval(self.low * other.low, self.middle * other.middle, self.high * other.high)

    def over(self, speed: Interval) -> Interval:
        """Divide by a speed, whose high end gives the low end."""
        return Interval(self.low / speed.high, self.middle / speed.middle, self.high / speed.low)

    def as_dict(self) -> dict[str, float]:
        """Return the three numbers by name."""
        return {"low": self.low, "middle": self.middle, "high": self.high}


def total(parts: Iterable[Interval]) -> Interval:
    """Add intervals up, from zero."""
    found = Interval.exactly(0.0)
    for part in parts:
        found = found + part
    return found


def bootstrap_rows(n: int, seed: int, resamples: int = 1000) -> NDArray[Any]:
    """Return rows drawn with replacement, (resamples, n) int64, the same for the same seed."""
    return np.random.default_rng(seed).integers(0, n, size=(resamples, n))
