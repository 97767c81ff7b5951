"""The stages of ``dvc.yaml``, from pipelines, catalog and parameters.

The catalog owns every path. What a dataset is to DVC follows from its name and type; ``metadata: {dvc: ...}`` in the
catalog says otherwise:

* ``out`` (default): kept in DVC's cache;
* ``persist``: an out that a stage is allowed to find and go on from, such as the judge's store;
* ``metric``: names ending in ``_metrics``; not in the cache, shown by ``dvc metrics``;
* ``plot``: names ending in ``_history``; not in the cache, shown by ``dvc plots``;
* ``page``: names ending in ``_page``, and what people look at; not in the cache;
* ``none``: not DVC's business.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from unime_kedro.errors import ConfigurationError
from unime_kedro.reproduce.modules import files_behind

if TYPE_CHECKING:
    from kedro.pipeline import Pipeline

#: kinds of what a stage writes, by what ``metadata: {dvc: ...}`` may say
KINDS = ("out", "persist", "metric", "plot", "page", "none")
_FOLDER = "unime_kedro.io.Folder"


@dataclass
class Stage:
    """One stage of ``dvc.yaml``.

    Attributes:
        name: Its name.
        command: What DVC runs.
        deps: Files and folders it reads, relative to the project root.
        params: File of parameters -> its keys.
        outs: What it writes, path -> kind (see the module).
        matrix: Values over which the stage is repeated, if any.
    """

    name: str
    command: str
    deps: set[str] = field(default_factory=set)
    params: dict[str, set[str]] = field(default_factory=dict)
    outs: dict[str, str] = field(default_factory=dict)
    matrix: dict[str, list[Any]] = field(default_factory=dict)


@dataclass(frozen=True)
class Source:
    """What stages are made from.

    Attributes:
        root: The project's folder.
        catalog: Configuration of every dataset, resolved.
        parameters: All sections, resolved.
        places: Section of the parameters -> its file, relative to the root.
        package: Folder of the package.
    """

    root: Path
    catalog: Mapping[str, Any]
    parameters: Mapping[str, Any]
    places: Mapping[str, str]
    package: Path

    def path_of(self, dataset: str) -> str | None:
        """Return a dataset's path relative to the root, None for one that has none."""
        entry = self.catalog.get(dataset)
        if not isinstance(entry, Mapping) or "filepath" not in entry:
            return None
        return self.relative(entry["filepath"])

    def relative(self, path: str) -> str:
        """Return a path relative to the root.

        Raises:
            ConfigurationError: If it lies elsewhere: DVC cannot version what is outside of the project.
        """
        full = self.root / path
        if not full.is_relative_to(self.root):
            raise ConfigurationError(
                f"{path} lies outside of the project; dvc.yaml is made with data below it. Unset UNIME_DATA_ROOT, or "
                "take the data root out of conf/local."
            )
        return PurePosixPath(full.relative_to(self.root)).as_posix()

    def kind_of(self, dataset: str) -> str:
        """Return what a dataset that a stage writes is to DVC."""
        said = ((self.catalog.get(dataset) or {}).get("metadata") or {}).get("dvc")
        if said is not None:
            if said not in KINDS:
                raise ConfigurationError(f"catalog, {dataset}: metadata dvc is {said!r}; expected {', '.join(KINDS)}")
            return str(said)
        if dataset.endswith("_metrics"):
            return "metric"
        return "plot" if dataset.endswith("_history") else "out"


def stages_of(pipelines: Mapping[str, Pipeline], names: Iterable[str], source: Source) -> list[Stage]:
    """Make a stage of every pipeline, in this order.

    A node that an earlier stage has run already is left out of a later one, so that every file has one stage that
    writes it.

    Args:
        pipelines: All pipelines by name.
        names: Those that become stages, in the order of the work.
        source: Catalog, parameters and places.

    Raises:
        ConfigurationError: If a stage would write a file of another one.
    """
    done: set[str] = set()
    stages: list[Stage] = []
    for name in names:
        whole = pipelines[name]
        own = whole.filter(node_names=[n.name for n in whole.nodes if n.name not in done]) if done else whole
        command = f"kedro run --env=base --pipeline={name}"
        if len(own.nodes) < len(whole.nodes):
            command += f" --nodes={','.join(n.name for n in own.nodes)}"
        done |= {n.name for n in own.nodes}
        stages.append(_stage(name, command, own, source))
    _add_paths_in_parameters(stages, source)
    _check_one_writer(stages)
    return stages


