"""Writing JSON in a stream, with errors that name the key at fault."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    import polars as pl

#: rows of a table that are written at a time
_ROWS = 20_000


class JsonError(ValueError):
    """A value that JSON cannot hold; the message names its place."""


def write_json(data: Any, file: TextIO) -> None:
    """Write ``data`` as strict JSON.

    Args:
        data: Mappings with string keys, lists, tuples, strings, finite numbers, booleans, None; also numpy numbers
            and arrays (as numbers and lists) and paths (as strings). Or a polars DataFrame: a list of its rows, each an
            object, which at a million rows takes a third of the time of a list of dicts, and little memory.
        file: An open text file. A top-level list goes one element per line, everything else is indented by one.

    Raises:
        JsonError: For NaN, infinity, or a type without a JSON form; names the path of keys that leads to it.
    """
    if hasattr(data, "write_ndjson"):
        _write_table(data, file)
    elif isinstance(data, (list, tuple)):
        file.write("[")
        for index, element in enumerate(data):
            file.write(",\n" if index else "\n")
            file.write(_encode(element, f"[{index}]", indent=None))
        file.write("\n]\n" if data else "]\n")
    else:
        file.write(_encode(data, "", indent=1) + "\n")


def _write_table(table: pl.DataFrame, file: TextIO) -> None:
    """Write the rows of a table as a list of objects."""
    _check_table(table)
    file.write("[")
    for start in range(0, len(table), _ROWS):
        # one line per row; line breaks inside texts are escaped, so every "\\n" here ends a row
        lines = table.slice(start, _ROWS).write_ndjson().rstrip("\n")
        file.write((",\n" if start else "\n") + lines.replace("\n", ",\n"))
    file.write("\n]\n" if len(table) else "]\n")


def _check_table(table: pl.DataFrame) -> None:
    """Raise JsonError for column types beyond lists, text, numbers and booleans, and for NaN, infinity."""
    import polars as pl

    for name, dtype in table.schema.items():
        values = table[name]
        while isinstance(values.dtype, (pl.List, pl.Array)):
            values = values.explode(empty_as_null=True)
        if not (values.dtype.is_numeric() or values.dtype in (pl.String, pl.Boolean, pl.Null)):
            raise JsonError(f"column {name} is {dtype}; expected text, numbers, booleans or lists of these")
        # the table's own writer would turn NaN into null without a word
        if values.dtype.is_float() and not values.is_finite().all():
            row = next(i for i, value in enumerate(table[name]) if _explain(_listed(value), ""))
            raise JsonError(_explain(_listed(table[name][row]), f"[{row}].{name}") or "")


def _listed(value: Any) -> Any:
    """Return a table's cell as plain Python values."""
    return value.to_list() if hasattr(value, "to_list") else value


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
