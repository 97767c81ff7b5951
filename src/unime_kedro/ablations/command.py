"""``unime ablate``: plans a group, runs what is missing, and shows the result."""

from __future__ import annotations

import os
import shlex
import statistics
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from unime_kedro.ablations.batch import Batch
from unime_kedro.ablations.config import Group
from unime_kedro.ablations.parent import Parent
from unime_kedro.ablations.plan import ArmRun, Plan, Variant, group_folder, make_plan
from unime_kedro.ablations.project import Project
from unime_kedro.ablations.state import OPTIONS, State, result_files, state_of
from unime_kedro.ablations.table import metrics_of, seconds_line, write_table
from unime_kedro.ablations.tuning import choose, gather, tune_variants, tuned_overrides, write_tuned
from unime_kedro.atomic import locked
from unime_kedro.errors import ConfigurationError, DataError

Say = Callable[[str], None]


@dataclass(frozen=True)
class Choice:
    """What is asked for.

    Attributes:
        group: Name of the group.
        arms: Names of arms to run; None: all.
        seeds: Seeds to run; None: the group's.
        jobs: Processes at a time; None: :func:`default_jobs`.
        env: Kedro's environment.
        tune: Find each arm's value of the group's ``tune.key`` instead of running the group.
        dry_run: Show what would be run.
        table: Make the table ``after`` the runs, ``skip`` it, or make it ``only``, of runs that must all be done.
    """

    group: str
    arms: Sequence[str] | None = None
    seeds: Sequence[int] | None = None
    jobs: int | None = None
    env: str | None = None
    tune: bool = False
    dry_run: bool = False
    table: str = "after"


def default_jobs() -> int:
    """Return how many runs go side by side: one per core, or one at a time where there are GPUs, which they share."""
    if any(Path("/proc/driver/nvidia/gpus").glob("*")):
        return 1
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def list_groups(env: str | None, say: Say) -> None:
    """Show every group with its arms."""
    for name, group in Project(env).groups.items():
        say(f"{name}: {group.title}")
        say(f"  arms {', '.join(group.arms)}; seeds {', '.join(map(str, group.seeds))}; by {', '.join(group.keys)}")


def ablate(choice: Choice, say: Say) -> bool:
    """Run a group, or its tuning, as far as it is not done, and show what came out.

    Args:
        choice: What is asked for.
        say: Takes lines for the user.

    Returns:
        Whether everything that was asked for is done.

    Raises:
        ConfigurationError: What is asked for cannot be compared; nothing was run.
        DataError: An input is missing; nothing was run.
        KeyboardInterrupt: As it came, after the runs have been ended. The same command goes on from there.
    """
    project = Project(choice.env)
    group = project.group(choice.group)
    arms = _known_arms(choice, group)
    plan = _tune_plan(project, choice, group, arms) if choice.tune else _plan(project, choice, group)
    selected = [run for run in plan.runs if run.variant.arm in arms and run.seed in _seeds(choice, group)]
    for arm, why in plan.not_runnable.items():
        if choice.arms and arm in arms:
            raise ConfigurationError(f"{choice.group}: {arm} cannot be run here: {why}")
        say(f"{choice.group}  {arm}  cannot be run here: {why}")
    states = {id(run): state_of(run, result_files(project, plan, run)) for run in plan.runs}
    if choice.dry_run:
        _describe(plan, selected, states, say)
        return True
    folder = group_folder(project, choice.group)
    with locked(folder / ".lock"), _parent(project, choice, group, folder) as parent:
        # another command may have been at it while this one waited
        states = {id(run): state_of(run, result_files(project, plan, run)) for run in plan.runs}
        done = [(run, record) for run in plan.runs if (record := states[id(run)].record) is not None]
        batch = Batch(project, plan, parent, say, states, done)
        _announce(plan, selected, states, say)
        if choice.table == "only":
            _check_done(selected, states)
        batch.run(selected, choice.jobs or default_jobs())
        complete = not batch.failed
        if choice.tune:
            complete &= _finish_tuning(batch, say)
        elif choice.table != "skip":
            complete &= _show(batch, say)
        parent.end("FINISHED" if complete else "FAILED")
    return complete


def _check_done(selected: Sequence[ArmRun], states: dict[int, State]) -> None:
    """Make sure that nothing is left to run.

    Raises:
        DataError: Names the runs that are not done, and why.
    """
    left = [(run, states[id(run)]) for run in selected if states[id(run)].kind != "done"]
    if left:
        listed = "; ".join(f"{run.label}: {state.kind} {state.reason}".rstrip() for run, state in left)
        raise DataError(f"--table=only, but not all runs are done: {listed}. Run them without --table.")


def _known_arms(choice: Choice, group: Group) -> list[str]:
    unknown = [arm for arm in choice.arms or () if arm not in group.arms]
    if unknown:
        raise ConfigurationError(
            f"--arms={','.join(unknown)}: no such arm in {choice.group}; there are {', '.join(group.arms)}"
        )
    return list(choice.arms or group.arms)


