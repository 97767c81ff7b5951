"""Loading a release file, and telling exactly where it is not of the format."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from unime_kedro.errors import DataError

#: keys of a row, in the release's order
TEXT_KEYS = ("query_text", "query_image", "pos_text", "pos_image")
KEYS = (*TEXT_KEYS, "query_pos_scores", "hard_negatives", "hard_negatives_scores")
#: problems told in one error
_SHOWN = 5


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Load and validate a release file.

    Args:
        path: The JSON file.

    Returns:
        Its rows; further keys in them are left alone.

    Raises:
        DataError: When the file is missing, is no JSON array of rows, or any row is not of the format. Names the file,
            the row (from 0), the key, and what was expected and found; the first five problems and how many there are.
    """
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}.") from error
    except (ValueError, RecursionError) as error:  # broken JSON gives line and column, broken UTF-8 the byte
        raise DataError(f"{path} is not a JSON file in UTF-8: {error}.") from error
    if not isinstance(rows, list):
        raise DataError(f"{path}: expected a JSON array of rows, found {_kind(rows)}.")
    if not rows:
        raise DataError(f"{path}: expected at least one row, the array is empty.")
    problems = [f"  row {index}, {problem}" for index, row in enumerate(rows) for problem in _problems(row)]
    if problems:
        more = [f"  and {len(problems) - _SHOWN:,} more"] if len(problems) > _SHOWN else []
        raise DataError("\n".join([f"{path} is not in the release's format:", *problems[:_SHOWN], *more]))
    return rows


def _problems(row: Any) -> Iterator[str]:
    """Yield what is wrong with a row, as ``key ...: expected ..., found ...``."""
    if not isinstance(row, dict):
        yield f"expected an object with the keys {', '.join(KEYS)}, found {_kind(row)}"
        return
    if missing := [key for key in KEYS if key not in row]:
        yield from (f"key {key}: expected, found none" for key in missing)
        return
    yield from (f"key {key}: expected text, found {_kind(row[key])}" for key in TEXT_KEYS if type(row[key]) is not str)
    if not _is_score(row["query_pos_scores"]):
        yield f"key query_pos_scores: expected a number in [0, 1], found {_kind(row['query_pos_scores'])}"
    yield from _side_problems(row)
    yield from _negative_problems(row["hard_negatives"], row["hard_negatives_scores"])


def _side_problems(row: dict[str, Any]) -> Iterator[str]:
    for text, image in (TEXT_KEYS[:2], TEXT_KEYS[2:]):
        if row[text] == "" and row[image] == "":
            yield f"keys {text} and {image}: expected text or an image path, found both empty"


def _negative_problems(negatives: Any, scores: Any) -> Iterator[str]:
    if not isinstance(negatives, list) or not isinstance(scores, list):
        key, value = (
            ("hard_negatives", negatives) if not isinstance(negatives, list) else ("hard_negatives_scores", scores)
        )
        yield f"key {key}: expected a list, found {_kind(value)}"
        return
    if len(negatives) != len(scores):
        yield f"key hard_negatives_scores: expected {len(negatives)} scores, one per negative, found {len(scores)}"
    for slot, pair in enumerate(negatives):
        if not (type(pair) is list and len(pair) == 2 and type(pair[0]) is str and type(pair[1]) is str):
            yield f"key hard_negatives[{slot}]: expected [text, image path], found {_kind(pair)}"
        elif pair == ["", ""]:
            yield f"key hard_negatives[{slot}]: expected text or an image path, found both empty"
    for slot, score in enumerate(scores):
        if not _is_score(score):
            yield f"key hard_negatives_scores[{slot}]: expected a number in [0, 1], found {_kind(score)}"


def _is_score(value: Any) -> bool:
    return type(value) in (int, float) and 0 <= value <= 1


def _kind(value: Any) -> str:
    """Describe a JSON value in a few words."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, (int, float)):
        return f"{value}" if math.isfinite(value) else f"{value} (not a number that can be ordered)"
    if isinstance(value, str):
        return f"the text {value[:40]!r}"
    name = "a list of" if isinstance(value, list) else "an object of"
    return f"{name} {len(value)}"
