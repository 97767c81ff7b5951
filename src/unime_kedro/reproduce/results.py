"""The figures that a reproduction is about: what they should be, what they are here, and whether that is the same.

``expected.yml`` lists them by hand: name, file, place in the file, tolerance, and the paper's figure where it has one.
Their values are written by ``unime check-results --write`` after a whole ``make reproduce``, never by hand.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from unime_kedro.atomic import atomic_write
from unime_kedro.errors import ConfigurationError, DataError

FILE, PAGE = Path("expected.yml"), Path("REPRODUCING.md")
#: lines of the page between which the table is written
BEGIN, END = "<!-- made by unime check-results --write: begin -->", "<!-- end -->"


class Figure(BaseModel):
    """One figure.

    Attributes:
        name: What it is called in the table.
        file: The JSON file that has it, relative to the project root.
        key: Where it is there, parts with ``/`` between them. In a list of objects a part is the ``arm`` of one.
        tolerance: How far it may lie from ``value`` on another machine, as it is in the file.
        percent: Whether it is a share that is shown in percent.
        value: What it is on the machine that the committed ``dvc.lock`` is of; null before it was ever written.
        paper: The paper's figure, as it is printed there.
        paper_source: Where in the paper, and how what was measured there differs from this.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    name: str = Field(min_length=1)
    file: str = Field(min_length=1)
    key: str = Field(min_length=1)
    tolerance: float = Field(ge=0)
    percent: bool = False
    value: float | None = None
    paper: float | None = None
    paper_source: str | None = None


