"""Which runs a group needs, checked before the first of them starts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unime_kedro.ablations.config import FILE, KIND, STAGES, Group, nested
from unime_kedro.ablations.inputs import (
    check_inputs,
    check_outputs,
    input_digests,
    input_names,
    model_problem,
    sections_read,
)
from unime_kedro.ablations.project import Project, Resolved
from unime_kedro.config import RUNTIME, KeyPath, Sources, model_faults, raise_faults
from unime_kedro.errors import ConfigurationError
from unime_kedro.tracking.metrics import leaves

if TYPE_CHECKING:
    from kedro.pipeline import Pipeline

#: folder below the data root that holds every group's runs
FOLDER = "ablations"


@dataclass(frozen=True)
class Variant:
    """An arm, or an arm with one of the values that are tried when it is tuned.

    Attributes:
        arm: Name of the arm.
        overrides: What is set besides the group's and the arm's own values, by dotted key.
        folder: Where its seeds' folders lie, below the group's.
        label: How it is called in messages.
    """

    arm: str
    overrides: Mapping[str, Any]
    folder: str
    label: str


@dataclass(frozen=True)
class ArmRun:
    """One process: a variant with one seed.

    Attributes:
        variant: What is run.
        seed: Value of the group's seed key.
        folder: Data root of the run, absolute.
        overrides: All values that are set, by dotted key.
        resolved: The configuration that follows from them.
        parameters: The sections that the stages read, without anything that depends on where the data lie.
        inputs: Content hash of everything it is given, by name.
        digest: Hash of parameters, inputs and stages. Equal digests mean equal work.
    """

    variant: Variant
    seed: int
    folder: Path
    overrides: dict[str, Any]
    resolved: Resolved
    parameters: dict[str, Any]
    inputs: dict[str, str]
    digest: str

    @property
    def label(self) -> str:
        """How the run is called in messages: ``hard seed 2``."""
        return f"{self.variant.label} seed {self.seed}"


@dataclass(frozen=True)
class Plan:
    """All runs of a group, or of its tuning.

    Attributes:
        name: Name of the group.
        group: The group.
        stages: Pipelines that every run runs.
        until: The dataset that they stop at; None: they run to their end.
        pipeline: The same as one pipeline.
        inputs: Datasets that the runs are given.
        runs: Seed by seed, so that a plan that is stopped has complete comparisons behind it.
        not_runnable: Arms that cannot run here, and why.
    """

    name: str
    group: Group
    stages: tuple[str, ...]
    until: str | None
    pipeline: Pipeline
    inputs: frozenset[str]
    runs: tuple[ArmRun, ...]
    not_runnable: dict[str, str] = field(default_factory=dict)


def stages_of(group: Group) -> tuple[str, ...]:
    """Return the stages that an arm's keys touch, and those after them up to the group's last one."""
    keys = [*group.keys, *group.common, group.seed_key, *([group.tune.key] if group.tune else [])]
    first = min(STAGES.index(key.split(".")[0]) for key in keys)
    return STAGES[first : STAGES.index(group.last_stage) + 1]


def make_plan(
    project: Project,
    name: str,
    variants: Sequence[Variant],
    seeds: Sequence[int],
    until: str | None = None,
) -> Plan:
    """Work out every run of a group and check it: parameters, what arms differ in, inputs, places of outputs.

    Args:
        project: The project.
        name: Name of the group.
        variants: What is run.
        seeds: With which seeds.
        until: Dataset to stop at.

    Raises:
        ConfigurationError: A parameter is wrong, or arms differ in more than the group's keys.
        DataError: An input is missing.
    """
    group = project.group(name)
    stages = stages_of(group)
    if not stages:
        raise ConfigurationError(f"{name}: no stage is left to run, its keys belong after {group.last_stage}")
    project.base  # noqa: B018  (checks the parameters as they are, so that what is wrong below is an arm's fault)
    pipeline = project.pipeline(stages, until)
    names = input_names(pipeline, project.base.catalog)
    resolved = [(v, seed, *_resolve(project, name, v, seed)) for seed in seeds for v in variants]
    _check_parameters(project, name, resolved)
    _check_same(project, name, [(v, seed, _portable(project, r)) for v, seed, _, r in resolved])
    check_inputs(project, names)
    runs, problems = [], {}
    for variant, seed, overrides, found in resolved:
        if problem := model_problem(found.parameters, stages):
            problems[variant.arm] = problem
            continue
        check_outputs(project, found, pipeline)
        digests = input_digests(project, found, names, stages)
        runs.append(_run(project, variant, seed, overrides, found, digests, pipeline, stages, until))
    _check_same_inputs(name, group, runs)
    return Plan(name, group, stages, until, pipeline, frozenset(names), tuple(runs), problems)


def group_folder(project: Project, name: str) -> Path:
    """Return the folder that holds all runs of a group."""
    return project.base.data_root / FOLDER / name


def _resolve(project: Project, name: str, variant: Variant, seed: int) -> tuple[dict[str, Any], Resolved]:
    group = project.group(name)
    own = group.arms[variant.arm]
    overrides = {**group.common, **own, **variant.overrides, group.seed_key: seed}
    folder = group_folder(project, name) / variant.folder / f"seed-{seed}"
    return overrides, project.resolve(overrides, folder)


def still_same(project: Project, plan: Plan, run: ArmRun) -> bool:
    """Whether the configuration still says what it said when the plan was made: it is read again by the run itself."""
    now = project.resolve(run.overrides, run.folder)
    return sections_read(plan.pipeline, _portable(project, now)) == run.parameters


def _portable(project: Project, resolved: Resolved) -> dict[str, Any]:
    from unime_kedro.tracking.provenance import resolved_config

    found: dict[str, Any] = resolved_config(resolved.parameters, {}, project.root, resolved.data_root)["parameters"]
    return found


def _run(
    project: Project,
    variant: Variant,
    seed: int,
    overrides: dict[str, Any],
    found: Resolved,
    digests: dict[str, str],
    pipeline: Pipeline,
    stages: tuple[str, ...],
    until: str | None,
) -> ArmRun:
    from unime_kedro.tracking.provenance import config_hash

    read = sections_read(pipeline, _portable(project, found))
    digest = config_hash({"parameters": read, "inputs": digests, "stages": stages, "until": until})
    return ArmRun(variant, seed, found.data_root, overrides, found, read, digests, digest)


# ---------------------------------------------------------------- checks


class _ArmSources(Sources):
    """Names the line of ``ablations.yml`` for values that an arm sets, and the parameters' files for all others."""

    def __init__(self, project: Project, name: str, variant: Variant) -> None:
        super().__init__(project.conf, project.env, None, "parameters")
        self._ablations = Sources(project.conf, project.env, None, KIND)
        group = project.group(name)
        blocks: list[tuple[Mapping[str, Any], KeyPath]] = [
            (group.arms[variant.arm], (name, "arms", variant.arm)),
            (group.common, (name, "common")),
        ]
        self._places = {tuple(key.split(".")): (*path, key) for values, path in blocks for key in values}
        if group.tune:
            self._places |= {tuple(key.split(".")): (name, "tune", "values") for key in variant.overrides}
        self._note = f"; arm {variant.arm} of {name}"

    def where(self, path: KeyPath) -> str:
        """Return where a value is set, for the end of a message."""
        for key, place in self._places.items():
            both = min(len(key), len(path))
            if both > 1 and path[:both] == key[:both]:
                return self._note + self._ablations.where(place)
        return super().where(path)


