"""Reading scores that other programs wrote: a file per data set, or one flat table.

* A folder of ``<data set>_score.json``, ``{"acc": ..., "num_correct": ..., "num_pred": ...}``: what the evaluation
  scripts of VLM2Vec and of UniME-V2's release write.
* A CSV file with columns ``dataset`` and ``score`` (or ``acc``), and possibly ``num_correct`` and ``num_pred``.
* A CSV file of one row whose columns are data sets; columns of words, such as ``model``, are passed over.
"""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl

from unime_kedro.errors import DataError

_SUFFIX = "_score.json"
_SCORE_NAMES = ("score", "acc", "value")
#: how far a score that was rounded may be from the share it stands for: three decimals, or percent with one. A little
#: more than half a unit of the last decimal: 0.3125 is rounded to 0.312, and floats add their own error to that half
_FRACTION_ROUNDING, _PERCENT_ROUNDING = 5.0001e-4, 5.0001e-2
#: what stands for no score in flat tables
_NOTHING = ("", "n/a", "na", "none", "null", "-")


class Score(NamedTuple):
    """One data set's score.

    Attributes:
        value: Share of right answers, in [0, 1].
        correct: How many answers were right, None if that is not given.
        n: How many there were, None likewise.
    """

    value: float
    correct: int | None
    n: int | None


class _Given(NamedTuple):
    """A score as it stands somewhere; ``unit`` is "fraction" or "percent", "" if it cannot be told by its counts."""

    place: str
    score: float
    correct: int | None
    n: int | None
    unit: str


def read_scores(path: str | Path, known: Collection[str]) -> dict[str, Score]:
    """Read the scores of data sets, sorted by name.

    Fractions and percentages are told apart by the counts beside them. Where none are given, all scores are taken for
    percentages when one of them is above 1, and for fractions otherwise.

    Args:
        path: A folder of score files, or a CSV file.
        known: Names of the data sets that may occur; a wide table's column of words is passed over unless its name is
            one of them.

    Returns:
        Data set -> score, also for names that are not known.

    Raises:
        DataError: When nothing is there, a file is not of a known form, a value is no number or out of range, counts
            contradict a score, or a data set has two scores; names file and key.
    """
    path = Path(path)
    if path.is_dir():
        given = _read_folder(path)
    elif path.is_file():
        given = _read_table(path, known)
    else:
        raise DataError(f"{path} does not exist; expected a folder of <data set>{_SUFFIX}, or a CSV file.")
    units = {one.unit for one in given.values() if one.unit}
    unit = units.pop() if len(units) == 1 else _unit_of([one.score for one in given.values()])
    return {name: _score(given[name], unit) for name in sorted(given)}


def _read_folder(folder: Path) -> dict[str, _Given]:
    files = sorted(file for file in folder.iterdir() if file.name.endswith(_SUFFIX))
    if not files:
        raise DataError(f"{folder} holds no <data set>{_SUFFIX}; expected one for each data set.")
    return {file.name.removesuffix(_SUFFIX): _read_file(file) for file in files}


def _read_file(file: Path) -> _Given:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise DataError(f"{file} is not a readable JSON file ({error}).") from error
    if not isinstance(content, Mapping) or "acc" not in content:
        raise DataError(f'{file}: expected {{"acc": ..., "num_correct": ..., "num_pred": ...}}.')
    return _given(f"{file}, key acc", content["acc"], content.get("num_correct"), content.get("num_pred"))


def _read_table(file: Path, known: Collection[str]) -> dict[str, _Given]:
    try:
        table = pl.read_csv(file, infer_schema=False, glob=False).fill_null("")
    except (pl.exceptions.PolarsError, OSError) as error:
        raise DataError(f"{file} is not a readable CSV file ({error}).") from error
    column = next((name for name in _SCORE_NAMES if name in table.columns), None)
    if "dataset" in table.columns and column is not None:
        return _long(file, table, column)
    if len(table) != 1:
        raise DataError(
            f"{file} has {len(table)} rows and the columns {', '.join(table.columns)}; expected the columns dataset "
            "and score, or one row whose columns are data sets."
        )
    found: dict[str, _Given] = {}
    for name, text in table.row(0, named=True).items():
        if text.strip().lower() not in _NOTHING and (name in known or _is_number(text)):
            found[name] = _given(f"{file}, column {name}", _number(f"{file}, column {name}", text), None, None)
    return _not_empty(file, found)


def _long(file: Path, table: pl.DataFrame, column: str) -> dict[str, _Given]:
    found: dict[str, _Given] = {}
    for row, values in enumerate(table.iter_rows(named=True)):
        name, place = values["dataset"].strip(), f"{file}, row {row}, column {column}"
        if values[column].strip().lower() in _NOTHING:
            continue
        if name in found:
            raise DataError(f"{file}, row {row}, column dataset: {name!r} stands there twice; expected one score each.")
        counts = [_count(file, row, key, values.get(key, "")) for key in ("num_correct", "num_pred")]
        found[name] = _given(place, _number(place, values[column]), *counts)
    return _not_empty(file, found)


def _not_empty(file: Path, found: dict[str, _Given]) -> dict[str, _Given]:
    if not found:
        raise DataError(f"{file} holds no score; expected a number for one data set at least.")
    return found


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _number(place: str, text: str) -> float:
    if not _is_number(text):
        raise DataError(f"{place}: {text!r}; expected a number.")
    return float(text)


def _count(file: Path, row: int, key: str, text: str) -> int | None:
    if not text.strip():
        return None
    if not text.strip().isdecimal():
        raise DataError(f"{file}, row {row}, column {key}: {text!r}; expected a whole number.")
    return int(text)


def _given(place: str, score: Any, correct: Any, n: Any) -> _Given:
    """Check a score and its counts, and tell its unit by them."""
    if isinstance(score, bool) or not isinstance(score, (int, float)) or not math.isfinite(score):
        raise DataError(f"{place}: {score!r}; expected a number.")
    if not 0 <= score <= 100:
        raise DataError(f"{place}: {score}; expected a share from 0 to 1, or a percentage from 0 to 100.")
    if correct is None or n is None:
        return _Given(place, float(score), None, _whole(place, "num_pred", n), "")
    hits, total = _whole(place, "num_correct", correct), _whole(place, "num_pred", n)
    if not total or hits is None or hits > total:
        raise DataError(f"{place}: {correct} of {n} are right by num_correct and num_pred; expected 0 to {n} of some.")
    share = hits / total
    if abs(score - share) <= _FRACTION_ROUNDING:
        return _Given(place, float(score), hits, total, "fraction" if share > 2 * _FRACTION_ROUNDING else "")
    if abs(score - 100 * share) <= _PERCENT_ROUNDING:
        return _Given(place, float(score), hits, total, "percent")
    raise DataError(
        f"{place}: {score}, but num_correct / num_pred is {hits} / {total} = {share:.4f}. Expected that share, or it "
        "in percent; correct what is wrong."
    )


def _whole(place: str, key: str, value: Any) -> int | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise DataError(f"{place}: {key} is {value!r}; expected a whole number, 0 or more.")
    return value


def _unit_of(scores: Collection[float]) -> str:
    return "percent" if max(scores) > 1 else "fraction"


def _score(given: _Given, unit: str) -> Score:
    """Return a share; counts are exact where there are some, scores may be rounded."""
    if given.correct is not None and given.n:
        return Score(given.correct / given.n, given.correct, given.n)
    if unit == "fraction" and given.score > 1:
        raise DataError(f"{given.place}: {given.score}; expected a share from 0 to 1, as in the other files.")
    return Score(given.score / 100 if unit == "percent" else given.score, None, given.n)
