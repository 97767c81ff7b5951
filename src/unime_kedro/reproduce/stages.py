"""The stages of ``dvc.yaml``, from pipelines, catalog and parameters.

The catalog owns every path. What a dataset is to DVC follows from its name; ``metadata: {dvc: ...}`` in the catalog
says otherwise:

* ``out`` (default), and ``page``, what people look at;
* ``metric``: names ending in ``_metrics``, shown by ``dvc metrics``;
* ``plot``: names ending in ``_history``, shown by ``dvc plots``;
* ``work``: a folder that a killed stage goes on from, such as the judge's store; it is no result, see :mod:`.work`;
* ``none``: not DVC's business.

All but the last two are kept in DVC's cache, so that ``dvc pull`` brings everything that the next stage reads.
``metadata: {dvc_with: [...]}`` names more that the same node writes and that the dataset speaks for: whoever reads it
depends on the dataset. So the digest in ``corpus.json`` stands for 12,000 pictures, which one stage alone looks at.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from unime_kedro.errors import ConfigurationError
from unime_kedro.reproduce.modules import files_behind

if TYPE_CHECKING:
    from kedro.pipeline import Pipeline
    from kedro.pipeline.node import Node

#: what ``metadata: {dvc: ...}`` may say
KINDS = ("out", "page", "metric", "plot", "work", "none")
#: the last two
_NOT_TRACKED = ("work", "none")
_FOLDER = "unime_kedro.io.Folder"
#: models that come with the project
_MODELS = "models/"
#: a run that an environment variable sent elsewhere would leave DVC without its files
CLEAN = "env -u UNIME_DATA_ROOT"


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
        env: Kedro's environment.
        catalog: Configuration of every dataset, resolved.
        parameters: All sections, resolved.
        places: File of parameters or global values -> its keys at the top, each with its unresolved value as text. Base
            first, then the environment's.
        package: Folder of the package.
    """

    root: Path
    env: str
    catalog: Mapping[str, Any]
    parameters: Mapping[str, Any]
    places: Mapping[str, Mapping[str, str]]
    package: Path

    def path_of(self, dataset: str) -> str | None:
        """Return a dataset's path relative to the root, None for one that has none."""
        entry = self.catalog.get(dataset)
        if not isinstance(entry, Mapping) or "filepath" not in entry:
            return None
        return self.relative(entry["filepath"])

    def relative(self, path: str | Path) -> str:
        """Return a path relative to the root.

        Raises:
            ConfigurationError: If it lies elsewhere: DVC cannot version what is outside of the project.
        """
        full = self.root / path
        if not full.is_relative_to(self.root):
            raise ConfigurationError(
                f"{path} lies outside of the project, {self.root}; DVC versions what lies below it. Let its place in "
                "conf/*/catalog or conf/*/globals.yml begin with ${globals:data_root}, a folder of the project."
            )
        return PurePosixPath(full.relative_to(self.root)).as_posix()

    def kind_of(self, dataset: str) -> str:
        """Return what a dataset is to DVC."""
        said = self._metadata(dataset).get("dvc")
        if said is not None:
            if said not in KINDS:
                raise ConfigurationError(f"catalog, {dataset}: metadata dvc is {said!r}; expected {', '.join(KINDS)}")
            return str(said)
        if dataset.endswith("_metrics"):
            return "metric"
        return "plot" if dataset.endswith("_history") else "out"

    def spoken_for(self, dataset: str) -> list[str]:
        """Return the paths that a dataset stands for besides its own."""
        return [self.relative(path) for path in self._metadata(dataset).get("dvc_with") or ()]

    def speaker(self, path: str) -> str:
        """Return the path of the dataset that speaks for a path, the path itself if there is none."""
        for dataset in self.catalog:
            if any(path == other or below(path, other) for other in self.spoken_for(dataset)):
                return self.path_of(dataset) or path
        return path

    def _metadata(self, dataset: str) -> Mapping[str, Any]:
        entry = self.catalog.get(dataset)
        return (entry.get("metadata") if isinstance(entry, Mapping) else None) or {}

    def code(self, modules: Iterable[str]) -> set[str]:
        """Return the files that running modules of the package depends on."""
        return {self.relative(file) for file in files_behind(sorted(set(modules)), self.package)}

    def global_values(self, section: str, file: str) -> dict[str, set[str]]:
        """Return file -> global values that a section of a file of parameters refers to."""
        used = set(re.findall(r"\$\{globals:(\w+)", self.places[file][section]))
        found = {place: used & set(keys) for place, keys in self.places.items() if Path(place).stem == "globals"}
        return {place: keys for place, keys in found.items() if keys}


def stages_of(pipelines: Mapping[str, Pipeline], names: Iterable[str], source: Source) -> list[Stage]:
    """Make a stage of every pipeline, in this order.

    A node that an earlier stage has run already is left out of a later one, so that every file has one stage that
    writes it.

    Args:
        pipelines: All pipelines by name.
        names: Those that become stages, in the order of the work.
        source: Catalog, parameters and places.
    """
    done: set[str] = set()
    stages: list[Stage] = []
    for name in names:
        whole = pipelines[name]
        own = whole.filter(node_names=[n.name for n in whole.nodes if n.name not in done]) if done else whole
        command = f"{CLEAN} kedro run --env={source.env} --pipeline={name}"
        if len(own.nodes) < len(whole.nodes):
            command += f" --nodes={','.join(n.name for n in own.nodes)}"
        done |= {n.name for n in own.nodes}
        stages.append(stage_of(name, command, own, source))
    return stages


