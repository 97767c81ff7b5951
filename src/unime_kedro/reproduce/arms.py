"""The stages of an ablation: one that trains an arm with a seed, repeated over all of them, and one for the table."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from unime_kedro.reproduce.stages import CLEAN, Source, Stage, stage_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from unime_kedro.ablations.project import Project

#: what makes an arm's folder and runs it. What shows results is a dependency of the table alone
_RUNS = ("plan", "state", "runner", "worker")
_SHOWS = ("command",)


def ablation_stages(project: Project, name: str, seeds: Sequence[int], source: Source) -> list[Stage]:
    """Return the stage of a group's arms and the one of its table.

    Args:
        project: The project.
        name: The group's name.
        seeds: Seeds to run its arms with.
        source: Catalog, parameters and places.
    """
    from unime_kedro.ablations.config import FILE
    from unime_kedro.ablations.plan import stages_of
    from unime_kedro.ablations.state import DONE
    from unime_kedro.ablations.table import RESULT_FILES
    from unime_kedro.ablations.tuning import FILE as TUNED

    group = project.group(name)
    command = f"{CLEAN} unime ablate {name} --env={source.env}"
    whole = stage_of("", "", project.pipeline(stages_of(group), None), source)
    whole.deps |= {path for d in ("corpus",) if (path := source.path_of(d))}  # what the arm's inputs are hashed by
    data = source.relative(project.base.data_root)
    folder = f"{data}/ablations/{name}"
    arm = Stage(
        "train_arm",
        f"{command} --arms=${{item.arm}} --seeds=${{item.seed}} --table=skip",
        whole.deps | source.code(f"unime_kedro.ablations.{module}" for module in _RUNS),
        {file: set(keys) for file, keys in whole.params.items()},
        matrix={"arm": sorted(group.arms), "seed": list(seeds)},
    )
    arm.outs = {_moved(path, data, folder): kind for path, kind in whole.outs.items()}
    table = Stage(
        "ablation",
        f"{command} --seeds={','.join(map(str, seeds))} --table=only",
        source.code(f"unime_kedro.ablations.{module}" for module in (*_RUNS, *_SHOWS)),
        {},
        {f"{data}/{file.format(group=name)}": kind for file, kind in RESULT_FILES.items()},
    )
    # what the table is made of: figures, predictions, and the record of what the arm is
    shown = {*group.results.metrics, *filter(None, [group.results.predictions])}
    paths = {_moved(path, data, folder) for dataset in shown if (path := source.path_of(dataset)) in whole.outs}
    arm.outs[f"{folder}/{_ITEM}/{DONE}"] = "out"
    paths.add(f"{folder}/{_ITEM}/{DONE}")
    table.deps |= {_named(path, a, s) for path in paths for a in group.arms for s in seeds}
    for file, key in ((FILE, name), (TUNED, name)):
        _add_group(arm, table, file, key, source)
    return [arm, table]


_ITEM = "${item.arm}/seed-${item.seed}"


def _moved(path: str, data: str, folder: str) -> str:
    """Return where an arm writes what the pipeline writes below the data root."""
    return f"{folder}/{_ITEM}{path.removeprefix(data)}"


def _named(path: str, arm: str, seed: Any) -> str:
    return path.replace("${item.arm}", arm).replace("${item.seed}", str(seed))


def _add_group(arm: Stage, table: Stage, file: str, name: str, source: Source) -> None:
    """Let an arm depend on what the group says of it, and the table on the whole group."""
    import yaml

    for env in dict.fromkeys((source.env, "base")):
        place = source.root / "conf" / env / file
        groups = (yaml.safe_load(place.read_text(encoding="utf-8")) or {}) if place.is_file() else {}
        if name in groups:
            key = source.relative(place)
            table.params.setdefault(key, set()).add(name)
            keys = {f"{name}.arms.${{item.arm}}", *(f"{name}.{part}" for part in ("common",) if part in groups[name])}
            arm.params.setdefault(key, set()).update(keys)
            return