def _seeds(choice: Choice, group: Group) -> list[int]:
    """Return the seeds to run. Tuning has seeds of its own, so that its budget is the same for whoever is tuned."""
    if choice.tune:
        if choice.seeds:
            raise ConfigurationError("--seeds and --tune do not go together: the seeds of tuning are `tune.seeds`")
        return list(group.tune.seeds) if group.tune else []
    return list(choice.seeds or group.seeds)


def _plan(project: Project, choice: Choice, group: Group) -> Plan:
    """Return the plan of all arms, and of all seeds: what is done of others belongs into the table, too."""
    tuned = tuned_overrides(project, choice.group, group)
    variants = [Variant(arm, tuned.get(arm, {}), arm, arm) for arm in group.arms]
    return make_plan(project, choice.group, variants, list(dict.fromkeys([*group.seeds, *_seeds(choice, group)])))


def _tune_plan(project: Project, choice: Choice, group: Group, arms: Sequence[str]) -> Plan:
    variants = tune_variants(group, arms)
    assert group.tune is not None
    return make_plan(project, choice.group, variants, _seeds(choice, group), until=group.tune.metrics)


@contextmanager
def _parent(project: Project, choice: Choice, group: Group, folder: Path) -> Iterator[Parent]:
    """Open the parent run; end it as KILLED or FAILED when it is left by an error."""
    kind = "tune" if choice.tune else "parent"
    name = f"{choice.group} tune" if choice.tune else choice.group
    keys = [*group.keys, *([group.tune.key] if group.tune else [])]
    parent = Parent(project, name, choice.group, folder / f"{kind}.json", keys)
    parent.open()
    try:
        yield parent
    except KeyboardInterrupt:
        parent.end("KILLED")
        raise
    except BaseException:
        parent.end("FAILED")
        raise


def _announce(plan: Plan, selected: Sequence[ArmRun], states: dict[int, State], say: Say) -> None:
    kinds = [states[id(run)].kind for run in selected]
    say(
        f"{plan.name}: {len(selected)} runs of {', '.join(plan.stages)}, {kinds.count('done')} of them done before"
        + (f", {kinds.count('begun')} begun" if "begun" in kinds else "")
    )
    for run in selected:
        if states[id(run)].kind == "stale":
            say(f"{plan.name}  {run.label}  is run again: {states[id(run)].reason}")


def _describe(plan: Plan, selected: Sequence[ArmRun], states: dict[int, State], say: Say) -> None:
    """Show what would be run."""
    say(f"{plan.name}: {plan.group.title}")
    say(f"  stages {', '.join(plan.stages)}" + (f", up to {plan.until}" if plan.until else ""))
    say(f"  the same for all, by content: {', '.join(sorted(plan.runs[0].inputs)) if plan.runs else 'nothing to run'}")
    for run in selected:
        state = states[id(run)]
        say(f"  {run.label}: {state.kind}{': ' + state.reason if state.reason else ''}")
        say(f"    {', '.join(f'{key}={value}' for key, value in run.overrides.items())}")
        say(f"    {shlex.quote(str(run.folder / OPTIONS))}")


def _show(batch: Batch, say: Say) -> bool:
    """Write and print the table; False if there is nothing to put into it."""
    plan = batch.plan
    if not batch.done:
        say(f"{plan.name}: no run is done, there is no table")
        return False
    missing = [f"{label} failed" for label in batch.failed]
    page, files, rows = write_table(
        batch.project, plan, batch.done, [f"Not in the table: {', '.join(missing)}."] * bool(missing)
    )
    batch.parent.log(metrics_of(plan.name, rows), files, plan.group.model_dump())
    say("")
    say(page)
    if seconds := seconds_line(plan, batch.done):
        say(seconds)
    say(f"written to {files[0]} and {files[1].name}")
    return True


def _finish_tuning(batch: Batch, say: Say) -> bool:
    """Write each arm's best value; False, and nothing is written, unless every arm has tried everything."""
    plan, group = batch.plan, batch.plan.group
    assert group.tune is not None
    scores, problems = gather(group, batch.done)
    wanted = {run.variant.arm for run in plan.runs}
    if problems or batch.failed or set(scores) != wanted:
        left = sorted(wanted - set(scores))
        problems += [f"not finished: {', '.join(left)}"] if left else []
        say(f"{plan.name}: nothing was tuned, every arm must have tried every value. " + "; ".join(problems))
        return False
    chosen = choose(scores)
    env = f" --env={batch.project.env}" if batch.project.env else ""
    file = write_tuned(batch.project, plan.name, group, chosen, f"unime ablate {plan.name} --tune{env}")
    means = {
        f"tune/{arm}/{value}_mean": statistics.fmean(seeds.values())
        for arm, by_value in scores.items()
        for value, seeds in by_value.items()
    }
    batch.parent.log(means, [file], group.model_dump())
    for arm, tuned in chosen.items():
        tried = ", ".join(f"{value}: {statistics.fmean(s.values()):.4g}" for value, s in tuned.scores.items())
        say(f"{plan.name}  {arm}  {group.tune.key} = {tuned.value}  ({group.tune.metric} by value: {tried})")
    say(f"written to {file}; `unime ablate {plan.name}{env}` uses it")
    return True
