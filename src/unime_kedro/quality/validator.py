"""The validator that catalog entries name."""

from __future__ import annotations

import logging
from difflib import get_close_matches
from typing import TYPE_CHECKING

from unime_kedro.errors import ConfigurationError, DataError
from unime_kedro.paths import resolve
from unime_kedro.quality.report import TableError, Verdict

if TYPE_CHECKING:
    import polars as pl

    from unime_kedro.quality.suite import Suite

log = logging.getLogger(__name__)


class TableValidator:
    """Checks a table against the rules of its suite, for the ``validator:`` key of Kedro's catalog::

        pool:
          type: unime_kedro.io.ParquetTable
          filepath: ${globals:data_root}/03_primary/pool.parquet
          validator:
            class: unime_kedro.quality.TableValidator
            "on": [save]
            options:
              suite: pool
              references:
                items: ${globals:data_root}/02_intermediate/items.parquet
                queries: ${globals:data_root}/02_intermediate/queries.parquet
                candidates: ${globals:data_root}/02_intermediate/candidates.parquet
              data_docs: ${globals:data_root}/08_reporting/data_docs

    Every row of the table is searched for broken rules. Great Expectations, which is slow and needs pandas, is then
    shown the first ``max_rows`` rows and every row that breaks a rule (of each rule the first ``max_rows``), and
    decides. ``KEDRO_DATASET_VALIDATION=off`` in the environment, Kedro's own switch, skips all checks.

    Args:
        suite: ``items``, ``queries``, ``pool``, ``judge_scores``, ``selection``, ``negatives``, ``training``,
            ``reranking``, ``evaluated_queries``, ``leaks``, ``predictions`` or ``rankings``.
        references: Table name -> parquet file of the tables that this one refers to, relative to the project root.
        data_docs: Folder of the Data Docs, relative to the project root; results are kept beside it, in ``gx``.
            None: no Data Docs.
        slots: Only for ``negatives``: how many every query must have. None: as many as most queries have.
        max_rows: How many rows are shown to Great Expectations at least.

    Raises:
        ConfigurationError: An unknown suite, a missing or superfluous reference, a number out of range.
    """

    def __init__(
        self,
        suite: str,
        references: dict[str, str] | None = None,
        data_docs: str | None = None,
        slots: int | None = None,
        max_rows: int = 200_000,
    ) -> None:
        self.suite = suite
        self.references = dict(references or {})
        self.data_docs = data_docs
        self.slots = slots
        self.max_rows = max_rows
        self._check_options()

    def validate(self, data: pl.DataFrame) -> pl.DataFrame:
        """Return ``data`` as it is when it keeps every rule.

        Raises:
            TableError: It breaks a rule, or a table that it refers to is missing.
        """
        try:
            verdict = self.check(data)
        except DataError as error:
            raise TableError(f"it cannot be checked: {error}") from error
        if not verdict.success:
            broken = f"it breaks {len(verdict.failures)} of the {verdict.rules} rules of suite '{self.suite}'"
            raise TableError(broken, verdict=verdict, remedy=self._remedy())
        log.info("suite %s: %d rules hold on %s rows", self.suite, verdict.rules, f"{verdict.rows:,}")
        return data

    def check(self, data: pl.DataFrame) -> Verdict:
        """Judge a table without raising for broken rules.

        Raises:
            DataError: It is no polars DataFrame, or a table that it refers to is missing.
        """
        import polars as pl

        from unime_kedro.quality.engine import evaluate
        from unime_kedro.quality.rows import failure_of, sample_missing, sample_rows, select_rows
        from unime_kedro.quality.rules import complete
        from unime_kedro.quality.suite import References, rows_shown

        if not isinstance(data, pl.DataFrame):
            raise DataError(f"expected a polars DataFrame, got {type(data).__module__}.{type(data).__qualname__}")
        suite = self._suite()
        rules = suite.schema(data)
        frame, missing = data, None
        if not any(rule.problem for rule in rules):
            frame = self._with_helpers(data)
            rules = suite.all_rules(data, tuple(frame.columns[data.width :]))
            missing = suite.missing(data, References(self.references))
        shown, counts = select_rows(frame, rules, self.max_rows)
        samples = {rule.name: sample_rows(frame, rule, suite.keys) for rule in rules if counts.get(rule.name)}
        if suite.coverage and missing is not None:
            name = suite.coverage.name
            rules = [*rules, complete(name, suite.coverage.meaning, shown.height, missing.height)]
            counts[name], samples[name] = missing.height, sample_missing(missing)
        rules = [*rules, rows_shown(shown.height, data.height)]
        docs = resolve(self.data_docs) if self.data_docs else None
        found = evaluate(self.suite, rules, shown, samples, docs)
        failures = [
            failure_of(rule, counts.get(rule.name, 0), samples.get(rule.name, ()), found[rule.name]) for rule in rules
        ]
        return Verdict(
            suite=self.suite,
            rules=len(rules),
            rows=data.height,
            rows_checked=shown.height,
            failures=tuple(failure for failure in failures if failure),
            data_docs=docs / "index.html" if docs else None,
        )

    def _suite(self) -> Suite:
        from unime_kedro.quality.suites import SUITES

        return SUITES[self.suite]

    def _with_helpers(self, data: pl.DataFrame) -> pl.DataFrame:
        import polars.selectors as cs

        from unime_kedro.quality.suite import References

        frame = self._suite().derive(data, References(self.references), self.slots)
        return frame.with_columns(cs.float().fill_nan(None))

    def _check_options(self) -> None:
        from unime_kedro.quality.suites import SUITES

        if self.suite not in SUITES:
            near = get_close_matches(str(self.suite), SUITES, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else f"; there are {', '.join(SUITES)}"
            raise ConfigurationError(f"unknown suite {self.suite!r}{hint}")
        needed = SUITES[self.suite].references
        if set(self.references) != set(needed):
            raise ConfigurationError(
                f"suite {self.suite!r} needs references to {', '.join(needed) or 'no table'}, "
                f"got {', '.join(self.references) or 'none'}"
            )
        if self.slots is not None and (self.suite != "negatives" or self.slots < 1):
            raise ConfigurationError(
                f"slots={self.slots!r}: expected a count of at least 1, for suite 'negatives' only"
            )
        if self.max_rows < 1:
            raise ConfigurationError(f"max_rows={self.max_rows!r}: expected a count of at least 1")

    def _remedy(self) -> str:
        from unime_kedro.quality.suite import STAGES

        sources = " or ".join(self._suite().references)
        stale = f" If {sources} was made anew since, run the stages after it again, in order." if sources else ""
        return (
            f"What to do: `kedro run --pipeline={STAGES[self.suite]}` makes this table.{stale} "
            "Otherwise the stage is at fault: start from the rows above. KEDRO_DATASET_VALIDATION=off skips all checks."
        )
