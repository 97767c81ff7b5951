"""From nested Python values to the flat names and values that MLflow keeps."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

#: datasets whose name ends so hold metrics
SUFFIX = "_metrics"
#: and so, metrics by step: a list of ``{"step": 10, "loss": 0.7, ...}``, in any order
HISTORY = "_history"
#: parts of a figure with its interval -> what its name ends in
_INTERVAL = {"value": "", "low": "_low", "high": "_high"}
#: MLflow's limit on names of parameters and metrics
MAX_KEY = 250


class Point(NamedTuple):
    """One value of a metric that has many."""

    key: str
    step: int
    value: float


def clean_key(key: str) -> str:
    """Return a key with every character that MLflow refuses replaced by ``_``, at most 250 characters long.

    MLflow takes letters, digits, ``_ - . : /`` and blanks, and no key that reads like a path out of its folder.
    """
    key = re.sub(r"[^\w\-. :/]", "_", key)
    parts = (part for part in key.split("/") if part not in ("", ".", ".."))
    return "/".join(parts)[:MAX_KEY] or "_"


def metric_values(dataset: str, data: Any) -> dict[str, float]:
    """Return ``{"<stage>/<key>": number}`` of a metrics dataset.

    Args:
        dataset: Name of the dataset; the stage is the name without ``_metrics``.
        data: A mapping of numbers; those of nested mappings get a longer name, ``stage/key/inner``. Texts
            (see :func:`text_values`), lists, booleans and nulls are left out; the JSON artifact has all. A figure with
            its interval, ``{"value": .., "low": .., "high": ..}``, is ``key``, ``key_low`` and ``key_high``.
    """
    if not isinstance(data, Mapping):
        return {}
    stage = dataset.removesuffix(SUFFIX)
    return {clean_key(f"{stage}/{key}"): value for key, value in _numbers(data)}


def history_points(dataset: str, data: Any) -> list[Point]:
    """Return the numbers of a history, their keys ``<stage>/<name>``, by key and step.

    Args:
        dataset: Name of the dataset; the stage is the name without ``_history``.
        data: Rows, each a mapping with a whole number ``step``; others are left out, as is everything in them that is
            no number. A row need not have all names. Of two values for one step the last counts.
    """
    stage = dataset.removesuffix(HISTORY)
    found: dict[tuple[str, int], float] = {}
    for row in data if isinstance(data, list) else ():
        step = row.get("step") if isinstance(row, Mapping) else None
        if isinstance(step, int) and not isinstance(step, bool):
            names = {key: value for key, value in row.items() if key != "step"}
            found |= {(clean_key(f"{stage}/{key}"), step): value for key, value in _numbers(names)}
    return [Point(key, step, value) for (key, step), value in sorted(found.items())]


def text_values(dataset: str, data: Any) -> dict[str, str]:
    """Return ``{"<stage>.<key>": text}`` of a metrics dataset, for tags: what is no number, such as a fingerprint."""
    if not isinstance(data, Mapping):
        return {}
    stage = dataset.removesuffix(SUFFIX)
    return {clean_key(f"{stage}.{key}"): value for key, value in data.items() if isinstance(value, str)}


def _numbers(data: Mapping[Any, Any]) -> Iterator[tuple[str, float]]:
    for key, value in data.items():
        if isinstance(value, Mapping) and set(_INTERVAL) <= set(value):
            named = {f"{key}{end}": value[inner] for inner, end in _INTERVAL.items()}
            yield from _numbers(named)
        elif isinstance(value, Mapping):
            yield from ((f"{key}/{inner}", number) for inner, number in _numbers(value))
        elif isinstance(value, (int, float)) and not isinstance(value, bool):
            yield str(key), float(value)


def plain(value: Any) -> Any:
    """Return a value with every pydantic model in it dumped to JSON types."""
    if hasattr(value, "model_dump"):
        return value.model_dump(mode="json")
    if isinstance(value, Mapping):
        return {str(key): plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(inner) for inner in value]
    return value


def flat_parameters(parameters: Mapping[str, Any], max_length: int) -> dict[str, str]:
    """Return all parameters under dotted keys, as MLflow keeps them.

    Args:
        parameters: Nested; typed ones (pydantic) are dumped.
        max_length: A longer text is cut there and ends in ``…``; the run's ``config.yml`` has all of it.

    Returns:
        Texts as they are, everything else as JSON (``true``, ``null``, ``[1, 2]``; an empty mapping is ``{}``).
    """
    flat: dict[str, str] = {}
    for key, value in leaves(plain(parameters)):
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
        flat[clean_key(key)] = text if len(text) <= max_length else text[: max_length - 1] + "…"
    return flat


def leaves(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the dotted keys of a nested mapping with their values; an empty mapping is a value."""
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
