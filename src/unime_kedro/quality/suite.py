"""What a suite is, and what the suites of all tables share: reading referenced tables, helper columns.

Rules that concern more than one row or more than one table are brought down to single rows by *helper columns*
computed over the whole table (how often a key occurs, the rank a row should have, the positive of its query). So a
rule can be judged from any part of the rows, and a sample row shows both what is there and what was expected.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from unime_kedro.errors import DataError
from unime_kedro.paths import resolve
from unime_kedro.quality.rules import Rule, has_rows, not_null, row_count, schema_rules

#: table -> the pipeline that makes it
STAGES = {
    **dict.fromkeys(("items", "queries", "candidates"), "ingest"),
    "pool": "pool",
    **dict.fromkeys(("judge_scores", "judge_errors", "judge_coverage"), "judge"),
    **dict.fromkeys(("selection", "skipped", "negatives"), "select"),
    "training": "train",
    "reranking": "rerank",
    **dict.fromkeys(("evaluated_queries", "leaks", "predictions", "rankings"), "evaluate"),
}


class References:
    """The tables that a table refers to, read from disk a few columns at a time.

    Args:
        paths: Name of the table -> its parquet file, relative to the project root.
    """

    def __init__(self, paths: Mapping[str, str]) -> None:
        self.paths = {name: resolve(path) for name, path in paths.items()}

    def read(self, table: str, *columns: str) -> pl.DataFrame:
        """Read columns of a table.

        Raises:
            DataError: The file is missing, unreadable or lacks a column; says which stage makes it.
        """
        path = self.paths[table]
        if not path.is_file():
            raise DataError(f"it refers to table '{table}', and {path} does not exist. {_remedy(table)}")
        try:
            # brackets in a path are no pattern, and `key=value` folders above it no columns
            return pl.read_parquet(path, columns=list(columns), glob=False, hive_partitioning=False)
        except (pl.exceptions.PolarsError, OSError) as error:
            raise DataError(
                f"it refers to table '{table}', and {path} cannot be read: {error}. {_remedy(table)}"
            ) from error

    def ids(self, table: str, column: str) -> pl.Series:
        """Return the distinct values of an id column."""
        return self.read(table, column)[column].unique()

    def once(self, table: str, *columns: str) -> pl.DataFrame:
        """Read ``query_id`` and more columns of a table that has one row per query.

        Raises:
            DataError: The table has a query twice.
        """
        frame = self.read(table, "query_id", *columns)
        if frame["query_id"].is_duplicated().any():
            raise DataError(f"it refers to table '{table}', and {self.paths[table]} has a query_id twice")
        return frame

    def attach(self, frame: pl.DataFrame, table: str, *columns: str) -> pl.DataFrame:
        """Add columns of a table that has one row per query to every row of ``frame``, null for unknown queries.

        Raises:
            DataError: The table has a query twice.
        """
        other = self.once(table, *columns)
        return frame.join(other, on="query_id", how="left", maintain_order="left")


def _remedy(table: str) -> str:
    return f"`kedro run --pipeline={STAGES[table]}` makes it."


#: computes the helper columns: (table, references, wanted negatives per query or None) -> the table with helpers
Derive = Callable[[pl.DataFrame, References, "int | None"], pl.DataFrame]


@dataclass(frozen=True)
class Coverage:
    """The rule that no row is missing.

    Attributes:
        name: As of a rule.
        meaning: The rule in plain English.
        missing: Returns the keys that should be in the table and are not; for tables without nulls in their keys.
    """

    name: str
    meaning: str
    missing: Callable[[pl.DataFrame, References], pl.DataFrame]


@dataclass(frozen=True)
class Suite:
    """The rules of one table.

    Attributes:
        columns: Name and polars type of every column.
        keys: The columns that tell a reader which row is meant.
        derive: Adds the helper columns; called only when columns and types are right.
        rules: The suite's own rules, for a table of so many rows.
        references: The tables it refers to.
        nullable: The columns that may hold nulls.
        may_be_empty: Whether no rows at all are fine.
        coverage: Which rows must be there, None for any.
    """

    columns: Mapping[str, Any]
    keys: tuple[str, ...]
    derive: Derive
    rules: Callable[[int], list[Rule]]
    references: tuple[str, ...] = ()
    nullable: tuple[str, ...] = ()
    may_be_empty: bool = True
    coverage: Coverage | None = None

    def schema(self, table: pl.DataFrame, helpers: tuple[str, ...] = ()) -> list[Rule]:
        """Return the rules about columns and types; when one is broken, the others cannot be judged."""
        return schema_rules(table, self.columns, helpers)

    def missing(self, table: pl.DataFrame, references: References) -> pl.DataFrame | None:
        """Return the keys of missing rows; None where that is no question or a null in a key makes it a vain one."""
        if self.coverage is None or table.select(self.keys).null_count().sum_horizontal().item():
            return None
        return self.coverage.missing(table, references)

    def all_rules(self, table: pl.DataFrame, helpers: tuple[str, ...]) -> list[Rule]:
        """Return every rule for a table of the right schema."""
        present = [not_null(column) for column in self.columns if column not in self.nullable]
        size = [] if self.may_be_empty else [has_rows(table)]
        return [*self.schema(table, helpers), *size, *present, *self.rules(table.height)]


def rows_shown(shown: int, rows: int) -> Rule:
    """State in the Data Docs how many rows of the table Great Expectations was shown."""
    part = (
        f"all {rows:,} rows"
        if shown == rows
        else f"{shown:,} of {rows:,} rows: the first ones and all that break a rule"
    )
    return row_count("rows_shown", shown, f"checked: {part}")


def known(column: str, ids: pl.Series) -> pl.Expr:
    """Whether the value is among ``ids``; true for nulls, which break a rule of their own."""
    return pl.col(column).is_in(ids.implode()).fill_null(True)


def repeats(frame: pl.DataFrame, *keys: str) -> pl.Series:
    """Mark the rows whose key stands in an earlier row, too; a key with a null is equal to none.

    By sorting: at 33 million pairs a fifth of the time and memory that grouping takes.
    """
    order = frame.select(pl.arg_sort_by(*keys, maintain_order=True)).to_series()
    same = (pl.col(key) == pl.col(key).shift(1) for key in keys)
    again = frame.select(keys)[order].select(pl.all_horizontal(*same).fill_null(False)).to_series()
    mask = np.zeros(frame.height, dtype=bool)
    mask[order.filter(again).to_numpy()] = True
    return pl.Series(mask)


def with_occurrences(frame: pl.DataFrame, name: str, *keys: str) -> pl.DataFrame:
    """Add how often a row's key occurs in the table."""
    again = frame.select(keys).filter(repeats(frame, *keys))
    if again.is_empty():
        return frame.with_columns(pl.lit(1, dtype=pl.Int64).alias(name))
    counts = again.group_by(keys).agg((pl.len() + 1).cast(pl.Int64).alias(name))
    return frame.join(counts, on=keys, how="left", maintain_order="left").with_columns(pl.col(name).fill_null(1))


def in_order(frame: pl.DataFrame, group: str, place: str) -> pl.DataFrame:
    """Sort by group and place, nulls last; a table in that order already, the usual case, is not copied."""
    groups, places = pl.col(group), pl.col(place)
    later = (groups > groups.shift(1)) | ((groups == groups.shift(1)) & (places >= places.shift(1)))
    if frame.height < 2 or frame.select(later.slice(1).fill_null(False).all()).item():
        return frame
    return frame.sort(group, place, nulls_last=True, maintain_order=True)


def position(group: str) -> pl.Expr:
    """Number of a row within its group, 0-based, null where the group is; rows of a group must be adjacent."""
    row = pl.int_range(pl.len())
    begins = pl.col(group).ne_missing(pl.col(group).shift(1))
    number = row - pl.when(begins).then(row).forward_fill()
    return pl.when(pl.col(group).is_not_null()).then(number).cast(pl.Int32)


def previous(column: str, group: str) -> pl.Expr:
    """Value of the row before, null at the first row of a group; rows of a group must be adjacent."""
    return pl.when(pl.col(group) == pl.col(group).shift(1)).then(pl.col(column).shift(1))
