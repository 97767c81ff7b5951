"""``dvc.yaml``: written from pipelines, catalog and parameters, and checked against them."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from unime_kedro.atomic import atomic_write
from unime_kedro.reproduce.stages import Source, Stage, stages_of

FILE = "dvc.yaml"
#: pipelines that become stages, in the order of the work
STAGES = ("demo", "ingest", "pool", "judge", "select", "train", "rerank", "evaluate", "judge_card", "report")
#: group of ablations.yml whose arms become a stage each
GROUP = "components"
#: seeds of those stages
SEEDS = (1,)
_HEADER = """\
# Made by `unime dvc-yaml` from the pipelines and the catalog; do not edit, CI refuses what differs.
# `dvc repro` runs what is out of date; `dvc repro <stage>` one stage with all it needs.
"""


def dvc_yaml(root: Path) -> str:
    """Return what ``dvc.yaml`` of a project should be.

    Args:
        root: The project's folder.

    Raises:
        ConfigurationError: If two stages would write one file, or a path lies outside of the project.
    """
    import yaml

    stages = {stage.name: _as_yaml(stage) for stage in project_stages(root)}
    return _HEADER + yaml.safe_dump({"stages": stages}, sort_keys=False, width=120, allow_unicode=True)


def project_stages(root: Path) -> list[Stage]:
    """Return all stages of a project: one per pipeline, one per arm and seed of the ablation, and its table."""
    from kedro.framework.project import pipelines

    from unime_kedro.ablations.project import Project

    project = Project("base", root)
    names = [name for name in STAGES if name in pipelines and pipelines[name].nodes]
    source = Source(
        root=root,
        catalog=project.base.catalog,
        parameters=project.base.parameters,
        places=section_files(root),
        package=root / "src" / "unime_kedro",
    )
    stages = stages_of(pipelines, names, source)
    if "train" in names:
        at = names.index("train") + 1
        stages[at:at] = _ablation_stages(project, stages[at - 1], source)
    _add_globals(stages, root)
    return stages


def section_files(root: Path) -> dict[str, str]:
    """Return the file of ``conf/base/parameters`` that sets each section, relative to the root."""
    import yaml

    found: dict[str, str] = {}
    for file in sorted((root / "conf/base/parameters").glob("*.yml")):
        for section in yaml.safe_load(file.read_text(encoding="utf-8")) or {}:
            found[section] = file.relative_to(root).as_posix()
    return found


def _ablation_stages(project: Any, train: Stage, source: Source) -> list[Stage]:
    """Return the stage that trains one arm with one seed, for all of them, and the one that makes their table."""
    from unime_kedro.reproduce.modules import files_behind

    group = project.group(GROUP)
    code = files_behind(["unime_kedro.ablations.command", "unime_kedro.ablations.worker"], source.package)
    deps = train.deps | {source.relative(str(file)) for file in code} | {"conf/base/ablations_tuned.yml"}
    folder = source.relative(f"{source.relative(str(project.base.data_root))}/ablations/{GROUP}")
    params = {file: set(keys) for file, keys in train.params.items()}
    params.setdefault("conf/base/ablations.yml", set()).add(f"ablations.{GROUP}")
    arm = Stage(
        "train_arm",
        f"unime ablate {GROUP} --env=base --arms=${{item.arm}} --seeds=${{item.seed}}",
        deps,
        params,
        {f"{folder}/${{item.arm}}/seed-${{item.seed}}": "persist"},
        {"arm": sorted(group.arms), "seed": list(SEEDS)},
    )
    runs = {f"{folder}/{name}/seed-{seed}" for name in arm.matrix["arm"] for seed in SEEDS}
    table = Stage(
        "ablation",
        f"unime ablate {GROUP} --env=base --seeds={','.join(map(str, SEEDS))}",
        deps | runs,
        params,
        {f"{folder}/table.md": "page", f"{folder}/results.json": "metric"},
    )
    return [arm, table]


def _add_globals(stages: list[Stage], root: Path) -> None:
    """Let a stage depend on the global values that its sections refer to."""
    import re

    for stage in stages:
        used: set[str] = set()
        for file in stage.params:
            used |= set(re.findall(r"\$\{globals:(\w+)", (root / file).read_text(encoding="utf-8")))
        if used:
            stage.params.setdefault("conf/base/globals.yml", set()).update(used)


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
        sides[_SIDE[kind]].append({path: _OPTIONS[kind]} if _OPTIONS[kind] else path)
    return found | {side: entries for side, entries in sides.items() if entries}


_SIDE = {"out": "outs", "persist": "outs", "page": "outs", "metric": "metrics", "plot": "plots"}
_OPTIONS: Mapping[str, dict[str, Any]] = {
    "out": {},
    "persist": {"persist": True},
    "page": {"cache": False},
    "metric": {"cache": False},
    "plot": {"cache": False},
}


def write_dvc_yaml(root: Path) -> bool:
    """Write ``dvc.yaml``; returns whether it changed."""
    text, file = dvc_yaml(root), root / FILE
    if file.is_file() and file.read_text(encoding="utf-8") == text:
        return False
    with atomic_write(file) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return True


def difference(root: Path) -> str:
    """Return how ``dvc.yaml`` differs from what it should be, as a unified diff; "" when it does not."""
    file = root / FILE
    there = file.read_text(encoding="utf-8") if file.is_file() else ""
    lines = difflib.unified_diff(
        there.splitlines(keepends=True), dvc_yaml(root).splitlines(keepends=True), "dvc.yaml", "what it should be"
    )
    return "".join(lines)
