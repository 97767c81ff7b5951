"""Writing JSON in a stream, with errors that name the key at fault."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Any, TextIO


class JsonError(ValueError):
    """A value that JSON cannot hold; the message names its place."""


def write_json(data: Any, file: TextIO) -> None:
    """Write ``data`` as strict JSON.

    Args:
        data: Mappings with string keys, lists, tuples, strings, finite numbers, booleans, None; also numpy numbers
            and arrays (as numbers and lists) and paths (as strings).
        file: An open text file. A top-level list goes one element per line, everything else is indented by one.

    Raises:
        JsonError: For NaN, infinity, or a type without a JSON form; names the path of keys that leads to it.
    """
    if isinstance(data, (list, tuple)):
        file.write("[")
        for index, element in enumerate(data):
            file.write(",\n" if index else "\n")
            file.write(_encode(element, f"[{index}]", indent=None))
        file.write("\n]\n" if data else "]\n")
    else:
        file.write(_encode(data, "", indent=1) + "\n")


def _encode(value: Any, place: str, indent: int | None) -> str:
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False, indent=indent, default=_plain)
    except (TypeError, ValueError, RecursionError) as error:
        raise JsonError(_explain(value, place) or f"{place or 'the document'} has no JSON form: {error}") from error


def _explain(value: Any, place: str) -> str | None:
    try:
        return _find_fault(value, place)
    except RecursionError:
        return f"{place or 'the document'} contains itself, or is nested too deeply for JSON"


def _plain(value: Any) -> Any:
    """Convert what the standard encoder does not know."""
    if isinstance(value, PurePath):
        return str(value)
    if hasattr(value, "tolist") and hasattr(value, "dtype"):  # numpy number or array, without importing numpy
        return value.tolist()
    raise TypeError(f"{type(value).__name__} has no JSON form")


def _find_fault(value: Any, place: str) -> str | None:
    """Return where and what the first value is that JSON cannot hold, or None."""
    if isinstance(value, float) and not math.isfinite(value):
        return f"{place or 'the document'} is {value}, which JSON cannot hold; expected a finite number or null"
    if isinstance(value, Mapping):
        if odd := [key for key in value if not isinstance(key, (str, int, float))]:
            return f"{place or 'the document'} has the key {odd[0]!r}; expected text"
        return _first_fault((f"{place}.{key}" if place else str(key), part) for key, part in value.items())
    if isinstance(value, Sequence) and not isinstance(value, str):
        return _first_fault((f"{place}[{index}]", part) for index, part in enumerate(value))
    if value is None or isinstance(value, (str, int, float)):
        return None
    try:
        return _find_fault(_plain(value), place)
    except TypeError as error:
        return f"{place or 'the document'}: {error}; expected text, a number, a list or an object"


def _first_fault(parts: Any) -> str | None:
    return next((fault for place, part in parts if (fault := _find_fault(part, place))), None)
