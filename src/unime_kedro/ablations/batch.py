"""The runs of a plan on their way: what each one's beginning and end mean."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from unime_kedro.ablations.inputs import input_digests
from unime_kedro.ablations.parent import Parent
from unime_kedro.ablations.plan import ArmRun, Plan, differences, still_same
from unime_kedro.ablations.project import DATA_VARIABLE, Project
from unime_kedro.ablations.results import column_value
from unime_kedro.ablations.runner import Ended, run_all
from unime_kedro.ablations.state import LOG, OPTIONS, State, finish, prepare
from unime_kedro.ablations.table import number
from unime_kedro.errors import ConfigurationError, DataError, UnimeError

Say = Callable[[str], None]
#: lines of a failed run's output that are shown
_LAST_LINES = 12


@dataclass
class Batch:
    """Runs of a plan on their way.

    Attributes:
        done: Finished runs with their records, those of earlier commands included.
        failed: Labels of the runs that failed.
    """

    project: Project
    plan: Plan
    parent: Parent
    say: Say
    states: dict[int, State]
    done: list[tuple[ArmRun, Mapping[str, Any]]] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)

    def line(self, run: ArmRun, text: str) -> None:
        """Say something of a run."""
        self.say(f"{self.plan.name}  {run.variant.label}  seed {run.seed}  {text}")

    def start(self, run: ArmRun) -> tuple[Sequence[str], Path] | None:
        """Make a run ready; None if it must not be run."""
        try:
            if not still_same(self.project, self.plan, run):
                raise ConfigurationError("its parameters have been changed since this command began; give it again")
            arguments = prepare(self.project, self.plan, run, self.states[id(run)])
        except UnimeError as error:
            self.fail(run, str(error))
            return None
        self.line(run, "goes on" if self.states[id(run)].kind == "begun" else "begins")
        return arguments, run.folder / LOG

    def ended(self, run: ArmRun, how: Ended) -> None:
        """Take over a run's results, or show its error."""
        child = self.parent.child(run.folder / OPTIONS, run.label, run.variant.arm, run.seed)
        if how.status:
            self.fail(
                run, f"{_status(how.status)} after {how.seconds:,.0f} s:\n{last_lines(how.log)}\n  all of it: {how.log}"
            )
            return
        try:
            _check_inputs_kept(self.project, self.plan, run)
            record = finish(self.project, self.plan, run, how.seconds, child)
        except (UnimeError, OSError) as error:
            self.fail(run, f"{error}\n  its output: {how.log}")
            return
        self.done.append((run, record))
        self.line(run, f"done in {how.seconds:,.0f} s  {headline(self.plan, record['metrics'])}")

    def fail(self, run: ArmRun, message: str) -> None:
        """Note and say that a run failed; the others go on."""
        self.failed.append(run.label)
        self.line(run, f"FAILED: {message}")

    def run(self, runs: Sequence[ArmRun], jobs: int) -> None:
        """Run what is not done."""
        environment = {**os.environ, **self.parent.environment(), "OMP_NUM_THREADS": "1"}
        environment.pop("KEDRO_ENV", None)
        todo = [run for run in runs if self.states[id(run)].kind != "done"]

        def start(run: ArmRun) -> tuple[Sequence[str], Path] | None:
            environment[DATA_VARIABLE] = str(run.folder)
            return self.start(run)

        run_all(todo, start, self.ended, jobs=jobs, cwd=self.project.root, environment=environment)


def _check_inputs_kept(project: Project, plan: Plan, run: ArmRun) -> None:
    """Make sure that nobody has made a run's inputs anew while it read them."""
    now = input_digests(project, run.resolved, set(plan.inputs), plan.stages)
    if changed := [key for key, *_ in differences(run.inputs, now)]:
        raise DataError(
            f"{', '.join(changed)} changed while it ran, so that its results are of neither; give the command again"
        )


def _status(status: int) -> str:
    return f"ended by signal {-status}" if status < 0 else f"status {status}"


def last_lines(log: Path) -> str:
    """Return the end of a run's output, indented; from its error message on, if that is not far up."""
    lines = log.read_text(encoding="utf-8", errors="replace").rstrip().splitlines()
    starts = [i for i, line in enumerate(lines) if line.startswith("Error: ")]
    shown = lines[starts[-1] :] if starts and len(lines) - starts[-1] <= _LAST_LINES else lines[-_LAST_LINES:]
    return "\n".join(f"  {line}" for line in shown) or "  it printed nothing"


def headline(plan: Plan, metrics: Mapping[str, float]) -> str:
    """Return a run's main figure."""
    if plan.until is not None and plan.group.tune is not None:
        value = metrics.get(plan.group.tune.metric)
        return "" if value is None else f"{plan.group.tune.metric} {value:.4g}"
    column = next(iter(plan.group.results.columns.values()))
    value = column_value(column, metrics)
    return "" if value is None else f"{column.title} {number(column, value)}"