class Group(BaseModel):
    """Figures of one table."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    title: str
    note: str = ""
    figures: tuple[Figure, ...] = Field(strict=False, min_length=1)


class Comparison(NamedTuple):
    """A figure as it should be and as it is.

    Attributes:
        figure: The figure.
        found: What it is here, None where it is not there.
        verdict: ``same``, ``within`` (the tolerance), ``outside``, ``missing`` or ``unknown`` (there is nothing to
            compare it to).
    """

    figure: Figure
    found: float | None
    verdict: str

    @property
    def fails(self) -> bool:
        """Whether this is no reproduction."""
        return self.verdict in ("outside", "missing")


def read_expected(file: Path) -> list[Group]:
    """Return the groups of ``expected.yml``.

    Raises:
        ConfigurationError: It is missing, no YAML, or a key or value is wrong; names all faults.
    """
    try:
        raw = yaml.safe_load(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ConfigurationError(f"{file} is missing; git checkout {FILE}") from error
    except yaml.YAMLError as error:
        raise ConfigurationError(f"{file} is no YAML: {error}") from error
    try:
        if not isinstance(raw, list):
            raise ConfigurationError(f"{file}: expected a list of groups with title and figures")
        return [Group.model_validate(group) for group in raw]
    except ValidationError as error:
        faults = [f"  {'.'.join(map(str, e['loc']))}: {e['msg']}, got {e['input']!r}" for e in error.errors()]
        raise ConfigurationError("\n".join([f"{file} has {len(faults)} faults:", *faults])) from error


def compare(groups: Sequence[Group], root: Path) -> list[list[Comparison]]:
    """Look every figure up, in the order of the groups; each file is read once.

    Raises:
        DataError: A file is no JSON, or what a key leads to is no number.
    """
    files: dict[str, Any] = {}
    for figure in (figure for group in groups for figure in group.figures):
        if figure.file not in files:
            files[figure.file] = _read(root / figure.file)
    return [[_compared(figure, files[figure.file]) for figure in group.figures] for group in groups]


def _read(file: Path) -> Any:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise DataError(f"{file} is no JSON: {error}. `dvc checkout --force {file}` brings it back.") from error


def _compared(figure: Figure, content: Any) -> Comparison:
    found = _at(content, figure)
    if found is None:
        return Comparison(figure, None, "missing")
    if figure.value is None:
        return Comparison(figure, found, "unknown")
    if found == figure.value:
        return Comparison(figure, found, "same")
    # a tolerance of .001 takes .577 for .576: the last bits of a difference of floats are nobody's finding
    near = abs(found - figure.value) <= figure.tolerance + 1e-9 * max(1.0, abs(figure.value))
    return Comparison(figure, found, "within" if near else "outside")


def _at(content: Any, figure: Figure) -> float | None:
    for part in figure.key.split("/"):
        if isinstance(content, list):
            content = next((one for one in content if isinstance(one, Mapping) and one.get("arm") == part), None)
        else:
            content = content.get(part) if isinstance(content, Mapping) else None
        if content is None:
            return None
    if isinstance(content, bool) or not isinstance(content, (int, float)) or not math.isfinite(content):
        raise DataError(f"{figure.file}, {figure.key}: {content!r}; expected a number")
    return float(content)


def shown(figure: Figure, value: float | None) -> str:
    """Return a value as it is printed: shares in percent with one decimal, counts with commas, others with four."""
    if value is None:
        return "-"
    if figure.percent:
        return f"{100 * value:.1f}"
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:.4f}"


def write_expected(root: Path, compared: Sequence[Sequence[Comparison]]) -> None:
    """Write the values found into ``expected.yml``, whose remarks stay, and the table into ``REPRODUCING.md``.

    Raises:
        DataError: A figure is missing here, or the page lacks the lines that the table belongs between.
    """
    from ruamel.yaml import YAML

    missing = [one.figure for group in compared for one in group if one.found is None]
    if missing:
        raise DataError(f"{missing[0].file} has no {missing[0].key} ({len(missing)} figures are missing here).")
    round_trip = YAML()
    round_trip.width, round_trip.preserve_quotes = 1000, True
    groups = round_trip.load((root / FILE).read_text(encoding="utf-8"))
    for group, rows in zip(groups, compared, strict=True):
        for entry, one in zip(group["figures"], rows, strict=True):
            assert one.found is not None
            entry["value"] = int(one.found) if one.found.is_integer() else one.found
    page = _with_table(root / PAGE, [Group.model_validate(json.loads(json.dumps(group))) for group in groups])
    with atomic_write(root / FILE) as file, file.open("w", encoding="utf-8") as stream:
        round_trip.dump(groups, stream)
    with atomic_write(root / PAGE) as file:
        file.write_text(page, encoding="utf-8")


def _with_table(page: Path, groups: Sequence[Group]) -> str:
    text = page.read_text(encoding="utf-8")
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise DataError(f"{page} lacks the lines {BEGIN} and {END}; the table is written between them.")
    return f"{before}{BEGIN}\n\n{markdown(groups)}\n{END}{after}"


def markdown(groups: Sequence[Group]) -> str:
    """Return the tables of all groups, ending in an empty line."""
    parts = []
    for group in groups:
        paper = any(figure.paper is not None for figure in group.figures)
        head = ["figure", "here", "tolerance", *(["paper", "difference"] if paper else [])]
        rows = [" | ".join(_cells(figure, paper)) for figure in group.figures]
        lines = [f"**{group.title}**", *([group.note] if group.note else [])]
        table = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}", *(f"| {row} |" for row in rows)]
        parts.append("\n\n".join([*lines, "\n".join(table)]))
    return "\n\n".join(parts) + "\n"


def _cells(figure: Figure, paper: bool) -> list[str]:
    tolerance = shown(figure, figure.tolerance) if figure.tolerance else "exact"
    cells = [figure.name, shown(figure, figure.value), tolerance if tolerance == "exact" else f"± {tolerance}"]
    if not paper:
        return cells
    if figure.paper is None or figure.value is None:
        return [*cells, "-", "-"]
    ours = 100 * figure.value if figure.percent else figure.value
    source = f" ({figure.paper_source})" if figure.paper_source else ""
    return [*cells, f"{figure.paper:g}{source}", f"{ours - figure.paper:+.1f}"]
