"""The report as one HTML page that opens anywhere: no network, no JavaScript, light and dark."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import polars as pl

from unime_kedro.io.page_parts import environment
from unime_kedro.reporting.ablations import Ablation
from unime_kedro.reporting.results import Table

#: characters of a hash that are shown
_SHORT = 12


class Section(NamedTuple):
    """A section's place in the page, and what is said when its data are not there.

    Attributes:
        id: Anchor.
        title: Heading.
        absent: What is missing.
        command: What makes it.
    """

    id: str
    title: str
    absent: str
    command: str


SECTIONS = (
    Section("results", "Results", "No model was evaluated.", "kedro run --pipeline=evaluate"),
    Section("differences", "Differences between models", "No two models were evaluated on the same queries.",
            "kedro run --pipeline=evaluate"),
    Section("ablations", "Ablations", "No ablation was run.", "unime ablate components"),
    Section("judge", "The judge's scores", "Nothing was judged.", "kedro run --pipeline=mine"),
    Section("training", "Training", "Nothing was trained.", "kedro run --pipeline=train"),
    Section("embeddings", "Texts and pictures in the embedding space", "There are no contents to embed.",
            "kedro run --pipeline=evaluate"),
    Section("cases", "Wins and losses", "There are no rankings of two models.", "kedro run --pipeline=evaluate"),
    Section("leakage", "Training data among the test data", "Leakage was not looked for.",
            "kedro run --pipeline=evaluate"),
    Section("judge-card", "Judge card", "The judge was not measured.", "kedro run --pipeline=judge_card"),
)  # fmt: skip


@dataclass(frozen=True)
class Content:
    """What the page shows; empty parts become one line that says what is missing.

    Attributes:
        title: Heading of the page.
        facts: Command, commit and so on, in this order.
        notes: What a reader must know before believing the numbers.
        models: name -> what is known of it (folder, fingerprint, reranker).
        results: See :func:`.results.results_tables`.
        paper: Where the paper's rows are from, "" if none are shown.
        differences: (first, second, benchmark) -> rows as for :func:`.figures.differences_figure`, with n, first,
            second (shares), p and detectable.
        level: Level of the intervals.
        ablations: Groups.
        gaps: model -> distance, spread, texts, pictures.
        projected: What was projected, in words.
        cases: One per pair of models: the :class:`.cases.Pair` as ``pair``, and ``wins`` and ``losses`` as views.
        cases_seed: Seed of their choice.
        leakage: Leakage counts: a table (see :func:`count_table`).
        judge_card: Main figures of the judge: name -> number.
        svgs: name -> figure as an ``<svg>`` element.
        sources: section id -> lines on the files behind it.
        pictures: (CSS class, data URI).
    """

    title: str
    facts: Mapping[str, str]
    notes: Sequence[str] = ()
    models: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    results: Sequence[Table] = ()
    paper: str = ""
    differences: Mapping[tuple[str, str, str], pl.DataFrame] = field(default_factory=dict)
    level: float = 0.95
    ablations: Sequence[Ablation] = ()
    gaps: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    projected: str = ""
    cases: Sequence[Mapping[str, Any]] = ()
    cases_seed: int = 0
    leakage: CountTable | None = None
    judge_card: Mapping[str, float | str] = field(default_factory=dict)
    svgs: Mapping[str, str] = field(default_factory=dict)
    sources: Mapping[str, Sequence[str]] = field(default_factory=dict)
    pictures: Sequence[tuple[str, str]] = ()


class CountTable(NamedTuple):
    """Nested counts as rows and columns.

    Attributes:
        columns: Headings.
        rows: Name and numbers, None where a row has none.
        facts: What belongs to no row.
        zero: Headings of columns that are left out because they hold nothing but zeros.
    """

    columns: list[str]
    rows: list[tuple[str, list[float | None]]]
    facts: dict[str, Any]
    zero: list[str]


def render_report(content: Content) -> str:
    """Render the report; the same content gives the same bytes.

    Returns:
        The page, text to be written as UTF-8.
    """
    there = {
        "results": bool(content.results),
        "differences": bool(content.differences),
        "ablations": bool(content.ablations),
        "judge": "judge_scores" in content.svgs,
        "training": any(name.endswith("_curves") for name in content.svgs),
        "embeddings": "projection" in content.svgs,
        "cases": any(one["wins"] or one["losses"] for one in content.cases),
        "leakage": content.leakage is not None and bool(content.leakage.rows),
        "judge-card": bool(content.judge_card),
    }
    engine = environment()
    engine.filters["percent"] = lambda value, sign="": "" if value is None else f"{100 * value:{sign}.1f}"
    engine.filters["chance"] = lambda value: "" if value is None else "< .001" if value < 0.001 else f"{value:.3f}"[1:]
    engine.filters["figure"] = number
    return engine.get_template("report.html.j2").render(content=content, sections=SECTIONS, there=there)


def number(value: Any) -> str:
    """Return a number as it is shown: whole ones with separators, others with four digits."""
    if value is None:
        return ""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return str(value)
    return f"{value:,.0f}" if float(value).is_integer() and abs(value) < 1e15 else f"{value:.4g}"


def count_table(nested: Mapping[str, Any]) -> CountTable:
    """Put nested counts into a table: a row per mapping of the outermost level, a column per (joined) inner key.

    Args:
        nested: Such as ``{"EmojiCrops": {"queries": 9, "targets": {"exact": 2}}, "hash_distance": 4}``. Mappings of
            mappings of mappings make rows such as ``mini-MMEB / EmojiCrops``.

    Returns:
        Rows in their order; what is no mapping at the outermost level is a fact.
    """
    rows: dict[str, dict[str, float]] = {}
    facts = {}
    for key, value in nested.items():
        if not isinstance(value, Mapping):
            facts[key] = value
        elif value and all(isinstance(inner, Mapping) and _is_row(inner) for inner in value.values()):
            rows |= {f"{key} / {name}": dict(_flat(inner)) for name, inner in value.items()}
        else:
            rows[key] = dict(_flat(value))
    names = list(dict.fromkeys(name for row in rows.values() for name in row))
    columns = [name for name in names if any(row.get(name) for row in rows.values())]
    cells = [(key, [row.get(name) for name in columns]) for key, row in rows.items()]
    return CountTable(columns, cells, facts, [name for name in names if name not in columns])


def _is_row(value: Mapping[str, Any]) -> bool:
    """Whether a mapping is of a data set: numbers and mappings, not numbers by kind alone."""
    return any(isinstance(inner, Mapping) for inner in value.values()) or "queries" in value


def _flat(value: Mapping[str, Any], prefix: str = "") -> list[tuple[str, float]]:
    found: list[tuple[str, float]] = []
    for key, inner in value.items():
        if isinstance(inner, Mapping):
            found += _flat(inner, f"{prefix}{key} ")
        elif isinstance(inner, (int, float)) and not isinstance(inner, bool):
            found.append((f"{prefix}{key}", inner))
    return found


def main_figures(nested: Mapping[str, Any]) -> dict[str, float]:
    """Return the outermost numbers of the judge card's metrics, which are its main figures, by name for people."""
    numbers = {k: v for k, v in nested.items() if isinstance(v, (int, float)) and not isinstance(v, bool)}
    return {key.replace("_", " "): value for key, value in numbers.items()}


