"""The best value of a key for each arm, found on validation data with the same budget for all arms."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from unime_kedro.ablations.config import RESERVED, Group, Tune
from unime_kedro.ablations.plan import ArmRun, Variant
from unime_kedro.ablations.project import Project
from unime_kedro.atomic import atomic_write
from unime_kedro.errors import ConfigurationError

FILE = "ablations_tuned.yml"
_HEADING = """\
# Written by `unime ablate GROUP --tune`, from validation data alone; read by `unime ablate GROUP`. Every arm tried the
# same values with the same seeds. Remove a group from here to run its arms with the parameters' own value.
"""


class TunedArm(BaseModel):
    """One arm's value, and what each value scored by seed."""

    model_config = ConfigDict(extra="forbid")
    value: Any
    scores: dict[str, dict[int, float]]


class TunedGroup(BaseModel):
    """What was tried for a group, how, and what was chosen."""

    model_config = ConfigDict(extra="forbid")
    command: str
    date: str
    commit: str | None = None
    key: str
    values: list[Any]
    seeds: list[int]
    metric: str
    arms: dict[str, TunedArm]


def tuned_file(project: Project) -> Path:
    """Return the file of the tuned values: that of the environment, ``base`` where none is named."""
    return project.conf / (project.env or "base") / FILE


def tune_variants(group: Group, arms: Sequence[str]) -> list[Variant]:
    """Return every arm with every value.

    Raises:
        ConfigurationError: The group does not say what to tune.
    """
    tune = _tune_of(group)
    name = tune.key.rsplit(".", 1)[-1]
    return [
        Variant(arm, {tune.key: value}, f"{RESERVED}/{arm}/{name}-{value}", f"{arm} {name} {value}")
        for value in tune.values
        for arm in arms
    ]


def _tune_of(group: Group) -> Tune:
    if group.tune is None:
        raise ConfigurationError(f"the group {group.title!r} has no block `tune`: key, values and seeds to try")
    return group.tune


def choose(scores: Mapping[str, Mapping[Any, Mapping[int, float]]]) -> dict[str, TunedArm]:
    """Return each arm's value with the best mean over seeds; of equal ones the smallest.

    Args:
        scores: arm -> value -> seed -> score, of arms that have tried everything.
    """
    found = {}
    for arm, by_value in scores.items():
        means = {value: statistics.fmean(by_seed.values()) for value, by_seed in by_value.items()}
        best = min(means, key=lambda value: (-means[value], value))
        found[arm] = TunedArm(value=best, scores={str(value): dict(seeds) for value, seeds in by_value.items()})
    return found


def gather(
    group: Group, done: Sequence[tuple[ArmRun, Mapping[str, Any]]]
) -> tuple[dict[str, dict[Any, dict[int, float]]], list[str]]:
    """Return the scores of finished runs of arms that have tried everything, and what is wrong with the others.

    Args:
        group: The group.
        done: Finished runs with their records.
    """
    tune = _tune_of(group)
    scores: dict[str, dict[Any, dict[int, float]]] = {}
    problems = []
    for run, record in done:
        score = record["metrics"].get(tune.metric)
        if score is None:
            problems.append(f"{run.label}: its {tune.metrics} has no {tune.metric}")
            continue
        scores.setdefault(run.variant.arm, {}).setdefault(run.variant.overrides[tune.key], {})[run.seed] = score
    whole = {
        arm: by_value
        for arm, by_value in scores.items()
        if all(set(by_value.get(value, {})) == set(tune.seeds) for value in tune.values)
    }
    problems += [f"{arm}: not all values were tried with all seeds" for arm in scores if arm not in whole]
    return whole, problems


def write_tuned(project: Project, name: str, group: Group, arms: Mapping[str, TunedArm], command: str) -> Path:
    """Add arms to the file of tuned values; arms that were tuned in another way are dropped from it.

    Returns:
        The file.
    """
    from unime_kedro.tracking.provenance import git_tags

    tune, file = _tune_of(group), tuned_file(project)
    entry = TunedGroup(
        command=command,
        date=datetime.now().astimezone().isoformat(timespec="seconds"),
        commit=git_tags(project.root).get("mlflow.source.git.commit"),
        key=tune.key,
        values=list(tune.values),
        seeds=list(tune.seeds),
        metric=tune.metric,
        arms=dict(arms),
    )
    known = read_tuned(file)
    before = known.get(name)
    if before is not None and _budget(before) == _budget(entry):
        kept = {arm: value for arm, value in before.arms.items() if arm in group.arms}
        entry = entry.model_copy(update={"arms": {**kept, **entry.arms}})
    known[name] = entry
    text = yaml.safe_dump({key: value.model_dump() for key, value in known.items()}, sort_keys=False)
    with atomic_write(file) as temporary:
        temporary.write_text(_HEADING + text, encoding="utf-8")
    return file


def read_tuned(file: Path) -> dict[str, TunedGroup]:
    """Return every group of a file of tuned values; nothing if there is none.

    Raises:
        ConfigurationError: The file is not what ``--tune`` writes.
    """
    if not file.is_file():
        return {}
    try:
        raw = yaml.safe_load(file.read_text(encoding="utf-8")) or {}
        return {name: TunedGroup.model_validate(values) for name, values in raw.items()}
    except (OSError, ValueError, AttributeError, yaml.YAMLError, ValidationError) as error:
        raise ConfigurationError(
            f"{file} is not what `unime ablate GROUP --tune` writes; remove it, or tune again: {str(error)[:300]}"
        ) from error


def tuned_overrides(project: Project, name: str, group: Group) -> dict[str, dict[str, Any]]:
    """Return arm -> what tuning chose for it; nothing for a group that was not tuned.

    Raises:
        ConfigurationError: Some arms were tuned and others were not, or by another search than the group now names.
    """
    file = tuned_file(project)
    found = read_tuned(file).get(name)
    if found is None:
        return {}
    again = f"run `unime ablate {name} --tune` again, or remove {name} from {file}"
    if group.tune is None or _budget(found) != (group.tune.key, group.tune.values, group.tune.seeds, group.tune.metric):
        raise ConfigurationError(f"{name} was tuned by another search than its block `tune` describes; {again}")
    if missing := [arm for arm in group.arms if arm not in found.arms]:
        raise ConfigurationError(f"{name}: {', '.join(missing)} not tuned, other arms are; {again}")
    return {arm: {found.key: found.arms[arm].value} for arm in group.arms}


def _budget(entry: TunedGroup) -> tuple[str, list[Any], list[int], str]:
    return entry.key, entry.values, entry.seeds, entry.metric
