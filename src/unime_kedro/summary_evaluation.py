"""What a run that evaluated models says at its end."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

#: the mean over everything, of benchmarks that declare one
_ALL = "all"
_SHARES = ("precision_at_1", "recall_at_1", "accuracy")
#: names of missing data sets that a line shows
_MOST = 6


def evaluation_lines(metrics: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return (label, text) of a line per model, and of what is missing or left out.

    Args:
        metrics: model -> benchmark -> data set or mean -> measure -> value, low, high; facts under ``_``.
    """
    lines = [f"{model}: {'; '.join(_benchmarks(found))}" for model, found in metrics.items()]
    labelled = [("evaluate" if i == 0 else "", line) for i, line in enumerate(lines)]
    return [*labelled, *_left_out(metrics)]


def is_tiny(metrics: Mapping[str, Any]) -> bool:
    """Whether one of the models is an embedded one, or was trained from one."""
    return any(found.get("_", {}).get("embedded") for found in metrics.values())


def _benchmarks(found: Mapping[str, Any]) -> Iterator[str]:
    """Yield every benchmark's mean with its interval, or its data sets where it declares no mean over all."""
    for benchmark, figures in found.items():
        if benchmark == "_":
            continue
        if _ALL in figures:
            yield f"{benchmark} {_figure(figures[_ALL])}"
        else:
            yield ", ".join(f"{name} {_figure(figures[name])}" for name in figures)


def _figure(measures: Mapping[str, Any]) -> str:
    found: Mapping[str, Any] = next((measures[name] for name in _SHARES if name in measures), {})
    if found.get("value") is None:
        return "unknown, data sets are missing"
    return f"{found['value']:.3f} ({found['low']:.3f} to {found['high']:.3f})"


def _left_out(metrics: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    first: Mapping[str, Any] = next(iter(metrics.values()), {})
    facts = first.get("_", {})  # the same for all models
    for benchmark, names in facts.get("missing", {}).items():
        more = f" and {len(names) - _MOST} more" if len(names) > _MOST else ""
        yield "missing", f"{benchmark}: {', '.join(names[:_MOST])}{more}"
    for benchmark, counts in facts.get("excluded", {}).items():
        total = sum(counts.values())
        yield "left out", f"{benchmark}: {total:,} queries that were in the training data"