def _stage(name: str, command: str, pipeline: Pipeline, source: Source) -> Stage:
    stage = Stage(name, command)
    modules = {node.func.__module__ for node in pipeline.nodes}
    stage.deps |= {source.relative(str(file)) for file in files_behind(sorted(modules), source.package)}
    for dataset in sorted(pipeline.inputs()):
        if dataset.startswith("params:") or dataset == "parameters":
            _add_parameter(stage, dataset, source)
        elif (path := source.path_of(dataset)) is not None:
            if source.catalog[dataset].get("type") == _FOLDER:  # made by the stage itself
                _add_out(stage, dataset, path, source)
            else:
                stage.deps.add(path)
    for dataset in sorted(pipeline.all_outputs()):
        if (path := source.path_of(dataset)) is not None:
            _add_out(stage, dataset, path, source)
    # files of a folder that is an out itself
    inside = {path for path in stage.outs for other in stage.outs if path != other and _below(path, other)}
    stage.outs = {path: kind for path, kind in stage.outs.items() if path not in inside}
    return stage


def _add_out(stage: Stage, dataset: str, path: str, source: Source) -> None:
    if (kind := source.kind_of(dataset)) != "none":
        stage.outs[path] = kind


def _add_parameter(stage: Stage, name: str, source: Source) -> None:
    """Name the parameters' file and keys; a section that refers to a global value depends on that, too."""
    keys = [name.removeprefix("params:")] if name != "parameters" else list(source.parameters)
    for key in keys:
        section = key.split(".")[0]
        if section in source.places:
            stage.params.setdefault(source.places[section], set()).add(key)


def _add_paths_in_parameters(stages: list[Stage], source: Source) -> None:
    """Let a stage depend on what its parameters name: models of the project, and what other stages write."""
    written = {path: stage for stage in stages for path in stage.outs}
    for stage in stages:
        values = [_value(source.parameters, key) for keys in stage.params.values() for key in keys]
        for text in {text for value in values for text in _texts(value)}:
            for path in _files_named(text, written, source):
                if written.get(path) is not stage and not any(_below(path, own) for own in stage.outs):
                    stage.deps.add(path)


def _files_named(text: str, written: Mapping[str, Stage], source: Source) -> list[str]:
    """Return what a text names: an out, the out that it lies in, or a file that comes with the project."""
    if not text or len(text) > 200 or "\n" in text or "://" in text:
        return []
    try:
        path = source.relative(text)
    except (ConfigurationError, ValueError):
        return []
    if found := [out for out in written if path == out or _below(path, out) or _below(out, path)]:
        return found
    return [path] if "/" in path and (source.root / path).exists() and path.startswith("models/") else []


def _below(path: str, folder: str) -> bool:
    return path.startswith(folder.rstrip("/") + "/")


def _value(parameters: Mapping[str, Any], key: str) -> Any:
    value: Any = parameters
    for part in key.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


def _texts(value: Any) -> Iterable[str]:
    """Yield every text in nested values."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for inner in value.values():
            yield from _texts(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _texts(inner)


def _check_one_writer(stages: list[Stage]) -> None:
    seen: dict[str, str] = {}
    for stage in stages:
        for path in stage.outs:
            for other, writer in seen.items():
                if path == other or _below(path, other) or _below(other, path):
                    raise ConfigurationError(
                        f"stages {writer} and {stage.name} both write {path} (as {other}); DVC wants one writer. Give "
                        "one of the datasets another filepath, or metadata: {dvc: none} in conf/base/catalog."
                    )
        seen |= dict.fromkeys(stage.outs, stage.name)
