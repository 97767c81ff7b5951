"""The result of a group as a page: what was compared, with the paper's figures beside it and what they do not say."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from unime_kedro.ablations.config import Column, Group
from unime_kedro.ablations.plan import Plan
from unime_kedro.ablations.project import Project
from unime_kedro.ablations.results import ArmResult, Difference, Done, Figure, arm_results
from unime_kedro.ablations.state import write_json
from unime_kedro.atomic import atomic_write
from unime_kedro.io.run_figures import write_run_figures
from unime_kedro.tracking.provenance import code_commit

#: a group's results below the data root, and whether people or programs read them
RESULT_FILES = {"08_reporting/ablations/{group}.md": "page", "08_reporting/ablations/{group}.json": "out"}
_TINY = (
    "**Tiny models, synthetic data.** {which} trained from nothing on synthetic scenes of drawings. The "
    "figures show what the method does at that size; they say nothing about models of the paper's."
)


def write_table(
    project: Project, plan: Plan, done: Done, notes: Sequence[str]
) -> tuple[str, list[Path], list[ArmResult]]:
    """Write a group's results as markdown and JSON.

    Args:
        project: The project.
        plan: The group's plan.
        done: Finished runs with their records.
        notes: Sentences on what is missing.

    Returns:
        The page, its files below ``08_reporting/ablations``, and its rows.
    """
    done = _in_order(plan, done)
    rows = arm_results(project, plan, done)
    notes = [*notes, *_notes(plan, rows, done)]
    page = markdown(plan, rows, notes, _tiny_note(plan))
    files = [project.base.data_root / file.format(group=plan.name) for file in RESULT_FILES]
    with atomic_write(files[0]) as temporary:
        temporary.write_text(page, encoding="utf-8")
    write_json(files[1], _document(plan, rows, notes, done))
    of_runs = {run.label: {key: record[key] for key in _OF_A_RUN if key in record} for run, record in done}
    known = {label: facts for label, facts in of_runs.items() if facts}
    write_run_figures(files[1], {"runs": known} if known else {})
    return page, files, rows


def _in_order(plan: Plan, done: Done) -> Done:
    """Sort what is done as planned, whichever ended first."""
    order = {run.label: place for place, run in enumerate(plan.runs)}
    return sorted(done, key=lambda one: order[one[0].label])


def markdown(plan: Plan, rows: Sequence[ArmResult], notes: Sequence[str], tiny: str) -> str:
    """Return the page."""
    group = plan.group
    columns = {name: c for name, c in group.results.columns.items() if any(name in row.figures for row in rows)}
    lines = [f"# {group.title}", "", f"`unime ablate {plan.name}`: {_what(plan, rows)}", ""]
    lines += [tiny, ""] if tiny else []
    lines += [*_grid(group, columns, rows), ""]
    lines += [_legend(group, columns, rows), ""]
    lines += [f"- {note}" for note in notes]
    return "\n".join(lines).rstrip() + "\n"


def _what(plan: Plan, rows: Sequence[ArmResult]) -> str:
    group = plan.group
    seeds = sorted({seed for row in rows for seed in row.seeds})
    return (
        f"arms differ in {', '.join(f'`{key}`' for key in group.keys)} and in nothing else; stages "
        f"{', '.join(plan.stages)}; `{group.seed_key}` {', '.join(map(str, seeds)) or 'none'}."
    )


def _grid(group: Group, columns: Mapping[str, Column], rows: Sequence[ArmResult]) -> list[str]:
    """Return the table's lines: ours, the difference, what was tuned, and the paper's."""
    first = next(iter(columns.values())).title if columns else "?"
    tuned = group.tune.key if group.tune and any(group.tune.key in row.overrides for row in rows) else None
    paper = group.paper
    head = ["arm", "seeds", *(column.title for column in columns.values()), f"{first} against {group.reference}"]
    head += [f"{tuned} (tuned)"] if tuned else []
    head += [f"paper: {name}" for name in paper.columns] if paper else []
    table = [head]
    for row in rows:
        cells = [row.arm, str(len(row.seeds))]
        cells += [_cell(column, row.figures.get(name)) for name, column in columns.items()]
        cells += [_gap(next(iter(columns.values())), row.difference) if columns else ""]
        cells += [str(row.overrides.get(tuned, ""))] if tuned else []
        theirs = paper.figures.get(row.arm) if paper else None
        cells += [f"{value:.1f}" for value in theirs] if theirs else [""] * (len(paper.columns) if paper else 0)
        table.append(cells)
    widths = [max(len(cells[i]) for cells in table) for i in range(len(head))]
    rule = ["-" * max(width, 3) for width in widths]
    rule = [rule[0], *(f"{dashes[:-1]}:" for dashes in rule[1:])]
    rendered = [[cell.ljust(widths[0]) if i == 0 else cell.rjust(widths[i]) for i, cell in enumerate(c)] for c in table]
    return [f"| {' | '.join(cells)} |" for cells in [rendered[0], rule, *rendered[1:]]]


def _cell(column: Column, figure: Figure | None) -> str:
    if figure is None:
        return ""
    if figure.deviation is None:
        return number(column, figure.mean)
    return f"{number(column, figure.mean)} ± {number(column, figure.deviation)}"


def _gap(column: Column, difference: Difference | None) -> str:
    if difference is None:
        return ""
    text = number(column, difference.value, "+")
    if difference.low is None or difference.high is None:
        return text
    return f"{text} [{number(column, difference.low, '+')}, {number(column, difference.high, '+')}]"


def number(column: Column, value: float, sign: str = "") -> str:
    """Return a figure as it is shown."""
    if not math.isfinite(value):
        return "?"
    return f"{100 * value:{sign}.1f}" if column.percent else f"{value:{sign}.4g}"


def _legend(group: Group, columns: Mapping[str, Column], rows: Sequence[ArmResult]) -> str:
    sentences = []
    if any(column.percent for column in columns.values()):
        sentences.append("Figures in percent.")
    if any(figure.deviation is not None for row in rows for figure in row.figures.values()):
        sentences.append("Mean ± sample standard deviation over seeds.")
    if any(row.difference and row.difference.low is not None for row in rows):
        sentences.append("Differences with their 95 % interval, over the same queries and seeds.")
    elif any(row.difference for row in rows):
        sentences.append("Differences without an interval: there are no predictions of single queries.")
    if group.paper:
        sentences.append(
            f"The paper's figures are those of its {group.paper.table} ({group.paper.model}, MMEB and others, one "
            "run each): other models, data and sizes, so that only orders and directions can be compared."
        )
    return " ".join(sentences)


def _tiny_note(plan: Plan) -> str:
    """Return the sentence on tiny models, "" if none of the stages uses one."""
    from unime_kedro.own_data import is_embedded_model

    found: dict[str, None] = {}
    for run in plan.runs:
        for section in ("pool", "judge", "train"):  # the pool and the judge made what is trained on, here or before
            model = (run.resolved.parameters.get(section) or {}).get("model")
            if isinstance(model, str) and is_embedded_model(model):
                found[f"`{model}`"] = None
    if not found:
        return ""
    return _TINY.format(which=f"{', '.join(found)} {'was' if len(found) == 1 else 'were'}")


def _notes(plan: Plan, rows: Sequence[ArmResult], done: Done) -> list[str]:
    notes = [f"{arm} is not in the table, it cannot be run here: {why}" for arm, why in plan.not_runnable.items()]
    if len({tuple(row.seeds) for row in rows}) > 1:
        notes.append("Not all arms have the same seeds: " + "; ".join(f"{r.arm} {r.seeds}" for r in rows) + ".")
    commits = {code_commit(code) for _, record in done if (code := record.get("code"))}
    if len(commits) > 1:
        notes.append(
            f"The runs are of {len(commits)} versions of the code: {', '.join(sorted(c[:10] for c in commits))}."
        )
    if any((record.get("code") or {}).get("git.dirty") == "true" for _, record in done):
        notes.append("Some runs are of code with changes that were not committed.")
    return notes


def seconds_line(plan: Plan, done: Done) -> str:
    """Say how long the runs of each arm took, "" where that is not known; no part of the result, which has no times."""
    seconds: dict[str, list[float]] = {}
    for run, record in _in_order(plan, done):
        if isinstance(record.get("seconds"), (int, float)):
            seconds.setdefault(run.variant.arm, []).append(record["seconds"])
    means = ", ".join(f"{arm} {statistics.fmean(values):,.0f}" for arm, values in seconds.items())
    return f"Seconds per run, mean: {means}." if means else ""


def _document(plan: Plan, rows: Sequence[ArmResult], notes: Sequence[str], done: Done) -> dict[str, Any]:
    return {
        "group": plan.name,
        "title": plan.group.title,
        "keys": plan.group.keys,
        "stages": list(plan.stages),
        "reference": plan.group.reference,
        "columns": {name: column.model_dump() for name, column in plan.group.results.columns.items()},
        "arms": [asdict(row) for row in rows],
        "paper": plan.group.paper.model_dump() if plan.group.paper else None,
        "not_runnable": plan.not_runnable,
        "notes": list(notes),
        "runs": {run.label: {key: record[key] for key in _OF_A_RESULT} for run, record in done},
    }


#: what a run's record says of its result, and of itself; the latter lies in a file beside the table's
_OF_A_RESULT = ("overrides", "digest", "inputs", "metrics")
_OF_A_RUN = ("code", "mlflow_run_id", "seconds", "finished")


def metrics_of(name: str, rows: Sequence[ArmResult]) -> dict[str, float]:
    """Return the table's figures under flat names, as MLflow keeps them: ``components/hard/precision_at_1_mean``."""
    found: dict[str, float] = {}
    for row in rows:
        for key, figure in row.figures.items():
            found[f"{name}/{row.arm}/{key}_mean"] = figure.mean
            if figure.deviation is not None:
                found[f"{name}/{row.arm}/{key}_std"] = figure.deviation
        gap = row.difference
        if gap:
            ends = {"difference": gap.value, "difference_low": gap.low, "difference_high": gap.high}
            found |= {f"{name}/{row.arm}/{key}": value for key, value in ends.items() if value is not None}
    return found
