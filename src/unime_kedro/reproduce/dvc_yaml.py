"""``dvc.yaml``: written from pipelines, catalog and parameters, and checked against them."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from unime_kedro.atomic import atomic_write
from unime_kedro.reproduce.stages import Source, Stage, add_named, check_one_writer, stages_of

FILE = "dvc.yaml"
#: pipelines that become stages, in the order of the work
STAGES = ("demo", "ingest", "pool", "judge", "select", "train", "rerank", "evaluate", "judge_card", "report")
#: group of ablations.yml whose arms become a stage each, after stage ``train``
GROUP = "components"
#: seeds of those stages
SEEDS = (1,)
_HEADER = """\
# Made by `unime dvc-yaml{options}` from the pipelines and the catalog; do not edit, CI refuses what differs.
# `dvc repro` runs what is out of date; `dvc repro STAGE` one stage with all it needs.
"""


def dvc_yaml(root: Path, env: str = "base") -> str:
    """Return what ``dvc.yaml`` of a project should be.

    Args:
        root: The project's folder.
        env: Kedro's environment that its stages run in. ``base`` and not Kedro's default: what lies in ``conf/local``
            is one person's own.

    Raises:
        ConfigurationError: If two stages would write one file, or a path lies outside of the project.
    """
    import yaml

    stages = {stage.name: _as_yaml(stage) for stage in project_stages(root, env)}
    header = _HEADER.format(options="" if env == "base" else f" --env={env}")
    return header + yaml.safe_dump({"stages": stages}, sort_keys=False, width=120, allow_unicode=True)


def project_stages(root: Path, env: str = "base") -> list[Stage]:
    """Return all stages of a project: one per pipeline, one per arm and seed of the ablation, and its table."""
    from unime_kedro.ablations.project import DATA_VARIABLE, Project

    with _without(DATA_VARIABLE):
        project = Project(env, root)
        from kedro.framework.project import pipelines

        base = project.base
        package = root / "src" / "unime_kedro"
        source = Source(root, env, base.catalog, base.parameters, _places(root, env), package)
        names = [name for name in STAGES if name in pipelines and pipelines[name].nodes]
        stages = stages_of(pipelines, names, source)
        if "train" in names:
            from unime_kedro.reproduce.arms import ablation_stages

            at = names.index("train") + 1
            stages[at:at] = ablation_stages(project, GROUP, SEEDS, source)
    add_named(stages, source)
    check_one_writer(stages)
    return stages


@contextmanager
def _without(variable: str) -> Iterator[None]:
    before = os.environ.pop(variable, None)
    try:
        yield
    finally:
        if before is not None:
            os.environ[variable] = before


def _places(root: Path, env: str) -> dict[str, dict[str, str]]:
    """Return every file of parameters and global values with its keys at the top and their values as text."""
    import yaml

    found: dict[str, dict[str, str]] = {}
    for folder in dict.fromkeys((root / "conf/base", root / "conf" / env)):
        for file in sorted([*folder.glob("parameters*.yml"), *folder.glob("parameters/*.yml"), folder / "globals.yml"]):
            if file.is_file():
                values = yaml.safe_load(file.read_text(encoding="utf-8")) or {}
                found[file.relative_to(root).as_posix()] = {key: yaml.safe_dump(value) for key, value in values.items()}
    return found


def _as_yaml(stage: Stage) -> dict[str, Any]:
    """Return a stage as DVC reads it; everything in a fixed order."""
    found: dict[str, Any] = {}
    if stage.matrix:
        found["matrix"] = stage.matrix
    found["cmd"] = stage.command
    found["deps"] = sorted(stage.deps)
    if stage.params:
        found["params"] = [{file: sorted(keys)} for file, keys in sorted(stage.params.items())]
    sides: dict[str, list[Any]] = {"outs": [], "metrics": [], "plots": []}
    for path, kind in sorted(stage.outs.items()):
        sides[_SIDE[kind]].append({path: {"x": "step", "y": "loss"}} if kind == "plot" else path)
    return found | {side: entries for side, entries in sides.items() if entries}


_SIDE = {"out": "outs", "page": "outs", "metric": "metrics", "plot": "plots"}


def write_dvc_yaml(root: Path, env: str = "base", file: Path | None = None) -> bool:
    """Write ``dvc.yaml``, or another file; returns whether it changed."""
    text, file = dvc_yaml(root, env), file or root / FILE
    if file.is_file() and file.read_text(encoding="utf-8") == text:
        return False
    with atomic_write(file) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return True


def difference(root: Path, env: str = "base", file: Path | None = None) -> str:
    """Return how ``dvc.yaml`` differs from what it should be, as a unified diff; "" when it does not."""
    file = file or root / FILE
    there = file.read_text(encoding="utf-8") if file.is_file() else ""
    wanted = dvc_yaml(root, env)
    lines = difflib.unified_diff(
        there.splitlines(keepends=True), wanted.splitlines(keepends=True), file.name, "what it should be"
    )
    return "".join(lines)


def stages_in(file: Path) -> dict[str, Any]:
    """Return the stages of a ``dvc.yaml``, none where there is no such file."""
    import yaml

    found = (yaml.safe_load(file.read_text(encoding="utf-8")) or {}) if file.is_file() else {}
    return dict(found.get("stages") or {})
