"""Results of ablation groups, as ``unime ablate`` saves them, for figure and table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple


class Arm(NamedTuple):
    """One arm against the reference.

    Attributes:
        arm: Its name.
        seeds: Its seeds.
        mean: Mean of the compared measure over seeds.
        deviation: Standard deviation over seeds, None for one seed.
        difference: To the reference arm, None for the reference itself.
        low: Lower end of the difference's 95 % interval, None where there is none.
        high: Upper end.
        by_seed: The difference for each seed.
        paper: The paper's difference to the same reference, in percentage points, None where it has none.
    """

    arm: str
    seeds: list[int]
    mean: float | None
    deviation: float | None
    difference: float | None
    low: float | None
    high: float | None
    by_seed: list[float]
    paper: float | None


class Ablation(NamedTuple):
    """One group of arms."""

    name: str
    title: str
    reference: str
    measure: str
    percent: bool
    arms: list[Arm]
    paper: str
    notes: list[str]
    runs: dict[str, str]


def ablation(document: Mapping[str, Any]) -> Ablation:
    """Read the JSON document of a group (``08_reporting/ablations/<group>.json``).

    Args:
        document: group, title, reference, columns, arms, paper, notes, runs.

    Returns:
        The first of the group's measures, which is the one that arms are compared by.
    """
    first = next(iter(document["columns"]), "")
    column = document["columns"].get(first) or {"title": first or "?", "percent": True}
    paper = document.get("paper")
    arms = [_arm(row, first, document["reference"], paper) for row in document["arms"]]
    theirs = f"{paper['table']}, {paper['columns'][0]} ({paper['model']})" if paper else ""
    return Ablation(
        document["group"], document["title"], document["reference"], column["title"], bool(column["percent"]), arms,
        theirs, list(document.get("notes") or []), _origin(document.get("runs") or {}),
    )  # fmt: skip


def _arm(row: Mapping[str, Any], measure: str, reference: str, paper: Mapping[str, Any] | None) -> Arm:
    figure, gap = row["figures"].get(measure) or {}, row.get("difference") or {}
    figures = paper["figures"] if paper else {}
    theirs, base = figures.get(row["arm"]), figures.get(reference)
    return Arm(
        arm=row["arm"],
        seeds=list(row["seeds"]),
        mean=figure.get("mean"),
        deviation=figure.get("deviation"),
        difference=gap.get("value"),
        low=gap.get("low"),
        high=gap.get("high"),
        by_seed=[float(value) for value in (gap.get("by_seed") or {}).values()],
        paper=theirs[0] - base[0] if theirs and base and row["arm"] != reference else None,
    )


def _origin(runs: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """Return commits, hashes of inputs and seeds behind the runs, each distinct value once."""
    commits = {_commit(run.get("code") or {}) for run in runs.values()}
    inputs: dict[str, set[str]] = {}
    for run in runs.values():
        for name, digest in (run.get("inputs") or {}).items():
            inputs.setdefault(str(name), set()).add(str(digest)[:12])
    hashes = "; ".join(f"{name} {', '.join(sorted(found))}" for name, found in sorted(inputs.items()))
    return {"commit": ", ".join(sorted(commits - {""})), "data": hashes}


def _commit(code: Mapping[str, Any]) -> str:
    commit = str(code.get("git.code") or code.get("mlflow.source.git.commit") or "")[:10]
    return f"{commit} (changed)" if commit and str(code.get("git.dirty")) == "true" else commit
