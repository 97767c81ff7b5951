"""Results of models on benchmarks, as rows and columns: the shape of the paper's tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

#: the measure that a table shows: the first of these that a data set has
MEASURES = {"precision_at_1": "Precision@1", "recall_at_1": "Recall@1", "accuracy": "accuracy"}
#: key of what is known of a model, beside its benchmarks
FACTS = "_"
#: how means are headed, if not by their names
_TITLES = {"vqa": "VQA", "visual_grounding": "grounding"}


class Cell(NamedTuple):
    """A share with its interval; the ends are None where none was computed."""

    value: float
    low: float | None
    high: float | None
    n: int | None


class Row(NamedTuple):
    """One line of a table.

    Attributes:
        name: The model.
        cells: One per column, None where there is no figure.
        kind: ``ours``, ``imported`` (scores of another program) or ``paper``.
    """

    name: str
    cells: list[Cell | None]
    kind: str


class Table(NamedTuple):
    """A benchmark's results.

    Attributes:
        benchmark: Its name.
        measure: What is shown, such as Precision@1.
        columns: Headings: means where the benchmark declares some, else data sets.
        rows: Models in the order in which they were evaluated, imported ones, the paper's.
        datasets: The same for single data sets; None where ``columns`` are data sets.
        missing: Declared data sets that were not there, by model.
        other_data: Whether the paper's rows are of another benchmark than this one.
    """

    benchmark: str
    measure: str
    columns: list[str]
    rows: list[Row]
    datasets: tuple[list[str], list[Row]] | None
    missing: dict[str, list[str]]
    other_data: bool = False


def results_tables(
    metrics: Mapping[str, Any],
    means: Mapping[str, Sequence[str]],
    paper: Mapping[str, Mapping[str, Mapping[str, float]]],
    imported: Mapping[str, Mapping[str, Any]],
) -> list[Table]:
    """Arrange results by benchmark.

    Args:
        metrics: model -> benchmark -> data set or mean -> measure -> {value, low, high, n}; values are shares. The key
            ``_`` of a model holds what is known of it.
        means: benchmark -> names of its means, in the order of the columns.
        paper: benchmark -> row -> mean -> percent; a benchmark that stands for another (mini-MMEB for MMEB) has the
            rows of that one.
        imported: Files of ``unime scores import``: benchmark, datasets and means with shares.

    Returns:
        One table per benchmark that any model or any file has, in their order.
    """
    names = dict.fromkeys(name for model in metrics.values() for name in model if name != FACTS)
    names |= dict.fromkeys(str(file["benchmark"]) for file in imported.values())
    return [_table(name, metrics, means.get(name, ()), paper.get(name, {}), imported) for name in names]


def _table(
    benchmark: str,
    metrics: Mapping[str, Any],
    means: Sequence[str],
    paper: Mapping[str, Mapping[str, float]],
    imported: Mapping[str, Mapping[str, Any]],
) -> Table:
    scores = {model: found[benchmark] for model, found in metrics.items() if benchmark in found}
    files = {name: file for name, file in imported.items() if file["benchmark"] == benchmark}
    measure = _measure(list(scores.values()))
    ours = {model: {name: _cell(values, measure) for name, values in part.items()} for model, part in scores.items()}
    theirs = {str(file.get("name") or name): _imported(file) for name, file in files.items()}
    rows = [(name, cells, "ours") for name, cells in ours.items()]
    rows += [(name, cells, "imported") for name, cells in theirs.items()]
    known = dict.fromkeys(name for _, cells, _ in rows for name in cells)
    columns = [name for name in means if name in known]
    single = [name for name in known if name not in means]
    published = [(name, {key: _percent(value) for key, value in row.items()}, "paper") for name, row in paper.items()]
    if not columns:
        return Table(benchmark, measure, single, _rows(rows, single), None, _missing(metrics, benchmark, files))
    return Table(
        benchmark,
        measure,
        [_TITLES.get(name, name) for name in columns],
        _rows([*rows, *published], columns),
        (single, _rows(rows, single)) if single else None,
        _missing(metrics, benchmark, files),
        bool(published) and benchmark != "MMEB",
    )


def _rows(rows: Sequence[tuple[str, Mapping[str, Cell | None], str]], columns: Sequence[str]) -> list[Row]:
    return [Row(name, [cells.get(column) for column in columns], kind) for name, cells, kind in rows]


def _measure(scores: Sequence[Mapping[str, Mapping[str, Any]]]) -> str:
    """Return the title of the measure that most of a benchmark's results have."""
    found = [name for part in scores for values in part.values() for name in MEASURES if name in values]
    return MEASURES[max(MEASURES, key=found.count)] if found else MEASURES["precision_at_1"]


def _cell(values: Mapping[str, Any], measure: str) -> Cell | None:
    """Return the figure of a table's measure; of another where a data set lacks it."""
    names = sorted((name for name in MEASURES if name in values), key=lambda name: MEASURES[name] != measure)
    found = values[names[0]] if names else None
    if found is None or found.get("value") is None:
        return None
    return Cell(found["value"], found.get("low"), found.get("high"), found.get("n"))


def _imported(file: Mapping[str, Any]) -> dict[str, Cell | None]:
    """Return imported figures, means and data sets; a number stands for a share without interval."""
    cells: dict[str, Cell | None] = {}
    for name, value in {**(file.get("datasets") or {}), **(file.get("means") or {})}.items():
        found = value if isinstance(value, Mapping) else {"value": value}
        share = found.get("value")
        cells[name] = None if share is None else Cell(share, found.get("low"), found.get("high"), found.get("n"))
    return cells


def _percent(value: float) -> Cell:
    return Cell(value / 100, None, None, None)


def _missing(
    metrics: Mapping[str, Any], benchmark: str, files: Mapping[str, Mapping[str, Any]]
) -> dict[str, list[str]]:
    """Return model -> declared data sets without a figure, of those that lack some."""
    found: dict[str, list[str]] = {}
    for model, part in metrics.items():
        figures = [figure for values in part.get(benchmark, {}).values() for figure in values.values()]
        names = dict.fromkeys(name for figure in figures for name in figure.get("missing") or ())
        if names:
            found[model] = list(names)
    return found | {str(f.get("name") or key): list(f["missing"]) for key, f in files.items() if f.get("missing")}
