"""Runs the rules of a suite as real Great Expectations over a pandas frame."""

from __future__ import annotations

import gc
import html
import logging
import os
import threading
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from functools import cache
from pathlib import Path
from typing import Any

import polars as pl
import polars.selectors as cs

from unime_kedro.atomic import locked
from unime_kedro.quality.docs import make_context, publish
from unime_kedro.quality.report import SAMPLES
from unime_kedro.quality.rules import Rule

# Kedro may save tables from several threads; a Great Expectations context is made for one
_LOCK = threading.RLock()


def evaluate(
    suite: str,
    rules: Sequence[Rule],
    frame: pl.DataFrame,
    samples: Mapping[str, Sequence[str]],
    docs: Path | None,
) -> dict[str, str | None]:
    """Let Great Expectations judge the rules on a frame, and document the result.

    Args:
        suite: Name of the suite, the title of its pages.
        rules: The rules; their columns must be in ``frame``.
        frame: The rows to show, helper columns included.
        samples: Rule name -> rows that break it, for the Data Docs, which by themselves show bare values.
        docs: Folder of the Data Docs, None for none.

    Returns:
        Rule name -> None when it holds, else what Great Expectations found.
    """
    # Great Expectations compares its suite with the one on disk: another run must not write it in between
    with _LOCK, _quiet(), locked(docs.parent / "gx" / ".lock") if docs is not None else nullcontext():
        gx = _import()
        context = _context(docs)
        expectations = [_expectation(gx, rule, samples.get(rule.name, ())) for rule in rules]
        asset = context.data_sources.add_or_update_pandas(suite).add_dataframe_asset(suite)
        definition = gx.ValidationDefinition(
            name=suite,
            data=asset.add_batch_definition_whole_dataframe("table"),
            suite=gx.ExpectationSuite(suite, expectations=expectations),
        )
        result = context.validation_definitions.add_or_update(definition).run(
            batch_parameters={"dataframe": to_pandas(_escaped(frame))},
            result_format={"result_format": "SUMMARY", "partial_unexpected_count": SAMPLES},
        )
        if docs is not None:
            publish(context, suite, docs)
    return {one.expectation_config.meta["rule"]: None if one.success else _found(one) for one in result.results}


def _expectation(gx: Any, rule: Rule, samples: Sequence[str]) -> Any:
    expectation = getattr(gx.expectations, rule.expectation)
    shown = html.escape(" | ".join(samples))
    description = f"{rule.meaning}. Rows that break it: {shown}" if shown else rule.meaning
    return expectation(**rule.arguments, description=description, meta={"rule": rule.name})


def _found(one: Any) -> str:
    """Say in a few words what Great Expectations holds against a rule."""
    details = one.result.get("details", {}).get("mismatched")
    if details:
        return "; ".join(f"{kind}: {', '.join(names)}" for kind, names in details.items())
    if "observed_value" in one.result:
        return f"{one.result['observed_value']}"
    if "unexpected_count" in one.result:
        return f"{one.result['unexpected_count']} rows, values {one.result.get('partial_unexpected_list')}"
    # not judged: the exceptions, keyed by the metric that raised them
    info = one.exception_info
    causes = [info] if "exception_message" in info else list(info.values())
    return "; ".join(sorted({str(cause["exception_message"]) for cause in causes}))


def _escaped(frame: pl.DataFrame) -> pl.DataFrame:
    """Escape texts for HTML: Great Expectations writes values into its pages as they are.

    No verdict depends on it: equal texts stay equal, different ones different, empty ones empty, and the texts that a
    rule names have nothing to escape.
    """
    return frame.with_columns(cs.string().str.replace_many({"&": "&amp;", "<": "&lt;", ">": "&gt;"}))


def to_pandas(frame: pl.DataFrame) -> Any:
    """Convert to pandas, every column keeping its type: integers and Booleans with nulls become nullable ones.

    Lists become Python's: Great Expectations knows their type, and no name for arrays within a column.
    """
    import pandas as pd
    import pyarrow as pa

    nullable = {pa.int32(): pd.Int32Dtype(), pa.int64(): pd.Int64Dtype(), pa.bool_(): pd.BooleanDtype()}
    columns = {}
    for name in frame.columns:
        if frame.schema[name] == pl.List:
            columns[name] = pd.Series(frame[name].to_list(), dtype=object)
            continue
        mapper = nullable.get if frame[name].null_count() else None
        columns[name] = frame.select(name).to_arrow().to_pandas(types_mapper=mapper)[name]
    return pd.DataFrame(columns)


@cache
def _context(docs: Path | None) -> Any:
    return make_context(docs)


@cache
def _import() -> Any:
    """Import Great Expectations without telemetry.

    Garbage collection rests meanwhile: it finds nothing among freshly imported modules and takes a fifth of the time.
    """
    os.environ.setdefault("GX_ANALYTICS_ENABLED", "False")
    collecting = gc.isenabled()
    gc.disable()
    try:
        import great_expectations
    finally:
        if collecting:
            gc.enable()
    logging.getLogger("great_expectations").setLevel(logging.ERROR)
    return great_expectations


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep deprecation warnings of Great Expectations' own making off the terminal."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
