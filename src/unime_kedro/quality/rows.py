"""Finds the rows that break rules, in tables of any size."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl

from unime_kedro.quality.report import SAMPLES, Failure, sample
from unime_kedro.quality.rules import Rule


def select_rows(frame: pl.DataFrame, rules: Sequence[Rule], max_rows: int) -> tuple[pl.DataFrame, dict[str, int]]:
    """Take the rows to show to Great Expectations.

    Args:
        frame: The whole table with its helper columns.
        rules: The rules of its suite.
        max_rows: How many of the first rows to take, and how many at most of those that break the same rule.

    Returns:
        The first rows and those that break a rule, in the order of the table; and how many rows of the whole table
        break each rule, by rule name.
    """
    by_name = {rule.name: rule.breaks for rule in rules if rule.breaks is not None}
    if not by_name:
        return frame.head(max_rows), {}
    counts = frame.select(breaks.sum().alias(name) for name, breaks in by_name.items()).row(0, named=True)
    broken = [
        frame.select(pl.arg_where(by_name[name]).head(max_rows)).to_series().cast(pl.Int64)
        for name, count in counts.items()
        if count
    ]
    if frame.height <= max_rows or not broken:
        return frame.head(max_rows), counts
    first = pl.int_range(max_rows, dtype=pl.Int64, eager=True)
    return frame[pl.concat([first, *(rows.rename("") for rows in broken)]).unique().sort()], counts


def sample_rows(frame: pl.DataFrame, rule: Rule, keys: Sequence[str]) -> tuple[str, ...]:
    """Write the first few rows that break a rule as readable text.

    Args:
        frame: The whole table with its helper columns.
        rule: A rule about rows.
        keys: The columns that say which row is meant; the columns that the rule reads follow them.
    """
    assert rule.breaks is not None, f"{rule.name} is a rule about the whole table"
    shown = list(dict.fromkeys([*keys, *rule.columns]))
    rows = frame.lazy().filter(rule.breaks).select(shown).head(SAMPLES).collect()
    # as float32 numbers, 0.95 is written 0.95; as Python's, 0.94999998
    single = {name for name, kind in rows.schema.items() if kind == pl.Float32}
    return tuple(
        sample(
            {name: np.float32(value) if name in single and value is not None else value for name, value in row.items()}
        )
        for row in rows.to_dicts()
    )


def sample_missing(keys: pl.DataFrame) -> tuple[str, ...]:
    """Write the first few keys of missing rows as readable text."""
    return tuple(sample(row) for row in keys.head(SAMPLES).to_dicts())


def failure_of(rule: Rule, count: int, rows: tuple[str, ...], found: str | None) -> Failure | None:
    """Describe a broken rule.

    Args:
        rule: The rule.
        count: How many rows of the table break it, or how many are missing.
        rows: Samples of them.
        found: What Great Expectations holds against it, None for nothing. Either verdict suffices.

    Returns:
        The failure, None when the rule holds.
    """
    if not (count or rule.problem or found):
        return None
    column = rule.columns[0] if rule.columns else None
    samples = rows or (rule.problem or str(found),)
    return Failure(rule.name, rule.expectation, rule.meaning, column, count, samples, found, rule.about_absent)
