"""Calls of a strategy, by counting."""

from __future__ import annotations

import pytest

from unime_kedro.parameters import StrategyParameters
from unime_kedro.planning.strategy import strategy_share


def share(kind: str, k: int = 50, negatives: int = 10, **options: object) -> tuple[list[float], list[str]]:
    values = {"look": 4, "calls_per_query": 15.0, "band": 0.1, "selection": None} | options
    small = {"model": "m", "revision": None, "min_pixels": None, "max_pixels": None} if kind == "cascade" else None
    found, said = strategy_share(StrategyParameters(kind=kind, small=small, **values), k, negatives)
    return [value * (k + 1) for value in (found.low, found.middle, found.high)], said


def test_calls_per_query() -> None:
    assert share("exhaustive") == (pytest.approx([51, 51, 51]), [])
    assert share("budget")[0] == pytest.approx([16, 16, 16])
    assert share("budget", k=9)[0] == pytest.approx([10, 10, 10])
    # the positive and ten; four looked at besides; the whole pool at most
    assert share("lazy")[0] == pytest.approx([11, 15, 51])
    assert share("lazy", look=20)[0] == pytest.approx([21, 31, 51])
    assert share("lazy", k=8)[0] == pytest.approx([9, 9, 9])
    calls, said = share("cascade")
    assert calls == pytest.approx([11, 11, 51])
    assert "the small judge's calls are not in this" in said
