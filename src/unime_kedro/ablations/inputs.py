"""What an arm reads and does not make itself: linked into its folder, and hashed.

All arms of a group are given the same files, those that lie in the project's data root, under names in a data root of
their own. So what one arm writes no other can read, and all have the same pool by construction.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unime_kedro.ablations.config import STAGES
from unime_kedro.ablations.project import Project, Resolved
from unime_kedro.errors import ConfigurationError, DataError, ModelError

if TYPE_CHECKING:
    from kedro.pipeline import Pipeline

#: folders that nodes fill for themselves: each arm has its own, an empty one at first ...
_FOLDER = "unime_kedro.io.Folder"
#: ... but for these. Scores of a judge are kept by model, prompt and content, so that sharing them saves only time
SHARED = frozenset({"judge_store"})
#: folder of the corpus and its pictures, which parameters point into
RAW = "01_raw"


def files_of(resolved: Resolved, root: Path, names: set[str]) -> dict[str, Path]:
    """Return the absolute path of every one of the datasets that is a file or folder, by name."""
    entries = {name: resolved.catalog.get(name) for name in sorted(names)}
    return {
        name: root / entry["filepath"]
        for name, entry in entries.items()
        if isinstance(entry, Mapping) and "filepath" in entry
    }


def input_names(pipeline: Pipeline, catalog: Mapping[str, Any]) -> set[str]:
    """Return datasets that a pipeline reads and does not make, those that its outputs' checks read included."""
    made = pipeline.all_outputs()
    names = {name for name in pipeline.inputs() if not _is_parameter(name)}
    for name in made:
        validator = (catalog.get(name) or {}).get("validator") or {}
        names |= set((validator.get("options") or {}).get("references") or {})
    return {name for name in names - made if name in SHARED or not _is_folder(catalog.get(name))}


def sections_read(pipeline: Pipeline, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return the sections of the parameters that a pipeline reads; all of them where it reads them as a whole."""
    names = {name for name in pipeline.inputs() if _is_parameter(name)}
    if "parameters" in names:
        return dict(parameters)
    heads = {name.removeprefix("params:").split(".")[0] for name in names}
    return {name: parameters[name] for name in sorted(heads) if name in parameters}


def check_inputs(project: Project, names: set[str]) -> None:
    """Make sure that what earlier stages make is there.

    Raises:
        DataError: Names the file and the command that makes it.
    """
    makers = {out: stage for stage in reversed(_earlier_stages(project)) for out in project.stage(stage).all_outputs()}
    for name, file in files_of(project.base, project.root, names).items():
        if name in makers and name not in SHARED and not file.exists():
            env = f" --env={project.env}" if project.env else ""
            raise DataError(f"{file} does not exist; `kedro run{env} --pipeline=mine` makes it (stage {makers[name]}).")


def _earlier_stages(project: Project) -> list[str]:
    from kedro.framework.project import pipelines

    return [name for name in ("demo", "ingest", *STAGES) if name in pipelines]


def link_inputs(project: Project, arm: Resolved, names: set[str]) -> None:
    """Make links to the project's own files in an arm's data root, and to the folder of the corpus.

    Raises:
        ConfigurationError: Something else lies where a link belongs.
    """
    theirs, ours = files_of(project.base, project.root, names), files_of(arm, project.root, names)
    places = {ours[name]: theirs[name] for name in ours}
    for name in SHARED & set(theirs):
        theirs[name].mkdir(parents=True, exist_ok=True)
    for link, target in {arm.data_root / RAW: project.base.data_root / RAW, **places}.items():
        if not target.exists() or link.resolve() == target.resolve():
            continue
        link.parent.mkdir(parents=True, exist_ok=True)
        if link.is_symlink():
            link.unlink()
        elif link.exists():
            raise ConfigurationError(
                f"{link} should be a link to {target}, but is there already; remove {arm.data_root}"
            )
        link.symlink_to(target.resolve())


def check_outputs(project: Project, arm: Resolved, pipeline: Pipeline) -> None:
    """Make sure that nothing an arm writes lies outside its folder.

    Raises:
        ConfigurationError: Names the dataset and its file.
    """
    written = {name for name in pipeline.all_outputs() | pipeline.inputs() if not _is_parameter(name)}
    written = {n for n in written if n in pipeline.all_outputs() or _is_folder(arm.catalog.get(n))} - SHARED
    for name, file in files_of(arm, project.root, written).items():
        if not Path(os.path.normpath(file)).is_relative_to(arm.data_root):
            raise ConfigurationError(
                f"{name} is written to {file}, outside the arm's folder {arm.data_root}, so that arms would overwrite "
                "each other's; let its filepath begin with ${globals:data_root}"
            )


def input_digests(project: Project, arm: Resolved, names: set[str], stages: tuple[str, ...]) -> dict[str, str]:
    """Return the content hash of everything a run reads: tables of earlier stages, the corpus, and models in folders.

    The store of judge scores is left out: it is a memory of work done, and grows while arms run.
    """
    hashes, files = project.hashes, files_of(project.base, project.root, names - SHARED)
    found = {name: hashes.of(file) for name, file in files.items()}
    found["corpus"] = hashes.of(project.base.data_root / RAW / "corpus.json")
    for section in models_of(arm.parameters, stages):
        model = arm.parameters[section]
        found[f"{section}.model"] = hashes.model(str(model["model"]), model.get("revision"))
    return found


def models_of(parameters: Mapping[str, Any], stages: tuple[str, ...]) -> dict[str, Path | str]:
    """Return folder or hub id of the model of every stage that has one.

    Raises:
        ModelError: A model's folder is not there, or nothing of ours can read it.
    """
    from unime_kedro.mllm.adapters import local_or_hub

    found: dict[str, Path | str] = {}
    for stage in stages:
        section = parameters.get(stage)
        if isinstance(section, Mapping) and isinstance(section.get("model"), str):
            try:
                found[stage] = local_or_hub(section["model"])
            except ModelError as error:
                raise ModelError(f"{stage}.model: {error}") from error
    return found


def model_problem(parameters: Mapping[str, Any], stages: tuple[str, ...]) -> str | None:
    """Say why a run cannot begin for want of a model; None if it can, as far as can be told without the network."""
    try:
        sources = models_of(parameters, stages)
    except ModelError as error:
        return str(error)
    for stage, source in sources.items():
        config = source / "config.json" if isinstance(source, Path) else _cached_config(source, parameters[stage])
        if config is None and os.environ.get("HF_HUB_OFFLINE", "0").lower() in ("1", "true", "yes", "on"):
            return f"{stage}.model = {source}: not downloaded, and HF_HUB_OFFLINE forbids to"
        if config is not None and (problem := _unknown_architecture(config)):
            return f"{stage}.model = {parameters[stage]['model']}: {problem}"
    return None


def _cached_config(model: str, section: Mapping[str, Any]) -> Path | None:
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(model, "config.json", revision=section.get("revision"))
    return Path(found) if isinstance(found, str) else None


def _unknown_architecture(config: Path) -> str:
    import json

    from unime_kedro.mllm.adapters.registry import why_unknown

    try:
        found = json.loads(config.read_text(encoding="utf-8"))
        return why_unknown(found.get("model_type"), found.get("architectures"))
    except (OSError, ValueError, AttributeError) as error:
        return f"its config.json cannot be read: {error}"


def _is_parameter(name: str) -> bool:
    return name.startswith("params:") or name == "parameters"


def _is_folder(entry: Any) -> bool:
    return isinstance(entry, Mapping) and entry.get("type") == _FOLDER
