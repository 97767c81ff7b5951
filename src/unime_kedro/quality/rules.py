"""The kinds of rule a table can be held to.

A rule is written once and read twice: by polars, which finds the rows that break it in a table of any size, and by
Great Expectations, which judges the rows it is shown and documents the result. Nulls and NaN break the rule that
forbids them and no other, so that one fault is reported once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import polars as pl


@dataclass(frozen=True)
class Rule:
    """One rule of a suite.

    Attributes:
        name: Short and unique within its suite, for example ``similarity_is_a_cosine``.
        meaning: The rule in plain English.
        expectation: Class name of the Great Expectations built-in that judges it.
        arguments: Its keyword arguments.
        columns: The columns it reads, shown in sample rows; the first is the one it is about. Empty: the whole table.
        breaks: True on the rows that break it; None for rules about the whole table.
        problem: For rules about the whole table: what is wrong, None when nothing is.
        about_absent: Whether it counts rows that are missing, not rows that are there.
    """

    name: str
    meaning: str
    expectation: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    columns: tuple[str, ...] = ()
    breaks: pl.Expr | None = None
    problem: str | None = None
    about_absent: bool = False


def not_null(column: str) -> Rule:
    """No value of ``column`` is missing: neither null nor NaN."""
    return Rule(
        name=f"{column}_is_present",
        meaning=f"{column} is never null or NaN",
        expectation="ExpectColumnValuesToNotBeNull",
        arguments={"column": column},
        columns=(column,),
        breaks=pl.col(column).is_null(),
    )


def not_empty(column: str) -> Rule:
    """No text of ``column`` is empty."""
    return Rule(
        name=f"{column}_is_not_empty",
        meaning=f"{column} is never the empty text",
        expectation="ExpectColumnValueLengthsToBeBetween",
        arguments={"column": column, "min_value": 1},
        columns=(column,),
        breaks=(pl.col(column) == "").fill_null(False),
    )


def between(
    name: str,
    column: str,
    low: float | None,
    high: float | None,
    meaning: str,
    *,
    shown: Sequence[str] = (),
) -> Rule:
    """Every value of ``column`` lies in [low, high]; None stands for no bound.

    ``shown``: more columns for the sample rows, here and below.
    """
    bounds = {"min_value": low, "max_value": high}
    below = pl.lit(False) if low is None else pl.col(column) < low
    above = pl.lit(False) if high is None else pl.col(column) > high
    return Rule(
        name=name,
        meaning=meaning,
        expectation="ExpectColumnValuesToBeBetween",
        arguments={"column": column} | {key: value for key, value in bounds.items() if value is not None},
        columns=(column, *shown),
        breaks=(below | above).fill_null(False),
    )


def in_set(name: str, column: str, values: Sequence[Any], meaning: str, *, shown: Sequence[str] = ()) -> Rule:
    """Every value of ``column`` is one of ``values``."""
    return Rule(
        name=name,
        meaning=meaning,
        expectation="ExpectColumnValuesToBeInSet",
        arguments={"column": column, "value_set": list(values)},
        columns=(column, *shown),
        breaks=pl.col(column).is_in(list(values)).not_().fill_null(False),
    )


def holds(name: str, column: str, meaning: str, *, shown: Sequence[str] = ()) -> Rule:
    """The Boolean helper ``column`` is true on every row."""
    return in_set(name, column, [True], meaning, shown=shown)


def unique(name: str, column: str, meaning: str) -> Rule:
    """The helper ``column``, how often a row's key occurs in the whole table, is 1 on every row.

    Counted over the whole table, because the rows shown to Great Expectations may hold one of two equal keys only.
    """
    return between(name, column, 1, 1, meaning)


def same(name: str, column: str, expected: str, meaning: str) -> Rule:
    """``column`` equals the helper column ``expected`` on every row."""
    return Rule(
        name=name,
        meaning=meaning,
        expectation="ExpectColumnPairValuesToBeEqual",
        arguments={"column_A": column, "column_B": expected, "ignore_row_if": "either_value_is_missing"},
        columns=(column, expected),
        breaks=(pl.col(column) != pl.col(expected)).fill_null(False),
    )


#: polars type -> the pandas type that Great Expectations sees; of a list's elements it sees none, polars does
PANDAS_TYPES = {
    pl.Int64: "int64",
    pl.Int32: "int32",
    pl.Float32: "float32",
    pl.Boolean: "bool",
    pl.String: "str",
    pl.List(pl.Int64): "list",
    pl.List(pl.Float32): "list",
}


def schema_rules(table: pl.DataFrame, columns: Mapping[str, Any], helpers: Sequence[str] = ()) -> list[Rule]:
    """The table has exactly these columns, each of its type.

    Args:
        table: The table as it was given.
        columns: Name and polars type of every column.
        helpers: Helper columns that Great Expectations finds beside them.

    Returns:
        One rule for the names and one per column that exists. Their ``problem`` is set where the table breaks them.
    """
    missing = [name for name in columns if name not in table.columns]
    surplus = [name for name in table.columns if name not in columns]
    faults = [f"missing: {', '.join(missing)}"] * bool(missing) + [f"unexpected: {', '.join(surplus)}"] * bool(surplus)
    names = Rule(
        name="columns",
        meaning=f"the columns are exactly {', '.join(columns)}",
        expectation="ExpectTableColumnsToMatchSet",
        arguments={"column_set": [*columns, *helpers]},
        problem="; ".join(faults) or None,
    )
    return [names, *(_type_rule(name, columns[name], table.schema[name]) for name in columns if name in table.columns)]


def _type_rule(column: str, expected: Any, found: pl.DataType) -> Rule:
    return Rule(
        name=f"{column}_type",
        meaning=f"{column} is of type {expected}",
        expectation="ExpectColumnValuesToBeOfType",
        arguments={"column": column, "type_": PANDAS_TYPES[expected]},
        columns=(column,),
        problem=None if found == expected else f"{column} is {found}",
    )


def row_count(name: str, rows: int, meaning: str) -> Rule:
    """Great Expectations is shown this many rows."""
    return Rule(name=name, meaning=meaning, expectation="ExpectTableRowCountToEqual", arguments={"value": rows})


def complete(name: str, meaning: str, shown: int, missing: int) -> Rule:
    """No row is missing.

    Great Expectations sees rows that are there only, so it is told how many it should have been shown.
    """
    return Rule(
        name=name,
        meaning=meaning,
        expectation="ExpectTableRowCountToBeBetween",
        arguments={"min_value": shown + missing},
        about_absent=True,
    )


def has_rows(table: pl.DataFrame) -> Rule:
    """The table is not empty."""
    return Rule(
        name="has_rows",
        meaning="the table has at least one row",
        expectation="ExpectTableRowCountToBeBetween",
        arguments={"min_value": 1},
        problem=None if table.height else "the table is empty",
    )