def _check_parameters(
    project: Project, name: str, runs: Sequence[tuple[Variant, int, dict[str, Any], Resolved]]
) -> None:
    """Check the sections that arms change; those that nobody changes have been checked already."""
    from unime_kedro.parameters import SECTIONS

    faults: dict[str, None] = {}
    for variant, _, overrides, found in runs:
        sources = _ArmSources(project, name, variant)
        for section in sorted({key.split(".")[0] for key in overrides}):
            if section not in SECTIONS:
                faults[f"{section}: there are no such parameters in this project{sources.where((section,))}"] = None
                continue
            faults |= dict.fromkeys(model_faults(SECTIONS[section], found.parameters[section], sources, (section,)))
    raise_faults([fault.replace(f" [{RUNTIME}]", "") for fault in faults], f"parameters of {name} in {FILE}")


def _check_same(project: Project, name: str, runs: Sequence[tuple[Variant, int, dict[str, Any]]]) -> None:
    """Make sure that arms differ in the group's keys and in nothing else.

    Raises:
        ConfigurationError: Names the arms, the key and both values.
    """
    group = project.group(name)
    allowed = [*group.keys, *([group.tune.key] if group.tune else [])]
    first, first_seed, reference = runs[0]
    faults = []
    for variant, seed, parameters in runs[1:]:
        may = [*allowed, *([group.seed_key] if seed != first_seed else [])]
        for key, one, other in differences(reference, parameters):
            if not any(key == known or key.startswith(f"{known}.") for known in may):
                faults.append(f"{key} is {one!r} in {first.label} and {other!r} in {variant.label} (seed {seed})")
    if faults:
        raise_faults(
            [*faults, f"arms may differ in {', '.join(allowed)} only; set it in `common`, or name it in `keys`"],
            f"comparison {name}: its arms differ in other keys",
        )


def _check_same_inputs(name: str, group: Group, runs: Sequence[ArmRun]) -> None:
    """Make sure that all arms are given the same files; models apart, where they are what is compared."""
    models = {key for key in group.keys if key.endswith(".model")}
    for run in runs[1:]:
        for key, one, other in differences(runs[0].inputs, run.inputs):
            if key not in models:
                raise ConfigurationError(
                    f"{name}: {runs[0].label} and {run.label} are not given the same {key} (sha256 {one!s:.12} and "
                    f"{other!s:.12}), nothing was run; it changed just now, or its filepath depends on an arm"
                )


_ABSENT = "(not set)"


def differences(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    """Return the dotted keys in which two nested mappings differ, with both values."""
    left, right = dict(leaves(one)), dict(leaves(other))
    keys = sorted(set(left) | set(right))
    found = [(key, left.get(key, _ABSENT), right.get(key, _ABSENT)) for key in keys]
    return [(key, a, b) for key, a, b in found if type(a) is not type(b) or a != b]


def kedro_arguments(run: ArmRun, plan: Plan) -> dict[str, Any]:
    """Return the options of ``kedro run --config``; unlike ``--params`` a file keeps lists, nulls and types."""
    options: dict[str, Any] = {"pipelines": ",".join(plan.stages), "params": nested(run.overrides)}
    return options | ({"to_outputs": plan.until} if plan.until else {})
