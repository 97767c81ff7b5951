"""What is on disk of a run: finished, begun, out of date, or nothing; and its folder made ready."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

import yaml

from unime_kedro.ablations.inputs import files_of, link_inputs
from unime_kedro.ablations.plan import ArmRun, Plan, differences, kedro_arguments
from unime_kedro.ablations.project import Project
from unime_kedro.atomic import atomic_write
from unime_kedro.errors import DataError
from unime_kedro.io.run_figures import read_run_figures, write_run_figures

#: written when a run has ended well, with everything about its result; when, how long, by what code lies apart
DONE = "arm.json"
#: written before it begins: what it is, so that a run of something else does not go on from its checkpoints
BEGUN = "begun.json"
#: the options of its command, and what it printed
OPTIONS, LOG = "run.yml", "run.log"
_MOST_REASONS = 3


@dataclass(frozen=True)
class State:
    """Where a run stands.

    Attributes:
        kind: ``done``, ``begun`` (goes on), ``stale`` (of other parameters or inputs, begins anew) or ``new``.
        reason: Why it is stale.
        record: What :data:`DONE` holds, if done; and of the run that wrote it what is known: code, mlflow_run_id,
            seconds, finished.
    """

    kind: Literal["done", "begun", "stale", "new"]
    reason: str = ""
    record: Mapping[str, Any] | None = None


def state_of(run: ArmRun, results: Sequence[Path]) -> State:
    """Look at a run's folder.

    Args:
        run: The run.
        results: Files that a finished run has left.
    """
    done, begun = _read(run.folder / DONE), _read(run.folder / BEGUN)
    if done is None:
        if begun is None or begun.get("digest") == run.digest:
            return State("new" if begun is None else "begun")
        return State("stale", _why(run, begun))
    if done.get("digest") != run.digest:
        return State("stale", _why(run, done))
    missing = [file.name for file in results if not file.exists()]
    if missing:
        return State("stale", f"its results are gone: {', '.join(missing)}")
    return State("done", record=done | read_run_figures(run.folder / DONE))


def _read(file: Path) -> dict[str, Any] | None:
    """Return a record; None if there is none that can be read."""
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def _why(run: ArmRun, record: Mapping[str, Any]) -> str:
    """Say what is different from when a record was written."""
    reasons = [
        f"{key} was {old!r}, is {new!r}"
        for key, old, new in differences(record.get("parameters") or {}, run.parameters)
    ]
    changed = [key for key, *_ in differences(record.get("inputs") or {}, run.inputs)]
    reasons += [f"{', '.join(changed)} changed"] if changed else []
    more = f" and {len(reasons) - _MOST_REASONS} more" if len(reasons) > _MOST_REASONS else ""
    return "; ".join(reasons[:_MOST_REASONS]) + more or "it ran other stages"


def prepare(project: Project, plan: Plan, run: ArmRun, state: State) -> list[str]:
    """Make a run's folder ready and return the arguments of its ``kedro`` command.

    A folder of the same work keeps its files, so that training goes on from its checkpoints; any other is emptied.
    """
    if state.kind in ("stale", "new") and run.folder.exists():
        shutil.rmtree(run.folder)  # removes links, not what they point to
    run.folder.mkdir(parents=True, exist_ok=True)
    write_run_figures(run.folder / DONE, {})
    (run.folder / DONE).unlink(missing_ok=True)
    write_json(run.folder / BEGUN, {"digest": run.digest, "parameters": run.parameters, "inputs": run.inputs})
    link_inputs(project, run.resolved, set(plan.inputs))
    with atomic_write(run.folder / OPTIONS) as temporary:
        text = yaml.safe_dump({"run": kedro_arguments(run, plan)}, sort_keys=False, allow_unicode=True)
        temporary.write_text(text, encoding="utf-8")
    env = [f"--env={project.env}"] if project.env else []
    return ["run", *env, f"--config={run.folder / OPTIONS}"]


def finish(project: Project, plan: Plan, run: ArmRun, seconds: float, run_id: str | None) -> dict[str, Any]:
    """Read a run's metrics and write its record, the last thing of a run.

    Returns:
        The record.

    Raises:
        DataError: A result is missing or cannot be read.
    """
    from unime_kedro.tracking.provenance import code_tags, git_tags

    missing = [str(file) for file in result_files(project, plan, run) if not file.exists()]
    if missing:
        raise DataError(f"the run ended without an error and without {', '.join(missing)}")
    record = {
        "group": plan.name,
        "arm": run.variant.arm,
        "seed": run.seed,
        "overrides": run.overrides,
        "stages": list(plan.stages),
        "digest": run.digest,
        "parameters": run.parameters,
        "inputs": run.inputs,
        "metrics": read_metrics(project, plan, run),
    }
    # apart, so that equal results are equal files
    of_run = {
        "code": git_tags(project.root) | code_tags(project.root),
        "mlflow_run_id": run_id,
        "seconds": round(seconds, 1),
        "finished": datetime.now().astimezone().isoformat(timespec="seconds"),
    }
    write_json(run.folder / DONE, record)
    write_run_figures(run.folder / DONE, of_run)
    return record | of_run


def metric_datasets(plan: Plan) -> list[str]:
    """Return the datasets that hold a run's figures."""
    return list(plan.group.results.metrics) if plan.until is None else [plan.until]


def result_files(project: Project, plan: Plan, run: ArmRun) -> list[Path]:
    """Return the files that a finished run has left; those of datasets the pipelines make."""
    names = set(metric_datasets(plan))
    if plan.until is None and plan.group.results.predictions:
        names.add(plan.group.results.predictions)
    return list(files_of(run.resolved, project.root, names & plan.pipeline.all_outputs()).values())


def read_metrics(project: Project, plan: Plan, run: ArmRun) -> dict[str, float]:
    """Return the numbers of a run's metrics by their keys; of two datasets with one key the first counts."""
    found: dict[str, float] = {}
    files = files_of(run.resolved, project.root, set(metric_datasets(plan)) & plan.pipeline.all_outputs())
    for name in reversed([name for name in metric_datasets(plan) if name in files]):
        values = _read(files[name])
        if values is None:
            raise DataError(f"{files[name]} holds no metrics: expected a JSON object")
        found |= {key: float(value) for key, value in values.items() if _is_number(value)}
    return found


def predictions_file(project: Project, plan: Plan, run: ArmRun) -> Path | None:
    """Return the table of a run's single predictions, None where its pipelines make none."""
    name = plan.group.results.predictions
    files = files_of(run.resolved, project.root, {name} & plan.pipeline.all_outputs()) if name else {}
    return next(iter(files.values()), None)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def write_json(file: Path, value: Any) -> None:
    """Write a JSON document atomically."""
    with atomic_write(file) as temporary:
        temporary.write_text(json.dumps(value, indent=1, ensure_ascii=False, default=str) + "\n", encoding="utf-8")