def stage_of(name: str, command: str, pipeline: Pipeline, source: Source) -> Stage:
    """Make a stage of a pipeline; what its parameters name is not in it yet, see :func:`add_named`."""
    stage = Stage(name, command)
    stage.deps |= source.code(_modules(pipeline.nodes, source))
    made = pipeline.all_outputs()
    for dataset in sorted(pipeline.datasets()):
        if dataset.startswith("params:") or dataset == "parameters":
            add_parameter(stage, dataset, source)
        elif (path := source.path_of(dataset)) is None:
            continue
        elif dataset in made or source.catalog[dataset].get("type") == _FOLDER:  # a Folder is filled by its reader
            if source.kind_of(dataset) not in _NOT_TRACKED:
                stage.outs[path] = source.kind_of(dataset)
                stage.outs |= dict.fromkeys(source.spoken_for(dataset), "out")
        elif source.kind_of(dataset) != "none":
            stage.deps.add(source.speaker(path))
    # files of a folder that is an out itself
    inside = {path for path in stage.outs for other in stage.outs if below(path, other)}
    stage.outs = {path: kind for path, kind in stage.outs.items() if path not in inside}
    return stage


def _modules(nodes: Iterable[Node], source: Source) -> Iterator[str]:
    """Yield the modules of nodes, and of the classes that read and write their files.

    Not those of the guards (``validator``): they can stop a stage, and do not shape what it writes.
    """
    from kedro.utils import load_obj

    for node in nodes:
        yield node.func.__module__
        for dataset in [*node.inputs, *node.outputs]:
            entry = source.catalog.get(dataset)
            kind = entry.get("type", "") if isinstance(entry, Mapping) else ""
            if isinstance(kind, str) and kind.startswith(f"{source.package.name}."):
                yield load_obj(kind).__module__


def add_parameter(stage: Stage, name: str, source: Source) -> None:
    """Name the files and keys of a parameter, with the global values that its section refers to."""
    keys = [name.removeprefix("params:")] if name != "parameters" else sorted(source.parameters)
    for key in keys:
        section = key.split(".")[0]
        files = [file for file, found in source.places.items() if section in found and Path(file).stem != "globals"]
        for number, file in enumerate(files):
            # an environment's file may set only some keys of a section, and DVC wants those it is given
            stage.params.setdefault(file, set()).add(section if number else key)
            for place, used in source.global_values(section, file).items():
                stage.params.setdefault(place, set()).update(used)


def add_named(stages: list[Stage], source: Source) -> None:
    """Let stages depend on what their parameters name: models of the project, and what other stages write."""
    written = {path: stage for stage in stages for path in stage.outs}
    for stage in stages:
        values = [_value(source.parameters, key) for keys in stage.params.values() for key in keys]
        for text in sorted({text for value in values for text in _texts(value)}):
            for path in _files_named(text, written, source):
                own = source.speaker(path) in stage.outs or any(below(path, other) for other in stage.outs)
                if not own and path not in stage.outs:
                    stage.deps.add(source.speaker(path))
        _narrow(stage, written)


def _files_named(text: str, written: Mapping[str, Stage], source: Source) -> list[str]:
    """Return what a text names: an out, the out that it lies in, or a file that comes with the project."""
    if not text or len(text) > 200 or "\n" in text or "://" in text or "/" not in text:
        return []
    try:
        path = source.relative(text)
    except ConfigurationError:
        return []
    if found := [out for out in written if path == out or below(path, out) or below(out, path)]:
        return found
    return [path] if path.startswith(_MODELS) and (source.root / path).exists() else []


def _narrow(stage: Stage, written: Mapping[str, Stage]) -> None:
    """Let a stage that reads a folder depend on what other stages write there, not on all that lies there."""
    for path in sorted(stage.deps):
        if inside := [out for out, writer in written.items() if below(out, path) and writer is not stage]:
            stage.deps = (stage.deps - {path}) | set(inside)


def below(path: str, folder: str) -> bool:
    """Whether a path lies below a folder."""
    return path.startswith(folder.rstrip("/") + "/")


def _value(parameters: Mapping[str, Any], key: str) -> Any:
    value: Any = parameters
    for part in key.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


def _texts(value: Any) -> Iterator[str]:
    """Yield every text in nested values."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for inner in value.values():
            yield from _texts(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _texts(inner)


def check_one_writer(stages: Iterable[Stage]) -> None:
    """Make sure that every file has one stage that writes it.

    Raises:
        ConfigurationError: Names two stages and the file.
    """
    seen: dict[str, str] = {}
    for stage in stages:
        for path in stage.outs:
            for other, writer in seen.items():
                if path == other or below(path, other) or below(other, path):
                    raise ConfigurationError(
                        f"stages {writer} and {stage.name} both write {path} (as {other}); DVC wants one writer. Give "
                        "one of the datasets another filepath, or metadata: {dvc: none} in conf/base/catalog."
                    )
        seen |= dict.fromkeys(stage.outs, stage.name)
