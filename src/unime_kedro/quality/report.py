"""What a check found, and the error that tells it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kedro.validation import CheckFailure, DataValidationError

from unime_kedro.errors import DataError

#: sample rows per broken rule, the longest text value shown in one, the most elements of a list
SAMPLES, TEXT_LENGTH, LIST_LENGTH = 5, 40, 12


@dataclass(frozen=True)
class Failure:
    """One broken rule.

    Attributes:
        rule: The rule's name.
        expectation: Great Expectations' class of it.
        meaning: The rule in plain English.
        column: The column it is about, None for the whole table.
        rows: How many rows break it, counted over the whole table, or how many are missing; 0 for rules about the
            table as such.
        samples: A few of those rows as readable text, or what is wrong with the table.
        found: What Great Expectations holds against it.
        about_absent: Whether rows are missing that should be there.
    """

    rule: str
    expectation: str
    meaning: str
    column: str | None
    rows: int
    samples: tuple[str, ...]
    found: str | None = None
    about_absent: bool = False

    def as_check(self) -> CheckFailure:
        """Return it in Kedro's form."""
        return CheckFailure(
            message=self.meaning,
            check=f"{self.rule} ({self.expectation}): {self.meaning}",
            column=self.column,
            failure_count=max(self.rows, 1),
            failure_examples=list(self.samples),
        )


@dataclass(frozen=True)
class Verdict:
    """The result of one check.

    Attributes:
        suite: Name of the suite.
        rules: How many rules were judged.
        rows: Rows of the table; all of them are searched for broken rules.
        rows_checked: Rows shown to Great Expectations: the first ones, and those that break a rule.
        failures: The broken rules, empty when the table is good.
        data_docs: First page of the Data Docs that show the result, None without.
    """

    suite: str
    rules: int
    rows: int
    rows_checked: int
    failures: tuple[Failure, ...]
    data_docs: Path | None = None

    @property
    def success(self) -> bool:
        """Tell whether every rule holds."""
        return not self.failures


class TableError(DataValidationError, DataError):
    """A table breaks rules of its suite, or cannot be checked.

    It is Kedro's ``DataValidationError``, so that the catalog fills in data set and mode and does not wrap it, with a
    text of its own: Kedro's cuts sample rows at 40 characters and does not say what to do.
    """

    def __init__(self, message: str, *, verdict: Verdict | None = None, remedy: str = "") -> None:
        failures = verdict.failures if verdict else ()
        super().__init__(message, failures=[failure.as_check() for failure in failures])
        self.verdict = verdict
        self.remedy = remedy

    def __str__(self) -> str:
        where = f"Table '{self.dataset_name}'" if self.dataset_name else "A table"
        where += f" was refused on {self.mode}" if self.mode in ("save", "load") else " was refused"
        lines = [f"{where}: {self.message}"]
        for number, failure in enumerate(self.verdict.failures if self.verdict else (), 1):
            about = f" of column {failure.column}" if failure.column else ""
            lines.append(f"  {number}. {failure.rule}: {failure.meaning} ({failure.expectation}{about})")
            lines.append(f"     {self._evidence(failure)}")
        if self.remedy:
            lines.append(self.remedy)
        if self.verdict and self.verdict.data_docs:
            lines.append(f"All results: {self.verdict.data_docs}")
        return "\n".join(lines)

    def _evidence(self, failure: Failure) -> str:
        samples = " | ".join(failure.samples)
        if not failure.rows or self.verdict is None:
            return f"found: {samples}"
        if failure.about_absent:
            return f"{failure.rows:,} missing, for example: {samples}"
        return f"{failure.rows:,} of {self.verdict.rows:,} rows break it, for example: {samples}"


def sample(row: Mapping[str, Any]) -> str:
    """Write a row as readable text: ``query_id=12 rank=3 similarity=1.2``."""
    return " ".join(f"{name}={_value(value)}" for name, value in row.items())


def _value(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, str):
        return repr(value if len(value) <= TEXT_LENGTH else value[: TEXT_LENGTH - 3] + "...")
    if isinstance(value, list):
        more = [f"... {len(value):,} in all"] if len(value) > LIST_LENGTH else []
        return f"[{', '.join([*map(_value, value[:LIST_LENGTH]), *more])}]"
    return str(value)
