"""How many of all pairs a strategy of judging asks about."""

from __future__ import annotations

from typing import TYPE_CHECKING

from unime_kedro.planning.interval import Interval

if TYPE_CHECKING:
    from unime_kedro.parameters import StrategyParameters


def strategy_share(strategy: StrategyParameters, k: int, negatives: int) -> tuple[Interval, list[str]]:
    """Return the share of all pairs that a strategy of judging asks about, and what to say of it.

    Args:
        strategy: ``judge.strategy``.
        k: Pool size.
        negatives: Negatives per query.
    """
    if strategy.kind == "exhaustive":
        return Interval.exactly(1.0), []
    if strategy.kind == "budget":
        calls = 1 + min(strategy.calls_per_query, k)
        return Interval.exactly(calls / (k + 1)), [f"judge.strategy budget: {calls:g} calls per query"]
    look = strategy.look if strategy.kind == "lazy" else 0
    low = 1 + min(k, max(look, negatives))
    # what dropped picks cost besides depends on how many there are; with none it is the sum
    share = Interval(low / (k + 1), min(1.0, (1 + look + negatives) / (k + 1)), 1.0)
    said = [f"judge.strategy {strategy.kind}: {low} calls per query and more, by how many false negatives it meets"]
    return share, said + ["the small judge's calls are not in this"] * (strategy.kind == "cascade")