def source_lines(origins: Mapping[str, Mapping[str, Any]], names: Sequence[str]) -> list[str]:
    """Say of each file which run wrote it: hash, command, commit, seeds, hashes of its inputs.

    Args:
        origins: dataset -> sha256, and command, commit, dirty, seeds, inputs where a run is known.
        names: The datasets; those that are not there are left out.
    """
    return [_source(name, origins[name]) for name in names if name in origins]


def record_line(what: str, record: Mapping[str, Any] | None) -> list[str]:
    """Say what a file records of its own making, such as ``judge_origin.json``: one line, none without a record."""
    if not record:
        return []
    return [f"{what}: " + ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in record.items())]


def _source(name: str, origin: Mapping[str, Any]) -> str:
    head = f"{name} (sha256 {str(origin['sha256'])[:_SHORT]})"
    if not origin.get("command"):
        return f"{head}: written by a run that is not in the tracking store"
    commit = str(origin.get("commit") or "no commit")[:10] + (", changed files" if origin.get("dirty") else "")
    seeds = ", ".join(f"{key} {value}" for key, value in (origin.get("seeds") or {}).items())
    inputs = ", ".join(f"{key} {value[:_SHORT]}" for key, value in (origin.get("inputs") or {}).items())
    parts = [
        f"{origin['command']}",
        f"commit {commit}",
        f"seeds: {seeds}" * bool(seeds),
        f"read: {inputs}" * bool(inputs),
    ]
    return f"{head}: " + "; ".join(part for part in parts if part)
