"""``unime check-results``."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from collections.abc import Sequence

    from unime_kedro.reproduce.results import Comparison, Group

#: verdict -> what the table says
_WORDS = {
    "same": "same",
    "within": "within tolerance",
    "outside": "OUTSIDE",
    "missing": "MISSING",
    "unknown": "nothing to compare",
}


@click.command("check-results")
@click.option("--write", is_flag=True, help="Take the figures found here for the expected ones (maintainers).")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document instead of tables.")
def check_results_command(write: bool, as_json: bool) -> None:
    """Compare the figures of `make reproduce` with those that are expected.

    The expected figures and how far another machine may be from them are in expected.yml. Ends with status 1 if a
    figure is missing or outside of its tolerance.
    """
    import unime_kedro.settings  # noqa: F401  (switches off usage statistics of what is imported below)
    from unime_kedro.command_errors import readable_errors
    from unime_kedro.paths import project_root
    from unime_kedro.reproduce.results import FILE, PAGE, compare, read_expected, write_expected

    root = project_root()
    with readable_errors():
        groups = read_expected(root / FILE)
        compared = compare(groups, root)
        if write:
            write_expected(root, compared)
            click.echo(f"wrote {FILE} and the tables of {PAGE}")
            return
    click.echo(_json(groups, compared) if as_json else _text(groups, compared))
    if any(one.fails for group in compared for one in group):
        sys.exit(1)


def _json(groups: Sequence[Group], compared: Sequence[Sequence[Comparison]]) -> str:
    import json

    def entry(group: Group, one: Comparison) -> dict[str, Any]:
        figure = one.figure.model_dump(include={"name", "file", "key", "tolerance"})
        return {"group": group.title, **figure, "expected": one.figure.value, "here": one.found, "verdict": one.verdict}

    rows = [entry(group, one) for group, rows in zip(groups, compared, strict=True) for one in rows]
    return json.dumps({"reproduced": not any(one.fails for g in compared for one in g), "figures": rows}, indent=1)


def _text(groups: Sequence[Group], compared: Sequence[Sequence[Comparison]]) -> str:
    from unime_kedro.reproduce.results import shown

    every = [one for rows in compared for one in rows]
    width = max(len(one.figure.name) for one in every)
    lines = []
    for group, rows in zip(groups, compared, strict=True):
        lines += [group.title, f"  {'':{width}} {'expected':>10} {'here':>10} {'tolerance':>10}"]
        for one in rows:
            figure = one.figure
            allowed = shown(figure, figure.tolerance) if figure.tolerance else "exact"
            cells = [shown(figure, figure.value), shown(figure, one.found), allowed]
            lines.append(f"  {figure.name:{width}} {' '.join(f'{cell:>10}' for cell in cells)}  {_WORDS[one.verdict]}")
    lines += ["", _summary(every)]
    return "\n".join(lines)


def _summary(every: Sequence[Comparison]) -> str:
    counts = {verdict: sum(one.verdict == verdict for one in every) for verdict in _WORDS}
    if counts["unknown"]:
        return "expected.yml has no values yet; `unime check-results --write` writes them."
    if counts["missing"]:
        first = next(one.figure for one in every if one.verdict == "missing")
        return (
            f"{counts['missing']} of {len(every)} figures are missing, first {first.key} of {first.file}. "
            "`make reproduce` makes them all."
        )
    if counts["outside"]:
        return (
            f"NOT reproduced: {counts['outside']} of {len(every)} figures are outside of their tolerance. "
            "`dvc status` names what is not up to date; REPRODUCING.md says what differs on other machines."
        )
    return f"Reproduced: {counts['same']} of {len(every)} figures are the same, {counts['within']} within tolerance."
