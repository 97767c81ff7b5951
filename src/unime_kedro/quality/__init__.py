"""Guards at the table boundaries: Great Expectations behind the catalog's ``validator:`` key.

A table is checked when it is saved, before anything is written. :mod:`~unime_kedro.quality.suites` says which rules
every table keeps, :class:`TableValidator` is what the catalog names. ``KEDRO_DATASET_VALIDATION=off`` in the
environment, Kedro's own switch, skips all checks.
"""

from unime_kedro.quality.docs import data_docs_index
from unime_kedro.quality.report import Failure, TableError, Verdict
from unime_kedro.quality.validator import TableValidator

__all__ = ["Failure", "TableError", "TableValidator", "Verdict", "data_docs_index"]
